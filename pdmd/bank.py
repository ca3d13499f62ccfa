"""Banks of intermediate latents: what the frozen experts of a phase hand to the next."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from pdmd.errors import UserError
from pdmd.models.base import Condition
from pdmd.storage import load_tensors, read_json, save_tensors, sha256, write_json

INDEX = "index.json"


def write_bank(folder: Path, x: Tensor, condition: Condition, seed: int, shard_rows: int) -> None:
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


def read_bank(folder: Path) -> tuple[Tensor, Condition]:
    """x (rows, ...) and conditions (rows,) or None.

    Raises:
        UserError: names a shard that is missing or does not match its digest.
    """
    parts = []
    for shard in read_json(folder / INDEX)["shards"]:
        path = folder / shard["name"]
        if not path.exists() or sha256(path) != shard["sha256"]:
            raise UserError(f"{path}: missing or changed: expected sha256 {shard['sha256']}")
        parts.append(load_tensors(path))
    x = torch.cat([part["x"] for part in parts])
    if "condition" not in parts[0]:
        return x, None
    return x, torch.cat([part["condition"] for part in parts])
