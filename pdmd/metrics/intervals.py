"""95% intervals over seeds, paired tests, and their correction where there are many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pdmd.metrics.ranges import ANY, Range

FEWEST = 3  # seeds: the 95% interval of two is twelve standard errors wide


def defined(values: Sequence[float | None]) -> list[float]:
    """The values of those seeds that have one: neither None nor NaN nor infinite."""
    return [value for value in values if value is not None and math.isfinite(value)]


def mean_interval(
    values: Sequence[float | None], limits: Range = ANY
) -> tuple[float, float, float]:
    """Mean and Student-t 95% interval of the defined values; bounds are NaN of fewer than three.

    Args:
        limits: least and greatest value of the metric, at which the interval is cut: a symmetric
            interval about 24.8 of 25 modes would reach beyond what there is.
    """
    from scipy import stats

    kept = defined(values)
    n = len(kept)
    if n == 0:
        return math.nan, math.nan, math.nan
    mean = sum(kept) / n
    if n < FEWEST:
        return mean, math.nan, math.nan
    variance = sum((value - mean) ** 2 for value in kept) / (n - 1)
    half = float(stats.t.ppf(0.975, n - 1)) * math.sqrt(variance / n)
    low, high = (min(max(bound, limits[0]), limits[1]) for bound in (mean - half, mean + half))
    return mean, min(low, mean), max(high, mean)


@dataclass(frozen=True)
class Paired:
    """What differences of pairs say.

    Attributes:
        n: pairs of which both have a value; mean, low, high: with the 95% interval of Student's t;
        p: of the two-sided paired t test, NaN of fewer than three pairs, and where all differ by
            the same amount, whose chance the test cannot tell; 1 where none differs at all.
    """

    n: int
    mean: float
    low: float
    high: float
    p: float


def paired(differences: Sequence[float | None], limits: Range = ANY) -> Paired:
    """The paired t test of the defined differences.

    Args:
        limits: the metric's range: a difference is at most as large as the range is wide.
    """
    from scipy import stats

    kept = defined(differences)
    width = limits[1] - limits[0]
    interval = mean_interval(kept, (-width, width))
    n, mean = len(kept), interval[0]
    if n < FEWEST:
        return Paired(n, *interval, math.nan)
    if math.isclose(min(kept), max(kept), abs_tol=1e-12):  # but for rounding
        return Paired(n, *interval, 1.0 if math.isclose(mean, 0, abs_tol=1e-12) else math.nan)
    error = math.sqrt(sum((value - mean) ** 2 for value in kept) / (n - 1) / n)
    return Paired(n, *interval, 2 * float(stats.t.sf(abs(mean) / error, n - 1)))


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's step-down method; NaN is no test, and stays."""
    order = sorted((p, place) for place, p in enumerate(values) if not math.isnan(p))
    adjusted, reached = [math.nan] * len(values), 0.0
    for rank, (p, place) in enumerate(order):
        reached = max(reached, min(1.0, (len(order) - rank) * p))
        adjusted[place] = reached
    return adjusted
