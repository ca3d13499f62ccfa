"""Prompts as embeddings: valid rows on disk, padded batches for the networks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pdmd.contents import take
from pdmd.errors import UserError
from pdmd.models.base import Condition, VelocityNetwork, prompt_of
from pdmd.storage import load_metadata, load_tensors, reading, save_tensors


@dataclass(frozen=True)
class Conditions:
    """What a condition's index stands for.

    Attributes:
        text: (P, L, D) token rows of every prompt, zero after the last; lengths: (P,).
        null: index of the null prompt, None without one.
        images: (M, C, T, H, W) that image-to-video is conditioned on, or None.
    """

    text: Tensor
    lengths: Tensor
    null: int | None = None
    images: Tensor | None = None

    def to(self, device: str | torch.device) -> Conditions:
        """The same on a device."""
        images = None if self.images is None else self.images.to(device)
        return Conditions(self.text.to(device), self.lengths.to(device), self.null, images)

    def take(self, condition: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Embeddings of a batch, as long as its longest prompt.

        Args:
            condition: (N,) prompt indices, or (N, 2) prompt and image indices.
        Returns:
            text (N, L', D), lengths (N,), images (N, C, T, H, W) or None.
        """
        prompt = prompt_of(condition)
        lengths = self.lengths[prompt]
        text = self.text[prompt, : int(lengths.max())]
        if condition.ndim == 1 or self.images is None:
            return text, lengths, None
        return text, lengths, self.images[condition[:, 1]]


class TextNetwork(VelocityNetwork):
    """A diffusers transformer with the prompts, and images, it reads.

    Args:
        net: the transformer; conditions: the prompts' embeddings.
    """

    def __init__(self, net: nn.Module, conditions: Conditions):
        super().__init__()
        self.net, self.conditions, self.null = net, conditions, conditions.null

    def told(self, x_t: Tensor, condition: Condition) -> tuple[Conditions, Tensor]:
        """The conditions on x_t's device, and the indices. Raises ValueError without indices."""
        if condition is None:
            raise ValueError("condition: None: expected prompt indices")
        if self.conditions.text.device != x_t.device:
            self.conditions = self.conditions.to(x_t.device)
        return self.conditions, condition


def save_conditions(
    path: Path, rows: Sequence[Tensor], null: int | None, metadata: Mapping[str, Any]
) -> None:
    """Write the token rows (length, D) of every prompt, valid ones alone."""
    tensors = {f"{number:06d}": own for number, own in enumerate(rows)}
    told = {"null": json.dumps(null), "rows": str(len(rows))}
    save_tensors(path, tensors, {**metadata, **told})


def load_conditions(path: Path) -> Conditions:
    """Read what save_conditions wrote. Raises UserError that names the file."""
    tensors, metadata = load_tensors(path), load_metadata(path)
    expected = "embeddings written by `pdmd embed`"
    if not tensors or "null" not in metadata:
        raise UserError(f"{path}: no token rows: expected {expected}")
    with reading(path, expected):
        null = json.loads(metadata["null"])
        count = int(metadata.get("rows", len(tensors)))
        names = [f"{number:06d}" for number in range(count)]
    if odd := sorted(set(names) ^ tensors.keys()):
        raise UserError(f"{path}: row {odd[0]}: expected {count} rows, {expected}")
    if null is not None and (type(null) is not int or not 0 <= null < count):
        raise UserError(f"{path}: null: {null!r}: expected null or an index below {count}")
    width = tensors[names[0]].shape[-1]
    rows = [take(path, tensors, name, (None, width)) for name in names]
    lengths = torch.tensor([len(own) for own in rows])
    text = torch.zeros(len(rows), int(lengths.max()), rows[0].shape[1])
    for number, own in enumerate(rows):
        text[number, : len(own)] = own
    return Conditions(text, lengths, null)


def first_frame_condition(latents: Tensor, mask_channels: int = 4) -> Tensor:
    """What Wan2.2's image-to-video model is given beside x_t: a mask, then the first frame.

    Args:
        latents: (N, C, T, H, W) of clips whose first frame alone is known.
    Returns:
        (N, mask_channels + C, T, H, W); the mask is 1 at the first latent frame.
    """
    n, _, frames, height, width = latents.shape
    mask = torch.zeros(n, mask_channels, frames, height, width)
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], 1)
