"""95% intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pdmd.metrics.ranges import ANY, Range


def defined(values: Sequence[float | None]) -> list[float]:
    """The values of those seeds that have one: neither None nor NaN nor infinite."""
    return [value for value in values if value is not None and math.isfinite(value)]


def mean_interval(
    values: Sequence[float | None], limits: Range = ANY
) -> tuple[float, float, float]:
    """Mean and Student-t 95% interval of the defined values; bounds are NaN for fewer than two.

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
    if n == 1:
        return mean, math.nan, math.nan
    variance = sum((value - mean) ** 2 for value in kept) / (n - 1)
    half = float(stats.t.ppf(0.975, n - 1)) * math.sqrt(variance / n)
    low, high = (min(max(bound, limits[0]), limits[1]) for bound in (mean - half, mean + half))
    return mean, min(low, mean), max(high, mean)
