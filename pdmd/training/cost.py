"""What training cost: seconds and forward-equivalents by role, and peak memory."""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Cost:
    """Accumulates seconds and forward-equivalents for each role.

    A forward-equivalent is one network call on a full batch without gradients; a call that is also
    back-propagated counts three.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.forwards: dict[str, float] = defaultdict(float)

    @contextmanager
    def time(self, role: str) -> Iterator[None]:
        """Add the block's wall time to a role."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[role] += time.perf_counter() - start

    def count(self, role: str, forwards: float) -> None:
        """Add forward-equivalents to a role."""
        self.forwards[role] += forwards


def peak_memory_mb() -> float:
    """Peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
