"""An exported student in its family's own pipeline, ready to draw."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from pdmd.errors import UserError
from pdmd.files.storage import read_json, shown
from pdmd.models.export import SETTINGS
from pdmd.models.families import FAMILIES
from pdmd.models.switch import attach_phase_switch

KEYS = ("family", "sigmas", "size", "adapters")


def read_settings(folder: Path) -> dict[str, Any]:
    """What an export says of itself. Raises UserError: it is none."""
    if not (folder / SETTINGS).is_file():
        raise UserError(f"{folder}: no {SETTINGS}: expected a folder that `pdmd export` wrote")
    values: dict[str, Any] = read_json(folder / SETTINGS, dict, KEYS)
    if values["family"] not in FAMILIES:
        expected = f"one of {', '.join(FAMILIES)}"
        raise UserError(f"{folder / SETTINGS}: family: {shown(values['family'])}: {expected}")
    return values


def load_export(
    folder: Path, base: Path, device: str = "cpu", dtype: torch.dtype = torch.bfloat16
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
    """Give a pipeline an export's adapters and step grid.

    Args:
        files: the folder of the export that adapters are taken from, its own or `comfyui`.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    by_part: dict[str, list[tuple[str, float]]] = {}
    for one in values["adapters"]:
        second = {"load_into_transformer_2": True} if one["transformer"] != "transformer" else {}
        pipeline.load_lora_weights(
            folder / files, weight_name=one["file"], adapter_name=one["name"], **second
        )
        by_part.setdefault(one["transformer"], []).append((one["name"], one["switch_below"]))
    for part, adapters in by_part.items():
        if len(adapters) > 1:
            attach_phase_switch(getattr(pipeline, part), adapters)
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
    plain = scheduler.set_timesteps
    scheduler.set_timesteps = functools.partial(plain, sigmas=values["sigmas"])
    if values["family"].startswith("qwen"):  # whose pipeline names them itself
        scheduler.set_timesteps = plain
    pipeline.scheduler = scheduler


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
