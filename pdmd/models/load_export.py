"""An exported student in its family's own pipeline, ready to draw."""

from __future__ import annotations

import functools
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from pdmd.errors import UserError
from pdmd.files.storage import read_json, reading, shown
from pdmd.models.export import SETTINGS
from pdmd.models.families import FAMILIES, Family
from pdmd.models.source import check_length
from pdmd.models.switch import attach_phase_switch

KEYS = ("family", "sigmas", "boundary", "size", "adapters")


def read_settings(folder: Path) -> dict[str, Any]:
    """What an export says of itself. Raises UserError: it is none, or a file of it is damaged."""
    path = folder / SETTINGS
    if not path.is_file():
        raise UserError(f"{folder}: no {SETTINGS}: expected a folder that `pdmd export` wrote")
    values: dict[str, Any] = read_json(path, dict, KEYS)
    name = values["family"]
    if not isinstance(name, str) or name not in FAMILIES:
        raise UserError(f"{path}: family: {shown(name)}: expected one of {', '.join(FAMILIES)}")
    with reading(path, "what `pdmd export` wrote"):
        _check(values, FAMILIES[name])
    for one in values["adapters"]:
        check_length(folder / one["file"])
    return values


def _check(values: dict[str, Any], family: Family) -> None:
    """Raise ValueError or KeyError unless every step has an adapter, and is one."""
    sigmas, boundary = values["sigmas"], values["boundary"]
    falls = all(high > low for high, low in pairwise([*sigmas, 0.0]))
    if not sigmas or not falls or sigmas[0] > 1:
        raise ValueError(f"sigmas: {shown(sigmas)}: not falling from 1")
    if (boundary is not None) != (family.experts == 2):
        raise ValueError(f"boundary: {shown(boundary)}: of {family.experts} transformer(s)")
    size = values["size"]
    if len(size) != 3 or any(type(side) is not int or side < 1 for side in size):
        raise ValueError(f"size: {shown(size)}: not frames, height and width")
    lowest = {one["transformer"]: one["switch_below"] for one in values["adapters"]}
    called = {family.transformers[boundary is not None and t < boundary] for t in sigmas}
    if lowest != dict.fromkeys(called, 0.0):
        raise ValueError(f"adapters: for {shown(lowest)}: not for {', '.join(sorted(called))}")
    if len({(one["name"], one["file"]) for one in values["adapters"]}) < len(values["adapters"]):
        raise ValueError("adapters: one twice")


def load_export(
    folder: Path,
    base: Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[Any, dict[str, Any]]:
    """The pipeline of a base folder with an export's adapters and step grid, and its settings.

    Raises:
        UserError: the folder is no export, or the base does not load.
    """
    import diffusers

    values = read_settings(folder)
    kind: Any = getattr(diffusers, FAMILIES[values["family"]].pipeline)
    try:
        pipeline = kind.from_pretrained(base, dtype=dtype, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        expected = f"a folder of {FAMILIES[values['family']].hub}"
        raise UserError(f"{base}: {shown(error)}: expected {expected}") from None
    attach(pipeline, folder, values)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device), values


def attach(pipeline: Any, folder: Path, values: dict[str, Any], files: str = "") -> None:
    """Give a pipeline an export's adapters, its boundary between experts, and its step grid.

    Args:
        files: the folder of the export that adapters are taken from, its own or `comfyui`.
    Raises:
        UserError: an adapter does not fit the base, or the scheduler makes another grid.
    """
    by_part: dict[str, list[tuple[str, float]]] = {}
    for one in values["adapters"]:
        _load_adapter(pipeline, folder / files / one["file"], one)
        by_part.setdefault(one["transformer"], []).append((one["name"], one["switch_below"]))
    for part, adapters in by_part.items():
        if len(adapters) > 1:
            attach_phase_switch(getattr(pipeline, part), adapters)
    if values["boundary"] is not None:  # the base's own may be another
        pipeline.register_to_config(boundary_ratio=values["boundary"])
    pipeline.scheduler = _scheduler(folder, values)


def _load_adapter(pipeline: Any, path: Path, one: dict[str, Any]) -> None:
    second = {"load_into_transformer_2": True} if one["transformer"] != "transformer" else {}
    try:
        pipeline.load_lora_weights(
            path.parent, weight_name=path.name, adapter_name=one["name"], **second
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: {shown(error)}: expected an adapter of the base") from None
    transformer = getattr(pipeline, one["transformer"])
    if one["name"] not in getattr(transformer, "peft_config", {}):  # which diffusers only logs
        raise UserError(f"{path}: no adapter: expected one of the base's {one['transformer']}")


def _scheduler(folder: Path, values: dict[str, Any]) -> Any:
    """The scheduler of an export, which takes the trained steps whatever it is asked for."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    path = folder / "scheduler" / "scheduler_config.json"
    with reading(path, "the scheduler that `pdmd export` wrote"):
        scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(read_json(path, dict))
        plain = scheduler.set_timesteps
        plain(sigmas=values["sigmas"])
        grid = torch.tensor([*values["sigmas"], 0.0])
        if not torch.equal(scheduler.sigmas, grid):
            raise ValueError(f"{shown(scheduler.sigmas.tolist())}, another grid")
    if FAMILIES[values["family"]].kind == "wan":  # Qwen's pipeline names them itself
        scheduler.set_timesteps = functools.partial(plain, sigmas=values["sigmas"])
    return scheduler


def generate(
    pipeline: Any,
    values: dict[str, Any],
    prompt: str,
    seed: int = 0,
    size: tuple[int, int, int] | None = None,
    image: Any = None,
    **options: Any,
) -> Any:
    """One sample: a picture, or the frames of a clip.

    Args:
        size: frames, height and width in px; as it was scored where it is None; image: the first
            frame that image-to-video is given; options: further ones of the pipeline.
    """
    frames, height, width = size or values["size"]
    given: dict[str, Any] = {"prompt": prompt, "height": height, "width": width}
    given |= {"num_inference_steps": len(values["sigmas"]), **options}
    given["generator"] = torch.Generator().manual_seed(seed)
    if values["family"].startswith("qwen"):
        made = pipeline(true_cfg_scale=1.0, sigmas=values["sigmas"], **given)
        return made.images[0]
    given |= {"num_frames": frames, "guidance_scale": 1.0}
    given |= {} if image is None else {"image": image}
    return pipeline(**{"output_type": "pil", **given}).frames[0]
