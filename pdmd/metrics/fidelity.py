"""Distances between two sets of samples, on features of any frozen network.

FID, KID: Frechet and kernel distance of picture features.  FVD: Frechet distance of I3D logits, as
in StyleGAN-V's reference; KVD: kernel distance of pooled I3D features.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pdmd.errors import UserError
from pdmd.metrics import checks
from pdmd.metrics.distances import distances


@dataclass
class FeatureStatistics:
    """Number, mean and covariance of rows that arrive in parts; shards merge to the same values.

    Sums of squares are kept about the mean so far (Chan et al. 1979), not about zero: features far
    from zero would cancel.

    Attributes:
        n: rows so far; mean: (D,); scatter: (D, D) sum of outer products about the mean.
    """

    n: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    scatter: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))

    def update(self, features: Tensor) -> FeatureStatistics:
        """Take in rows (N, D), of which nothing is kept; returns itself.

        Raises:
            UserError: a row is not finite.
        """
        if len(features):
            with checks.telling(f"after {self.n} rows"):
                self.merge(_of_rows(checks.features("features", features)))
        return self

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Take in another's rows; returns itself.

        Raises:
            UserError: its features have another width.
        """
        if not self.n or not other.n:
            if other.n:
                self.n, self.mean, self.scatter = other.n, other.mean, other.scatter
            return self
        if len(self.mean) != len(other.mean):
            raise UserError(f"features: width {len(other.mean)}: expected {len(self.mean)}")
        total, step = self.n + other.n, other.mean - self.mean
        between = torch.outer(step, step) * (self.n * other.n / total)
        self.scatter = self.scatter + other.scatter + between
        self.mean = self.mean + step * (other.n / total)
        self.n = total
        return self

    @property
    def covariance(self) -> Tensor:
        """(D, D), unbiased. Raises UserError for fewer than two rows."""
        if self.n < 2:
            raise UserError(f"features: {self.n} rows: expected at least 2 for a covariance")
        return self.scatter / (self.n - 1)


def statistics(
    features: Tensor | FeatureStatistics, metric: str = "features", what: str = "samples"
) -> FeatureStatistics:
    """Statistics of two rows (N, D) or more, or those given.

    Raises:
        UserError: a row is not finite, there are fewer than two; names the metric and the set.
    """
    if isinstance(features, FeatureStatistics):
        if features.n < 2:
            raise UserError(f"{metric}: {what}: {features.n} rows: expected at least 2")
        checks.samples(metric, features.scatter, what=f"scatter of {what}")
        return features
    return _of_rows(checks.features(metric, features, 2, what))


def _of_rows(features: Tensor) -> FeatureStatistics:
    x = features.double().cpu()
    mean = x.mean(0)
    centred = x - mean
    return FeatureStatistics(len(x), mean, centred.T @ centred)


def frechet_distance(
    a: Tensor | FeatureStatistics,
    b: Tensor | FeatureStatistics,
    metric: str = "frechet distance",
) -> float:
    """Frechet distance of Gaussians fitted to rows (N, D) and (M, D) (Heusel et al. 2017).

    With fewer rows than about ten times D two draws of one law are far above zero: only values at
    equal N and M compare. FeatureStatistics.n says how many there were.

    Args:
        metric: what errors call it.
    Raises:
        UserError: a row is not finite, a set has fewer than two, or their widths differ.
    """
    first, second = statistics(a, metric), statistics(b, metric, "reference")
    if len(first.mean) != len(second.mean):
        raise UserError(f"{metric}: width {len(second.mean)}: expected {len(first.mean)}")
    apart = (first.mean - second.mean).square().sum()
    one, other = first.covariance, second.covariance
    distance = apart + one.trace() + other.trace() - 2 * _trace_of_root(one, other)
    return max(0.0, float(distance))  # of equal sets rounding alone is left, of either sign


def _trace_of_root(one: Tensor, other: Tensor) -> Tensor:
    """tr (A B)^1/2 as tr (A^1/2 B A^1/2)^1/2: symmetric, so that no square root turns complex."""
    values, vectors = torch.linalg.eigh(one)
    # eigenvalues within rounding of zero are zero: their noise would count by its square root
    kept = values > values.max() * len(values) * torch.finfo(values.dtype).eps
    root = vectors[:, kept] * values[kept].sqrt()
    inner = root.T @ other @ root
    return torch.linalg.eigvalsh((inner + inner.T) / 2).clamp_min(0).sqrt().sum()


def kernel_distance(
    a: Tensor,
    b: Tensor,
    subsets: int,
    size: int,
    seed: int,
    metric: str = "kernel distance",
) -> float:
    """Squared MMD of the cubic kernel, mean over subsets, unbiased (Binkowski et al. 2018).

    The kernel depends on where zero is: features are not centred, but float64 bears their size.

    Args:
        a, b: (N, D), (M, D); subsets: how many, of `size` rows each, chosen by `seed`.
        metric: what errors call it.
    Raises:
        UserError: a row is not finite, widths differ, there is no subset, or one has fewer than two
            rows or more than there are.
    """
    a = checks.features(metric, a, 2)
    b = checks.features(metric, b, 2, "reference")
    checks.same_width(metric, a, b)
    checks.number(metric, "subsets", subsets, 1)
    if not 2 <= size <= min(len(a), len(b)):
        smaller = min(len(a), len(b))
        raise UserError(f"{metric}: size: {size}: expected 2 to {smaller}, the smaller set")
    generator = torch.Generator().manual_seed(seed)
    distances = []
    for _ in range(subsets):
        one, other = (
            x[torch.randperm(len(x), generator=generator)[:size]].double() for x in (a, b)
        )
        distances.append(_cubic_mmd(one, other))
    return sum(distances) / len(distances)


def _cubic_mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased squared MMD of the kernel (x y / D + 1)^3 between rows (N, D) and (N, D)."""
    n, width = x.shape
    # a row with itself is left out before the sum: far from zero it would swallow all others
    within = sum((z @ z.T / width + 1).pow(3).fill_diagonal_(0).sum() for z in (x, y))
    between = (x @ y.T / width + 1).pow(3).mean()
    return float(within / (n * (n - 1)) - 2 * between)


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019) with balls to the k-th neighbour.

    Args:
        real: (M, D); fake: (N, D); compare at N = M: balls shrink with the number of rows.
    Returns:
        precision: share of fakes in some real sample's ball; recall: the other way round.
    Raises:
        UserError: a row is not finite, widths differ, or a set has no k-th neighbour.
    """
    fake = checks.features("precision", fake, 2)
    real = checks.features("precision", real, 2, "real samples")
    checks.same_width("precision", fake, real)
    checks.number("precision", "k", k, 1, min(len(real), len(fake)) - 1)
    return _share_inside(fake, real, k), _share_inside(real, fake, k)


def _share_inside(x: Tensor, support: Tensor, k: int, chunk: int = 1024) -> float:
    """Share of rows within the ball of some row of the support."""
    parts = support.split(chunk)
    radius = torch.cat(
        [
            distances(part, support, i * chunk).kthvalue(k + 1, dim=1).values.to(x.dtype)
            for i, part in enumerate(parts)
        ]
    )
    inside = [(distances(part, support).to(x.dtype) <= radius).any(1) for part in x.split(chunk)]
    return float(torch.cat(inside).double().mean())
