"""Distances and directions of rows that hold far from zero and between near-equal rows, too."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RESOLVED = 1000  # rounding errors of its terms that a squared distance is at least
STRIDE, NEAR = 64, 0.01  # rows looked at, and the share of near pairs that a mean bears
BLOCK = 512  # rows at a time, so that pairs of one set are not all computed twice
TINY = 1e-15  # norm of a row, below which float32 loses its square


def centre_of(x: Tensor) -> Tensor:
    """Mean (D,) of rows (N, D), summed in float64: far from zero float32 would lose it."""
    return x.mean(0, dtype=torch.float64)


def exact_distances(x: Tensor, y: Tensor) -> Tensor:
    """(N, D), (M, D) -> (N, M) distances in float64, from differences: slow for wide rows."""
    return torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")


def distances(x: Tensor, y: Tensor, same: int | None = None) -> Tensor:
    """(N, D), (M, D) -> (N, M) distances, right to a thousandth.

    |x|^2 + |y|^2 - 2 xy is fast and cancels where rows lie far from zero or near each other: rows
    are centred first, and where squared distances are still lost in rounding, differences decide.

    Args:
        same: x are rows same, same + 1, ... of y.
    """
    squares, error = _squares(x, y)
    if same is not None:
        squares.diagonal(same).fill_(math.inf)
    if squares.min() < RESOLVED * error:
        return exact_distances(x, y)
    if same is not None:
        squares.diagonal(same).zero_()
    return squares.sqrt_()


def mean_distance(x: Tensor, y: Tensor) -> float:
    """Mean distance of all pairs of rows (N, D) and (M, D)."""
    return _total(x, y) / (len(x) * len(y))


def mean_distance_within(x: Tensor) -> float:
    """Mean distance of all pairs of different rows (N, D)."""
    total = 0.0
    for start in range(0, len(x), BLOCK):
        block, after = x[start : start + BLOCK], x[start + BLOCK :]
        total += _total(block, block) + (2 * _total(block, after) if len(after) else 0)
    return total / (len(x) * (len(x) - 1))


def _total(x: Tensor, y: Tensor) -> float:
    """Sum of the distances of all pairs.

    A few pairs whose small distance is lost in rounding do not change it; many do.
    """
    squares, error = _squares(x, y)
    sampled = squares[::STRIDE]
    if int((sampled < RESOLVED * error).count_nonzero()) > NEAR * sampled.numel():
        squares, _ = _squares(x.double(), y.double())
    if x is y:
        squares.fill_diagonal_(0)
    return float(squares.clamp_min_(0).sqrt_().sum())


def _squares(x: Tensor, y: Tensor) -> tuple[Tensor, float]:
    """Squared distances (N, M), and the size of their rounding errors."""
    kind = torch.promote_types(x.dtype, y.dtype)
    centre = centre_of(y).to(kind)
    a, b = x.to(kind) - centre, y.to(kind) - centre
    p, q = (z.square().sum(1, keepdim=True) for z in (a, b))
    # one product of matrices gives all three terms
    left = torch.cat([-2 * a, p, torch.ones_like(p)], 1)
    right = torch.cat([b, torch.ones_like(q), q], 1)
    largest = float(p.max() + q.max())
    # squares of numbers this small are lost before any rounding of sums
    lost = math.inf if 0 < largest < TINY**2 else torch.finfo(kind).eps * largest
    return left @ right.T, lost


def unit_rows(x: Tensor, floor: float = 0.0, spare: bool = False) -> Tensor:
    """Rows (N, D) over their norms, so that products of rows are cosines.

    Rows of a norm of at most `floor` have no direction.  They are equal to one another and like no
    other row: one more column, of ones for them alone, gives them the cosines 1 and 0.

    Args:
        spare: x may be overwritten.
    """
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    if float(norms.min()) > max(floor, TINY):
        return x.div_(norms) if spare else x / norms
    x = x.double()
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    none = norms <= floor
    unit = torch.where(none, 0.0, x / norms.where(~none, 1.0))
    return torch.cat([unit, none.double()], 1)


def mean_cosine(unit: Tensor) -> float:
    """Mean cosine over all pairs of N >= 2 unit rows (N, D)."""
    n = len(unit)
    cosine = float((unit.sum(0).square().sum() - n) / (n * (n - 1)))
    return max(-1.0, min(1.0, cosine))


def rounding(x: Tensor, centre: Tensor) -> float:
    """The norm that rounding leaves of a row of x (N, D) that equals a centre (D,)."""
    kept = torch.finfo(x.dtype if x.is_floating_point() else torch.float32).eps
    return 8 * kept * float(centre.double().norm())
