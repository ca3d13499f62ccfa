"""The frozen networks that scores come from, each loaded once a process."""

from __future__ import annotations

from functools import cache
from typing import Any

FRAME = 128  # px of a frame that I3D sees


@cache
def lite0() -> Any:
    from pdmd.networks.lite0 import load_lite0

    return load_lite0()


@cache
def lpips(device: Any = "cpu") -> Any:
    from pdmd.networks.lpips import load_lpips

    return load_lpips().to(device)


@cache
def features(name: str, device: Any = "cpu") -> Any:
    """Lite0, which a package holds, or DINOv3 by name or from a folder."""
    if name == "lite0":
        return lite0().to(device)
    from pdmd.networks.dino import load_dino

    return load_dino(name).to(device)


@cache
def flow(name: str, device: Any = "cpu") -> Any:
    """OpenCV's optical flow, which no GPU does, or RAFT by the name or file of its weights."""
    from pdmd.metrics.motion import opencv_flow, raft_flow

    return opencv_flow if name == "opencv" else raft_flow(name, "large", device)


@cache
def i3d() -> Any:
    from pdmd.networks.i3d import load_i3d

    return load_i3d(FRAME)
