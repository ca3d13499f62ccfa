"""Scores of digits drawn by class, against held-out ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pdmd.errors import UserError
from pdmd.metrics import checks
from pdmd.metrics.checks import Scores
from pdmd.metrics.fidelity import kernel_distance
from pdmd.metrics.pictures import SUBSETS, coverage_and_density, pairwise_cosine, style_modes
from pdmd.scenarios.digits.pictures import CLASSES, SIDE, Classifier


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
                of_class = self._of_class(
                    label, pictures[labels == label], features[labels == label]
                )
            for name, value in of_class.items():
                rows.setdefault(name, []).append(value)
        means: Scores = {name: sum(values) / len(values) for name, values in rows.items()}
        means["modes_covered"] = sum(rows["modes_covered"])
        accuracy = float((logits.argmax(1) == labels).double().mean())
        return {"accuracy": accuracy, "kid": self._kid(features), **means}

    def _of_class(self, label: Tensor, pictures: Tensor, features: Tensor) -> dict[str, float]:
        real = self.real[self.labels == label]
        coverage, density = coverage_and_density(pictures, real, self.neighbours)
        covered, tv = style_modes(pictures, real, self.styles[label])
        return {
            "cosine": pairwise_cosine(pictures - self.mean),
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
        features: Tensor = self.classifier.extractor()(self.real)
        return features
