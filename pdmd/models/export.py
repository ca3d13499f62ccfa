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

import torch
from torch import Tensor

from pdmd.config.sections import Size
from pdmd.errors import UserError
from pdmd.files.storage import save_for_others, write_json, write_text
from pdmd.models import switch
from pdmd.models.adapters import QWEN_TARGETS, WAN_TARGETS
from pdmd.models.example import raw_sigmas, write_example, write_notes
from pdmd.models.families import FAMILIES, Family
from pdmd.models.original_keys import to_original

CONFIG_ALONE = "scheduler_by_config"  # a folder of an export
NEAR = 1.5e-3  # of a scheduler's times to the trained ones: whole thousandths, rounded down
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
            _state(student, number, side),
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


def _state(student: Student, number: int, side: str) -> dict[str, Tensor]:
    """One transformer's tensors of a phase, under diffusers' names. Raises UserError."""
    prefix, named = f"{side}.net." if side else "net.", {}
    for key, tensor in student.states[number].items():
        if key.startswith(prefix):
            end = next((end for end in ENDS if key.endswith(end)), None)
            if end is None:
                raise UserError(f"phase {number}: {key}: expected a tensor of an adapter")
            layer = key.removeprefix(prefix).removesuffix(end)
            named[layer + end.replace(".default", "")] = tensor.float().contiguous()
    _check(named, f"phase {number}: {prefix}", student.rank)
    return named


def _check(named: Mapping[str, Tensor], where: str, rank: int) -> None:
    """Raise UserError unless every layer has both of its matrices, of one rank."""
    down, up = (end.replace(".default", "") for end in ENDS)
    layers = {key.removesuffix(down).removesuffix(up) for key in named}
    if not layers:
        raise UserError(f"{where}*: no tensors: expected those of the steps that it takes")
    for layer in sorted(layers):
        if layer + down not in named or layer + up not in named:
            raise UserError(f"{where}{layer}: one matrix: expected lora_A and lora_B")
        ranks = {len(named[layer + down]), named[layer + up].shape[1]}
        if ranks != {rank}:
            raise UserError(f"{where}{layer}: rank {max(ranks)}: expected {rank}")


def write_export(student: Student, folder: Path, card: str) -> list[str]:
    """Write the folder that a user takes home, beside and renamed once; returns its files' names.

    Args:
        card: the model card's text above the example.
    Raises:
        UserError: a phase lacks tensors of what its steps call, or they have another rank.
    """
    adapters = adapters_of(student)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        _write_all(student, adapters, beside, card)
        names = sorted(str(p.relative_to(beside)) for p in beside.rglob("*") if p.is_file())
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return names


def _write_all(student: Student, adapters: list[Adapter], folder: Path, card: str) -> None:
    for adapter in adapters:
        _write_adapter(student, adapter, folder)
    write_json(folder / SETTINGS, settings(student, adapters))
    _write_scheduler(folder)
    off = _write_config_alone(student, folder)
    example = write_example(student, adapters)
    write_text(folder / "example.py", example)
    use = f"## Use\n\n```python\n{example}```\n{write_notes(student, off)}"
    write_text(folder / "README.md", f"{card}\n{use}")
    write_text(folder / "switch.py", Path(switch.__file__).read_text(encoding="utf-8"))


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
        "raw_sigmas": raw_sigmas(student.times, student.shift),
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


def _write_scheduler(folder: Path) -> None:
    """Euler steps of the given noise levels as they are: shift 1, so that none is shifted twice."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.save_pretrained(folder / "scheduler")


def config_scheduler(student: Student) -> Any:
    """A scheduler that takes nearly the trained steps by its configuration alone.

    UniPC of order 1 without corrections is Euler's method; it makes sigmas of the shift itself,
    rounds times to whole thousandths, and so is off the grid by up to a thousandth.
    """
    from diffusers import UniPCMultistepScheduler

    steps = len(student.times) - 1
    return UniPCMultistepScheduler(
        solver_order=1,
        disable_corrector=list(range(steps)),
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=student.shift,
        num_train_timesteps=1000,
    )


def _write_config_alone(student: Student, folder: Path) -> float | None:
    """Such a scheduler beside the exact one, for Wan's pipeline, which takes no noise levels.

    Returns:
        the largest difference of its times from the trained ones, None where none is written: the
        grid was chosen, or the pipeline takes noise levels.
    """
    if FAMILIES[student.family].kind != "wan":
        return None
    scheduler = config_scheduler(student)
    scheduler.set_timesteps(len(student.times) - 1)
    wanted = torch.tensor(student.times[:-1])
    off = float((scheduler.timesteps / 1000 - wanted).abs().max())
    if off > NEAR:
        return None
    scheduler.save_pretrained(folder / CONFIG_ALONE)
    return off
