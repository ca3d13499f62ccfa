"""Who is who while a phase trains: velocities, and the tensors of each that are trained.

A role is a whole network, or an adapter on a base that roles share.  Nobody but this module, and
who makes the roles, needs to know which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from pdmd.models.base import Condition, VelocityField


class Role(VelocityField, Protocol):
    """A velocity with a state: a whole network, or an adapter.

    Attributes:
        stacked: whether its tensors have a leading axis of runs.
    """

    stacked: bool

    def parameters(self) -> Iterator[Tensor]: ...

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]: ...

    def state_dict(self) -> Mapping[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> Any: ...

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor: ...


@dataclass(frozen=True)
class Part:
    """Tensors that one optimiser trains: a role's, or those of one of its two experts.

    An update that calls one expert alone moves that one alone (Wan2.2's phase 2 has two fakes, and
    an update uses one).
    """

    name: str
    parameters: list[Tensor]
    names: list[str]


@dataclass
class Roles:
    """Who is who in one phase.

    Attributes:
        teacher: frozen, with its guidance; fake: trainable score of the generator's samples;
        generator: the trainable expert; average: its exponential moving average, what is kept;
        frozen: name -> tensor of what no update may change; idle: parts of the names of trained
            tensors that no loss depends on.
    """

    teacher: VelocityField
    fake: Role
    generator: Role
    average: Role
    frozen: Mapping[str, Tensor] = field(default_factory=dict)
    idle: Sequence[str] = ()

    def states(self) -> dict[str, Role]:
        """All that training changes, by role."""
        return {"fake": self.fake, "generator": self.generator, "average": self.average}


def trained_parts(role: str, velocity: Role) -> list[Part]:
    """The tensors of a role that are trained, a part for each expert."""
    parts: dict[str, Part] = {}
    for name, p in velocity.named_parameters():
        if p.requires_grad:
            expert = name.split(".", 1)[0]
            part = f"{role}.{expert}" if expert in ("high", "low") else role
            of_part = parts.setdefault(part, Part(part, [], []))
            of_part.parameters.append(p)
            of_part.names.append(name)
    return list(parts.values())


def aligned(velocity: Role, like: Role) -> list[Tensor]:
    """The tensors of a velocity that are trained in another of the same structure."""
    pairs = zip(velocity.parameters(), like.parameters(), strict=True)
    return [p for p, other in pairs if other.requires_grad]
