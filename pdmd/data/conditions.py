"""Conditions: on disk and in samples they are indices, networks get what the indices stand for.

Prompts are embedded once, into a store that is mapped from disk: of 100,000 prompts a job reads the
rows that its batches name. What a prompt's velocity is does not depend on the others of the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pdmd.data.shards import Shards, index_of, open_shards
from pdmd.errors import UserError
from pdmd.files.contents import header, take
from pdmd.files.storage import load_metadata, load_tensors, reading, save_tensors
from pdmd.models.base import Condition, Index, Prompted

Rows = Tensor | Shards
WRITTEN = "embeddings written by `pdmd embed`"


class Conditions(Protocol):
    """What indices of conditions stand for.

    Attributes:
        null: the index that stands for no prompt, None where a network brings its own or has none;
        evaluation: (P,) or (P, 2) indices that samples of record are drawn for, if any.
    """

    null: int | None
    evaluation: Index

    def values(self, index: Index) -> Condition:
        """What a network is given for some indices, on the device of the job."""

    def text(self, index: int) -> Prompted | None:
        """A prompt alone, in one row; None where conditions are no prompts."""


class Classes:
    """Classes, which networks read as they are; or, without any, no conditions at all.

    Args:
        classes: how many.
    """

    null: int | None = None

    def __init__(self, classes: int | None = None, device: str | torch.device = "cpu"):
        self.evaluation: Index = None if classes is None else torch.arange(classes)
        self.device = device

    def values(self, index: Index) -> Condition:
        """The classes themselves."""
        return None if index is None else index.to(self.device)

    def text(self, index: int) -> Prompted | None:
        """None."""
        return None


class Prompts:
    """Prompts' embeddings, and images beside them, mapped from disk.

    Attributes:
        rows: (R, D) token rows of all prompts, one prompt after another, fp32 or bf16;
        starts: (P + 1,) where in them each prompt begins;
        images: (M, C, T, H, W) that image-to-video is conditioned on, or None.

    Args:
        length: token rows that text is padded to, as the model's family does it; None: as long as
            the longest of a batch, for models that do not read the padding.
        paths: of rows and of images, that messages name.
    """

    def __init__(
        self,
        rows: Rows,
        starts: Tensor,
        null: int | None,
        length: int | None = None,
        evaluation: Index = None,
        images: Rows | None = None,
        device: str | torch.device = "cpu",
        paths: tuple[Path, Path] = (Path("prompts"), Path("images")),
    ):
        self.paths = paths
        self.rows, self.starts, self.null, self.length = rows, starts, null, length
        self.evaluation, self.images, self.device = evaluation, images, device

    def __len__(self) -> int:
        return len(self.starts) - 1

    def values(self, index: Index) -> Condition:
        """Text, and images where indices have two columns.

        Args:
            index: (N,) prompts, or (N, 2) prompts and images.
        Raises:
            UserError: a row is not finite; names the file.
        """
        if index is None:
            return None
        index = index.cpu()
        prompt = prompt_of(index)
        starts, lengths = self.starts[prompt], self.starts[prompt + 1] - self.starts[prompt]
        place = torch.arange(int(lengths.max()) if self.length is None else self.length)
        valid = place < lengths[:, None]
        rows = self.rows[(starts[:, None] + place).clamp(max=len(self.rows) - 1)]
        text = torch.where(valid[..., None], rows, torch.zeros((), dtype=rows.dtype))
        images = None if index.ndim == 1 or self.images is None else self.images[index[:, 1]]
        for path, name, read in zip(self.paths, ("rows", "images"), (text, images), strict=True):
            if read is not None and not torch.isfinite(read.sum(dtype=torch.float32)):
                raise UserError(f"{path}: {name}: not finite: expected finite values")
        return Prompted(text, lengths, images, prompt).to(self.device)

    def text(self, index: int) -> Prompted:
        """A prompt alone, in one row."""
        value = self.values(torch.tensor([index]))
        assert isinstance(value, Prompted)
        return value


def prompt_of(index: Tensor) -> Tensor:
    """The prompts (N,) of indices (N,), or (N, 2) with an image."""
    return index if index.ndim == 1 else index[:, 0]


def drop_prompts(index: Tensor, null: int, where: Tensor) -> Tensor:
    """Indices whose prompt is the null one where (N,) says so; an image stays."""
    prompt = torch.where(where, null, prompt_of(index))
    return prompt if index.ndim == 1 else torch.stack([prompt, index[:, 1]], 1)


def save_prompts(
    path: Path, rows: Sequence[Tensor], null: int | None, metadata: Mapping[str, Any]
) -> None:
    """Write the token rows (length, D) of every prompt, valid ones alone."""
    lengths = torch.tensor([len(one) for one in rows])
    tensors = {"rows": torch.cat(list(rows)), "starts": torch.cat([lengths.new_zeros(1), lengths])}
    tensors["starts"] = tensors["starts"].cumsum(0)
    save_tensors(path, tensors, {**metadata, "null": json.dumps(null)})


def load_prompts(
    path: Path,
    length: int | None = None,
    beside: Path | None = None,
    device: str | torch.device = "cpu",
) -> Prompts:
    """Open what save_prompts wrote; no row is read before it is asked for.

    Args:
        length: see Prompts; beside: a file of `evaluation` and, for image-to-video, `images`.
    Raises:
        UserError: names the file, and the prompt that is longer than `length`.
    """
    tensors, metadata = load_tensors(path), load_metadata(path)
    if "rows" not in tensors or "null" not in metadata:
        raise UserError(f"{path}: no token rows: expected {WRITTEN}")
    with reading(path, WRITTEN):
        null = json.loads(metadata["null"])
    dtype = torch.bfloat16 if tensors["rows"].dtype == torch.bfloat16 else torch.float32
    rows = header(path, tensors, "rows", (None, None), dtype)
    starts = take(path, tensors, "starts", (None,), torch.int64, 0, len(rows) + 1)
    lengths = starts.diff()
    if len(starts) < 2 or int(starts[0]) or int(starts[-1]) != len(rows) or lengths.min() < 1:
        raise UserError(f"{path}: starts: expected them to rise from 0 to {len(rows)}, {WRITTEN}")
    if null is not None and (type(null) is not int or not 0 <= null < len(lengths)):
        raise UserError(f"{path}: null: {null!r}: expected null or an index below {len(lengths)}")
    if length is not None and int(lengths.max()) > length:
        longest = int(lengths.argmax())
        said = f"prompt {longest}: {int(lengths[longest])} token rows"
        raise UserError(f"{path}: {said}: expected at most {length}, model.text_length")
    more = {} if beside is None else load_tensors(beside)
    evaluation, images = more.get("evaluation"), more.get("images")
    return Prompts(rows, starts, null, length, evaluation, images, device, (path, beside or path))


def open_store(
    folder: Path, length: int | None = None, device: str | torch.device = "cpu"
) -> tuple[Prompts, dict[str, Any]]:
    """Open a sharded store of prompts, and its index; no row is read before it is asked for.

    Args:
        length: token rows that text is padded to, see Prompts.
    Raises:
        UserError: names the file that is missing or wrong.
    """
    index, shards = open_shards(folder, ["null", "evaluation", "train"])
    rows, lengths = [], []
    for number, tensors in enumerate(shards):
        path = folder / f"shard {number}"
        dtype = torch.bfloat16
        rows.append(header(path, tensors, "rows", (None, None), dtype))
        lengths.append(take(path, tensors, "lengths", (None,), torch.int64, 1))
        if int(lengths[-1].sum()) != len(rows[-1]):
            said = f"{len(rows[-1])} rows"
            raise UserError(f"{path}: {said}: expected {int(lengths[-1].sum())}, {WRITTEN}")
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), torch.cat(lengths)]).cumsum(0)
    path, null = index_of(folder), index["null"]
    if len(starts) - 1 != index["rows"] or type(null) is not int or not 0 <= null < index["rows"]:
        raise UserError(f"{path}: {len(starts) - 1} prompts: expected {index['rows']}, {WRITTEN}")
    return Prompts(Shards(rows), starts, null, length, device=device, paths=(path, path)), index
