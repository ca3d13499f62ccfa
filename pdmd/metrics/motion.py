"""Motion in clips: optical flow, how much moves, and which way objects and cameras go."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pdmd.errors import UserError
from pdmd.files.storage import reading
from pdmd.metrics import checks

Flow = Callable[[Tensor], Tensor]  # (N, 3, T, H, W) in [-1, 1] -> (N, T - 1, 2, H, W) px a frame

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
TOP_SHARE = 0.05  # of a frame's pixels, the fastest
FASTEST = 6.0  # px a frame at a short side of 256 px and 8 frames a second
CHUNK = 32  # clips at a time
ITERATIONS = 6  # of Gauss-Newton; three bring clean clips to a hundredth of a pixel
REACH = 1.0  # px that refinement may leave the correlation's peak by
SMALLEST = 8  # px a side that motion is measured on: windows of flow and texture reach so far


# ---- optical flow


def opencv_flow(clips: Tensor) -> Tensor:
    """Farneback's optical flow between neighbouring frames.

    Windows of 11 px, 3 levels of pyramid, 5 iterations, polynomials of 7 px and 1.5: of several
    classical methods the one nearest to known motions of objects at 32 and 64 px.

    Args:
        clips: (N, 3, T, H, W) in [-1, 1].
    Returns:
        (N, T - 1, 2, H, W), px a frame right and down, from each frame to the next.
    Raises:
        UserError: a clip is not finite or not in [-1, 1], or has one frame.
    """
    import cv2

    clips = checks.pictures("flow", clips, 5, SMALLEST)
    flows = np.empty((len(clips), clips.shape[2] - 1, *clips.shape[-2:], 2), dtype=np.float32)
    for i, frames in enumerate(_gray_bytes(clips)):
        for k in range(len(frames) - 1):
            flow = cv2.calcOpticalFlowFarneback(
                frames[k], frames[k + 1], flows[i, k], 0.5, 3, 11, 5, 7, 1.5, 0
            )
            flows[i, k] = flow
    return torch.from_numpy(flows).movedim(-1, 2)


def _gray(clips: Tensor) -> Tensor:
    """(N, 3, T, H, W) -> (N, T, H, W)."""
    return torch.einsum("ncthw,c->nthw", clips, torch.tensor(LUMA))


def _gray_bytes(clips: Tensor) -> Iterator[np.ndarray]:
    for clip in clips.split(1):
        frames = ((_gray(clip.float().cpu()) + 1) * 127.5).round().clamp(0, 255).byte()
        yield frames[0].numpy()


def raft_flow(
    weights: str | Path | None, size: str = "small", device: torch.device | str = "cpu"
) -> Flow:
    """RAFT (Teed & Deng 2020) by torchvision as a Flow.

    Frames of less than 128 px a side, RAFT's least, are enlarged and the flow scaled back.

    Args:
        weights: a local state dict, or one of torchvision's names ("C_T_V2"), which it downloads;
            None: random, for tests of shapes alone. size: "small" or "large".
    Raises:
        UserError: there is no such size, file or name.
    """
    model = _raft(weights, size).to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def flow(clips: Tensor) -> Tensor:
        pairs = checks.pictures("flow", clips, 5, SMALLEST).float().movedim(2, 1)
        flows = [
            _raft_pair(model, pairs[:, k].to(device), pairs[:, k + 1].to(device)).cpu()
            for k in range(clips.shape[2] - 1)
        ]
        return torch.stack(flows, 1)

    return flow


def _raft(weights: str | Path | None, size: str) -> torch.nn.Module:
    from torchvision.models import optical_flow

    if size not in ("small", "large"):
        raise UserError(f"size: {size!r}: expected small or large")
    build = getattr(optical_flow, f"raft_{size}")
    if weights is None or Path(weights).is_file():
        model: torch.nn.Module = build(weights=None)
        if weights is not None:
            with reading(weights, f"the weights of torchvision's raft_{size}"):
                model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        return model
    known = getattr(optical_flow, f"Raft_{size.title()}_Weights").__members__
    if str(weights) not in known:
        raise UserError(f"weights: {weights}: expected a file or one of {', '.join(known)}")
    named: torch.nn.Module = build(weights=known[str(weights)])
    return named


def _raft_pair(model: torch.nn.Module, first: Tensor, second: Tensor) -> Tensor:
    """(N, 3, H, W) twice -> (N, 2, H, W)."""
    height, width = first.shape[-2:]
    scale = max(1.0, 128 / min(height, width))
    larger = [8 * math.ceil(side * scale / 8) for side in (height, width)]
    frames = [
        functional.interpolate(x, larger, mode="bilinear", antialias=True) for x in (first, second)
    ]
    flow = functional.interpolate(model(*frames)[-1], (height, width), mode="area")
    back = torch.tensor([width / larger[1], height / larger[0]], device=flow.device)
    scaled: Tensor = flow * back.view(2, 1, 1)
    return scaled


def mean_flow(flow: Tensor) -> Tensor:
    """(N, T - 1, 2, H, W) -> mean magnitude of a clip's flow, (N,) px a frame.

    Raises:
        UserError: a clip's flow is not finite, or there is none.
    """
    _check_flow("flow", flow)
    return checks.samples("flow", flow.norm(dim=2).flatten(1).mean(1))  # not finite stays so


def _check_flow(metric: str, flow: Tensor) -> None:
    if flow.ndim != 5 or flow.shape[2] != 2 or not flow.numel() or not flow.is_floating_point():
        raise UserError(
            f"{metric}: flow: {flow.dtype} {list(flow.shape)}: expected numbers (N, T - 1, 2, H, W)"
        )


def dynamic_degree(flow: Tensor, fps: float = 8.0) -> Tensor:
    """Whether each clip moves, (N,) bool, as VBench has it (Vchitect/VBench, dynamic_degree.py).

    A pair of frames moves if the mean of the fastest 5% of its pixels exceeds 6 px at a short side
    of 256 px, in proportion at others, and at 8 frames a second or more; a clip moves if
    round(T / 4) of its pairs do, at least one.

    Args:
        flow: (N, T - 1, 2, H, W); VBench takes RAFT's, frames thinned out to 8 a second.
    Raises:
        UserError: a clip's flow is not finite, or there is none; a frame rate is not positive.
    """
    _check_flow("dynamic", flow)
    if not 0 < fps < math.inf:
        raise UserError(f"dynamic: fps: {fps}: expected more than 0 frames a second")
    pairs, _, height, width = flow.shape[1:]
    speed = flow.norm(dim=2).flatten(2)
    fastest = speed.topk(max(1, int(height * width * TOP_SHARE)), dim=2).values.mean(2)
    fastest = checks.samples("dynamic", fastest)  # the largest: what is not finite is among them
    threshold = max(1.0, 8.0 / fps) * FASTEST * min(height, width) / 256
    wanted = max(1, round(4 * (pairs + 1) / 16))
    return (fastest > threshold).sum(1) >= wanted


# ---- objects and cameras


def _by_chunk(estimate: Callable[[Tensor], Tensor], clips: Tensor) -> Tensor:
    return torch.cat([estimate(part.float()) for part in clips.split(CHUNK)])


@torch.no_grad()
def object_motion(clips: Tensor) -> Tensor:
    """Mean displacement of an object that moves over plain ground.

    The ground's colour is the median of a clip's edge pixels.  Each pair of frames is aligned by
    the peak of its cross-correlation, then by Gauss-Newton (Lucas & Kanade 1981) to a fraction of
    a pixel.

    Args:
        clips: (N, 3, T, H, W) in [-1, 1].
    Returns:
        (N, 2) px a frame, right and down; frames out of order cancel.
    Raises:
        UserError: a clip is not finite or not in [-1, 1], or has one frame.
    """
    clips = checks.pictures("object motion", clips, 5, SMALLEST)
    return checks.samples("object motion", _by_chunk(_object_motion, clips), what="motions")


def _object_motion(clips: Tensor) -> Tensor:
    frames = _without_ground(clips)
    start = _correlation_peak(frames)
    shape = start.shape
    first, second = (x.flatten(0, 1) for x in (frames[:, :-1], frames[:, 1:]))
    start = start.flatten(0, 1)
    aligned = _align(first, second, start, zooms=False)
    return torch.clamp(aligned, start - REACH, start + REACH).view(shape).mean(1)


def _without_ground(clips: Tensor) -> Tensor:
    """(N, T, 3, H, W), 0 where there is ground."""
    rims = [clips[..., 0, :], clips[..., -1, :], clips[..., 0], clips[..., -1]]
    ground = torch.cat(rims, -1).flatten(2).median(-1).values
    return (clips - ground[:, :, None, None, None]).movedim(2, 1)


def _correlation_peak(frames: Tensor) -> Tensor:
    """(N, T, C, H, W) -> displacement of each frame to the next in whole pixels, (N, T - 1, 2)."""
    height, width = frames.shape[-2:]
    padded = (2 * height, 2 * width)  # else what leaves on one side would come in on the other
    spectrum = torch.fft.rfft2(frames, s=padded)
    product = (spectrum[:, 1:] * spectrum[:, :-1].conj()).sum(2)
    peak = torch.fft.irfft2(product, s=padded).flatten(2).argmax(-1)
    down, right = peak // padded[1], peak % padded[1]
    down, right = (
        torch.where(x >= side, x - 2 * side, x) for x, side in ((down, height), (right, width))
    )
    return torch.stack([right, down], -1).float()


def _align(first: Tensor, second: Tensor, start: Tensor, zooms: bool) -> Tensor:
    """The motion that takes each first picture to its second, by Gauss-Newton on squared error.

    Args:
        first, second: (N, C, H, W); start: (N, 2) px right and down, or (N, 3) with the rate of
            zoom about the middle: a point p goes to p + shift + rate * p.
    """
    motion = start.clone()
    x, y = _from_middle(*first.shape[-2:])
    ridge = 1e-6 * torch.eye(start.shape[1])  # keeps plain pictures solvable: they do not move
    for _ in range(ITERATIONS):
        warped, seen = _warp(second, motion)
        across, down = _slopes((warped + first) / 2)
        columns = [across, down] + ([across * x + down * y] if zooms else [])
        jacobian = (torch.stack(columns, -1) * seen[..., None]).flatten(1, 3)
        error = (warped - first).flatten(1)
        normal = jacobian.mT @ jacobian + ridge
        step = torch.linalg.solve(normal, (jacobian.mT @ error[..., None])[..., 0])
        motion = motion - step.clamp(-1, 1)
    return motion


def _from_middle(height: int, width: int) -> tuple[Tensor, Tensor]:
    """(H, W) px right of the middle and px below it."""
    down = torch.arange(height) - (height - 1) / 2
    right = torch.arange(width) - (width - 1) / 2
    y, x = torch.meshgrid(down, right, indexing="ij")
    return x, y


def _warp(pictures: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures with a motion undone, and (N, 1, H, W) which pixels come from within, inner ones."""
    height, width = pictures.shape[-2:]
    x, y = _from_middle(height, width)
    right, down = motion[:, 0, None, None], motion[:, 1, None, None]
    rate = motion[:, 2, None, None] if motion.shape[1] == 3 else torch.zeros(())
    u, v = x + right + rate * x, y + down + rate * y
    grid = torch.stack([2 * u / width, 2 * v / height], -1)
    warped = functional.grid_sample(
        pictures, grid, mode="bicubic", padding_mode="border", align_corners=False
    )
    seen = ((u.abs() <= (width - 1) / 2) & (v.abs() <= (height - 1) / 2))[:, None].float()
    inner = functional.pad(torch.ones(height - 2, width - 2), (1, 1, 1, 1))
    return warped, seen * inner


def _slopes(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences across and down; those of the outermost pixels mean nothing."""
    across = (pictures.roll(-1, -1) - pictures.roll(1, -1)) / 2
    down = (pictures.roll(-1, -2) - pictures.roll(1, -2)) / 2
    return across, down


@torch.no_grad()
def camera_motion(clips: Tensor) -> Tensor:
    """A camera's pan and rate of zoom over a scene that stands still.

    A least-squares fit of pan and zoom to the optical flow, weighted by the pictures' slopes (plain
    ground has no flow to measure), starts Gauss-Newton on the pixels: the flow's windows are as
    large as small pictures and alone report about half the zoom.

    Args:
        clips: (N, 3, T, H, W) in [-1, 1].
    Returns:
        (N, 3): pan right and down, px a frame, the scene goes the other way; log of the factor by
        which what is seen grows a frame. Means over pairs of frames: what a clip covers counts,
        also where a codec's patches of several frames hold still and then jump.
    Raises:
        UserError: a clip is not finite or not in [-1, 1], or has one frame.
    """
    clips = checks.pictures("camera motion", clips, 5, SMALLEST)
    return checks.samples("camera motion", _by_chunk(_camera_motion, clips), what="motions")


def _camera_motion(clips: Tensor) -> Tensor:
    n, frames = len(clips), clips.movedim(2, 1)
    pairs = frames.shape[1] - 1
    start = fit_similarity(opencv_flow(clips), _texture(clips))
    start = start[:, None].expand(n, pairs, 3).flatten(0, 1)
    first, second = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
    motions = _align(first, second, start, zooms=True).view(n, pairs, 3).mean(1)
    zoom = motions[:, 2:].clamp_min(-0.9).log1p()
    return torch.cat([-motions[:, :2], zoom], 1)


def _texture(clips: Tensor) -> Tensor:
    """(N, T - 1, H, W) squared slopes about each pixel, 0 along the rim."""
    smooth = functional.avg_pool2d(
        functional.pad(_gray(clips)[:, :-1], (1, 1, 1, 1), mode="replicate"), 3, 1
    )
    across, down = _slopes(smooth)
    around = functional.avg_pool2d(across.square() + down.square(), 3, 1, 1)
    return functional.pad(around[..., 2:-2, 2:-2], (2, 2, 2, 2))


def fit_similarity(flow: Tensor, weight: Tensor) -> Tensor:
    """Weighted least squares of flow = shift + rate * position over all of a clip's pairs.

    Args:
        flow: (N, T - 1, 2, H, W); weight: (N, T - 1, H, W).
    Returns:
        (N, 3): shift right and down, px a frame, and rate about the middle, a frame.
    Raises:
        UserError: a flow or weight is not finite, or they do not fit one another.
    """
    _check_flow("camera motion", flow)
    if weight.shape != (*flow.shape[:2], *flow.shape[3:]):
        raise UserError(
            f"camera motion: weights: shape {list(weight.shape)}: expected a number a flow of"
            f" {list(flow.shape)}"
        )
    flow = checks.samples("camera motion", flow, what="flow").float()
    weight = checks.samples("camera motion", weight, what="weights").float()
    x, y = _from_middle(*flow.shape[-2:])
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    basis = torch.stack(
        [torch.stack([one, zero]), torch.stack([zero, one]), torch.stack([x, y])], -1
    ).flatten(0, 2)  # (2 H W, 3)
    weights = weight[:, :, None].expand_as(flow).flatten(2)
    normal = torch.einsum("npk,ka,kb->nab", weights, basis, basis) + 1e-6 * torch.eye(3)
    right = torch.einsum("npk,ka,npk->na", weights, basis, flow.flatten(2))
    solution: Tensor = torch.linalg.solve(normal, right)
    return solution


# ---- known motions


def nearest_direction(motion: Tensor, directions: Sequence[tuple[float, float]]) -> Tensor:
    """The known direction nearest to each motion (N, 2), as indices (N,); length plays no part.

    Raises:
        UserError: a motion is not finite.
    """
    motion = checks.samples("direction", motion, 0, "motions")
    known = torch.tensor(directions, dtype=motion.dtype)
    checks.same_width("direction", motion, known, "motions")
    return (motion @ known.T).argmax(1)


def nearest_speed(speed: Tensor, speeds: Sequence[float]) -> Tensor:
    """The known speed nearest to each (N,), as indices; -1 for less than half the slowest.

    Raises:
        UserError: a speed is not finite.
    """
    speed = checks.samples("speed", speed, 0, "speeds")
    known = torch.tensor(speeds, dtype=speed.dtype)
    nearest = (speed[:, None] - known).abs().argmin(1)
    return nearest.where(speed >= known.min() / 2, -1)


def wasserstein(a: Tensor, b: Tensor, metric: str = "wasserstein") -> float:
    """Wasserstein-1 distance of two sets of numbers, (N,) and (M,), in their unit.

    Args:
        metric: what errors call it.
    Raises:
        UserError: a number is not finite, or a set is empty.
    """
    from scipy import stats

    one, other = checks.samples(metric, a), checks.samples(metric, b, what="reference")
    if one.ndim != 1 or other.ndim != 1:
        raise UserError(f"{metric}: shapes {list(a.shape)}, {list(b.shape)}: expected numbers (N,)")
    return float(stats.wasserstein_distance(one.double().numpy(), other.double().numpy()))
