"""Training state on disk that survives a kill at any moment.

A checkpoint is a folder `step-<n>` holding state.safetensors and, written last, manifest.json with
the digest of the former.  It is written beside, flushed, and renamed once; the newest two are kept.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pdmd.errors import UserError
from pdmd.storage import (
    fingerprint,
    load_tensors,
    read_json,
    save_tensors,
    sha256,
    sync_folder,
    write_json,
)

KEEP = 2
STATE, MANIFEST = "state.safetensors", "manifest.json"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a job's state folder; wait for who has it, such as the orphan of a killed driver."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{folder}: waiting for the process that trains here", file=sys.stderr)
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_at(handle.fileno(), folder / "lock"):
                yield
                return  # else the other finished, and dropped the folder: lock it anew


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    return path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())


class Checkpoints:
    """The checkpoints of one training job.

    Args:
        folder: where they lie; made when the first is saved.
        identity: digest of the configuration and inputs; others are refused.

    Attributes:
        good: the newest checkpoint known to be good.
    """

    def __init__(self, folder: Path, identity: str):
        self.folder, self.identity = folder, identity
        self.good: Path | None = None

    def save(self, step: int, tensors: Mapping[str, Tensor], extra: Mapping[str, Any]) -> Path:
        """Keep the state after `step` updates, with a JSON value beside it."""
        final = self.folder / f"step-{step:08d}"
        beside = self.folder / f".{final.name}.{os.getpid()}"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        save_tensors(beside / STATE, tensors)
        manifest = {
            "step": step,
            "identity": self.identity,
            "sha256": {STATE: sha256(beside / STATE)},
            "extra": dict(extra),
        }
        write_json(beside / MANIFEST, {**manifest, "check": fingerprint(manifest)})
        shutil.rmtree(final, ignore_errors=True)
        os.replace(beside, final)
        sync_folder(self.folder)
        self.good = final
        listed = self.listed()
        newest = listed.index(final)  # what lies behind it was refused, or is of another config
        for old in [*listed[: max(0, newest + 1 - KEEP)], *listed[newest + 1 :]]:
            shutil.rmtree(old)
        return final

    def listed(self) -> list[Path]:
        """Checkpoint folders, oldest first; temporary ones are not among them."""
        return sorted(self.folder.glob("step-*"))

    def latest(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """The newest valid checkpoint as (step, tensors, extra); bad ones are refused by name."""
        for folder in reversed(self.listed()):
            try:
                found = self._read(folder)
                self.good = folder
                return found
            except UserError as error:
                print(f"checkpoint refused: {error}", file=sys.stderr, flush=True)
        return None

    def at(self, step: int) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
        """The checkpoint after `step` updates, as `latest` gives it. Raises UserError."""
        self.good = self.folder / f"step-{step:08d}"
        return self._read(self.good)

    def _read(self, folder: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
        manifest = read_json(folder / MANIFEST)
        check = manifest.pop("check", None) if isinstance(manifest, dict) else None
        if check != fingerprint(manifest) or folder.name != f"step-{manifest['step']:08d}":
            raise UserError(f"{folder / MANIFEST}: check {check}: expected the manifest as written")
        if manifest["identity"] != self.identity:
            raise UserError(f"{folder / MANIFEST}: identity: expected this run's configuration")
        for name, digest in manifest["sha256"].items():
            path = folder / name
            if not path.exists():
                raise UserError(f"{path}: missing: expected sha256 {digest}")
            if sha256(path) != digest:
                raise UserError(f"{path}: sha256 {sha256(path)}: expected {digest}")
        return manifest["step"], load_tensors(folder / STATE), manifest["extra"]


Modules = Mapping[str, nn.Module]
Optimizers = Mapping[str, torch.optim.Optimizer]


def state_tensors(modules: Modules, optimizers: Optimizers) -> dict[str, Tensor]:
    """Flatten modules and optimiser states to named tensors."""
    flat = {
        f"{role}/{name}": tensor
        for role, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    for role, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            flat |= {f"optimizer.{role}/{index}/{name}": value for name, value in state.items()}
    return flat


def restore_tensors(flat: Mapping[str, Tensor], modules: Modules, optimizers: Optimizers) -> None:
    """Put named tensors back in place; the inverse of state_tensors."""
    for role, module in modules.items():
        prefix = f"{role}/"
        module.load_state_dict(
            {name[len(prefix) :]: value for name, value in flat.items() if name.startswith(prefix)}
        )
    for role, optimizer in optimizers.items():
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in flat.items():
            if name.startswith(f"optimizer.{role}/"):
                _, index, key = name.split("/")
                states.setdefault(int(index), {})[key] = value.clone()
        whole = optimizer.state_dict()
        whole["state"] = states
        optimizer.load_state_dict(whole)


def broken_role(modules: Modules) -> str | None:
    """The first role whose weights are not all finite."""
    for role, module in modules.items():
        if not all(bool(torch.isfinite(p).all()) for p in module.parameters()):
            return role
    return None
