"""Two atoms on a line: fitted velocities against the exact one (Fig. 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pdmd.config.complaints import refusal
from pdmd.config.sections import Data
from pdmd.config.typed import key
from pdmd.scenarios.kind import Kind

if TYPE_CHECKING:
    from pdmd.models.mixture import GaussianMixture

VELOCITY = ["velocity_rmse", "relative_error", "trajectory_rmse"]


@dataclass(frozen=True, kw_only=True)
class Atoms(Data):
    """Points on a line."""

    positions: tuple[float, ...] = key("where they lie", least=-1000, most=1000, entries=(2, 1000))


def check(data: Atoms, where: str) -> None:
    """Atoms lie apart. Raises UserError."""
    if len(set(data.positions)) < len(data.positions):
        raise refusal(where, "data.positions", list(data.positions), "no entry twice")


def mixture(data: Atoms) -> GaussianMixture:
    """The atoms."""
    from pdmd.models.mixture import atoms

    return atoms(data.positions)


KIND = Kind(
    name="toy1d",
    model="mlp",
    data=Atoms,
    check=check,
    methods=("fit",),
    evaluate=frozenset({"samples", "steps"}),
    tables=["velocity", "runs"],
    headline="velocity",
    figures={
        "trajectories": ("samples",),
        "velocity_error": ("metrics", "every sample", "fitted"),
    },
    metrics=lambda: {"velocity": (VELOCITY, "error against the exact velocity")},
    mixture=mixture,
)
