"""A grid of Gaussians in the plane, whose score is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pdmd.config.sections import SEED, Data
from pdmd.config.typed import key
from pdmd.scenarios.kind import Kind

if TYPE_CHECKING:
    from torch import Tensor

    from pdmd.models.mixture import GaussianMixture

MODES = ["modes_covered", "tv", "effective_modes", "spread", "inliers", "energy"]
DIVERSITY = ["effective_modes", "tv", "modes_covered"]


@dataclass(frozen=True, kw_only=True)
class Grid(Data):
    """A grid of Gaussians in the plane."""

    per_side: int = key("modes a side", least=2, most=100)
    std: float = key("of a mode", least=1.0e-6, most=10)
    least_weight: float = key(
        "weights of modes are proportional to it + uniform(0, 1)", least=0, most=1_000_000
    )
    seed: int = key("seed of what is drawn at random", least=0, most=SEED)


def mixture(data: Grid) -> GaussianMixture:
    """The exact law of the data."""
    from pdmd.models.mixture import grid_mixture

    return grid_mixture(data.per_side, data.std, data.seed, data.least_weight)


def scorer(stage: Any) -> Callable[[Tensor, Tensor | None], dict[str, float | None]]:
    """(samples, no condition) -> metrics against the exact law."""
    from pdmd.metrics.modes import mixture_metrics
    from pdmd.streams import REFERENCE_SEED, Stream

    exact = mixture(stage.run.data)
    reference = exact.draw(Stream([REFERENCE_SEED], 0, "reference"), 4000)
    return lambda x, _: mixture_metrics(x, exact, reference)


def known(data: Grid) -> dict[str, int]:
    """Metrics of modes cannot be more than there are."""
    return dict.fromkeys(("modes_covered", "effective_modes"), data.per_side**2)


KIND = Kind(
    name="mixture2d",
    model="mlp",
    data=Grid,
    evaluate=frozenset({"samples", "frontier_samples"}),
    tables=["modes", "diversity", "differences", "equal_fidelity", "exits", "boundary", "runs"],
    headline="modes",
    figures={
        "samples": ("samples", "metrics"),
        "frontier": ("frontier", "metrics"),
        "modes": ("metrics",),
        "training": ("training",),
    },
    metrics=lambda: {"modes": (MODES, "modes and fidelity"), "diversity": (DIVERSITY, "diversity")},
    fidelity="inliers",
    known=known,
    equal=["modes_covered", "tv", "effective_modes", "spread"],
    mixture=mixture,
    scorer=scorer,
)
