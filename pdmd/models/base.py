"""What the training loop knows of a model, and classifier-free guidance around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


@dataclass(frozen=True)
class Prompted:
    """What a network that reads text is given for every row.

    Attributes:
        text: (N, L, D) token rows, zero after the last; lengths: (N,) of them that are valid;
        images: (N, C, T, H, W) that image-to-video is conditioned on, or None;
        numbers: (N,) of the prompts, which no network reads, None where they are of no store.
    """

    text: Tensor
    lengths: Tensor
    images: Tensor | None = None
    numbers: Tensor | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: slice | Tensor) -> Prompted:
        images, numbers = (
            None if one is None else one[rows] for one in (self.images, self.numbers)
        )
        return Prompted(self.text[rows], self.lengths[rows], images, numbers)

    def to(self, device: str | torch.device) -> Prompted:
        """The same on a device."""
        images, numbers = (
            None if one is None else one.to(device) for one in (self.images, self.numbers)
        )
        return Prompted(self.text.to(device), self.lengths.to(device), images, numbers)


Index = Tensor | None  # (N,) of classes or prompts, or (N, 2) of prompts and images
Condition = Tensor | Prompted | None  # what a network is given: classes (N,), or text


@dataclass(frozen=True)
class Space:
    """What a velocity lives on.

    Attributes:
        shape: of one sample of x; classes: number of classes, None if there are none;
        prompts, images: how many of them indices may mean, None if there are none;
        text_width: of a token row; image_channels: of an image.
    """

    shape: tuple[int, ...]
    classes: int | None = None
    prompts: int | None = None
    text_width: int = 0
    images: int | None = None
    image_channels: int = 0


class VelocityField(Protocol):
    """Anything with a velocity; teachers that are never trained need no more."""

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """(N, ...), (N,), N conditions or None -> (N, ...)."""


class VelocityNetwork(nn.Module):
    """A trainable velocity field.

    Attributes:
        runs: independent runs it holds; rows of a batch are interleaved, sample * runs + run.
        stacked: whether its parameters have a leading axis of runs.
        null: the class that stands for none, where it has one.
    """

    runs: int = 1
    stacked: bool = False
    null: int | None = None

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = None) -> Tensor:
        """(N, ...), (N,), N conditions or None -> (N, ...)."""
        raise NotImplementedError


class TextNetwork(VelocityNetwork):
    """A diffusers transformer that reads text.

    Args:
        net: the transformer, which computes in the precision of its first layer: others, and
            adapters, may be kept in float32, as x and velocities are.

    Attributes:
        computes: the precision that it computes in where that is not its weights'.
        sharing: how many processes compute a part each of its tokens, of text, too.
    """

    computes: torch.dtype | None = None
    sharing: int = 1

    def __init__(self, net: Any):
        super().__init__()
        self.net = net


def given(condition: Condition) -> Prompted:
    """The text that a network was given. Raises ValueError for none."""
    if not isinstance(condition, Prompted):
        raise ValueError(f"condition: {type(condition).__name__}: expected text")
    return condition


def take(condition: Condition, rows: slice | Tensor) -> Condition:
    """Some rows of a condition."""
    return None if condition is None else condition[rows]


def join(parts: Sequence[Tensor | Prompted]) -> Tensor | Prompted:
    """Conditions one after another, text as long as the longest."""
    prompts = [part for part in parts if isinstance(part, Prompted)]
    if not prompts:
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    longest = max(part.text.shape[1] for part in prompts)
    text = [pad(part.text, (0, 0, 0, longest - part.text.shape[1])) for part in prompts]
    images = [part.images for part in prompts if part.images is not None]
    lengths = torch.cat([part.lengths for part in prompts])
    return Prompted(torch.cat(text), lengths, torch.cat(images) if images else None)


def without_prompt(condition: Tensor | Prompted, null: int | Prompted) -> Tensor | Prompted:
    """The condition with every class or text replaced by the null one; images stay.

    Args:
        null: the null class, or the null text in one row.
    """
    if isinstance(condition, Tensor):
        assert isinstance(null, int)
        return torch.full_like(condition, null)
    assert isinstance(null, Prompted)
    n = len(condition)
    text = null.text.expand(n, -1, -1)
    return Prompted(text, null.lengths.expand(n), condition.images)


Rescale = Callable[[Tensor, Tensor], Tensor]  # (guided, conditional) velocity -> guided


class Guided:
    """Classifier-free guidance: v_null + scale (v - v_null).

    Args:
        null: the null class, or the null text in one row.
        low: the scale below `boundary`, for another expert (WanPipeline's guidance_scale_2).
        rescale: what a family's pipeline does to a guided velocity (QwenImagePipeline's norms).
        apart: both branches one after the other, as the pipelines call them: half the memory, and
            no text is padded to the other's length; else in one call.

    Attributes:
        calls: network calls that one velocity costs.
    """

    def __init__(
        self,
        field: VelocityField,
        scale: float,
        null: int | Prompted | None,
        *,
        low: float | None = None,
        boundary: float = 0.0,
        rescale: Rescale | None = None,
        apart: bool = False,
    ):
        self.low = scale if low is None else low
        self.off = scale == self.low == 1
        if not self.off and null is None:
            raise ValueError(f"guidance: {scale}: expected 1 for a model without a null condition")
        self.field, self.scale, self.null = field, scale, null
        self.boundary, self.rescale, self.apart = boundary, rescale, apart
        self.calls = 1 if self.off else 2

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        if self.off or condition is None or self.null is None:
            return self.field(x_t, t, condition)
        nothing = without_prompt(condition, self.null)
        if self.apart:
            given, free = self.field(x_t, t, condition), self.field(x_t, t, nothing)
        else:
            both = join([condition, nothing])
            both = self.field(torch.cat([x_t, x_t]), torch.cat([t, t]), both)
            given, free = both.chunk(2)
        v = free + self._scale(t, given) * (given - free)
        return v if self.rescale is None else self.rescale(v, given)

    def _scale(self, t: Tensor, like: Tensor) -> float | Tensor:
        if self.low == self.scale:
            return self.scale
        scale = torch.where(t >= self.boundary, self.scale, self.low).to(like.dtype)
        return scale.view(-1, *[1] * (like.ndim - 1))
