"""Random draws that are functions of (seed, step, role) alone.

A killed and resumed run needs no generator state: it draws the same numbers again.  Each of the
runs that train together has its own seed and so sees the numbers it would see on its own; rows are
interleaved (row = sample * runs + run).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

REFERENCE_SEED = 10_000  # of true samples that scores compare with; no run has this seed
LARGE = 2**14  # numbers of a sample, from which on each sample has a generator of its own


def stream_seed(seed: int, step: int, role: str) -> int:
    """A 63-bit number from BLAKE2b of the three names, of which torch uses the low 32 bits.

    Its generator on the CPU, a Mersenne Twister, is seeded with no more.  So there are 2^32
    streams, and n of them hold about n^2 / 2^33 pairs that draw the same numbers: .01 pairs
    among the 10,000 streams of a job, 100 among a million.  Such a pair is two updates, far apart
    and of any two jobs, that see the same noise; the laws of the draws stay what they are.
    """
    digest = hashlib.blake2b(f"{seed}/{step}/{role}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Stream:
    """Successive draws for one (step, role), one generator for each run, made on the CPU.

    Args:
        device: where the draws go; share: the samples of every batch to keep, all by default.
            Shares are parts of the same numbers: the whole batch is drawn, or, of large samples,
            each of the share alone by a generator of its own.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        step: int,
        role: str,
        device: str | torch.device = "cpu",
        share: slice = slice(None),
    ):
        self.seeds, self.step, self.role = seeds, step, role
        self.device, self.share = device, share
        self.large = 0  # draws of large samples so far
        self.generators = [
            torch.Generator().manual_seed(stream_seed(seed, step, role)) for seed in seeds
        ]

    def beside(self, name: str) -> Stream:
        """A stream of its own for one part of an update: drawing from it moves no other draw.

        It keeps no share and stays on the CPU.
        """
        return Stream(self.seeds, self.step, f"{self.role}/{name}")

    def normal(self, batch: int, shape: Sequence[int]) -> Tensor:
        """Standard normal draws, (batch * runs, *shape), or the share of them."""
        if math.prod(shape) < LARGE:
            drawn = [torch.randn(batch, *shape, generator=g) for g in self.generators]
            return self._interleave(drawn)
        self.large += 1
        return self.normal_rows(range(batch)[self.share], shape, self.large)

    def normal_rows(self, numbers: Sequence[int], shape: Sequence[int], draw: int = 1) -> Tensor:
        """Standard normal draws (len(numbers) * runs, *shape) of some large samples of a batch.

        Args:
            numbers: of the samples; draw: which of the stream's draws of large samples it is.
        """
        rows = []
        for number in numbers:
            for seed in self.seeds:
                name = stream_seed(seed, self.step, f"{self.role}/{draw}/{number}")
                rows.append(torch.randn(*shape, generator=torch.Generator().manual_seed(name)))
        return torch.stack(rows).to(self.device) if rows else torch.zeros(0, *shape)

    def uniform(self, batch: int) -> Tensor:
        """Uniform draws in [0, 1), (batch * runs,)."""
        return self._interleave([torch.rand(batch, generator=g) for g in self.generators])

    def integers(self, batch: int, high: int) -> Tensor:
        """Uniform integers in [0, high), (batch * runs,)."""
        return self._interleave(
            [torch.randint(high, (batch,), generator=g) for g in self.generators]
        )

    def choice(self, high: int) -> Tensor:
        """One uniform integer in [0, high) a run, (runs,), the same for every share."""
        drawn = [torch.randint(high, (1,), generator=g) for g in self.generators]
        return torch.cat(drawn).to(self.device)

    def order(self, count: int) -> Tensor:
        """Numbers 0 to count - 1 in a random order, (runs, count), the same for every share."""
        drawn = [torch.randperm(count, generator=g) for g in self.generators]
        return torch.stack(drawn).to(self.device)

    def _interleave(self, parts: list[Tensor]) -> Tensor:
        kept = [part[self.share] for part in parts]
        return torch.stack(kept, dim=1).flatten(0, 1).to(self.device)
