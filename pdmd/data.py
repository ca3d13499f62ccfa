"""What a scenario is about: draws of x_0 with their conditions, and draws of conditions alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pdmd.catalogue import PROMPTED
from pdmd.contents import Shape, take
from pdmd.draws import Stream
from pdmd.errors import UserError
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


def load_latents(
    path: Path, shape: Shape, labels: str, below: int | None = None
) -> dict[str, Tensor]:
    """A split of precomputed latents.

    Args:
        path: safetensors with `latents` (N, *shape) and `labels` (N,) or `prompts` (N, K);
            labels: which of the two; below: what they are indices below.
    Raises:
        UserError: names the file, and the tensor that is missing or wrong.
    """
    tensors = load_tensors(path)
    rows = len(take(path, tensors, "latents", (None, *shape)))
    columns = () if labels == "labels" else (None,)
    take(path, tensors, labels, (rows, *columns), torch.int64, 0, below)
    return tensors


class LatentData:
    """Precomputed latents with class labels.

    Args:
        path: safetensors with `latents` (N, D) and `labels` (N,); device: where they are kept;
        shape: (D,), of one latent; classes: labels are below it.
    """

    def __init__(
        self,
        path: Path,
        device: str | torch.device = "cpu",
        shape: Shape = (None,),
        classes: int | None = None,
    ):
        tensors = load_latents(path, shape, "labels", classes)
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
        shape: (C, T, H, W), of one latent; image: whether it is image-to-video.
    """

    def __init__(
        self,
        path: Path,
        device: str | torch.device = "cpu",
        shape: Shape = (None,) * 4,
        image: bool = False,
    ):
        from pdmd.models.conditions import load_conditions

        conditions = load_conditions(path.with_name("prompts.safetensors"))
        found = load_latents(path, shape, "prompts", len(conditions.lengths))
        own = tuple(found["latents"].shape[1:])
        if image:
            take(path, found, "images", (None, None, *own[1:]))
            if len(found["images"]) < len(found["latents"]):
                have, least = len(found["images"]), len(found["latents"])
                raise UserError(f"{path}: images: {have}: expected at least {least}, one a latent")
        tensors = {name: tensor.to(device) for name, tensor in found.items()}
        self.latents, self.captions = tensors["latents"], tensors["prompts"]
        self.with_image = image
        if self.with_image:
            conditions = dataclasses.replace(conditions, images=tensors["images"])
        self.space = Space(own, conditions=conditions)
        self.evaluation: Condition = check_condition(path, found, "evaluation", self.space)

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
        return PromptedData(latents, device, latent_shape(spec), bool(spec.get("image")))
    if spec["kind"] == "digits":
        from pdmd.digits import CLASSES

        return LatentData(latents, device, latent_shape(spec), CLASSES)
    return MixtureData(build_mixture(spec).to(device))


def latent_shape(spec: Mapping[str, Any]) -> Shape:
    """The shape of one latent, as far as a `data` section says it."""
    if spec["kind"] == "digits":
        return (spec["components"],)
    if spec["codec"]["kind"] != "patches":
        return (None,) * 4  # a VAE's own
    _, *sides = spec["codec"]["patch"]
    return (spec["codec"]["channels"], None, *(spec["px"] // side for side in sides))


def check_condition(
    path: Path, tensors: Mapping[str, Tensor], name: str, space: Space, rows: int | None = None
) -> Tensor:
    """Conditions (N,), or (N, 2) with an image, of a file; they are indices of what a space has.

    Raises:
        UserError: names the file and the tensor.
    """
    told = space.conditions
    if told is None or told.images is None:
        below = space.classes if told is None else len(told.lengths)
        return take(path, tensors, name, (rows,), torch.int64, 0, below)
    pairs = take(path, tensors, name, (rows, 2), torch.int64, 0)
    for column, below in enumerate((len(told.lengths), len(told.images))):
        part = {f"{name}[:, {column}]": pairs[:, column]}
        take(path, part, f"{name}[:, {column}]", (None,), torch.int64, 0, below)
    return pairs


def check_samples(
    path: Path, tensors: Mapping[str, Tensor], space: Space, rows: int | None = None
) -> tuple[Tensor, Condition]:
    """Samples `x` (rows, ...) of a file and their conditions, which a space has or has not.

    Raises:
        UserError: names the file and the tensor.
    """
    x = take(path, tensors, "x", (rows, *space.shape))
    if space.classes is None and space.conditions is None:
        if "condition" in tensors:
            raise UserError(f"{path}: condition: expected none for data without classes")
        return x, None
    return x, check_condition(path, tensors, "condition", space, len(x))


def load_samples(path: Path, space: Space, rows: int | None = None) -> dict[str, Tensor]:
    """Samples of record. Raises UserError: names the file and the tensor."""
    tensors = load_tensors(path)
    check_samples(path, tensors, space, rows)
    return tensors


def even_prompts(data: Data, batch: int, runs: int) -> Condition:
    """Conditions for evaluation: each equally often, in blocks; rows interleaved by run."""
    if data.evaluation is None:
        return None
    rows = torch.arange(batch) * len(data.evaluation) // batch
    return data.evaluation[rows].repeat_interleave(runs, 0)
