"""Released architectures without their weights, to see what they take: random ones, or fakes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from pdmd.config.sections import Model
from pdmd.files.storage import read_json
from pdmd.models.base import TextNetwork, VelocityNetwork
from pdmd.models.families import FAMILIES, Family, assembled, velocity_of
from pdmd.models.source import is_tiny

BOTH = ("high", "low")
DEPTH = "num_layers"


def architecture_of(spec: Model, results: str) -> dict[str, Any]:
    """A released model's transformer, as its folder's config.json has it, where there is one.

    Args:
        spec: the `model` section; results: the folder of everything, below which tiny models lie.
    """
    family, source = FAMILIES[str(spec.family)], str(spec.source)
    path = Path(source).expanduser() / family.transformers[0] / "config.json"
    if path.is_file():
        kept = {**read_json(path, dict, [DEPTH])}
        return {name: kept.get(name, value) for name, value in family.architecture.items()}
    if is_tiny(source, results):
        from pdmd.models.tiny import tiny_architecture

        return tiny_architecture(family)
    return dict(family.architecture)


def text_width(architecture: Mapping[str, Any]) -> int:
    """Width of a token row of text."""
    return int(architecture.get("joint_attention_dim") or architecture["text_dim"])


def blank_velocity(
    family: Family,
    architecture: Mapping[str, Any],
    dtype: torch.dtype,
    device: str | torch.device = "cpu",
    boundary: float | None = None,
    experts: Collection[str] = BOTH,
) -> VelocityNetwork:
    """A family's velocity with random weights, in the precisions of a loaded one.

    Args:
        boundary, experts: see families.load_velocity.
    """
    return assembled(
        family, lambda _: _blank(family, architecture, dtype, device), boundary, experts
    )


def _blank(
    family: Family, architecture: Mapping[str, Any], dtype: torch.dtype, device: str | torch.device
) -> TextNetwork:
    import diffusers

    kind: Any = getattr(diffusers, family.transformer)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            net = kind(**architecture)
    finally:
        torch.set_default_dtype(before)
    islands = set(kind._keep_in_fp32_modules or ())  # as from_pretrained keeps them
    for name, p in net.named_parameters():
        if islands & set(name.split(".")):
            p.data = p.data.float()
    return velocity_of(family, net.eval().requires_grad_(False))
