"""How much of a metric's spread over a factorial experiment each factor makes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from pdmd.errors import UserError

if TYPE_CHECKING:
    import numpy as np

SEED, REST = "seed", "rest"
CROSSED = " x "  # between the names of factors that act together


def components(values: np.ndarray, factors: Sequence[str]) -> dict[str, float]:
    """Shares of the sum of squares about the mean, of a balanced experiment whose seeds are blocks.

    Args:
        values: (levels of the first factor, ..., of the last, seeds).
        factors: their names.
    Returns:
        factor, or factors joined by " x " where they act together beyond what each does -> its
        share; `seed`: of what a seed does to all cells alike; `rest`: of what is left. All sum to
        one; empty if the values are all equal.
    Raises:
        UserError: a value is not finite, or the names are not one an axis.
    """
    import numpy as np

    if values.ndim != len(factors) + 1:
        raise UserError(f"components: {values.ndim} axes: expected factors {factors}, seeds")
    if not np.isfinite(values).all():
        raise UserError("components: a value is not finite: expected one a cell and seed")
    centred = values - values.mean()
    total = float((centred**2).sum())
    if not total:
        return {}
    shares: dict[str, float] = {}
    effects: dict[tuple[int, ...], np.ndarray] = {}
    for size in range(1, len(factors) + 1):
        for axes in combinations(range(len(factors)), size):
            effect = _mean_over_others(centred, axes)
            for fewer in [known for known in effects if set(known) < set(axes)]:
                effect = effect - effects[fewer]
            effects[axes] = effect
            name = CROSSED.join(factors[axis] for axis in axes)
            shares[name] = _squares(effect, centred) / total
    of_seeds = _mean_over_others(centred, (len(factors),))
    shares[SEED] = _squares(of_seeds, centred) / total
    shares[REST] = 1 - sum(shares.values())
    return shares


def _squares(effect: np.ndarray, values: np.ndarray) -> float:
    """The sum of an effect's squares over every value."""
    return float((effect**2).sum()) * values.size / effect.size


def _mean_over_others(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The mean over all other axes, which stay with length one."""
    others = tuple(axis for axis in range(values.ndim) if axis not in axes)
    mean: np.ndarray = values.mean(axis=others, keepdims=True)
    return mean
