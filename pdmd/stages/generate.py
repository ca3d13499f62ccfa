"""Draw one sample of an exported student into a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pdmd.config.sections import SIZE, Size, parse_size
from pdmd.errors import UserError
from pdmd.files.storage import replacing, shown
from pdmd.models.families import FAMILIES, Family
from pdmd.models.load_export import generate, load_export, read_settings
from pdmd.models.source import check_folder, locate
from pdmd.training.world import join

FPS = 16  # of clips, as the models make them
PICTURE, CLIP = ".png", ".mp4"
SIDE = 16  # px that sides are multiples of


def generate_file(
    export: Path,
    base: str | None,
    prompt: str,
    output: Path,
    seed: int,
    size: str | None,
    image: Path | None,
    device: str,
) -> None:
    """Draw a picture or clip.

    Args:
        export: a folder that `pdmd export` wrote; base: the released model, a folder or a name of
            the hub, as the export names it where it is None; size: such as 81x480x832.
    Raises:
        UserError: what is asked for does not fit the model, or a folder is none; one line.
    """
    settings = read_settings(export)
    family = FAMILIES[settings["family"]]
    wanted = _size(size, family) if size else tuple(settings["size"])
    ending = CLIP if wanted[0] > 1 else PICTURE
    if output.suffix.lower() != ending:
        raise UserError(f"--output: {output}: expected a name that ends with {ending}")
    if bool(family.image_channels) != (image is not None):
        expected = "the first frame" if family.image_channels else "none: it draws from text alone"
        raise UserError(f"--image: {image}: expected {expected} for {settings['family']}")
    first = None if image is None else _open(image)
    folder = locate(base or family.hub)
    check_folder(folder, family)
    with join(device) as world:
        pipeline, settings = load_export(export, folder, world.device)
        save_media(generate(pipeline, settings, prompt, seed, wanted, first), output)
    print(f"{output}: {'x'.join(map(str, wanted))}, {len(settings['sigmas'])} steps, seed {seed}")


def _size(text: str, family: Family) -> Size:
    if not re.fullmatch(SIZE, text):
        raise UserError(f"--size: {shown(text)}: expected frames, height and width: 81x480x832")
    size = frames, height, width = parse_size(text)
    longest = family.frames or frames
    if frames > longest or (frames - 1) % 4 or min(height, width) < SIDE:
        raise UserError(f"--size: {text}: expected {family.frames or '4 k + 1'} frames and a size")
    if height % SIDE or width % SIDE:
        raise UserError(f"--size: {text}: expected sides that are multiples of {SIDE} px")
    return size


def _open(path: Path) -> Any:
    from PIL import Image

    try:
        return Image.open(path).convert("RGB")
    except Exception as error:  # of a damaged picture Pillow says anything
        raise UserError(f"--image: {path}: {shown(error)}: expected a picture") from error


def save_media(made: Any, path: Path) -> None:
    """Write a picture as PNG, or frames as MP4, whole."""
    frames = made if isinstance(made, list) else [made]
    with replacing(path) as beside:
        named = beside.with_suffix(f"{beside.suffix}{path.suffix}")  # which libraries go by
        try:
            if path.suffix.lower() == PICTURE:
                frames[0].save(named)
            else:
                _write_clip(frames, named, path)
            named.replace(beside)
        finally:
            named.unlink(missing_ok=True)


def _write_clip(frames: list[Any], beside: Path, path: Path) -> None:
    import cv2
    import numpy as np

    size = frames[0].size
    writer = cv2.VideoWriter(str(beside), cv2.VideoWriter.fourcc(*"mp4v"), FPS, size)
    for frame in frames:
        writer.write(np.ascontiguousarray(np.asarray(frame)[..., ::-1]))
    writer.release()
    written = max(int(cv2.VideoCapture(str(beside)).get(cv2.CAP_PROP_FRAME_COUNT)), 0)
    if written != len(frames):  # of a full disk OpenCV says nothing
        expected = f"room for {len(frames)}, and OpenCV to write mp4"
        raise UserError(f"{path}: {written} frames: expected {expected}")
