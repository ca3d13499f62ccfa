"""Gaussian mixtures: exact sampling, density, velocity. The analytic teacher of the toys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pdmd.flow import RECTIFIED, Flow, per_sample
from pdmd.models.base import Condition
from pdmd.streams import Stream


@dataclass(frozen=True)
class GaussianMixture:
    """An isotropic mixture on x_0.

    Attributes:
        means: (K, D); weights: (K,) summing to one; std: common standard deviation, 0 for atoms.
    """

    means: Tensor
    weights: Tensor
    std: float
    flow: Flow = RECTIFIED

    def to(self, device: str | torch.device) -> GaussianMixture:
        """The same mixture on a device."""
        return replace(self, means=self.means.to(device), weights=self.weights.to(device))

    def draw(self, stream: Stream, batch: int) -> Tensor:
        """(batch * runs, D) samples of x_0."""
        cumulative = self.weights.cumsum(0)
        modes = torch.searchsorted(cumulative, stream.uniform(batch).to(cumulative.dtype))
        noise = stream.normal(batch, self.means.shape[1:])
        return self.means[modes.clamp_max(len(self.weights) - 1)] + self.std * noise

    def _responsibilities(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Offsets x_t - alpha m_k (N, K, D), marginal variance (N, 1, 1), log joint (N, K)."""
        alpha, sigma = self.flow.alpha(t)[:, None, None], self.flow.sigma(t)[:, None, None]
        variance = (alpha * self.std) ** 2 + sigma**2
        offset = x_t[:, None] - alpha * self.means
        log_joint = self.weights.log() - offset.square().sum(-1) / (2 * variance[..., 0])
        return offset, variance, log_joint

    def velocity(self, x_t: Tensor, t: Tensor) -> Tensor:
        """E[eps - x_0 | x_t], exactly. x_t (N, D), t (N,) > 0 (or std > 0) -> (N, D)."""
        offset, variance, log_joint = self._responsibilities(x_t, t)
        share = log_joint.softmax(-1)
        pull = (share[..., None] * offset).sum(1)
        mean = share @ self.means
        alpha, sigma = per_sample(self.flow.alpha(t), x_t), per_sample(self.flow.sigma(t), x_t)
        return (sigma - alpha * self.std**2) / variance[..., 0] * pull - mean

    def log_density(self, x_t: Tensor, t: Tensor) -> Tensor:
        """log p(x_t), (N,)."""
        _, variance, log_joint = self._responsibilities(x_t, t)
        dimension = self.means.shape[1]
        return log_joint.logsumexp(-1) - dimension / 2 * (2 * math.pi * variance[:, 0, 0]).log()

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self.velocity(x_t, t)


def grid_mixture(per_side: int, std: float, seed: int, least: float) -> GaussianMixture:
    """A square grid of modes on [-2, 2]^2 with unequal weights, drawn from `seed`.

    Args:
        least: a weight is proportional to least + uniform(0, 1).
    """
    line = torch.linspace(-2, 2, per_side)
    means = torch.cartesian_prod(line, line)
    weights = least + torch.rand(len(means), generator=torch.Generator().manual_seed(seed))
    return GaussianMixture(means, weights / weights.sum(), std)


def atoms(positions: Sequence[float]) -> GaussianMixture:
    """Equal atoms on a line: the 1D toy of Fig. 2."""
    means = torch.tensor(positions, dtype=torch.float32)[:, None]
    return GaussianMixture(means, torch.full((len(means),), 1 / len(means)), 0.0)
