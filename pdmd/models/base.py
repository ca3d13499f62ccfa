"""What the training loop knows of a model, and classifier-free guidance around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from pdmd.models.conditions import Conditions

Condition = Tensor | None


@dataclass(frozen=True)
class Space:
    """What a velocity lives on.

    Attributes:
        shape: of one sample of x; classes: number of classes, None if there are none;
        conditions: the prompts' embeddings, for networks that read text.
    """

    shape: tuple[int, ...]
    classes: int | None = None
    conditions: Conditions | None = None


class VelocityField(Protocol):
    """Anything with a velocity; teachers that are never trained need no more."""

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """(N, ...), (N,), (N,) or None -> (N, ...)."""


class VelocityNetwork(nn.Module):
    """A trainable velocity field.

    Attributes:
        runs: independent runs it holds; rows of a batch are interleaved, sample * runs + run.
        stacked: whether its parameters have a leading axis of runs.
        null: the condition that stands for none, where it has one.
    """

    runs: int = 1
    stacked: bool = False
    null: int | None = None

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = None) -> Tensor:
        """(N, ...), (N,), (N,) or (N, 2) or None -> (N, ...)."""
        raise NotImplementedError


def take(condition: Condition, rows: slice | Tensor) -> Condition:
    """Some rows of a condition."""
    return None if condition is None else condition[rows]


def prompt_of(condition: Tensor) -> Tensor:
    """The prompts (N,) of conditions (N,), or (N, 2) with an image."""
    return condition if condition.ndim == 1 else condition[:, 0]


def without_prompt(condition: Tensor, null: int, where: Tensor | None = None) -> Tensor:
    """The condition with its prompt, (N,) or the first of (N, 2), replaced by the null one.

    Args:
        where: (N,) rows to replace, all by default.
    """
    prompt = prompt_of(condition)
    gone = torch.full_like(prompt, null)
    prompt = gone if where is None else torch.where(where, gone, prompt)
    return prompt if condition.ndim == 1 else torch.stack([prompt, condition[:, 1]], 1)


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
        null = without_prompt(condition, self.null)
        both = self.field(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([condition, null]))
        given, free = both.chunk(2)
        return free + self.scale * (given - free)
