"""What stands in an export for people to read: a few lines of diffusers, and notes on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pdmd.config.times import raw_time
from pdmd.models.families import FAMILIES, Family

if TYPE_CHECKING:
    from pdmd.models.export import Adapter, Student

DECIMALS = 9  # of raw noise levels
FIXED = "pipe.scheduler.set_timesteps"  # Wan's pipeline takes no noise levels, its scheduler does


def write_example(student: Student, adapters: list[Adapter]) -> str:
    """A few lines of Python that load an export into the family's pipeline and draw a sample."""
    family = FAMILIES[student.family]
    clips = family.kind == "wan" and student.size[0] > 1
    lines = [
        *_imports(family, clips, bool(_several(adapters))),
        "",
        f'BASE = sys.argv[1] if sys.argv[1:] else "{family.hub}"',
        'PROMPT = sys.argv[2] if sys.argv[2:] else "a horse gallops along a beach"',
        f"SIGMAS = {list(student.times[:-1])}  # as trained: no shift on top",
        "HERE = Path(__file__).parent",
        "",
        f"pipe = {family.pipeline}.from_pretrained(BASE, dtype=torch.bfloat16)",
        *(_load_line(one) for one in adapters),
        *_switch_lines(student, adapters),
        'pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(HERE / "scheduler")',
    ]
    if family.kind == "wan":
        lines.append(f"{FIXED} = functools.partial({FIXED}, sigmas=SIGMAS)")
    lines += [
        'pipe.to("cuda" if torch.cuda.is_available() else "cpu")',
        f"made = pipe({_arguments(student, family)})",
        _save_line(family, clips),
    ]
    return "\n".join(lines) + "\n"


def _imports(family: Family, clips: bool, several: bool) -> list[str]:
    return [
        *(["import functools"] if family.kind == "wan" else []),
        "import sys",
        "from pathlib import Path",
        "",
        "import torch",
        f"from diffusers import FlowMatchEulerDiscreteScheduler, {family.pipeline}",
        *(["from diffusers.utils import export_to_video"] if clips else []),
        *(["from PIL import Image"] if family.image_channels else []),
        *(["from switch import attach_phase_switch"] if several else []),
    ]


def _arguments(student: Student, family: Family) -> str:
    """What the pipeline is called with."""
    frames, height, width = student.size
    steps = len(student.times) - 1
    call = f"prompt=PROMPT, height={height}, width={width}, num_inference_steps={steps}"
    if family.image_channels:
        call = f"image=Image.open(sys.argv[3]).convert('RGB'), {call}"
    if family.kind == "qwen":
        return f"{call}, true_cfg_scale=1.0, sigmas=SIGMAS"
    return f"{call}, num_frames={frames}, guidance_scale=1.0, output_type='pil'"


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


def _switch_lines(student: Student, adapters: list[Adapter]) -> list[str]:
    """Which expert a step works with: of two transformers, and of adapters on one."""
    lines = [
        f"attach_phase_switch(pipe.{part}, {[(one.name, round(one.lowest, 6)) for one in of_part]})"
        for part, of_part in _several(adapters).items()
    ]
    if student.boundary is None:
        return lines
    return [f"pipe.register_to_config(boundary_ratio={student.boundary})", *lines]


def _save_line(family: Family, clips: bool) -> str:
    if clips:
        return 'export_to_video(made.frames[0], HERE / "sample.mp4", fps=16)'
    first = "made.images[0]" if family.kind == "qwen" else "made.frames[0][0]"
    return f'{first}.save(HERE / "sample.png")'


def raw_sigmas(times: Sequence[float], shift: float) -> list[float]:
    """What a program is given that shifts by itself: even steps, unless the grid was chosen."""
    return [round(raw_time(t, shift), DECIMALS) for t in times[:-1]]


def write_notes(student: Student, off: float | None = None) -> str:
    """What a program that is not diffusers has to be told.

    Args:
        off: of the times of `scheduler_by_config` from the trained ones, where it is there.
    """
    steps, sigmas = len(student.times) - 1, ", ".join(f"{t:.4f}" for t in student.times[:-1])
    raw = raw_sigmas(student.times, student.shift)
    even = raw == [round(1 - i / steps, DECIMALS) for i in range(steps)]
    before = "the even steps" if even else ", ".join(f"{u:.4f}" for u in raw)
    what = f"{steps} even steps" if even else f"{steps} steps"
    experts = ""
    if student.boundary is not None:
        experts = f"The high-noise expert works at and above {student.boundary:g}.\n"
    return f"""
The adapters were trained at the noise levels {sigmas}: {what} under shift
{student.shift:g}. Give a program that shifts by itself {before}, and none that are shifted.
{experts}`comfyui/` has the same adapters under the original names, with an alpha for every layer,
in float32; `sampling.json` says what a program needs to know; `switch.py` changes adapters by noise
level where a transformer has several.
{_by_config(off)}"""


def _by_config(off: float | None) -> str:
    if off is None:
        return ""
    return f"""
`scheduler_by_config/` is for programs that take a scheduler's configuration and no noise levels: it
makes the steps itself, with times that are up to {off:.4f} off the trained ones.
"""
