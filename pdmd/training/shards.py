"""Checkpoints of a job whose tensors are spread over its processes: each writes the rows it holds.

Beside state.safetensors, with what every process holds alike, lie files such as
shard-00001-of-00002.safetensors: of each sharded tensor the rows of one process, so that the files
in their order hold all of its rows, and any number of processes can go on from them. The manifest
is written last, when all files are there, with the digest of each.

Training goes on meanwhile: what is written is a copy, by a thread of its own that meets the other
processes' threads in a process group of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pdmd.errors import PeerLost
from pdmd.files.storage import load_tensors, reading, save_tensors, sha256
from pdmd.models.rows import first_row, is_sharded, local
from pdmd.training.checkpoint import (
    STATE,
    Checkpoints,
    Found,
    Optimizers,
    States,
    check_file,
    drop,
    make_folder,
    saved_moments,
)
from pdmd.training.world import World


def shard_name(rank: int, size: int) -> str:
    """The file of one of so many processes."""
    return f"shard-{rank:05d}-of-{size:05d}.safetensors"


@dataclass(frozen=True)
class Rows:
    """A tensor in files, each of which has some of its rows, one after another.

    Attributes:
        parts: what reads rows of each file (safetensors' slices); shape: of the whole tensor.
    """

    parts: list[Any]
    shape: tuple[int, ...]

    def read(self, first: int, count: int) -> Tensor:
        """Some of its rows."""
        found, start = [], 0
        for part in self.parts:
            rows = part.get_shape()[0]
            low, high = max(first, start), min(first + count, start + rows)
            if low < high:
                found.append(part[low - start : high - start])
            start += rows
        return torch.cat(found)

    def into(self, tensor: Tensor) -> None:
        """Give a tensor the values of those of its rows that this process holds."""
        rows = local(tensor)
        if len(rows):
            rows.copy_(self.read(first_row(tensor), len(rows)))


class SharedCheckpoints(Checkpoints):
    """The checkpoints of one job, saved and read by all of its processes together.

    Args:
        folder, identity: as of Checkpoints; world: the processes.
    """

    by_all = True

    def __init__(self, folder: Path, identity: str, world: World):
        super().__init__(folder, identity)
        self.world = world
        self._group: Any = dist.new_group(backend="gloo") if world.size > 1 else None
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def save(self, step: int, tensors: Mapping[str, Tensor], extra: Mapping[str, Any]) -> Path:
        """Start to keep the state after `step` updates; `wait` says when it is kept.

        An earlier one is waited for first.
        """
        self.wait()
        copied = {name: _copied(tensor) for name, tensor in tensors.items()}
        rows = {name: copied[name] for name, tensor in tensors.items() if is_sharded(tensor)}
        rest = {name: one for name, one in copied.items() if name not in rows}
        final = self.place(step)
        number = self.world.agree(os.getpid() if self.world.leads else 0)
        beside = final.with_name(f".{final.name}.{number}")
        self._writing = self._thread.submit(self._write, beside, step, rows, rest, dict(extra))
        return final

    def wait(self) -> None:
        """Wait until what was started is kept. Raises what went wrong with it."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def check(self) -> None:
        """Raise what went wrong, if something has by now."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def _write(
        self,
        beside: Path,
        step: int,
        rows: Mapping[str, Tensor],
        rest: Mapping[str, Tensor],
        extra: Mapping[str, Any],
    ) -> None:
        """Write this process's file; the leading process makes the checkpoint of all."""
        rank, size = self.world.rank, self.world.size
        if self.world.leads:
            drop(beside)
            make_folder(beside)
        self._digests("")  # the folder is there
        own = beside / shard_name(rank, size)
        save_tensors(own, rows)
        digests = self._digests(sha256(own))
        if self.world.leads:
            save_tensors(beside / STATE, rest)
            files = {shard_name(number, size): digest for number, digest in enumerate(digests)}
            self.commit(beside, step, {STATE: sha256(beside / STATE), **files}, extra)
        self._digests("")  # it is kept
        self.good = self.place(step)

    def _digests(self, own: str) -> list[str]:
        """The sha256 that each process has to say; all threads wait for each other here."""
        if self._group is None:
            return [own]
        mine = torch.tensor(list(bytes.fromhex(own or "00" * 32)), dtype=torch.uint8)
        every = [torch.empty_like(mine) for _ in range(self.world.size)]
        try:
            dist.all_gather(every, mine, group=self._group)
        except RuntimeError as error:
            raise PeerLost(f"lost another process of this job: {error}") from error
        return [bytes(one.tolist()).hex() for one in every]

    def at(self, step: int) -> Found:
        """The checkpoint that the leading process has found good: no file is hashed again."""
        self.good = self.place(step)
        return self._opened(self.good, self.manifest(self.good))

    def _read(self, folder: Path) -> Found:
        manifest = self.manifest(folder)
        for name, digest in manifest["sha256"].items():
            check_file(folder / name, str(digest))
        return self._opened(folder, manifest)

    def _opened(self, folder: Path, manifest: Mapping[str, Any]) -> Found:
        """What is small, read, and of sharded tensors what reads their rows."""
        tensors: dict[str, Any] = dict(load_tensors(folder / STATE))
        tensors |= _rows_of([folder / name for name in sorted(manifest["sha256"]) if name != STATE])
        return manifest["step"], tensors, manifest["extra"]


def _copied(tensor: Tensor) -> Tensor:
    """The rows here, on the CPU, in memory of their own."""
    return local(tensor.detach()).to("cpu", copy=True)


def _rows_of(paths: list[Path]) -> dict[str, Rows]:
    """Every tensor of some files that hold rows of the same ones."""
    from safetensors import safe_open

    parts: dict[str, list[Any]] = {}
    for path in paths:
        with reading(path, "a whole safetensors file"):
            file = safe_open(path, "pt").__enter__()  # read from as long as its slices live
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                parts.setdefault(name, []).append(file.get_slice(name))
    return {
        name: Rows(of, (sum(one.get_shape()[0] for one in of), *of[0].get_shape()[1:]))
        for name, of in parts.items()
    }


@torch.no_grad()
def restore_rows(flat: Mapping[str, Any], states: States, optimizers: Optimizers) -> None:
    """Put what `SharedCheckpoints` read back in place, whatever number of processes wrote it."""
    for role, one in states.items():
        own = one.state_dict()
        if any(map(is_sharded, own.values())):
            for name, tensor in own.items():
                flat[f"{role}/{name}"].into(tensor)
        else:
            one.load_state_dict({name: flat[f"{role}/{name}"] for name in own})
    for role, optimizer in optimizers.items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for index, moments in saved_moments(flat, role).items():
            p = parameters[index]
            optimizer.state[p] = {key: _like(p, saved) for key, saved in moments.items()}
            if optimizer.defaults.get("fused"):  # whose kernel reads the number of steps, too
                state = optimizer.state[p]
                state["step"] = state["step"].to(p.device)


def _like(p: Tensor, saved: Rows | Tensor) -> Tensor:
    """A moment of a parameter, spread as that is; the number of steps as it was saved."""
    if isinstance(saved, Tensor):
        return saved.clone()
    made = torch.zeros_like(p.detach())
    saved.into(made)
    return made
