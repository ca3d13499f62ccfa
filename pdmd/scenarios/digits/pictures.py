"""scikit-learn's 8x8 handwritten digits: splits, jitter, whitened latents, a classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdmd.config.experiment import Config
from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.data.sources import load_latents
from pdmd.errors import UserError
from pdmd.files import provenance
from pdmd.files.contents import load_network, take
from pdmd.files.storage import load_tensors, save_tensors, write_json
from pdmd.scenarios.digits.kind import Digits
from pdmd.stages.outputs import CLASSIFIER, ENCODED, PROVENANCE
from pdmd.streams import Stream

CLASSES, SIDE = 10, 8
STYLES = 5  # writing styles (k-means centres) of each class


@dataclass(frozen=True)
class Codec:
    """Whitened principal components: z = (x - mean) basis / scale.

    Attributes:
        mean (64,), basis (64, D), scale (D,).
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def encode(self, pictures: Tensor) -> Tensor:
        """(N, 64) in [-1, 1] -> (N, D)."""
        return (pictures - self.mean) @ self.basis / self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """(N, D) -> (N, 64) clamped to [-1, 1]."""
        return ((latents * self.scale) @ self.basis.T + self.mean).clamp(-1, 1)


def fit_codec(pictures: Tensor, components: int, whitening: float) -> Codec:
    """Fit to (N, 64) pictures; latents have unit mean variance.

    Args:
        whitening: power of the standard deviation divided out; 1 whitens fully, 0 not at all.
    """
    mean = pictures.mean(0)
    values, vectors = torch.linalg.eigh((pictures - mean).T.cov())
    values, vectors = values.flip(0)[:components], vectors.flip(1)[:, :components]
    scale = values.sqrt() ** whitening
    return Codec(mean, vectors, scale * (values / scale.square()).mean().sqrt())


def load_codec(path: Any) -> Codec:
    """Read a codec written by `encode`. Raises UserError that names the file."""
    tensors = load_tensors(path)
    mean = take(path, tensors, "mean", (SIDE * SIDE,))
    basis = take(path, tensors, "basis", (len(mean), None))
    scale = take(path, tensors, "scale", basis.shape[1:], least=torch.finfo(torch.float32).tiny)
    return Codec(mean, basis, scale)


def load_split(path: Path) -> dict[str, Tensor]:
    """A split that `encode` wrote: latents, labels, pictures; of training more.

    Raises:
        UserError: names the file and the tensor that is missing or wrong.
    """
    tensors = load_latents(path, (None,), "labels", CLASSES)
    pictures = len(take(path, tensors, "pictures", (None, SIDE * SIDE)))
    if "train" in path.name:
        take(path, tensors, "picture_labels", (pictures,), torch.int64, 0, CLASSES)
        take(path, tensors, "styles", (CLASSES, STYLES, SIDE * SIDE))
    elif len(tensors["labels"]) != pictures:
        raise UserError(f"{path}: pictures: {pictures}: expected one for each label")
    return tensors


def split_digits(heldout: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(train pictures, train labels, held-out pictures, held-out labels), stratified by class."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pictures = torch.tensor(digits.images / 8 - 1, dtype=torch.float32).flatten(1)
    labels = torch.tensor(digits.target)
    train, held = train_test_split(
        range(len(labels)), test_size=heldout, stratify=digits.target, random_state=seed
    )
    return pictures[train], labels[train], pictures[held], labels[held]


def jitter(pictures: Tensor, seed: int) -> Tensor:
    """Rotate by up to 10 degrees, scale by up to 8% and move by up to a quarter of a pixel."""
    stream, n = Stream([seed], 0, "jitter"), len(pictures)

    def draw(limit: float) -> Tensor:
        return limit * (2 * stream.uniform(n) - 1)

    angle, zoom = draw(math.pi / 18), 1 + draw(0.08)
    right, down = draw(0.5 / SIDE), draw(0.5 / SIDE)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    affine = torch.stack([cos, -sin, right, sin, cos, down], -1).view(n, 2, 3)
    grid = functional.affine_grid(affine, [n, 1, SIDE, SIDE], align_corners=False)
    images = (pictures + 1).view(n, 1, SIDE, SIDE)  # zero is background, as padding is
    moved = functional.grid_sample(images, grid, mode="bicubic", align_corners=False)
    return (moved.flatten(1) - 1).clamp(-1, 1)


def encode(config: Config) -> None:
    """Write latents of both splits, their codec and the writing styles of each class."""
    run = read_run(config)
    data, paths = cast(Digits, run.data), Paths(run)
    train, train_labels, held, held_labels = split_digits(data.heldout, data.seed)
    copies = data.copies
    again = [jitter(train, seed) for seed in range(1, copies)]
    pictures, labels = torch.cat([train, *again]), train_labels.repeat(copies)
    codec = fit_codec(pictures, data.components, data.whitening)
    save_tensors(
        paths.data("train.safetensors"),
        {
            "latents": codec.encode(pictures),
            "labels": labels,
            "pictures": train,
            "picture_labels": train_labels,
            "styles": writing_styles(train, train_labels),
        },
    )
    save_tensors(
        paths.data("heldout.safetensors"),
        {"latents": codec.encode(held), "labels": held_labels, "pictures": held},
    )
    save_tensors(paths.data("codec.safetensors"), vars(codec))
    error = (codec.decode(codec.encode(held)) - held).square().mean()
    metrics = {
        "train_pictures": len(train),
        "train_latents": len(pictures),
        "heldout_pictures": len(held),
        "heldout_psnr_db": float(10 * torch.log10(4 / error)),
    }
    write_json(paths.data("codec.json"), metrics)
    provenance.record(paths.data(PROVENANCE), config, [data.seed], [], ENCODED)


def writing_styles(pictures: Tensor, labels: Tensor) -> Tensor:
    """(classes, STYLES, 64) k-means centres of each class."""
    from sklearn.cluster import KMeans

    centres = []
    for label in range(CLASSES):
        means = KMeans(STYLES, n_init=10, random_state=0).fit(pictures[labels == label].numpy())
        centres.append(torch.tensor(means.cluster_centers_, dtype=torch.float32))
    return torch.stack(centres)


class Classifier(nn.Module):
    """A small convolutional classifier; its last hidden layer gives features.

    Attributes:
        feature_mean, feature_std: over the real training pictures.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 16, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, CLASSES)
        self.register_buffer("feature_mean", torch.zeros(64))
        self.register_buffer("feature_std", torch.ones(()))

    def both(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 10) and features (N, 64) of (N, 64) pictures in [-1, 1]."""
        features = self.body(pictures.view(-1, 1, SIDE, SIDE))
        return self.head(features), features

    def extractor(self) -> nn.Module:
        """A module that gives standardised features, as torchmetrics wants it."""
        return _Extractor(self)


class _Extractor(nn.Module):
    num_features = 64

    def __init__(self, classifier: Classifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, pictures: Tensor) -> Tensor:
        _, features = self.classifier.both(pictures)
        return (features - self.classifier.feature_mean) / self.classifier.feature_std


def train_classifier(config: Config) -> None:
    """Train on real training pictures, jittered; state the accuracy on held-out ones."""
    run = read_run(config)
    paths = Paths(run)
    train = load_split(paths.data("train.safetensors"))
    held = load_split(paths.data("heldout.safetensors"))
    pictures, labels = train["pictures"], train["picture_labels"]
    torch.set_num_threads(run.threads)
    torch.manual_seed(0)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=1e-2)
    updates = run.classifier.updates
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for step in range(updates):
        rows = Stream([0], step, "classifier").integers(64, len(labels))
        loss = functional.cross_entropy(model.both(jitter(pictures[rows], step))[0], labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        decay.step()
    with torch.no_grad():
        _, features = model.both(train["pictures"])
        model.feature_mean.copy_(features.mean(0))
        model.feature_std.copy_((features - features.mean(0)).square().mean().sqrt())
        hits = model.both(held["pictures"])[0].argmax(1) == held["labels"]
    path = paths.data("classifier.safetensors")
    save_tensors(path, model.state_dict())
    write_json(path.with_suffix(".json"), {"heldout_accuracy": float(hits.double().mean())})
    inputs = [paths.data(f"{name}.safetensors") for name in ("train", "heldout")]
    provenance.record(paths.data("judging.json"), config, [0], inputs, CLASSIFIER)


def load_classifier(path: Any) -> Classifier:
    """Read a classifier written by `train_classifier`. Raises UserError that names the file."""
    model = Classifier()
    load_network(path, model)
    return model.eval()
