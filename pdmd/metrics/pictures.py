"""Diversity and fidelity of class-conditional pictures against held-out real ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pdmd.digits import CLASSES, SIDE, Classifier
from pdmd.errors import UserError
from pdmd.metrics import checks
from pdmd.metrics.checks import Scores
from pdmd.metrics.distances import distances, mean_cosine, unit_rows
from pdmd.metrics.fidelity import kernel_distance

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


@dataclass
class PictureMetrics:
    """Everything that scores a set of pictures; refuses a classifier whose weights are not finite.

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

    def __post_init__(self) -> None:
        checks.weights("accuracy", self.classifier)

    @torch.no_grad()
    def __call__(self, pictures: Tensor, labels: Tensor) -> Scores:
        """Scores of (N, 64) pictures with the classes (N,) they were asked for.

        Returns:
            accuracy: share that the classifier takes for the class asked for.
            kid: kernel distance of classifier features to held-out pictures, 0 best.
            density, coverage: against held-out pictures, by class, mean over classes.
            cosine: pairwise pixel cosine within a class, centred; feature_cosine: of features.
            modes_covered, tv: writing styles hit, and their shares against held-out pictures.
        Raises:
            UserError: a picture is not finite, or a class has fewer than two of them, or no
                held-out ones.
        """
        pictures = self._pictures("accuracy", pictures)
        checks.labels("accuracy", labels, len(pictures), CLASSES)
        logits, features = self.classifier.both(pictures)
        # as the extractor gives them, without a second pass
        features = (features - self.classifier.feature_mean) / self.classifier.feature_std
        rows: dict[str, list[float]] = {}
        for label in labels.unique():
            with checks.telling(f"class {int(label)}"):
                found = self._of_class(label, pictures[labels == label], features[labels == label])
            for name, value in found.items():
                rows.setdefault(name, []).append(value)
        means: Scores = {name: sum(values) / len(values) for name, values in rows.items()}
        means["modes_covered"] = sum(rows["modes_covered"])
        accuracy = float((logits.argmax(1) == labels).double().mean())
        return {"accuracy": accuracy, "kid": self._kid(features), **means}

    def _of_class(self, label: Tensor, mine: Tensor, features: Tensor) -> dict[str, float]:
        real = self.real[self.labels == label]
        coverage, density = coverage_and_density(mine, real, self.neighbours)
        covered, tv = style_modes(mine, real, self.styles[label])
        return {
            "cosine": pairwise_cosine(mine - self.mean),
            "feature_cosine": pairwise_cosine(features, "feature_cosine"),
            "coverage": coverage,
            "density": density,
            "modes_covered": covered,
            "tv": tv,
        }

    def _pictures(self, metric: str, pictures: Tensor) -> Tensor:
        ready = checks.features(metric, pictures)
        if ready.shape[1] != SIDE * SIDE:
            raise UserError(f"{metric}: samples: width {ready.shape[1]}: expected {SIDE * SIDE}")
        checks.bounded(metric, ready, checks.BRIGHTEST, "-1 to 1")
        return ready.float()

    @torch.no_grad()
    def kernel_distance(self, pictures: Tensor) -> float:
        """KID on the classifier's standardised features, over subsets of half the smaller set."""
        return self._kid(self.classifier.extractor()(self._pictures("kid", pictures)))

    def _kid(self, features: Tensor) -> float:
        real = self._real_features
        return kernel_distance(
            real, features, SUBSETS, min(len(real), len(features)) // 2, 0, "kid"
        )

    @cached_property
    def _real_features(self) -> Tensor:
        found: Tensor = self.classifier.extractor()(self.real)
        return found


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
