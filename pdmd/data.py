"""What a scenario is about: draws of x_0 with their conditions, and draws of conditions alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pdmd.draws import Stream
from pdmd.models.base import Condition
from pdmd.models.mixture import GaussianMixture, atoms, grid_mixture
from pdmd.storage import load_tensors


class Data(Protocol):
    """A source of training samples.

    Attributes:
        dim: size of x_0; classes: number of classes, None if there are none.
    """

    dim: int
    classes: int | None

    def draw(self, stream: Stream, batch: int) -> tuple[Tensor, Condition]: ...

    def prompts(self, stream: Stream, batch: int) -> Condition: ...


class MixtureData:
    """An analytic mixture, unconditional."""

    classes: int | None = None

    def __init__(self, mixture: GaussianMixture):
        self.mixture, self.dim = mixture, mixture.means.shape[1]

    def draw(self, stream: Stream, batch: int) -> tuple[Tensor, Condition]:
        """(batch * runs, D) samples and no condition."""
        return self.mixture.draw(stream, batch), None

    def prompts(self, stream: Stream, batch: int) -> Condition:
        """No condition."""
        return None


class LatentData:
    """Precomputed latents with class labels.

    Args:
        path: safetensors with `latents` (N, D) and `labels` (N,); device: where they are kept.
    """

    def __init__(self, path: Path, device: str | torch.device = "cpu"):
        tensors = load_tensors(path)
        self.latents, self.labels = (tensors[name].to(device) for name in ("latents", "labels"))
        self.dim = self.latents.shape[1]
        self.classes: int | None = int(self.labels.max()) + 1

    def draw(self, stream: Stream, batch: int) -> tuple[Tensor, Condition]:
        """(batch * runs, D) latents and their (batch * runs,) labels."""
        rows = stream.integers(batch, len(self.latents))
        return self.latents[rows], self.labels[rows]

    def prompts(self, stream: Stream, batch: int) -> Condition:
        """Uniform class labels."""
        return stream.integers(batch, self.classes or 1)


def build_mixture(spec: Mapping[str, Any]) -> GaussianMixture:
    """The mixture that a `data` section describes."""
    if spec["kind"] == "atoms":
        return atoms(spec["positions"])
    return grid_mixture(spec["per_side"], spec["std"], spec["seed"], spec["least_weight"])


def build_data(spec: Mapping[str, Any], latents: Path, device: str | torch.device = "cpu") -> Data:
    """The training data of a `data` section; `latents` is read where it needs a file."""
    if spec["kind"] == "digits":
        return LatentData(latents, device)
    return MixtureData(build_mixture(spec).to(device))


def even_prompts(data: Data, batch: int, runs: int) -> Condition:
    """Conditions for evaluation: every class equally often, in blocks; rows interleaved by run."""
    if data.classes is None:
        return None
    return (torch.arange(batch) * data.classes // batch).repeat_interleave(runs)
