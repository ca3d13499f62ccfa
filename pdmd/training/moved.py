"""Whether training moves what it should and nothing else: looked at once, after the first updates.

A network whose adapters get no gradient trains with a finite loss (checkpointing that is cut off, a
role switched off): the weights alone tell.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from pdmd.errors import UserError
from pdmd.models.rows import local
from pdmd.roles import Part
from pdmd.training.world import ALONE, World

HEAD = 16  # values of a tensor that are kept as they were
SETTLED = 2  # updates of a part after which each of its tensors has moved: of LoRA, first B, then A

Mark = tuple[float, float, list[float]]


@torch.no_grad()
def mark(tensor: Tensor) -> Mark:
    """What a tensor is recognised by: two sums in double precision, and its first values.

    Of a sharded one it is that of the rows here.
    """
    rows = local(tensor)
    total, norm = (float(one) for one in (rows.sum(dtype=torch.float64), _square(rows)))
    return total, norm, rows.flatten()[:HEAD].tolist()


def _square(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor, dtype=torch.float64)


def _pulled(tensor: Tensor) -> bool:
    return tensor.grad is not None and bool(local(tensor.grad).any())


class Watch:
    """The trained and the frozen tensors of a phase, as they were before the first update.

    Args:
        parts: what is trained; frozen: name -> tensor of all else; idle: parts of the names of
            trained tensors that no loss depends on; world: each process of which may hold other
            rows.
    """

    def __init__(
        self,
        parts: Iterable[Part],
        frozen: Mapping[str, Tensor],
        idle: Collection[str] = (),
        world: World = ALONE,
    ):
        self.world = world
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
        if part.name not in self.waiting:
            return
        if not self.world.agree(any(map(_pulled, part.parameters))):
            return
        self.steps[part.name] += 1
        if self.steps[part.name] < SETTLED:
            return
        del self.waiting[part.name]
        trained = dict(zip(part.names, part.parameters, strict=True))
        moved = self._moved((key, p, self.before[part.name, key]) for key, p in trained.items())
        for key in trained:
            idle = any(name in key for name in self.idle)
            if not idle and key not in moved:
                raise UserError(f"{part.name}: {key}: has not moved: expected training to move it")
        # One after the other: of two experts that take turns one at a time is there.
        for key in self._moved((key, p, self.still[key]) for key, p in self.frozen.items()):
            raise UserError(f"{part.name}: {key}: has moved: expected it to stay frozen")

    def _moved(self, tensors: Iterable[tuple[str, Tensor, Mark]]) -> list[str]:
        """The names of tensors some rows of which, in some process, are not as they were."""
        names, here = [], []
        for key, p, before in tensors:
            names.append(key)
            here.append(float(mark(p) != before))
        anywhere = self.world.total(torch.tensor(here)).tolist()
        return [key for key, count in zip(names, anywhere, strict=True) if count]
