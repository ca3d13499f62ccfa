"""Diversity and fidelity of class-conditional pictures against held-out real ones."""

from __future__ import annotations

import torch
from torch import Tensor

from pdmd.metrics import checks
from pdmd.metrics.distances import distances, mean_cosine, unit_rows

SUBSETS = 20  # of a kernel distance


def pairwise_cosine(features: Tensor, metric: str = "cosine") -> float:
    """Mean cosine over all pairs of rows of (N, D); lower is more diverse.

    Rows of zeros are equal to one another, cosine 1, and like no other row, cosine 0.

    Args:
        metric: what errors call it.
    Raises:
        UserError: a row is not finite, or there are fewer than two.
    """
    return mean_cosine(unit_rows(checks.features(metric, features, 2)))


def coverage_and_density(fake: Tensor, real: Tensor, neighbours: int) -> tuple[float, float]:
    """Coverage and density (Naeem et al. 2020) with balls to the k-th real neighbour.

    Coverage depends on the number of fakes, so it is averaged over blocks as large as `real`; two
    samples of one law then reach 1 - 2^-k.

    Args:
        fake: (N, D) with N >= M; real: (M, D), M > k.
    Raises:
        UserError: a row is not finite, widths differ, or a set is empty or has no k-th neighbour.
    """
    fake = checks.features("coverage", fake)
    real = checks.features("coverage", real, 2, "real samples")
    checks.same_width("coverage", fake, real)
    checks.number("coverage", "neighbours", neighbours, 1, len(real) - 1)
    distance = distances(real, fake)
    radius = distances(real, real, 0).kthvalue(neighbours + 1, dim=1).values.to(distance.dtype)
    blocks = [
        block.min(1).values < radius
        for block in distance.split(len(real), dim=1)
        if block.shape[1] == len(real)
    ]
    if not blocks:
        blocks = [distance.min(1).values < radius]
    coverage = torch.stack(blocks).double().mean()
    density = (distance < radius[:, None]).double().sum(0).mean() / neighbours
    return float(coverage), float(density)


def style_modes(fake: Tensor, real: Tensor, styles: Tensor) -> tuple[float, float]:
    """Styles with more than a fifth of their real share, and the total variation of shares.

    Args:
        fake: (N, D); real: (M, D); styles: (K, D).
    Raises:
        UserError: a row is not finite, a set is empty, or widths differ.
    """
    centres = checks.features("modes", styles, what="styles")
    shares = []
    for what, rows in (("samples", fake), ("real samples", real)):
        x = checks.features("modes", rows, what=what)
        checks.same_width("modes", x, centres, what)
        nearest = distances(x, centres).argmin(1)
        shares.append(torch.bincount(nearest, minlength=len(centres)).double() / len(x))
    covered = (shares[0] > 0.2 * shares[1]) & (shares[1] > 0)
    return float(covered.sum()), float((shares[0] - shares[1]).abs().sum() / 2)
