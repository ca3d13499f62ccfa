"""Modes, fidelity and spread of samples from a known mixture."""

from __future__ import annotations

import torch
from torch import Tensor

from pdmd.models.mixture import GaussianMixture

INLIER_RADIUS = 4.0  # in standard deviations of a mode
COVERED_SHARE = 0.2  # of a mode's true weight
ENERGY_SAMPLES = 2000


def mixture_metrics(x: Tensor, mixture: GaussianMixture, reference: Tensor) -> dict[str, float]:
    """What a set of samples has of a mixture.

    Args:
        x: (N, D) samples; reference: (M, D) true samples for the energy distance.
    Returns:
        inliers: share within 4 standard deviations of the nearest mode.
        modes_covered: modes with more than a fifth of their weight among the inliers.
        effective_modes: exp(entropy) of the inliers' mode shares.
        tv: total variation between those shares and the true weights, 0 best.
        spread: standard deviation within modes over the true one, 1 best.
        energy: energy distance to the reference, 0 best.
    """
    distance = torch.cdist(x, mixture.means)
    nearest, mode = distance.min(1)
    inside = nearest < INLIER_RADIUS * mixture.std
    counts = torch.bincount(mode[inside], minlength=len(mixture.means)).double()
    shares = counts / counts.sum().clamp_min(1)
    weights = mixture.weights.double()
    entropy = -(shares * shares.clamp_min(1e-12).log()).sum()
    return {
        "inliers": float(inside.double().mean()),
        "modes_covered": float((shares > COVERED_SHARE * weights).sum()),
        "effective_modes": float(entropy.exp()),
        "tv": float((shares - weights).abs().sum() / 2),
        "spread": _spread(x[inside], mode[inside], mixture),
        "energy": energy_distance(x[:ENERGY_SAMPLES], reference[:ENERGY_SAMPLES]),
    }


def _spread(x: Tensor, mode: Tensor, mixture: GaussianMixture) -> float:
    """Root of the mean squared offset from the own mode's sample mean, over the true std."""
    count = torch.bincount(mode, minlength=len(mixture.means)).clamp_min(1)[:, None]
    centre = torch.zeros_like(mixture.means).index_add_(0, mode, x) / count
    residual = (x - centre[mode]).square().sum()
    freedom = (len(x) - len(mode.unique())) * x.shape[1]
    return float((residual / max(freedom, 1)).sqrt() / mixture.std)


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, unbiased; (N, D) and (M, D)."""
    n, m = len(x), len(y)
    between = torch.cdist(x, y).mean()
    within_x = torch.cdist(x, x).sum() / (n * (n - 1))
    within_y = torch.cdist(y, y).sum() / (m * (m - 1))
    return float(2 * between - within_x - within_y)
