"""Data parallelism: the processes of a training job, what they share out and agree on.

Every process draws the whole batch's noise and takes its share of the samples, so that results do
not depend on the number of processes beyond the order in which floats are added.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from pdmd.errors import PeerLost, UserError
from pdmd.leaving import dying_with_parent

TIMEOUT = timedelta(minutes=30)  # for a process that waits for another, as for rank 0's outputs
CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """The processes that train one job together, and this one's place among them.

    Attributes:
        rank, size: of all processes; local_rank: on this node; device: of this process;
        context: how many processes, one beside the other, have the same samples and share the
            tokens of each.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = CPU
    context: int = 1

    @property
    def shares(self) -> int:
        """Into how many shares a batch is divided."""
        return self.size // self.context

    @property
    def leads(self) -> bool:
        """Whether this process writes the job's files."""
        return self.rank == 0

    @property
    def samples(self) -> slice:
        """This process's samples of a batch: every so many-th, so that each has every exit step."""
        return slice(self.rank // self.context, None, self.shares)

    def share(self, rows: Tensor, runs: int = 1) -> Tensor:
        """This process's rows, (batch * runs, ...) -> (batch / shares * runs, ...).

        Args:
            rows: interleaved, row = sample * runs + run.
        """
        return rows.unflatten(0, (-1, runs))[self.samples].flatten(0, 1)

    def gather(self, rows: Tensor, total: int, runs: int = 1) -> Tensor:
        """All processes' shares, put together again on the CPU: the inverse of `share`.

        Args:
            rows: (own * runs, ...) this process's share; total: samples of all shares.
        """
        if self.size == 1:
            return rows.cpu()
        samples = rows.unflatten(0, (-1, runs))
        most = -(-total // self.shares)
        padding = samples.new_zeros(most - len(samples), *samples.shape[1:])
        share = torch.cat([samples, padding]).contiguous()
        every = [torch.empty_like(share) for _ in range(self.size)]
        try:
            dist.all_gather(every, share)
        except RuntimeError as error:
            raise PeerLost(f"lost another process of this job: {error}") from error
        return torch.stack(every[:: self.context], 1).flatten(0, 1)[:total].flatten(0, 1).cpu()

    def check_batch(self, batch: int, key: str) -> None:
        """Refuse a batch that has no equal shares. Raises UserError."""
        if batch % self.shares:
            groups = f"groups of {self.context} processes" if self.context > 1 else "processes"
            raise UserError(f"{key}: {batch}: expected a multiple of the {self.shares} {groups}")

    def sharing_tokens(self, context: int) -> World:
        """The same world, so many processes of which share tokens. Raises UserError."""
        if self.size % context:
            expected = f"a divisor of the {self.size} processes"
            raise UserError(f"distill.parallel.context: {context}: expected {expected}")
        return replace(self, context=context)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Average tensors of one type over all processes, in place, in one exchange."""
        if self.size == 1:
            return
        flat = self._reduce(torch.cat([tensor.reshape(-1) for tensor in tensors])) / self.size
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all processes; with one process, the tensor itself."""
        return value if self.size == 1 else self._reduce(value.clone()) / self.size

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes; with one process, the tensor itself."""
        return value if self.size == 1 else self._reduce(value.clone())

    def agree(self, number: int) -> int:
        """The largest of the processes' numbers. All wait for each other here."""
        if self.size == 1:
            return number
        return int(self._reduce(torch.tensor(number), dist.ReduceOp.MAX))

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.agree(0)

    @staticmethod
    def _reduce(value: Tensor, how: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
        try:
            dist.all_reduce(value, how)
        except RuntimeError as error:
            raise PeerLost(f"lost another process of this job: {error}") from error
        return value


ALONE = World()
BROKEN = ("gloo", "connection closed", "connection reset", "nccl")  # what exchanges die of


@contextmanager
def unless_lost() -> Iterator[None]:
    """Around exchanges that others make for us, as sharded networks do: say that a process is gone.

    Raises:
        PeerLost: what broke off was an exchange.
    """
    try:
        yield
    except PeerLost:
        raise
    except RuntimeError as error:
        if any(word in str(error).lower() for word in BROKEN):
            raise PeerLost(f"lost another process of this job: {error}") from error
        raise


@contextmanager
def join(device: str = "cpu") -> Iterator[World]:
    """Meet the other processes that torchrun started; without torchrun, a world of one.

    Args:
        device: "cpu" or "cuda"; with the latter each process of a node has a GPU of its own.
    Raises:
        UserError: there is no such device.
    """
    rank, size, local_rank = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
    )
    world = World(rank, size, local_rank, _device(device, local_rank))
    if size == 1:
        yield world
        return
    dying_with_parent(signal.SIGKILL)()  # the agent that started it
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield world
        world.barrier()  # torchrun may end the job when the first process leaves
    finally:
        dist.destroy_process_group()


def _device(name: str, local_rank: int) -> torch.device:
    """This process's device. Raises UserError."""
    if name == "cpu":
        return CPU
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if local_rank >= count:
        raise UserError(f"--device: {name}: expected a GPU for each process of a node, not {count}")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what makes matmuls repeatable
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
