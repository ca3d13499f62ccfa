"""Emoji as sprites: vector art in four styles, rendered when asked for, placed without aliasing."""

from __future__ import annotations

import io
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pdmd.errors import UserError
from pdmd.files.storage import read_json

ART = Path(__file__).parent / "art"
STYLES = ("noto", "noto-v1", "fluent-emoji-flat", "twemoji")
CHUNK = 256  # pictures at a time


@cache
def nouns() -> dict[str, str]:
    """Every object with the words for it, sorted: "fox" -> "fox", "automobile" -> "car"."""
    groups = read_json(ART / "objects.json").values()
    return dict(sorted((name, noun) for group in groups for name, noun in group.items()))


@cache
def categories() -> dict[str, str]:
    """Every object with its category: "fox" -> "animal"."""
    groups = read_json(ART / "objects.json").items()
    return {name: title for title, group in groups for name in group}


def names() -> list[str]:
    """Names of the objects that every style has, sorted."""
    return list(nouns())


@cache
def _icons(style: str) -> dict[str, Any]:
    icons: dict[str, Any] = read_json(ART / f"{style}.json")
    return icons


@cache
def sprite(name: str, style: str, size: int) -> Tensor:
    """One object in one style as (4, size, size) RGBA in [0, 1], not premultiplied; kept in memory.

    Raises:
        UserError: there is no such style or object.
    """
    import resvg_py
    from PIL import Image

    if style not in STYLES:
        raise UserError(f"style: {style!r}: expected one of {', '.join(STYLES)}")
    icon = _icons(style).get(name)
    if icon is None:
        raise UserError(f"object: {name!r}: expected a name of pdmd.scenarios.sprites.names()")
    width, height = icon["width"], icon["height"]
    side = max(width, height)  # a square, the object in its middle
    box = f"{(width - side) / 2:g} {(height - side) / 2:g} {side} {side}"
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="{box}">{icon["body"]}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def premultiplied(sprites: Tensor) -> Tensor:
    """(N, 4, S, S) RGBA -> the same with colour times alpha, which is what may be averaged."""
    colour, alpha = sprites.split([3, 1], 1)
    return torch.cat([colour * alpha, alpha], 1)


def over(layer: Tensor, background: Tensor) -> Tensor:
    """Premultiplied (N, 4, H, W) over a background (N, 3, 1, 1) or (N, 3, H, W)."""
    colour, alpha = layer.split([3, 1], 1)
    return colour + (1 - alpha) * background


def area_weights(start: Tensor, extent: Tensor, cells: int, px: int) -> Tensor:
    """Shares of source cells in the mean over each pixel of an interval.

    Args:
        start, extent: (N,) of the interval, in source cells; what lies outside the source weighs 0.
    Returns:
        (N, px, cells).
    """
    step = (extent / px)[:, None, None]
    low = start[:, None, None] + step * torch.arange(px)[None, :, None]
    cell = torch.arange(cells)
    overlap = torch.minimum(low + step, cell + 1.0) - torch.maximum(low, cell.float())
    return overlap.clamp_min(0) / step


def views(source: Tensor, left: Tensor, top: Tensor, extent: Tensor, px: int) -> Tensor:
    """Square windows of each source, each pixel the exact mean over its area: no aliasing.

    Args:
        source: (N, C, S, S); left, top, extent: (N, V) windows in source cells.
    Returns:
        (N, V, C, px, px); what lies outside the source counts as 0.
    """
    n, channels, cells, _ = source.shape
    count = left.shape[1]
    across = area_weights(left.flatten(), extent.flatten(), cells, px)
    down = area_weights(top.flatten(), extent.flatten(), cells, px)
    across = across.view(n, count * px, cells).transpose(1, 2)
    rows = (source.flatten(1, 2) @ across).view(n, channels, cells, count, px)
    rows = rows.permute(0, 3, 2, 1, 4).reshape(n * count, cells, channels * px)
    return (down @ rows).view(n, count, px, channels, px).transpose(2, 3)


def rotate(sprites: Tensor, angle: Tensor) -> Tensor:
    """Premultiplied (N, 4, S, S) turned about their centres by (N,) degrees, clockwise as seen."""
    n, radians = len(sprites), angle * (math.pi / 180)
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros(n)
    affine = torch.stack([cos, sin, zero, -sin, cos, zero], -1).view(n, 2, 3)
    grid = functional.affine_grid(affine, list(sprites.shape), align_corners=False)
    return functional.grid_sample(sprites, grid, align_corners=False)


def place(
    sprites: Tensor,
    px: int,
    scale: Tensor,
    dx: Tensor,
    dy: Tensor,
    background: Tensor,
    angle: Tensor | float = 0.0,
) -> Tensor:
    """Pictures of one sprite each on a plain background.

    Args:
        sprites: (N, 4, S, S) RGBA in [0, 1], best with S at least 3 px.
        scale: (N,) side of the sprite as a share of the picture; dx, dy: (N,) shift of its centre
            right and down, in pixels; angle: (N,) or one, degrees clockwise.
        background: (N, 3) or (3,) in [0, 1].
    Returns:
        (N, 3, px, px) in [-1, 1].
    """
    n, cells = len(sprites), sprites.shape[-1]
    turn, ground = torch.as_tensor(angle).expand(n), background.expand(n, 3)
    extent = cells / scale
    left = (cells - extent) / 2 - dx * extent / px
    top = (cells - extent) / 2 - dy * extent / px
    parts = []
    for rows in torch.arange(n).split(CHUNK):
        layer = premultiplied(sprites[rows])
        if turn.any():
            # a margin of an eighth keeps corners that turn out of the sprite's square
            margin = cells // 8
            layer = rotate(functional.pad(layer, [margin] * 4), turn[rows])
            left_of, top_of = left[rows] + margin, top[rows] + margin
        else:
            left_of, top_of = left[rows], top[rows]
        seen = views(layer, left_of[:, None], top_of[:, None], extent[rows, None], px)[:, 0]
        parts.append(over(seen, ground[rows, :, None, None]))
    return 2 * torch.cat(parts).clamp(0, 1) - 1
