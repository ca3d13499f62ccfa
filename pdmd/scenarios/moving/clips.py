"""Text to video: objects that move, freely or as told, and scenes under a moving camera."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from pdmd.data.prompts import NULL, Prompt, with_article
from pdmd.scenarios.moving.kind import Moving
from pdmd.scenarios.sprites import nouns, over, premultiplied, sprite, views
from pdmd.streams import Stream

FRAMES = 8
OBJECTS = (
    "red-apple",
    "soccer-ball",
    "glowing-star",
    "ghost",
    "robot",
    "frog",
    "rocket",
    "octopus",
)
STYLE = "noto"
SIZE = 0.6  # an object's side as a share of the picture's
DIRECTIONS = {"right": (1.0, 0.0), "down": (0.0, 1.0), "left": (-1.0, 0.0), "up": (0.0, -1.0)}
SPEEDS = {"slowly": 0.5 / 16, "fast": 1.5 / 16}  # shares of the picture's side a frame
SCENES = {
    "forest": ((0.45, 0.62, 0.35), ("evergreen-tree", "mushroom")),
    "sea": ((0.25, 0.5, 0.8), ("tropical-fish", "sailboat")),
    "meadow": ((0.72, 0.86, 0.5), ("sunflower", "butterfly")),
    "night sky": ((0.08, 0.09, 0.22), ("glowing-star", "crescent-moon")),
}
CAMERAS = {
    "panning right": (1.0, 0.0, 0.0),
    "panning left": (-1.0, 0.0, 0.0),
    "panning up": (0.0, -1.0, 0.0),
    "panning down": (0.0, 1.0, 0.0),
    "zooming in": (0.0, 0.0, 1.0),
    "zooming out": (0.0, 0.0, -1.0),
}
PAN = 1.0 / 16  # of the picture's side a frame
ZOOM = 1.08  # factor a frame
GROUND = (0.12, 0.12, 0.14)
SPRITE = 96  # px that objects are rendered at
CANVAS = 192  # px of a scene's canvas; the camera sees a quarter of it
JITTER = 0.1  # of the canvas, that the camera's path is moved by
CELLS, SCATTER = 4, 9  # a scene's sprites lie in so many of CELLS x CELLS cells
LABELS = ("object", "direction", "speed", "camera", "scene")
ABSENT = -1
CHUNK = 256  # clips at a time

FREE = ("{a}", "{a} moving", "a clip of {a}"), ("a video of {a}",)
STATED = (
    ("{a} moving {d} {s}", "{a} going {s} to the {d}", "a clip of {a} moving {s} {d}"),
    ("a video of {a} moving {s} to the {d}",),
)
VERTICAL = (
    ("{a} moving {d} {s}", "{a} going {s} {d}", "a clip of {a} moving {s} {d}"),
    ("a video of {a} moving {s} {d}",),
)
CAMERA = (
    ("{c} over a {p}", "a camera {c} over a {p}", "{c}, a {p}"),
    ("a video of the camera {c} over a {p}",),
)


def speeds_of(px: int) -> list[float]:
    """The known speeds in pixels a frame, slow first."""
    return [share * px for share in SPEEDS.values()]


def prompts() -> list[Prompt]:
    """Every wording of free and stated motion and of camera moves; the null prompt is last."""
    every = []
    for i, split in enumerate(("train", "heldout")):
        for number, name in enumerate(OBJECTS):
            noun = with_article(nouns()[name])
            every += [
                Prompt(wording.format(a=noun), "free", split, truth(object=number))
                for wording in FREE[i]
            ]
            for d, direction in enumerate(DIRECTIONS):
                wordings = (STATED if direction in ("left", "right") else VERTICAL)[i]
                for s, speed in enumerate(SPEEDS):
                    said = truth(object=number, direction=d, speed=s)
                    every += [
                        Prompt(w.format(a=noun, d=direction, s=speed), "stated", split, said)
                        for w in wordings
                    ]
        for c, camera in enumerate(CAMERAS):
            for p, place in enumerate(SCENES):
                texts = [wording.format(c=camera, p=place) for wording in CAMERA[i]]
                said = truth(camera=c, scene=p)
                every += [Prompt(text, "camera", split, said) for text in texts]
    return [*every, NULL]


def truth(**said: int) -> dict[str, int | None]:
    """What a prompt says of every label."""
    return {name: said.get(name) for name in LABELS}


def make_clips(data: Moving) -> dict[str, Tensor]:
    """Clips of both splits with their labels and right captions.

    Args:
        data: px; objects, cameras: clips of each kind to train on; heldout: of each kind; seed.
    Returns:
        for each split: uint8 (N, 3, FRAMES, px, px), a label (N,) for each of LABELS, -1 where it
        does not apply, and `<split>_prompts` (N, K): trained wordings, free and stated motion
        equally often.
    """
    tensors: dict[str, Tensor] = {}
    counts = {
        "train": (data.objects, data.cameras),
        "heldout": (data.heldout, data.heldout),
    }
    for split, (objects, cameras) in counts.items():
        parts = [
            object_clips(objects, data.px, Stream([data.seed], 0, f"objects {split}")),
            camera_clips(cameras, data.px, Stream([data.seed], 0, f"cameras {split}")),
        ]
        tensors[split] = torch.cat([clips for clips, _ in parts])
        labels = {name: torch.cat([own[name] for _, own in parts]) for name in LABELS}
        tensors |= {f"{split}_{name}": values for name, values in labels.items()}
        tensors[f"{split}_prompts"] = captions(labels)
    return tensors


def to_bytes(pictures: Tensor) -> Tensor:
    """[0, 1] -> uint8."""
    return (pictures * 255).round().clamp(0, 255).byte()


def absent(n: int) -> Tensor:
    """A label that applies to none of n clips."""
    return torch.full((n,), ABSENT)


def object_clips(n: int, px: int, stream: Stream) -> tuple[Tensor, dict[str, Tensor]]:
    """n clips of one object each that moves evenly through the middle of the picture."""
    sprites = premultiplied(torch.stack([sprite(name, STYLE, SPRITE) for name in OBJECTS]))
    labels = {
        "object": stream.integers(n, len(OBJECTS)),
        "direction": stream.integers(n, len(DIRECTIONS)),
        "speed": stream.integers(n, len(SPEEDS)),
        "camera": absent(n),
        "scene": absent(n),
    }
    start = (2 * stream.uniform(2 * n).view(n, 2) - 1) * px / 32
    path = motion(labels, px)[:, None] * (torch.arange(FRAMES) - (FRAMES - 1) / 2)[:, None]
    at = start[:, None] + path  # (n, FRAMES, 2) px from the middle
    extent = torch.full((n, FRAMES), SPRITE / SIZE)
    offset = (SPRITE - extent) / 2
    ground = torch.tensor(GROUND).view(1, 3, 1, 1)
    clips = []
    for rows in torch.arange(n).split(CHUNK):
        cells = at[rows] * extent[rows, :, None] / px
        left, top = (offset[rows] - cells[..., axis] for axis in range(2))
        seen = views(sprites[labels["object"][rows]], left, top, extent[rows], px)
        clips.append(to_bytes(over(seen.flatten(0, 1), ground)).view(len(rows), FRAMES, 3, px, px))
    return torch.cat(clips).transpose(1, 2).contiguous(), labels


def motion(labels: Mapping[str, Tensor], px: int) -> Tensor:
    """(N, 2) px a frame, right and down, of clips of objects."""
    directions = torch.tensor(list(DIRECTIONS.values()))
    return directions[labels["direction"]] * torch.tensor(speeds_of(px))[labels["speed"], None]


def camera_clips(n: int, px: int, stream: Stream) -> tuple[Tensor, dict[str, Tensor]]:
    """n clips of the scenes, seen by a camera that pans or zooms evenly about a jittered place."""
    labels = {name: absent(n) for name in ("object", "direction", "speed")}
    labels |= {"camera": stream.integers(n, len(CAMERAS)), "scene": stream.integers(n, len(SCENES))}
    moves = torch.tensor(list(CAMERAS.values()))[labels["camera"]]
    start = (stream.uniform(2 * n).view(n, 2) - 0.5) * JITTER * CANVAS
    canvases, clips = scenes(), []
    for rows in torch.arange(n).split(CHUNK):
        left, top, extent = windows(moves[rows], start[rows])
        seen = views(canvases[labels["scene"][rows]], left, top, extent, px)
        clips.append(to_bytes(seen))
    return torch.cat(clips).transpose(1, 2).contiguous(), labels


def windows(moves: Tensor, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Left, top and extent (n, FRAMES) of the camera's window on the canvas, px of the canvas."""
    time = torch.arange(FRAMES) - (FRAMES - 1) / 2
    side = CANVAS / 2
    extent = side * ZOOM ** (-moves[:, 2:3] * time)
    middle = CANVAS / 2 + start[:, :, None] + side * PAN * moves[:, :2, None] * time
    return middle[:, 0] - extent / 2, middle[:, 1] - extent / 2, extent


@cache
def scenes() -> Tensor:
    """(scenes, 3, CANVAS, CANVAS) in [0, 1]: a ground each, with sprites scattered over it."""
    stream, size = Stream([0], 0, "scenes"), CANVAS // CELLS
    canvases = []
    for colour, names in SCENES.values():
        canvas = torch.tensor(colour)[:, None, None].expand(3, CANVAS, CANVAS).clone()
        cells = stream.uniform(CELLS**2).argsort()[:SCATTER]
        corners = torch.stack([cells % CELLS, cells // CELLS], -1)
        corners = corners + 0.4 * (stream.uniform(2 * SCATTER).view(SCATTER, 2) - 0.5)
        which = stream.integers(SCATTER, len(names)).tolist()
        for (left, top), kind in zip((corners * size).int().tolist(), which, strict=True):
            stamp(canvas, sprite(names[kind], STYLE, size), left, top)
        canvases.append(canvas)
    return torch.stack(canvases)


def stamp(canvas: Tensor, picture: Tensor, left: int, top: int) -> None:
    """Draw an RGBA picture (4, S, S) on a canvas (3, H, W) in place, cut at its edges."""
    size, height, width = picture.shape[-1], *canvas.shape[-2:]
    x, y = max(left, 0), max(top, 0)
    right, bottom = min(left + size, width), min(top + size, height)
    if right <= x or bottom <= y:
        return
    part = picture[:, y - top : bottom - top, x - left : right - left]
    below = canvas[:, y:bottom, x:right]
    below.copy_(part[:3] * part[3:] + below * (1 - part[3:]))


def captions(labels: Mapping[str, Tensor]) -> Tensor:
    """(N, K) trained wordings that are right for each clip, free and stated equally often."""
    known = [(i, p) for i, p in enumerate(prompts()) if p.split == "train" and p.kind != "null"]
    by_truth: dict[tuple[int, ...], list[int]] = {}
    for i, prompt in known:
        key = tuple(ABSENT if prompt.truth[n] is None else prompt.truth[n] for n in LABELS)
        by_truth.setdefault(key, []).append(i)
    rows = []
    for o, d, s, c, p in zip(*(labels[name].tolist() for name in LABELS), strict=True):
        if c == ABSENT:
            rows.append(by_truth[o, ABSENT, ABSENT, ABSENT, ABSENT] + by_truth[o, d, s, c, p])
        else:
            rows.append(2 * by_truth[o, d, s, c, p])
    return torch.tensor(rows)
