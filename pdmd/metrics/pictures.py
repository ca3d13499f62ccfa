"""Diversity and fidelity of class-conditional pictures against held-out real ones."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from pdmd.digits import Classifier


def pairwise_cosine(features: Tensor) -> float:
    """Mean cosine over all pairs of rows of (N, D); lower is more diverse."""
    unit = torch.nn.functional.normalize(features, dim=-1)
    n = len(unit)
    return float((unit.sum(0).square().sum() - n) / (n * (n - 1)))


def coverage_and_density(fake: Tensor, real: Tensor, neighbours: int) -> tuple[float, float]:
    """Coverage and density (Naeem et al. 2020) with balls to the k-th real neighbour.

    Coverage depends on the number of fakes, so it is averaged over blocks as large as `real`; two
    samples of one law then reach 1 - 2^-k.

    Args:
        fake: (N, D) with N >= M; real: (M, D).
    """
    radius = torch.cdist(real, real).kthvalue(neighbours + 1, dim=1).values
    distance = torch.cdist(real, fake)
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


@dataclass
class PictureMetrics:
    """Everything that scores a set of pictures.

    Attributes:
        real, labels: (M, 64) held-out pictures in [-1, 1] and their classes.
        mean: (64,) mean picture of the training split, the centre for cosines.
        styles: (classes, K, 64) writing styles: k-means centres of each class's training pictures.
        classifier: trained on real pictures only.
    """

    real: Tensor
    labels: Tensor
    mean: Tensor
    styles: Tensor
    classifier: Classifier
    neighbours: int

    @torch.no_grad()
    def __call__(self, pictures: Tensor, labels: Tensor) -> dict[str, float]:
        """Scores of (N, 64) pictures with the classes (N,) they were asked for.

        Returns:
            accuracy: share that the classifier takes for the class asked for.
            kid: kernel distance of classifier features to held-out pictures, 0 best.
            density, coverage: against held-out pictures, by class, mean over classes.
            cosine: pairwise pixel cosine within a class, centred; feature_cosine: of features.
            modes_covered, tv: writing styles hit, and their shares against held-out pictures.
        """
        logits, features = self.classifier.both(pictures)
        rows: dict[str, list[float]] = {name: [] for name in ("cosine", "feature_cosine")}
        rows |= {"coverage": [], "density": [], "modes_covered": [], "tv": []}
        centre = self.classifier.feature_mean
        for label in labels.unique():
            mine, real = pictures[labels == label], self.real[self.labels == label]
            rows["cosine"].append(pairwise_cosine(mine - self.mean))
            rows["feature_cosine"].append(pairwise_cosine(features[labels == label] - centre))
            coverage, density = coverage_and_density(mine, real, self.neighbours)
            rows["coverage"].append(coverage)
            rows["density"].append(density)
            covered, tv = style_modes(mine, real, self.styles[label])
            rows["modes_covered"].append(covered)
            rows["tv"].append(tv)
        means = {name: sum(values) / len(values) for name, values in rows.items()}
        means["modes_covered"] = sum(rows["modes_covered"])
        accuracy = float((logits.argmax(1) == labels).double().mean())
        kid = self.kernel_distance(pictures)
        return {"accuracy": accuracy, "kid": kid, **means}

    def kernel_distance(self, pictures: Tensor) -> float:
        """KID by torchmetrics on the classifier's standardised features."""
        from torchmetrics.image.kid import KernelInceptionDistance

        size = min(len(pictures), len(self.real))
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance`", UserWarning)
            torch.manual_seed(0)
            kid = KernelInceptionDistance(
                self.classifier.extractor(), subsets=20, subset_size=size // 2
            )
            kid.update(self.real, real=True)
            kid.update(pictures, real=False)
            return float(kid.compute()[0])


def style_modes(fake: Tensor, real: Tensor, styles: Tensor) -> tuple[float, float]:
    """Styles with more than a fifth of their real share, and the total variation of shares."""
    shares = [
        torch.bincount(torch.cdist(x, styles).argmin(1), minlength=len(styles)).double() / len(x)
        for x in (fake, real)
    ]
    covered = (shares[0] > 0.2 * shares[1]) & (shares[1] > 0)
    return float(covered.sum()), float((shares[0] - shares[1]).abs().sum() / 2)
