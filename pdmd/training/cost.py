"""What training cost: seconds and forward-equivalents by role, and peak memory."""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Cost:
    """Accumulates seconds and forward-equivalents for each role.

    A forward-equivalent is one network call on a full batch without gradients; a call that is also
    back-propagated counts three.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.forwards: dict[str, float] = defaultdict(float)

    @contextmanager
    def time(self, role: str) -> Iterator[None]:
        """Add the block's wall time to a role, on a GPU until its work there is done."""
        self._wait()
        start = time.perf_counter()
        try:
            yield
        finally:
            self._wait()
            self.seconds[role] += time.perf_counter() - start

    def _wait(self) -> None:
        if self.device is not None and self.device.type == "cuda":
            import torch

            torch.cuda.synchronize(self.device)

    def count(self, role: str, forwards: float) -> None:
        """Add forward-equivalents to a role."""
        self.forwards[role] += forwards


def peak_gpu_memory_mb(device: torch.device) -> float:
    """Peak memory of tensors on a GPU in MB."""
    import torch

    return torch.cuda.max_memory_allocated(device) / 1e6


def peak_memory_mb() -> float:
    """Peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
