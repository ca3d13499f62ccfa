"""Training state on disk that survives a kill at any moment.

A checkpoint is a folder `step-<n>` holding state.safetensors and, written last, manifest.json with
the digest of the former.  It is written beside, flushed, and renamed once; the newest two are kept.
One that is damaged, or that its job cannot go on from, is refused, and the one before is used.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pdmd.errors import UserError
from pdmd.files.digests import file_sha256
from pdmd.files.storage import (
    fingerprint,
    load_tensors,
    save_tensors,
    sha256,
    sync_folder,
    write_json,
)
from pdmd.models.rows import local

KEEP = 2
STATE, MANIFEST = "state.safetensors", "manifest.json"


FIELDS = {"step": int, "identity": str, "sha256": dict, "extra": dict}  # of a manifest
LOST = (FileNotFoundError, NotADirectoryError, IsADirectoryError)  # what damage looks like

Found = tuple[int, dict[str, Tensor], dict[str, Any]]  # step, tensors, and what was kept beside


class Refused(UserError):
    """A checkpoint, or a file that it relies on, is not as it was written."""


def make_folder(folder: Path) -> None:
    """Make a job's state folder. Raises UserError where something else lies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{folder}: no folder: expected one for the state of a job") from error


def drop(path: Path) -> None:
    """Remove whatever lies at a path: a file, a link or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_way(path: Path) -> None:
    """Let a file of a state folder be written, though the folder is gone or a folder lies there."""
    make_folder(path.parent)
    if path.is_dir():
        drop(path)


def check_file(path: Path, digest: str) -> None:
    """Refuse a file that is not the one written. Raises Refused; UserError if it is unreadable."""
    try:
        found_digest = file_sha256(path)
    except LOST as error:
        raise Refused(f"{path}: missing: expected sha256 {digest}") from error
    except OSError as error:  # nothing is wrong with the checkpoint: do not train it all again
        raise UserError(f"{path}: {error.strerror}: expected a readable file") from error
    if found_digest != digest:
        raise Refused(f"{path}: sha256 {found_digest}: expected {digest}")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a job's state folder; wait for who has it, such as the orphan of a killed driver.

    Raises:
        UserError: it cannot be made, or cannot be locked.
    """
    path = folder / "lock"
    while True:
        make_folder(folder)
        try:
            descriptor = _open_lock(path)
        except (FileNotFoundError, IsADirectoryError):
            if path.is_dir() or path.is_symlink():
                drop(path)
            continue  # or the folder was dropped at this moment
        try:
            _lock(descriptor, folder)
            if _is_at(descriptor, path):
                yield
                return  # else the other finished, and dropped the folder: lock it anew
        finally:
            os.close(descriptor)


def _open_lock(path: Path) -> int:
    """A descriptor of the lock; NFS locks none that cannot be written."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY)


def _lock(descriptor: int, folder: Path) -> None:
    """Wait for a lock. Raises UserError where the file system has none."""
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: waiting for the process that trains here", file=sys.stderr)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}: expected a file system with locks") from error


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


class Checkpoints:
    """The checkpoints of one training job.

    Args:
        folder: where they lie; made when the first is saved.
        identity: digest of the configuration and inputs; others are refused.

    Attributes:
        good: the newest checkpoint known to be good; by_all: whether all processes save together,
            else the leading one alone.
    """

    by_all = False

    def __init__(self, folder: Path, identity: str):
        self.folder, self.identity = folder, identity
        self.good: Path | None = None

    def save(self, step: int, tensors: Mapping[str, Tensor], extra: Mapping[str, Any]) -> Path:
        """Keep the state after `step` updates, with a JSON value beside it."""
        final = self.place(step)
        beside = final.with_name(f".{final.name}.{os.getpid()}")
        drop(beside)
        make_folder(beside)
        save_tensors(beside / STATE, tensors)
        self.commit(beside, step, {STATE: sha256(beside / STATE)}, extra)
        self.good = final
        return final

    def wait(self) -> None:
        """Wait until what was saved is kept: it is."""

    def check(self) -> None:
        """Raise what went wrong with what is being saved: nothing is."""

    def place(self, step: int) -> Path:
        """Where the checkpoint after `step` updates lies."""
        return self.folder / f"step-{step:08d}"

    def commit(
        self, beside: Path, step: int, digests: Mapping[str, str], extra: Mapping[str, Any]
    ) -> None:
        """Make a folder of files the checkpoint after `step` updates; keep the newest two.

        Args:
            digests: of its files, by their names.
        """
        final = self.place(step)
        manifest = {
            "step": step,
            "identity": self.identity,
            "sha256": dict(digests),
            "extra": dict(extra),
        }
        write_json(beside / MANIFEST, {**manifest, "check": fingerprint(manifest)})
        drop(final)
        os.replace(beside, final)
        sync_folder(self.folder)
        listed = self.listed()
        newest = listed.index(final)  # what lies behind it was refused, or is of another config
        for old in [*listed[: max(0, newest + 1 - KEEP)], *listed[newest + 1 :]]:
            with suppress(OSError):  # one that stays does no harm
                drop(old)

    def listed(self) -> list[Path]:
        """Checkpoint folders, oldest first; temporary ones are not among them."""
        return sorted(self.folder.glob("step-*"))

    def latest(self, accept: Callable[[Found], None] = lambda newest: None) -> Found | None:
        """The newest valid checkpoint as (step, tensors, extra); bad ones are refused by name.

        Args:
            accept: raises Refused for one that the job cannot go on from.
        Raises:
            UserError: one cannot be read, which is no reason to start from an earlier one.
        """
        for folder in reversed(self.listed()):
            try:
                newest = self._read(folder)
                accept(newest)
                self.good = folder
                return newest
            except Refused as error:
                print(f"checkpoint refused: {error}", file=sys.stderr, flush=True)
        return None

    def at(self, step: int) -> Found:
        """The checkpoint after `step` updates, as `latest` gives it. Raises UserError."""
        self.good = self.place(step)
        return self._read(self.good)

    def manifest(self, folder: Path) -> dict[str, Any]:
        """What a checkpoint of this job says of itself. Raises Refused."""
        path = folder / MANIFEST
        manifest = _manifest(path)
        if folder.name != f"step-{manifest['step']:08d}":
            raise Refused(f"{path}: step {manifest['step']}: expected that of its folder")
        if manifest["identity"] != self.identity:
            raise Refused(f"{path}: identity: expected this run's configuration")
        return manifest

    def _read(self, folder: Path) -> Found:
        manifest = self.manifest(folder)
        check_file(folder / STATE, str(manifest["sha256"].get(STATE)))
        try:
            return manifest["step"], load_tensors(folder / STATE), manifest["extra"]
        except UserError as error:
            raise Refused(str(error)) from error


def _manifest(path: Path) -> dict[str, Any]:
    """A manifest with all its fields. Raises Refused; UserError if it is unreadable."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (*LOST, ValueError, RecursionError) as error:
        raise Refused(f"{path}: {error}: expected the manifest of a checkpoint") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: expected a readable file") from error
    check = value.pop("check", None) if isinstance(value, dict) else None
    if check != fingerprint(value):
        raise Refused(f"{path}: check {str(check)[:64]}: expected the manifest as written")
    for name, kind in FIELDS.items():
        if not isinstance(value.get(name), kind):
            raise Refused(f"{path}: {name}: expected {kind.__name__}")
    return dict(value)


class State(Protocol):
    """What training changes of one role: a network's tensors, or an adapter's."""

    def parameters(self) -> Iterator[Tensor]: ...

    def state_dict(self) -> Mapping[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> Any: ...


States = Mapping[str, State]
Optimizers = Mapping[str, torch.optim.Optimizer]


def state_tensors(states: States, optimizers: Optimizers) -> dict[str, Tensor]:
    """Flatten the states of roles and optimisers to named tensors."""
    flat = {
        f"{role}/{name}": tensor
        for role, one in states.items()
        for name, tensor in one.state_dict().items()
    }
    for role, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            flat |= {f"optimizer.{role}/{index}/{name}": value for name, value in state.items()}
    return flat


def check_fit(flat: Mapping[str, Tensor], states: States) -> None:
    """Refuse weights of other names or shapes than the roles', as of another version's network.

    Raises:
        Refused: names one of them.
    """
    wanted = {name: tensor.shape for name, tensor in state_tensors(states, {}).items()}
    roles = tuple(f"{role}/" for role in states)
    shapes = {name: tensor.shape for name, tensor in flat.items() if name.startswith(roles)}
    odd = sorted(name for name in wanted | shapes if wanted.get(name) != shapes.get(name))
    if odd:
        shape, expected = (side.get(odd[0]) for side in (shapes, wanted))
        raise Refused(f"{odd[0]}: shape {shape}: expected {expected}, as this job's network has")


def restore_tensors(flat: Mapping[str, Tensor], states: States, optimizers: Optimizers) -> None:
    """Put named tensors back in place; the inverse of state_tensors."""
    for role, one in states.items():
        prefix = f"{role}/"
        one.load_state_dict(
            {name[len(prefix) :]: value for name, value in flat.items() if name.startswith(prefix)}
        )
    for role, optimizer in optimizers.items():
        whole = optimizer.state_dict()
        whole["state"] = {
            index: {key: value.clone() for key, value in moments.items()}
            for index, moments in saved_moments(flat, role).items()
        }
        optimizer.load_state_dict(whole)


def saved_moments(flat: Mapping[str, Any], role: str) -> dict[int, dict[str, Any]]:
    """Number of a parameter of a role's optimiser -> what is saved of its moments, by name."""
    moments: dict[int, dict[str, Any]] = {}
    for name, value in flat.items():
        if name.startswith(f"optimizer.{role}/"):
            _, index, key = name.split("/")
            moments.setdefault(int(index), {})[key] = value
    return moments


def broken_role(states: States) -> str | None:
    """The first role whose weights, those that this process holds, are not all finite."""
    for role, one in states.items():
        if not all(bool(torch.isfinite(local(p)).all()) for p in one.parameters()):
            return role
    return None
