"""What a scenario is about: draws of x_0 with their conditions, and draws of conditions alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from pdmd.config import sections
from pdmd.data.conditions import Classes, Conditions, Prompts, load_prompts, open_store
from pdmd.data.shards import Shards, open_shards
from pdmd.errors import UserError
from pdmd.files.contents import Shape, header, take
from pdmd.files.storage import load_metadata, load_tensors, read_json, reading
from pdmd.models.base import Index, Space
from pdmd.models.mixture import GaussianMixture
from pdmd.scenarios.kind import kind_of
from pdmd.streams import Stream


class Data(Protocol):
    """A source of training samples, with the indices of their conditions."""

    def draw(self, stream: Stream, batch: int) -> tuple[Tensor, Index]: ...

    def prompts(self, stream: Stream, batch: int) -> Index: ...


class MixtureData:
    """An analytic mixture, unconditional."""

    def __init__(self, mixture: GaussianMixture):
        self.mixture = mixture

    def draw(self, stream: Stream, batch: int) -> tuple[Tensor, Index]:
        """(batch * runs, D) samples and no condition."""
        return self.mixture.draw(stream, batch), None

    def prompts(self, stream: Stream, batch: int) -> Index:
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
        self.classes = int(self.labels.max()) + 1

    def draw(self, stream: Stream, batch: int) -> tuple[Tensor, Index]:
        """(batch * runs, D) latents and their (batch * runs,) labels."""
        rows = stream.integers(batch, len(self.latents))
        return self.latents[rows], self.labels[rows]

    def prompts(self, stream: Stream, batch: int) -> Index:
        """Uniform class labels."""
        return stream.integers(batch, self.classes)


class PromptedData:
    """Precomputed latents of pictures or clips with prompts; a row has several right captions.

    Args:
        path: safetensors with `latents` (N, C, T, H, W) and `prompts` (N, K) indices of captions;
        shape: (C, T, H, W), of one latent; prompts: captions are below it;
        images: how many; a row's condition then has the image of its number beside its prompt.
    """

    def __init__(
        self,
        path: Path,
        device: str | torch.device = "cpu",
        shape: Shape = (None,) * 4,
        prompts: int | None = None,
        images: int | None = None,
    ):
        tensors = load_latents(path, shape, "prompts", prompts)
        self.latents, self.captions = (tensors[name].to(device) for name in ("latents", "prompts"))
        self.with_image = images is not None
        if images is not None and images < len(self.latents):
            least = len(self.latents)
            raise UserError(f"{path}: images: {images}: expected at least {least}, one a latent")

    def draw(self, stream: Stream, batch: int) -> tuple[Tensor, Index]:
        """(batch * runs, C, T, H, W) latents and one right caption of each."""
        rows = stream.integers(batch, len(self.latents))
        return self.latents[rows], self._caption(stream, batch, rows)

    def prompts(self, stream: Stream, batch: int) -> Index:
        """Captions as often as the data have them; with the image of the row they belong to."""
        rows = stream.integers(batch, len(self.latents))
        return self._caption(stream, batch, rows)

    def _caption(self, stream: Stream, batch: int, rows: Tensor) -> Tensor:
        column = stream.integers(batch, self.captions.shape[1])
        prompt = self.captions[rows, column]
        return torch.stack([prompt, rows], 1) if self.with_image else prompt


class PromptPool:
    """Prompts alone, for training that needs no data.

    Args:
        first, count: which of the store's they are; with_image: whether each has a picture, whose
            number is the prompt's.
    """

    def __init__(self, first: int, count: int, with_image: bool):
        self.first, self.count, self.with_image = first, count, with_image

    def draw(self, stream: Stream, batch: int) -> tuple[Tensor, Index]:
        """Raises ValueError: there are no samples."""
        raise ValueError("data: prompts alone: expected training without data")

    def prompts(self, stream: Stream, batch: int) -> Index:
        """(batch * runs,) uniform prompts, or (batch * runs, 2) with their pictures."""
        number = self.first + stream.integers(batch, self.count)
        return torch.stack([number, number], 1) if self.with_image else number


def build_mixture(data: sections.Data) -> GaussianMixture:
    """The exact law that a `data` section describes. Raises ValueError where it has none."""
    kind = kind_of(data)
    if kind.mixture is None:
        raise ValueError(f"data.kind: {kind.name}: expected one with an exact law")
    return kind.mixture(data)


def build_data(
    data: sections.Data, latents: Path, space: Space, device: str | torch.device = "cpu"
) -> Data:
    """The training data of a `data` section.

    Args:
        latents: the file that it needs: of latents, or of a released model the index of prompts.
    """
    kind = kind_of(data)
    if isinstance(data, sections.ReleasedData):
        index = read_json(latents, dict, ["evaluation", "train"])
        return PromptPool(int(index["evaluation"]), int(index["train"]), data.image)
    if kind.prompted:
        return PromptedData(latents, device, space.shape, space.prompts, space.images)
    if kind.classes:
        return LatentData(latents, device, space.shape, space.classes)
    return MixtureData(build_mixture(data).to(device))


def build_conditions(
    data: sections.Data,
    folder: Path,
    length: int | None,
    device: str | torch.device = "cpu",
    size: str | None = None,
) -> tuple[Conditions, Space]:
    """What samples of a `data` section are drawn for, and what they live on; no training data.

    Args:
        folder: of the scenario's data; length: token rows that text is padded to, see Prompts;
        size: of released models' samples.
    Raises:
        UserError: names the file that is missing or wrong.
    """
    kind = kind_of(data)
    if kind.classes:
        return Classes(kind.classes, device), Space((kind.latent_size(data),), kind.classes)
    if isinstance(data, sections.ReleasedData):
        return released_conditions(data, folder, length, device, size)
    if not isinstance(data, sections.PromptedData):
        return Classes(), Space(tuple(build_mixture(data).means.shape[1:]))
    path = folder / "evaluation.safetensors"
    beside, shape = load_tensors(path), _latent_sizes(path, data)
    store = load_prompts(folder / "prompts.safetensors", length, path, device)
    space = Space(shape, prompts=len(store), text_width=store.rows.shape[1])
    if data.with_image:
        images = header(path, beside, "images", (None, None, *shape[1:]))
        space = replace(space, images=len(images), image_channels=images.shape[1])
    store.evaluation = check_index(path, beside, "evaluation", space)
    return store, space


CHANNELS, IMAGE_CHANNELS = 16, 20  # of released models' latents; of a first frame: 4 of a mask


def released_conditions(
    data: sections.ReleasedData,
    folder: Path,
    length: int | None,
    device: str | torch.device = "cpu",
    size: str | None = None,
) -> tuple[Prompts, Space]:
    """The prompts, and pictures, of a released model at one size, and what samples live on.

    Args:
        size: one of the data's sizes, the first where it is None.
    """
    size = data.sizes[0] if size is None else size
    shape = (CHANNELS, *sections.latent_size(sections.parse_size(size)))
    store, index = open_store(folder / "store", length, device)
    space = Space(shape, prompts=len(store), text_width=store.rows.shape[1])
    numbers = torch.arange(int(index["evaluation"]))
    store.evaluation = torch.stack([numbers, numbers], 1) if data.image else numbers
    if data.image:
        where = folder / "images" / size
        images, shards = open_shards(where)
        wanted = (None, IMAGE_CHANNELS, *shape[1:])
        parts = [header(where, one, "images", wanted, torch.bfloat16) for one in shards]
        store.images = Shards(parts)
        space = replace(space, images=images["rows"], image_channels=IMAGE_CHANNELS)
    return store, space


def _latent_sizes(path: Path, data: sections.Data) -> tuple[int, ...]:
    """The shape of one latent, which `encode` wrote beside the indices of evaluation."""
    with reading(path, "what `pdmd encode` wrote"):
        shape = tuple(map(int, json.loads(load_metadata(path)["latent_shape"])))
    wanted = latent_shape(data)
    if len(shape) != 4 or any(b not in (a, None) for a, b in zip(shape, wanted, strict=True)):
        raise UserError(f"{path}: latent_shape: {list(shape)}: expected {list(wanted)}")
    return shape


def latent_shape(data: sections.Data) -> Shape:
    """The shape of one latent, as far as a `data` section says it."""
    if not isinstance(data, sections.PromptedData):
        return (kind_of(data).latent_size(data),)
    if data.codec.patch is None:
        return (None,) * 4  # a VAE's own
    _, *sides = data.codec.patch
    return (data.codec.channels, None, *(data.px // side for side in sides))


def check_index(
    path: Path, tensors: Mapping[str, Tensor], name: str, space: Space, rows: int | None = None
) -> Tensor:
    """Indices (N,), or (N, 2) with an image, of a file; they are of what a space has.

    Raises:
        UserError: names the file and the tensor.
    """
    if space.images is None:
        below = space.classes if space.prompts is None else space.prompts
        return take(path, tensors, name, (rows,), torch.int64, 0, below)
    pairs = take(path, tensors, name, (rows, 2), torch.int64, 0)
    for column, below in enumerate((space.prompts, space.images)):
        part = {f"{name}[:, {column}]": pairs[:, column]}
        take(path, part, f"{name}[:, {column}]", (None,), torch.int64, 0, below)
    return pairs


def check_samples(
    path: Path, tensors: Mapping[str, Tensor], space: Space, rows: int | None = None
) -> tuple[Tensor, Index]:
    """Samples `x` (rows, ...) of a file and their indices, which a space has or has not.

    Raises:
        UserError: names the file and the tensor.
    """
    x = take(path, tensors, "x", (rows, *space.shape))
    if space.classes is None and space.prompts is None:
        if "condition" in tensors:
            raise UserError(f"{path}: condition: expected none for data without classes")
        return x, None
    return x, check_index(path, tensors, "condition", space, len(x))


def load_samples(path: Path, space: Space, rows: int | None = None) -> dict[str, Tensor]:
    """Samples of record. Raises UserError: names the file and the tensor."""
    tensors = load_tensors(path)
    check_samples(path, tensors, space, rows)
    return tensors


def even_prompts(evaluation: Index, batch: int, runs: int) -> Index:
    """Indices for evaluation: each equally often, in blocks; rows interleaved by run."""
    if evaluation is None:
        return None
    rows = torch.arange(batch) * len(evaluation) // batch
    return evaluation[rows].repeat_interleave(runs, 0)
