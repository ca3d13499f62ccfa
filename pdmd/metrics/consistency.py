"""How steady clips are over time: four dimensions of VBench, of the networks at hand.

Vchitect/VBench (temporal_flickering.py, motion_smoothness.py, subject_consistency.py,
background_consistency.py) takes AMT-S for frames between frames, DINO for subjects and CLIP for
backgrounds. What stands in for them here is an argument; the formulas are VBench's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from pdmd.errors import UserError
from pdmd.metrics import checks
from pdmd.metrics.motion import SMALLEST, Flow

Features = Callable[[Tensor], Tensor]  # (N, 3, H, W) in [-1, 1] -> (N, D)
DIMENSIONS = (
    "temporal_flicker",
    "motion_smoothness",
    "subject_consistency",
    "background_consistency",
)
FEWEST = 3  # frames
WHOLE = 2.0  # from the darkest to the brightest
CHUNK = 64  # frames at a time through a network


@torch.no_grad()
def steadiness(
    clips: Tensor,
    flow: Flow,
    subject: Features,
    background: Features,
    onwards: Tensor | None = None,
) -> Tensor:
    """The dimensions of each clip, (N, 4), in the order of DIMENSIONS, each in [0, 1].

    Args:
        clips: (N, 3, T, H, W) in [-1, 1], T >= 3; flow: that frames between frames are made by;
        subject, background: features of frames; onwards: as of motion_smoothness.
    Raises:
        UserError: a clip or a feature of one is not finite, or clips have fewer than 3 frames.
    """
    columns = [
        temporal_flicker(clips),
        motion_smoothness(clips, flow, onwards),
        consistency(_of_frames(subject, clips)),
        consistency(_of_frames(background, clips)),
    ]
    return torch.stack(columns, 1)


def _of_frames(network: Features, clips: Tensor) -> Tensor:
    """(N, T, D)."""
    frames = clips.movedim(2, 1)
    features = torch.cat([network(part) for part in frames.flatten(0, 1).split(CHUNK)])
    return features.float().cpu().view(*frames.shape[:2], -1)


def temporal_flicker(clips: Tensor) -> Tensor:
    """1 less the mean change of a pixel from frame to frame, in units of the whole range, (N,).

    1 is a clip that stands still: motion counts, too.

    Args:
        clips: (N, 3, T, H, W) in [-1, 1].
    Raises:
        UserError: a clip is not finite or not in [-1, 1], or has one frame.
    """
    clips = checks.pictures("temporal_flicker", clips, 5, 1).float()
    return 1 - clips.diff(dim=2).abs().flatten(1).mean(1) / WHOLE


def motion_smoothness(clips: Tensor, flow: Flow, onwards: Tensor | None = None) -> Tensor:
    """1 less the mean error of every second frame, guessed from its neighbours, (N,).

    The guess is the mean of both neighbours, each carried half of the way along the flow to the
    other.

    Args:
        clips: (N, 3, T, H, W) in [-1, 1], T >= 3; flow: between neighbouring frames of a clip;
        onwards: flow(clips[:, :, ::2]), where it is known.
    Raises:
        UserError: a clip is not finite or not in [-1, 1], or has fewer than 3 frames.
    """
    clips = checks.pictures("motion_smoothness", clips, 5, SMALLEST).float()
    if clips.shape[2] < FEWEST:
        raise UserError(f"motion_smoothness: {clips.shape[2]} frames: expected at least {FEWEST}")
    between = clips[:, :, 1::2]
    ends = clips[:, :, ::2][:, :, : between.shape[2] + 1]
    between = between[:, :, : ends.shape[2] - 1]
    onwards = flow(ends) if onwards is None else onwards
    back = flow(ends.flip(2)).flip(1)
    guess = (_carried(ends[:, :, :-1], onwards) + _carried(ends[:, :, 1:], back)) / 2
    return 1 - (guess - between).abs().flatten(1).mean(1) / WHOLE


def _carried(frames: Tensor, flow: Tensor) -> Tensor:
    """Frames (N, 3, T, H, W), each carried half of the way along its flow (N, T, 2, H, W)."""
    n, _, count, height, width = frames.shape
    pictures, motion = frames.movedim(2, 1).flatten(0, 1), flow.flatten(0, 1) / 2
    down, right = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = right + 0.5 - motion[:, 0], down + 0.5 - motion[:, 1]
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], -1)
    moved = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return moved.view(n, count, 3, height, width).movedim(1, 2)


def consistency(features: Tensor) -> Tensor:
    """How alike each frame is to the one before and to the first, mean over frames, (N,).

    Args:
        features: (N, T, D) of frames, T >= 2.
    Raises:
        UserError: a feature is not finite, or there is one frame.
    """
    features = checks.samples("consistency", features, what="features")
    if features.ndim != 3 or features.shape[1] < 2:
        raise UserError(f"consistency: {list(features.shape)}: expected (N, T >= 2, D) features")
    unit = functional.normalize(features.double(), dim=-1)
    later = unit[:, 1:]
    before = (later * unit[:, :-1]).sum(-1).clamp_min(0)
    first = (later * unit[:, :1]).sum(-1).clamp_min(0)
    return ((before + first) / 2).mean(1).clamp_max(1).float()
