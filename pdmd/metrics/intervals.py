"""95% intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and Student-t 95% interval of the finite values; bounds are NaN for fewer than two."""
    from scipy import stats

    kept = [value for value in values if math.isfinite(value)]
    n = len(kept)
    if n == 0:
        return math.nan, math.nan, math.nan
    mean = sum(kept) / n
    if n == 1:
        return mean, math.nan, math.nan
    variance = sum((value - mean) ** 2 for value in kept) / (n - 1)
    half = float(stats.t.ppf(0.975, n - 1)) * math.sqrt(variance / n)
    return mean, mean - half, mean + half
