"""What a scenario is about: draws of x_0 with their conditions, and draws of conditions alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pdmd.catalogue import PROMPTED
from pdmd.draws import Stream
from pdmd.models.base import Condition, Space
from pdmd.models.mixture import GaussianMixture, atoms, grid_mixture
from pdmd.storage import load_tensors


class Data(Protocol):
    """A source of training samples.

    Attributes:
        space: what x_0 and its condition are;
        evaluation: (P,) or (P, 2) conditions that samples of record are drawn for, if any.
    """

    space: Space
    evaluation: Condition

    def draw(self, stream: Stream, batch: int) -> tuple[Tensor, Condition]: ...

    def prompts(self, stream: Stream, batch: int) -> Condition: ...


class MixtureData:
    """An analytic mixture, unconditional."""

    evaluation: Condition = None

    def __init__(self, mixture: GaussianMixture):
        self.mixture, self.space = mixture, Space(tuple(mixture.means.shape[1:]))

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
        classes = int(self.labels.max()) + 1
        self.space = Space(tuple(self.latents.shape[1:]), classes)
        self.evaluation: Condition = torch.arange(classes)

    def draw(self, stream: Stream, batch: int) -> tuple[Tensor, Condition]:
        """(batch * runs, D) latents and their (batch * runs,) labels."""
        rows = stream.integers(batch, len(self.latents))
        return self.latents[rows], self.labels[rows]

    def prompts(self, stream: Stream, batch: int) -> Condition:
        """Uniform class labels."""
        return stream.integers(batch, self.space.classes or 1)


class PromptedData:
    """Precomputed latents of pictures or clips with prompts; a row has several right captions.

    Args:
        path: safetensors with `latents` (N, C, T, H, W), `prompts` (N, K) indices of captions,
            `evaluation` (P,) or (P, 2), and for image-to-video `images` (N + M, C', T, H, W): what
            each row is conditioned on, then M for evaluation; prompts.safetensors lies beside.
    """

    def __init__(self, path: Path, device: str | torch.device = "cpu"):
        from pdmd.models.conditions import load_conditions

        tensors = {name: tensor.to(device) for name, tensor in load_tensors(path).items()}
        self.latents, self.captions = tensors["latents"], tensors["prompts"]
        self.evaluation: Condition = tensors["evaluation"].cpu()
        conditions = load_conditions(path.with_name("prompts.safetensors"))
        self.with_image = "images" in tensors
        if self.with_image:
            conditions = dataclasses.replace(conditions, images=tensors["images"])
        self.space = Space(tuple(self.latents.shape[1:]), conditions=conditions)

    def draw(self, stream: Stream, batch: int) -> tuple[Tensor, Condition]:
        """(batch * runs, C, T, H, W) latents and one right caption of each."""
        rows = stream.integers(batch, len(self.latents))
        return self.latents[rows], self._caption(stream, batch, rows)

    def prompts(self, stream: Stream, batch: int) -> Condition:
        """Captions as often as the data have them; with the image of the row they belong to."""
        rows = stream.integers(batch, len(self.latents))
        return self._caption(stream, batch, rows)

    def _caption(self, stream: Stream, batch: int, rows: Tensor) -> Tensor:
        column = stream.integers(batch, self.captions.shape[1])
        prompt = self.captions[rows, column]
        return torch.stack([prompt, rows], 1) if self.with_image else prompt


def build_mixture(spec: Mapping[str, Any]) -> GaussianMixture:
    """The mixture that a `data` section describes."""
    if spec["kind"] == "atoms":
        return atoms(spec["positions"])
    return grid_mixture(spec["per_side"], spec["std"], spec["seed"], spec["least_weight"])


def build_data(spec: Mapping[str, Any], latents: Path, device: str | torch.device = "cpu") -> Data:
    """The training data of a `data` section; `latents` is read where it needs a file."""
    if spec["kind"] in PROMPTED:
        return PromptedData(latents, device)
    if spec["kind"] == "digits":
        return LatentData(latents, device)
    return MixtureData(build_mixture(spec).to(device))


def even_prompts(data: Data, batch: int, runs: int) -> Condition:
    """Conditions for evaluation: each equally often, in blocks; rows interleaved by run."""
    if data.evaluation is None:
        return None
    rows = torch.arange(batch) * len(data.evaluation) // batch
    return data.evaluation[rows].repeat_interleave(runs, 0)
