"""Where a phase's rollouts start: noise, or what the frozen experts of earlier phases hand on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from pdmd.flow import Flow
from pdmd.models.base import Condition, Index, VelocityField, take
from pdmd.rollout import sample
from pdmd.streams import Stream


class Mapped(Protocol):
    """Rows on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...


class Prompts(Protocol):
    """Where conditions come from."""

    def __call__(self, stream: Stream, batch: int) -> Condition: ...


class Starts(Protocol):
    """Where a phase's rollouts start."""

    calls: float

    def __call__(self, stream: Stream, batch: int) -> tuple[Tensor, Condition]: ...


class NoiseStarts:
    """Start from fresh noise and run the frozen experts of earlier phases online.

    Args:
        at_once: rows that pass through the experts at a time, all where it is None.
    """

    def __init__(
        self,
        flow: Flow,
        experts: Sequence[VelocityField],
        times: tuple[float, ...],
        shape: Sequence[int],
        prompts: Prompts,
        at_once: int | None = None,
    ):
        self.flow, self.experts, self.times = flow, list(experts), times
        self.shape, self.prompts, self.calls = shape, prompts, float(len(experts))
        self.at_once = at_once

    @torch.no_grad()
    def __call__(self, stream: Stream, batch: int) -> tuple[Tensor, Condition]:
        noise, condition = stream.normal(batch, self.shape), self.prompts(stream, batch)
        parts = []
        for rows in slices(len(noise), self.at_once):
            given = take(condition, rows)
            parts.append(sample(self.flow, self.experts, self.times, noise[rows], given))
        return torch.cat(parts), condition


def slices(rows: int, at_once: int | None) -> Iterator[slice]:
    """All rows, some at a time."""
    size = min(rows, at_once or rows)
    return (slice(start, start + size) for start in range(0, rows, size))


class BankStarts:
    """Start from precomputed outputs of the frozen experts.

    Args:
        x: (rows, runs, ...) intermediate latents; index: (rows, runs) or (rows, runs, 2) of
            conditions, or None; values: what indices stand for.
    """

    calls = 0.0

    def __init__(
        self, x: Tensor, index: Index, values: Callable[[Index], Condition] = lambda index: index
    ):
        self.x, self.index, self.values = x, index, values

    def __call__(self, stream: Stream, batch: int) -> tuple[Tensor, Condition]:
        rows, runs = self.x.shape[:2]
        row = stream.integers(batch, rows).to(self.x.device)
        run = torch.arange(runs, device=self.x.device).repeat(len(row) // runs)
        index = None if self.index is None else self.index[row, run]
        return self.x[row, run], self.values(index)


class MappedStarts:
    """Start from precomputed outputs of the frozen experts of one run, mapped from disk.

    Args:
        x: rows (...) of intermediate latents; index: (rows,) or (rows, 2) of conditions; values:
            what indices stand for; device: where starts go.
    """

    calls = 0.0

    def __init__(
        self,
        x: Mapped,
        index: Tensor,
        values: Callable[[Index], Condition],
        device: torch.device,
    ):
        self.x, self.index, self.values, self.device = x, index, values, device

    def __call__(self, stream: Stream, batch: int) -> tuple[Tensor, Condition]:
        row = stream.integers(batch, len(self.x)).cpu()
        return self.x[row].to(self.device), self.values(self.index[row])


class MixedStarts:
    """Starts of several sizes; those of one update have one size, for all processes alike.

    Args:
        starts: of each size; shares: of the updates that each has, 1 in all.
    """

    def __init__(self, starts: Sequence[Starts], shares: Sequence[float]):
        self.starts, self.ends = list(starts), torch.tensor(shares).cumsum(0)
        self.calls = starts[0].calls

    def __call__(self, stream: Stream, batch: int) -> tuple[Tensor, Condition]:
        if len(self.starts) == 1:
            return self.starts[0](stream, batch)
        drawn = stream.beside("size").uniform(1)
        number = int(torch.bucketize(drawn, self.ends, right=True)[0])
        return self.starts[min(number, len(self.starts) - 1)](stream, batch)
