"""Whether training moves what it should and nothing else: looked at once, after the first updates.

A network whose adapters get no gradient trains with a finite loss (checkpointing that is cut off, a
role switched off): the weights alone tell.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from pdmd.errors import UserError
from pdmd.roles import Part

HEAD = 16  # values of a tensor that are kept as they were
SETTLED = 2  # updates of a part after which each of its tensors has moved: of LoRA, first B, then A

Mark = tuple[float, float, list[float]]


@torch.no_grad()
def mark(tensor: Tensor) -> Mark:
    """What a tensor is recognised by: two sums in double precision, and its first values."""
    total, norm = (float(one) for one in (tensor.sum(dtype=torch.float64), _square(tensor)))
    return total, norm, tensor.flatten()[:HEAD].tolist()


def _square(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor, dtype=torch.float64)


def _pulled(tensor: Tensor) -> bool:
    return tensor.grad is not None and bool(tensor.grad.any())


class Watch:
    """The trained and the frozen tensors of a phase, as they were before the first update.

    Args:
        parts: what is trained; frozen: name -> tensor of all else; idle: parts of the names of
            trained tensors that no loss depends on.
    """

    def __init__(
        self,
        parts: Iterable[Part],
        frozen: Mapping[str, Tensor],
        idle: Collection[str] = (),
    ):
        self.waiting = {part.name: part for part in parts}
        self.steps = dict.fromkeys(self.waiting, 0)
        self.frozen, self.idle = frozen, tuple(idle)
        self.before = {
            (name, key): mark(p)
            for name, part in self.waiting.items()
            for key, p in zip(part.names, part.parameters, strict=True)
        }
        self.still = {key: mark(p) for key, p in frozen.items()}

    def after(self, part: Part) -> None:
        """Count an update of a part that had a gradient; look once it has had enough of them.

        One of zeros is none: a generator has it where samples are noised to the side of that one of
        two fakes which is still the teacher.

        Raises:
            UserError: names a tensor that has not moved, or a frozen one that has.
        """
        if part.name not in self.waiting or not any(map(_pulled, part.parameters)):
            return
        self.steps[part.name] += 1
        if self.steps[part.name] < SETTLED:
            return
        del self.waiting[part.name]
        for key, p in zip(part.names, part.parameters, strict=True):
            idle = any(name in key for name in self.idle)
            if not idle and mark(p) == self.before[part.name, key]:
                raise UserError(f"{part.name}: {key}: has not moved: expected training to move it")
        for key, p in self.frozen.items():
            if mark(p) != self.still[key]:
                raise UserError(f"{part.name}: {key}: has moved: expected it to stay frozen")
