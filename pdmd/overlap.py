"""How much of two laws overlaps at a noise level, and the levels where it is some share: the range
of re-noising levels at which scores of a student's samples and of its teacher's can be told apart,
and are not of places that the other never visits.

Samples x and y of one pair, noised from s to t, are N(alpha_ts x, sigma_ts^2 I) and the same of y.
These overlap (the integral of the lesser density) in 2 Phi(-d / 2), d = alpha_ts |x - y| /
sigma_ts, in any dimension. Total variation is jointly convex, so the mean over pairs, however they
are paired, is a lower bound of the overlap of the two laws: they may overlap more, never less.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pdmd.flow import Flow, transition

HALVINGS = 60  # of the interval that a level is searched in


def overlap_at(flow: Flow, gaps: Tensor, shares: Tensor, end: float, t: float) -> float:
    """The mean overlap of pairs at noise level t.

    Args:
        gaps: (N, E) distances |x - y| at noise level `end`; shares: (E,) of the columns, sum 1.
        end, t: end < t <= 1.
    """
    ends, times = (torch.tensor(value, dtype=torch.float64) for value in (end, t))
    alpha, sigma = transition(flow, ends, times)
    d = gaps.double() * (alpha / sigma)
    return float((torch.erfc(d / math.sqrt(8)).mean(0) * shares.double()).sum())


def level_of(flow: Flow, gaps: Tensor, shares: Tensor, end: float, wanted: float) -> float:
    """The noise level from which on pairs overlap in a wanted share: overlap rises with t to 1."""
    low, high = end, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        if overlap_at(flow, gaps, shares, end, middle) < wanted:
            low = middle
        else:
            high = middle
    return high
