"""Banks of intermediate latents: what the frozen experts of a phase hand to the next."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from pdmd.data.sources import check_samples
from pdmd.errors import UserError
from pdmd.files.contents import take
from pdmd.files.storage import (
    load_tensors,
    read_json,
    reading,
    save_tensors,
    sha256,
    shown,
    write_json,
)
from pdmd.models.base import Index, Space

INDEX = "index.json"


def write_bank(folder: Path, x: Tensor, condition: Index, seed: int, shard_rows: int) -> None:
    """Write x (rows, ...) and its conditions (rows,) in shards; the index comes last.

    Row i was made from draw i of the stream (seed, 0, "bank").
    """
    shutil.rmtree(folder, ignore_errors=True)
    shards = []
    for number, start in enumerate(range(0, len(x), shard_rows)):
        path = folder / f"shard-{number:05d}.safetensors"
        rows = slice(start, start + shard_rows)
        tensors = {"x": x[rows], "draw": torch.arange(len(x))[rows]}
        if condition is not None:
            tensors["condition"] = condition[rows]
        save_tensors(path, tensors, {"seed": str(seed)})
        shards.append({"name": path.name, "rows": len(tensors["x"]), "sha256": sha256(path)})
    write_json(folder / INDEX, {"seed": seed, "rows": len(x), "shards": shards})


def read_bank(
    folder: Path, space: Space, seed: int, rows: int | None = None
) -> tuple[Tensor, Index]:
    """x (rows, ...) and conditions (rows,), (rows, 2) or None.

    Args:
        space: what x and its conditions are of; seed, rows: what the bank must be of.
    Raises:
        UserError: names an index that is none or another bank's, or a shard that is missing, does
            not match its digest, or holds other rows than the index says.
    """
    path = folder / INDEX
    index = read_json(path, dict, ("seed", "rows", "shards"))
    with reading(path, "the index of a bank"):
        shards = [(str(s["name"]), int(s["rows"]), str(s["sha256"])) for s in index["shards"]]
        total = sum(count for _, count, _ in shards)
    for name, value, wanted in (("seed", index["seed"], seed), ("rows", index["rows"], rows)):
        if wanted is not None and value != wanted:
            raise UserError(f"{path}: {name}: {shown(value)}: expected {wanted}")
    if total != index["rows"] or not total:
        raise UserError(f"{path}: shards of {total} rows: expected {shown(index['rows'])}, above 0")
    parts, first = [], 0
    for name, count, digest in shards:
        parts.append(_read_shard(folder / Path(name).name, digest, space, count, first))
        first += count
    x = torch.cat([x for x, _ in parts])
    conditions = [condition for _, condition in parts if condition is not None]
    return x, torch.cat(conditions) if conditions else None


def _read_shard(
    path: Path, digest: str, space: Space, rows: int, first: int
) -> tuple[Tensor, Index]:
    """A shard that holds `rows` rows from row `first` on."""
    if not path.exists() or sha256(path) != digest:
        raise UserError(f"{path}: missing or changed: expected sha256 {digest}")
    tensors = load_tensors(path)
    take(path, tensors, "draw", (rows,), torch.int64, first, first + rows)
    return check_samples(path, tensors, space, rows)
