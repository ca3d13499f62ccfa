"""First frames that the project draws itself: emoji art on plain grounds, of any size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pdmd.errors import UserError
from pdmd.files.storage import shown
from pdmd.scenarios.sprites import over, premultiplied, sprite, views

if TYPE_CHECKING:
    from PIL.Image import Image

STYLE = "noto"
CELLS = 256  # px that a sprite is rendered at
Colour = tuple[float, float, float]
GROUNDS: dict[str, tuple[Colour, Colour, Colour, float]] = {
    # top and bottom of the sky, the ground, and where the ground begins, from the top
    "meadow": ((0.45, 0.71, 0.93), (0.82, 0.92, 0.98), (0.46, 0.68, 0.33), 0.6),
    "sea": ((0.53, 0.77, 0.95), (0.93, 0.96, 0.98), (0.12, 0.42, 0.62), 0.5),
    "beach": ((0.40, 0.72, 0.93), (0.86, 0.94, 0.97), (0.91, 0.82, 0.61), 0.65),
    "road": ((0.60, 0.75, 0.88), (0.90, 0.93, 0.95), (0.36, 0.37, 0.40), 0.62),
    "room": ((0.93, 0.88, 0.80), (0.89, 0.83, 0.74), (0.62, 0.45, 0.31), 0.72),
    "snow": ((0.62, 0.74, 0.86), (0.88, 0.92, 0.96), (0.96, 0.97, 0.99), 0.58),
    "night": ((0.04, 0.06, 0.16), (0.15, 0.18, 0.35), (0.09, 0.12, 0.14), 0.7),
    "dusk": ((0.28, 0.20, 0.42), (0.98, 0.62, 0.42), (0.23, 0.19, 0.24), 0.66),
    "desert": ((0.55, 0.76, 0.92), (0.95, 0.88, 0.76), (0.86, 0.69, 0.42), 0.55),
    "stage": ((0.20, 0.05, 0.08), (0.45, 0.10, 0.14), (0.30, 0.20, 0.14), 0.75),
}


def draw_scene(scene: Mapping[str, Any], height: int, width: int) -> Image:
    """A picture of objects on a ground.

    Args:
        scene: `background`, a name of GROUNDS; `objects`, from back to front: the name of an emoji,
            x and y of its centre as shares of width and height, its side as a share of the height.
    Raises:
        UserError: there is no such ground or object, or a number is none.
    """
    from PIL import Image

    ground = scene.get("background")
    if ground not in GROUNDS:
        expected = f"one of {', '.join(GROUNDS)}"
        raise UserError(f"scene: background: {shown(ground)}: expected {expected}")
    picture = _ground(*GROUNDS[str(ground)], height, width)
    for entry in scene.get("objects", ()):
        picture = _placed(picture, entry)
    pixels = (picture[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(pixels.numpy())


def _ground(
    top: Colour, bottom: Colour, ground: Colour, horizon: float, height: int, width: int
) -> Tensor:
    """(1, 3, H, W): a sky from one colour to another, and the ground below it, slightly darker."""
    down = (torch.arange(height) + 0.5) / height
    share = (down / horizon).clamp(0, 1)
    sky = torch.tensor(top)[:, None] * (1 - share) + torch.tensor(bottom)[:, None] * share
    near = 1 - 0.25 * ((down - horizon) / (1 - horizon)).clamp(0, 1)
    soil = torch.tensor(ground)[:, None] * near
    edge = ((down - horizon) * height + 0.5).clamp(0, 1)  # of one pixel, without steps
    column = sky * (1 - edge) + soil * edge
    return column[None, :, :, None].expand(1, 3, height, width).clone()


def _placed(picture: Tensor, entry: Any) -> Tensor:
    """A picture with one more object in front. Raises UserError."""
    try:
        name, x, y, size = entry
        x, y, size = float(x), float(y), float(size)
    except (TypeError, ValueError):
        raise UserError(
            f"scene: objects: {shown(entry)}: expected a name and three numbers"
        ) from None
    if not size > 0:
        raise UserError(f"scene: objects: {shown(entry)}: expected a size above 0")
    height, width = picture.shape[-2:]
    side = max(height, width)  # a square window, of which the picture is the upper left
    layer = premultiplied(sprite(str(name), STYLE, CELLS)[None])
    cell = CELLS / (size * height)  # cells of the sprite in a pixel of the picture
    left = torch.tensor([[CELLS / 2 - x * width * cell]])
    top = torch.tensor([[CELLS / 2 - y * height * cell]])
    seen = views(layer, left, top, torch.tensor([[side * cell]]), side)[:, 0]
    return over(seen[..., :height, :width], picture)
