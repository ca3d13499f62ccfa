"""Modes, fidelity and spread of samples from a known mixture."""

from __future__ import annotations

import torch
from torch import Tensor

from pdmd.errors import UserError
from pdmd.metrics import checks
from pdmd.metrics.checks import Scores
from pdmd.metrics.distances import distances, mean_distance, mean_distance_within
from pdmd.models.mixture import GaussianMixture

INLIER_RADIUS = 4.0  # in standard deviations of a mode
COVERED_SHARE = 0.2  # of a mode's true weight
ENERGY_SAMPLES = 2000


def mixture_metrics(x: Tensor, mixture: GaussianMixture, reference: Tensor) -> Scores:
    """What a set of samples has of a mixture.

    Args:
        x: (N, D) samples; reference: (M, D) true samples for the energy distance.
    Returns:
        inliers: share within 4 standard deviations of the nearest mode.
        modes_covered: modes with more than a fifth of their weight among the inliers.
        effective_modes: exp(entropy) of the inliers' mode shares, 0 of none.
        tv: total variation between those shares and the true weights, 0 best, 1 of no inliers.
        spread: standard deviation within modes over the true one, 1 best; None if no mode has two
            inliers.
        energy: energy distance to the reference, 0 best.
    Raises:
        UserError: a sample is not finite, there are fewer than two, or their width differs.
    """
    x = checks.features("modes", x, least=2)
    checks.same_width("modes", x, mixture.means)
    if mixture.std <= 0:
        raise UserError(f"modes: std of the mixture: {mixture.std}: expected more than 0")
    inside, mode, shares = mode_shares(x, mixture)
    any_inside = bool(inside.any())
    weights = mixture.weights.double()
    return {
        "inliers": float(inside.double().mean()),
        "modes_covered": float(covered(shares, mixture).sum()),
        "effective_modes": float(torch.special.entr(shares).sum().exp()) if any_inside else 0.0,
        "tv": float((shares - weights).abs().sum() / 2) if any_inside else 1.0,
        "spread": _spread(x[inside].double(), mode[inside], mixture),
        "energy": energy_distance(x[:ENERGY_SAMPLES], reference[:ENERGY_SAMPLES]),
    }


def mode_shares(x: Tensor, mixture: GaussianMixture) -> tuple[Tensor, Tensor, Tensor]:
    """What samples (N, D) have of M modes.

    Returns:
        which are inliers, (N,); their nearest modes, (N,); shares of the modes among the inliers,
        (M,), 0 of none.
    """
    nearest, mode = distances(x.double(), mixture.means).min(1)
    inside = nearest < INLIER_RADIUS * mixture.std
    counts = torch.bincount(mode[inside], minlength=len(mixture.means)).double()
    return inside, mode, counts / counts.sum().clamp_min(1)


def covered(shares: Tensor, mixture: GaussianMixture) -> Tensor:
    """Which modes, (M,), have more than a fifth of their true weight."""
    return shares > COVERED_SHARE * mixture.weights.double()


def _spread(x: Tensor, mode: Tensor, mixture: GaussianMixture) -> float | None:
    """Root of the mean squared offset from the own mode's sample mean, over the true std."""
    freedom = (len(x) - len(mode.unique())) * x.shape[1]
    if not freedom:
        return None
    count = torch.bincount(mode, minlength=len(mixture.means)).clamp_min(1)[:, None]
    centre = torch.zeros_like(mixture.means.double()).index_add_(0, mode, x) / count
    residual = (x - centre[mode]).square().sum()
    return float((residual / freedom).sqrt() / mixture.std)


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, unbiased; (N, D) and (M, D).

    Raises:
        UserError: a sample is not finite, a set has fewer than two, or their widths differ.
    """
    x = checks.features("energy", x, least=2)
    y = checks.features("energy", y, least=2, what="reference")
    checks.same_width("energy", x, y)
    return 2 * mean_distance(x, y) - mean_distance_within(x) - mean_distance_within(y)
