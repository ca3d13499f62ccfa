"""What the training loop knows of a model, and classifier-free guidance around it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

Condition = Tensor | None


class VelocityField(Protocol):
    """Anything with a velocity; teachers that are never trained need no more."""

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """(N, ...), (N,), (N,) or None -> (N, ...)."""


class VelocityNetwork(nn.Module):
    """A trainable velocity field.

    Attributes:
        runs: independent runs it holds; rows of a batch are interleaved, sample * runs + run.
        null: the condition that stands for none, where it has one.
    """

    runs: int = 1
    null: int | None = None

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = None) -> Tensor:
        """(N, ...), (N,), (N,) or None -> (N, ...)."""
        raise NotImplementedError


def take(condition: Condition, rows: slice | Tensor) -> Condition:
    """Some rows of a condition."""
    return None if condition is None else condition[rows]


class Guided:
    """Classifier-free guidance: v_null + scale (v - v_null), both branches in one call.

    Attributes:
        calls: network calls that one velocity costs.
    """

    def __init__(self, field: VelocityField, scale: float, null: int | None):
        if scale != 1 and null is None:
            raise ValueError(f"guidance: {scale}: expected 1 for a model without a null condition")
        self.field, self.scale, self.null = field, scale, null
        self.calls = 1 if scale == 1 else 2

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        if self.scale == 1 or condition is None or self.null is None:
            return self.field(x_t, t, condition)
        null = torch.full_like(condition, self.null)
        both = self.field(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([condition, null]))
        given, free = both.chunk(2)
        return free + self.scale * (given - free)
