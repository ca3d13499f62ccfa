"""A finished student as other programs load it: adapters, step grid, settings, an example.

Experts are adapters; which one a step works with follows from its noise level alone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from pdmd.config.sections import Size
from pdmd.files.storage import save_for_others, write_json, write_text
from pdmd.models import switch
from pdmd.models.adapters import QWEN_TARGETS, WAN_TARGETS
from pdmd.models.families import FAMILIES, Family
from pdmd.models.original_keys import to_original

SETTINGS, ORIGINAL = "sampling.json", "comfyui"
METADATA = "lora_adapter_metadata"  # diffusers.loaders.lora_base, LORA_ADAPTER_METADATA_KEY
ENDS = (".lora_A.default.weight", ".lora_B.default.weight")
EXPERT_FILES = {"high": "high_noise_model", "low": "low_noise_model"}


@dataclass(frozen=True)
class Student:
    """What training made, and what it is sampled by.

    Attributes:
        family: of the base; times: the step grid, 1 down to 0; shift: of that grid; boundary:
            between two experts; rank, alpha: of every adapter; phases: first step and step behind
            the last one of each; states: number of a phase -> its adapter's tensors; size: frames,
            height and width in px that it was scored at.
    """

    family: str
    times: tuple[float, ...]
    shift: float
    boundary: float | None
    rank: int
    alpha: int
    phases: tuple[tuple[int, int], ...]
    states: Mapping[int, Mapping[str, Tensor]]
    size: Size


@dataclass(frozen=True)
class Adapter:
    """One adapter of an export.

    Attributes:
        name, file: of it; transformer: the part of the pipeline that it is for; state: its tensors
            under diffusers' names, without a prefix; first, last: the noise levels of the first and
            the last step that work with it; lowest: the switch to it is here, between two steps.
    """

    name: str
    file: str
    transformer: str
    state: Mapping[str, Tensor]
    first: float
    last: float
    lowest: float


def adapters_of(student: Student) -> list[Adapter]:
    """The adapters of a student, from high noise to low."""
    family = FAMILIES[student.family]
    sides = ("high", "low") if family.experts == 2 else ("",)
    return [one for side in sides for one in _of_side(student, family, side)]


def _of_side(student: Student, family: Family, side: str) -> list[Adapter]:
    used = {}
    for number, (first, last) in enumerate(student.phases, start=1):
        steps = [t for t in student.times[first:last] if _side(student, t) == side]
        if steps:
            used[number] = steps
    lowest = [(above[-1] + below[0]) / 2 for above, below in pairwise(used.values())] + [0.0]
    transformer = family.transformers[1 if side == "low" else 0]
    return [
        Adapter(
            f"{side or 'adapter'}{f'_phase{number}' if len(used) > 1 else ''}",
            f"{_file(side, number, len(used))}.safetensors",
            transformer,
            _state(student.states[number], side),
            steps[0],
            steps[-1],
            least,
        )
        for (number, steps), least in zip(used.items(), lowest, strict=True)
    ]


def _file(side: str, number: int, count: int) -> str:
    if not side:
        return "adapter" if count == 1 else f"phase{number}"
    return EXPERT_FILES[side] + (f"_phase{number}" if count > 1 else "")


def _side(student: Student, t: float) -> str:
    if student.boundary is None:
        return ""
    return "high" if t >= student.boundary else "low"


def _state(state: Mapping[str, Tensor], side: str) -> dict[str, Tensor]:
    """One transformer's tensors of a phase, under diffusers' names."""
    prefix, named = f"{side}.net." if side else "net.", {}
    for key, tensor in state.items():
        if key.startswith(prefix):
            end = next(end for end in ENDS if key.endswith(end))
            layer = key.removeprefix(prefix).removesuffix(end)
            named[layer + end.replace(".default", "")] = tensor.float().contiguous()
    return named


def write_export(student: Student, folder: Path, card: str) -> list[str]:
    """Write the folder that a user takes home, beside and renamed once; returns its files' names.

    Args:
        card: the model card's text above the example.
    """
    adapters = adapters_of(student)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    for adapter in adapters:
        _write_adapter(student, adapter, beside)
    write_json(beside / SETTINGS, settings(student, adapters))
    _write_scheduler(student, beside)
    example = write_example(student, adapters)
    write_text(beside / "example.py", example)
    use = f"## Use\n\n```python\n{example}```\n{_notes(student)}"
    write_text(beside / "README.md", f"{card}\n{use}")
    write_text(beside / "switch.py", Path(switch.__file__).read_text(encoding="utf-8"))
    names = sorted(str(p.relative_to(beside)) for p in beside.rglob("*") if p.is_file())
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return names


def _write_adapter(student: Student, adapter: Adapter, folder: Path) -> None:
    """An adapter under diffusers' names with its metadata, and under the original ones."""
    from peft import LoraConfig

    kind = FAMILIES[student.family].kind
    targets = QWEN_TARGETS if kind == "qwen" else WAN_TARGETS
    config = LoraConfig(r=student.rank, lora_alpha=student.alpha, target_modules=targets).to_dict()
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    metadata = {f"transformer.{key}": value for key, value in plain.items()}
    save_for_others(
        folder / adapter.file,
        {f"transformer.{key}": tensor for key, tensor in adapter.state.items()},
        METADATA,
        json.dumps(metadata, sort_keys=True),
    )
    original = to_original(adapter.state, kind, student.alpha)
    save_for_others(folder / ORIGINAL / adapter.file, original, "format", "pt")


def settings(student: Student, adapters: list[Adapter]) -> dict[str, Any]:
    """What sampling.json says: everything that a program needs to sample the student."""
    family, steps = FAMILIES[student.family], len(student.times) - 1
    return {
        "family": student.family,
        "base": family.hub,
        "pipeline": family.pipeline,
        "steps": steps,
        "sigmas": list(student.times[:-1]),
        "raw_sigmas": [1 - i / steps for i in range(steps)],
        "shift": student.shift,
        "boundary": student.boundary,
        "guidance": 1.0,
        "size": list(student.size),
        "lora": {"rank": student.rank, "alpha": student.alpha},
        "adapters": [
            {
                "name": one.name,
                "file": one.file,
                "transformer": one.transformer,
                "from_sigma": one.first,
                "to_sigma": one.last,
                "switch_below": one.lowest,
            }
            for one in adapters
        ],
    }


def _write_scheduler(student: Student, folder: Path) -> None:
    """Euler steps of the given noise levels as they are: shift 1, so that none is shifted twice."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.save_pretrained(folder / "scheduler")


def write_example(student: Student, adapters: list[Adapter]) -> str:
    """A few lines of Python that load an export into the family's pipeline and draw a sample."""
    family = FAMILIES[student.family]
    frames, height, width = student.size
    clips, pictured = family.kind == "wan" and frames > 1, bool(family.image_channels)
    given = "prompt=PROMPT, height={}, width={}, num_inference_steps={}"
    call = given.format(height, width, len(student.times) - 1)
    if family.kind == "wan":
        call += f", num_frames={frames}, guidance_scale=1.0"
    else:
        call += ", true_cfg_scale=1.0, sigmas=SIGMAS"
    call = f"image=Image.open(sys.argv[3]).convert('RGB'), {call}" if pictured else call
    lines = [
        *(["import functools"] if family.kind == "wan" else []),
        "import sys",
        "from pathlib import Path",
        "",
        "import torch",
        f"from diffusers import FlowMatchEulerDiscreteScheduler, {family.pipeline}",
        *(["from diffusers.utils import export_to_video"] if clips else []),
        *(["from PIL import Image"] if pictured else []),
        *(["from switch import attach_phase_switch"] if _several(adapters) else []),
        "",
        f'BASE = sys.argv[1] if sys.argv[1:] else "{family.hub}"',
        'PROMPT = sys.argv[2] if sys.argv[2:] else "a horse gallops along a beach"',
        f"SIGMAS = {[round(t, 9) for t in student.times[:-1]]}  # as trained: no shift on top",
        "HERE = Path(__file__).parent",
        "",
        f"pipe = {family.pipeline}.from_pretrained(BASE, dtype=torch.bfloat16)",
        *(_load_line(one) for one in adapters),
        *_switch_lines(adapters),
        'pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(HERE / "scheduler")',
    ]
    if family.kind == "wan":
        lines.append(
            "pipe.scheduler.set_timesteps = functools.partial("
            "pipe.scheduler.set_timesteps, sigmas=SIGMAS)"
        )
    lines += [
        'pipe.to("cuda" if torch.cuda.is_available() else "cpu")',
        f"made = pipe({call})",
        *_saved(family, clips),
    ]
    return "\n".join(lines) + "\n"


def _load_line(adapter: Adapter) -> str:
    second = ", load_into_transformer_2=True" if adapter.transformer == "transformer_2" else ""
    return (
        f'pipe.load_lora_weights(HERE, weight_name="{adapter.file}",'
        f' adapter_name="{adapter.name}"{second})'
    )


def _several(adapters: list[Adapter]) -> dict[str, list[Adapter]]:
    """The transformers that have several adapters, with them."""
    by_part: dict[str, list[Adapter]] = {}
    for one in adapters:
        by_part.setdefault(one.transformer, []).append(one)
    return {part: of_part for part, of_part in by_part.items() if len(of_part) > 1}


def _switch_lines(adapters: list[Adapter]) -> list[str]:
    return [
        f"attach_phase_switch(pipe.{part}, {[(one.name, round(one.lowest, 6)) for one in of_part]})"
        for part, of_part in _several(adapters).items()
    ]


def _saved(family: Family, clips: bool) -> list[str]:
    if clips:
        return ['export_to_video(made.frames[0], HERE / "sample.mp4", fps=16)']
    if family.kind == "qwen":
        return ['made.images[0].save(HERE / "sample.png")']
    return [
        "from PIL import Image",
        'picture = (made.frames[0][0] * 255).round().astype("uint8")',
        'Image.fromarray(picture).save(HERE / "sample.png")',
    ]


def _notes(student: Student) -> str:
    steps, sigmas = len(student.times) - 1, ", ".join(f"{t:.4f}" for t in student.times[:-1])
    return f"""
The adapters were trained at the noise levels {sigmas}: {steps} even steps under shift
{student.shift:g}. Give a program that shifts by itself the even steps, and none that are shifted.
`comfyui/` has the same adapters under the original names, with an alpha for every layer, in
float32; `sampling.json` says what a program needs to know; `switch.py` changes adapters by noise
level where a transformer has several.
"""
