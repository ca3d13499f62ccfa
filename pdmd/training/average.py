"""The average of weights over training: how much of it each update takes on."""

from __future__ import annotations

import math
from functools import cache

from pdmd.config.sections import Average


@cache  # asked for at every update
def power_of(width: float) -> float:
    """The exponent of the power profile with a relative standard deviation (EDM2, sec. 3).

    Of the profile t^g over (0, 1) the variance is (g + 1) / ((g + 2)^2 (g + 3)).

    Args:
        width: above 0, at most .28; .2887 is the plain mean, g = 0.
    """
    low, high = 0.0, 1.0e9
    for _ in range(200):
        middle = (low + high) / 2
        wide = math.sqrt((middle + 1) / ((middle + 2) ** 2 * (middle + 3))) > width
        low, high = (middle, high) if wide else (low, middle)
    return (low + high) / 2


def taken(average: Average, step: int) -> float:
    """The share of the new weights in the average after an update.

    Args:
        step: the update's number, 0 for the first.
    """
    if average.law == "live":
        return 1.0
    if average.law == "exponential":
        return 1 - average.decay
    return 1 - (1 - 1 / (step + 1)) ** (power_of(average.width) + 1)


def weight_of_start(average: Average, updates: int) -> float:
    """The share that the weights before the first update have in the average at the end."""
    return average.decay**updates if average.law == "exponential" else 0.0
