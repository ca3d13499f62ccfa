"""Released architectures without their weights, to see what they take: random ones, or fakes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from pdmd.models.base import TextNetwork, VelocityNetwork
from pdmd.models.families import Family, assembled, velocity_of

BOTH = ("high", "low")


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
