"""GPUs by name: memory and peak speed as their makers state them, and how much is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Share of the peak that an update reaches, assumed: Llama 3's training reports .38 to .43 in
# bfloat16 (arXiv 2407.21783, Table 4); a sample at a time, adapters in float32 and calls
# that alternate between roles reach less.
UTILISATION = (0.2, 0.4)
# Share of a link's speed that exchanges reach, assumed; of one direction, as its maker states it.
LINKED = (0.4, 0.8)
NODE = 8  # GPUs that are linked with each other
NETWORK = 50e9  # bytes a second between nodes for each GPU, assumed: a 400 Gb/s adapter each
FRAGMENTED = 0.05  # of an allocator's memory that no tensor can use, assumed
CONTEXT = 2**30  # bytes of CUDA's context and of libraries, assumed
GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        gib: memory; peak: precision -> operations a second, dense; linked: bytes a second that
        another of its node sends it; source: of these numbers.
    """

    gib: float
    peak: Mapping[str, float]
    linked: float
    source: str

    def link(self, gpus: int) -> float:
        """Bytes a second from one of so many to another: beyond a node by its network."""
        return self.linked if gpus <= NODE else min(self.linked, NETWORK)


def _gpu(gib: float, bfloat16: float, float32: float, linked: float, source: str) -> Gpu:
    """A GPU by its memory in GiB, its speeds in units of 1e12 a second, and 1e9 bytes a second."""
    peak = {"bfloat16": bfloat16 * 1e12, "float32": float32 * 1e12}
    return Gpu(gib, peak, linked * 1e9, source)


# float32 is that of the vector units: training leaves TF32 off. A link is half of what NVLink, or
# PCIe, has in both directions.
GPUS = {
    "a100": _gpu(80, 312, 19.5, 300, "NVIDIA A100 datasheet, SXM4 80 GB"),
    "h100": _gpu(80, 989, 67, 450, "NVIDIA H100 datasheet, SXM5"),
    "h200": _gpu(141, 989, 67, 450, "NVIDIA H200 datasheet, SXM"),
    "b200": _gpu(180, 2250, 75, 900, "NVIDIA DGX B200 datasheet, an eighth"),
    "l40s": _gpu(48, 362, 91.6, 32, "NVIDIA L40S datasheet"),
}


def seconds(flops: Mapping[str, float], gpu: Gpu, share: float) -> float:
    """Time of some operations by precision, at a share of the peak of each."""
    slowest = min(gpu.peak.values())
    return sum(count / gpu.peak.get(name, slowest) for name, count in flops.items()) / share


def usable(gib: float) -> float:
    """Bytes that tensors can have of a GPU's memory."""
    return (gib * GIB - CONTEXT) * (1 - FRAGMENTED)


def needed(size: float) -> float:
    """Bytes of a GPU's memory that tensors of so many need: the inverse of `usable`."""
    return size / (1 - FRAGMENTED) + CONTEXT
