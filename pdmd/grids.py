"""Step grids and phase ends chosen from measured errors of single steps: dynamic programming.

Levels fall from 1 to 0 and errors are a square matrix over them: `errors[i, j]` of one step from
level i to level j > i. Errors of a grid's steps are taken to add up. Plain numpy, no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Errors = NDArray[np.float64]


def lattice(count: int) -> tuple[float, ...]:
    """`count` levels from 1 to 0, even in the angle of t = sin^2: finer towards both ends.

    Grids of a large shift need levels close to 1, those of sharp data close to 0; spaced evenly in
    t or in log-SNR the same number would be coarse at the ends, or in the middle.
    """
    angles = np.linspace(np.pi / 2, 0, count)
    return (1.0, *np.square(np.sin(angles[1:-1])).tolist(), 0.0)


def best_grid(errors: Errors, steps: int) -> tuple[tuple[int, ...], float]:
    """The grid of `steps` steps whose summed error is least: its levels' indices, and the sum.

    The first of equally good grids is taken, the same on every machine.

    Raises:
        ValueError: there are fewer levels than such a grid has.
    """
    last = len(errors) - 1
    if not 1 <= steps <= last:
        raise ValueError(f"steps: {steps}: expected 1 to {last}, the intervals between levels")
    above = np.where(np.triu(np.ones_like(errors, dtype=bool), 1), errors, np.inf)
    least, came_from = np.where(np.arange(last + 1) == 0, 0.0, np.inf), []
    for _ in range(steps):
        through = least[:, None] + above  # (from, to)
        came_from.append(through.argmin(0))
        least = through.min(0)
    indices = [last]
    for before in reversed(came_from):
        indices.append(int(before[indices[-1]]))
    return tuple(reversed(indices)), float(least[last])


def step_costs(levels: Sequence[float], errors: Errors, times: Sequence[float]) -> list[float]:
    """The error of each step of any grid, interpolated between the levels that were measured.

    What is interpolated, linearly in both ends of a step, is sqrt(error) / (t - s)^2, which an
    Euler step's error of second order makes smooth; at levels themselves it is exact.

    Args:
        times: of the grid, falling, within the levels.
    """
    t = np.asarray(levels)
    gap = np.abs(t[:, None] - t[None, :])
    with np.errstate(divide="ignore", invalid="ignore"):
        bend = np.where(gap > 0, np.sqrt(np.maximum(errors, 0)) / gap**2, 0)
    bend = np.triu(bend, 1)
    bend += bend.T  # cells that the diagonal cuts need both sides of it
    beside = np.diagonal(bend, 1)
    np.fill_diagonal(bend, (np.append(beside, beside[-1]) + np.insert(beside, 0, beside[0])) / 2)
    return [
        float((_between(t, bend, start, end) * (start - end) ** 2) ** 2)
        for start, end in pairwise(times)
    ]


def _between(t: Errors, values: Errors, start: float, end: float) -> float:
    """Bilinear interpolation of a matrix over falling levels."""
    (i, u), (j, v) = _place(t, start), _place(t, end)
    rows = values[i] * (1 - u) + values[i + 1] * u
    return float(rows[j] * (1 - v) + rows[j + 1] * v)


def _place(t: Errors, time: float) -> tuple[int, float]:
    """The interval of falling levels that a time lies in, and how far along it."""
    i = min(max(int(np.searchsorted(-t, -time, side="right")) - 1, 0), len(t) - 2)
    return i, float((t[i] - time) / (t[i] - t[i + 1]))


def phase_ends(
    costs: Sequence[float], phases: int, allowed: Callable[[int, int], bool] = lambda *_: True
) -> tuple[int, ...]:
    """Where phases end, in steps taken: the largest summed error of a phase is the least possible.

    So no expert has much more to make up for than another. Of such divisions that whose sum of
    squared phase errors is least is taken, and of these the first.

    Args:
        costs: of the grid's steps; allowed: of (first step, end), whether a phase may be there.
    Raises:
        ValueError: no division into so many phases is allowed.
    """
    steps = len(costs)
    sums = np.concatenate([[0.0], np.cumsum(costs)])
    best: dict[int, tuple[float, float, tuple[int, ...]]] = {0: (0.0, 0.0, ())}
    for _ in range(phases):
        longer: dict[int, tuple[float, float, tuple[int, ...]]] = {}
        for first, (worst, squares, ends) in best.items():
            for end in range(first + 1, steps + 1):
                if not allowed(first, end):
                    continue
                own = float(sums[end] - sums[first])
                this = (max(worst, own), squares + own**2, (*ends, end))
                longer[end] = min(longer.get(end, this), this)
        best = longer
    if steps not in best:
        raise ValueError(f"phases: {phases}: expected so many that have room in {steps} steps")
    return best[steps][2]
