"""Rows of many files as one tensor, mapped from disk: what is asked for is read, and no more.

A folder of shards has an index beside it, written last, that says what each holds; nobody hashes
shards again that a stage has written, whose sizes and headers alone are looked at.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdmd.errors import UserError
from pdmd.files.storage import load_tensors, read_json, reading, save_tensors, write_json

Tensors = dict[str, Tensor]


class Shards:
    """Rows of several tensors, one after another.

    Args:
        parts: (R_i, ...) each, mapped from disk.
    """

    def __init__(self, parts: Sequence[Tensor]):
        self.parts = list(parts)
        self.ends = torch.tensor([len(part) for part in parts]).cumsum(0)
        self.shape = (int(self.ends[-1]), *parts[0].shape[1:])
        self.dtype = parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """The rows of some numbers, any shape (...) -> (..., *row). Raises IndexError."""
        numbers = rows.flatten()
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()}: expected {len(self)} rows")
        where = torch.bucketize(numbers, self.ends, right=True)
        out = torch.empty(len(numbers), *self.shape[1:], dtype=self.dtype)
        for number in where.unique().tolist():
            mine = where == number
            before = int(self.ends[number - 1]) if number else 0
            out[mine] = self.parts[number][numbers[mine] - before]
        return out.view(*rows.shape, *self.shape[1:])


def shard_name(number: int) -> str:
    """Of one file."""
    return f"shard-{number:05d}.safetensors"


def make_shards(
    state: Path,
    total: int,
    rows: int,
    make: Callable[[int, int], Tensors],
    rank: int = 0,
    size: int = 1,
) -> list[Path]:
    """Make the shards that are not there yet; a killed job goes on behind those that it had made.

    Args:
        state: a folder of this very job's; total: rows in all; rows: of a shard; make: (first, end)
            -> the tensors of these rows; rank, size: of the processes that share the shards out.
    Returns:
        all shards, in their order; those of other processes may still be to come.
    """
    paths = []
    for number, first in enumerate(range(0, total, rows)):
        path = state / shard_name(number)
        paths.append(path)
        if number % size == rank and not path.is_file():
            save_tensors(path, make(first, min(first + rows, total)))
    return paths


def keep_shards(state: Path, folder: Path, total: int, index: Mapping[str, Any]) -> None:
    """Move finished shards to where they stay, and write `<folder>.json` beside them last.

    Args:
        state: on the same disk; index: what the index says further.
    """
    shards = sorted(state.glob("shard-*.safetensors"))
    entries = [{"name": path.name, "bytes": path.stat().st_size} for path in shards]
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    state.rename(folder)
    write_json(index_of(folder), {**index, "rows": total, "shards": entries})


def join_shards(paths: Sequence[Path]) -> Tensors:
    """The tensors of all shards, one shard after another, in memory."""
    parts = [load_tensors(path) for path in paths]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def index_of(folder: Path) -> Path:
    """The index of a folder of shards."""
    return folder.with_name(f"{folder.name}.json")


def open_shards(folder: Path, keys: Sequence[str] = ()) -> tuple[dict[str, Any], Iterator[Tensors]]:
    """The index of a folder, and its shards' tensors, mapped from disk.

    Args:
        keys: that the index has beside its rows and shards.
    Raises:
        UserError: the index is none, or a shard is missing or of another size.
    """
    path = index_of(folder)
    index: dict[str, Any] = read_json(path, dict, ["rows", "shards", *keys])
    with reading(path, "an index of shards"):
        entries = [(str(one["name"]), int(one["bytes"])) for one in index["shards"]]
    for name, size in entries:
        there = (folder / name).stat().st_size if (folder / name).is_file() else None
        if there != size:
            raise UserError(f"{folder / name}: {there} bytes: expected {size} by {path.name}")
    return index, (load_tensors(folder / name) for name, _ in entries)
