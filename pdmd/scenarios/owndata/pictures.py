"""Pictures and clips of a folder, cut to squares of one size."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pdmd.data.prompts import NULL, Prompt
from pdmd.data.texts import Text, frames_of, is_clip, read_texts, tell
from pdmd.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from pdmd.scenarios.owndata.kind import Folder

LEAST_TRAINED = 2  # pictures or clips that are left to train on


def read_pictures(data: Folder) -> dict[str, Tensor]:
    """uint8 (N, 3, T, px, px) of both splits, and the prompt of each, (N, 1)."""
    tensors, first = {}, 0
    for split, texts in zip(("train", "heldout"), _splits(data), strict=True):
        tensors[split] = torch.stack([square(one, data.px, data.frames) for one in texts])
        numbers = torch.arange(first, first + len(texts))
        tensors[f"{split}_prompts"] = numbers[:, None]
        first += len(texts)
    return tensors


def read_prompts(data: Folder) -> list[Prompt]:
    """The prompts of both splits in the same order, and the null prompt."""
    train, held = _splits(data)
    rows = [*((one, "train") for one in train), *((one, "heldout") for one in held)]
    named = [
        Prompt(one.text, one.stratum or "untagged", split, {"row": number})
        for number, (one, split) in enumerate(rows)
    ]
    return [*named, NULL]


def _splits(data: Folder) -> tuple[list[Text], list[Text]]:
    """Rows to train on, and rows that are held out, chosen by the data's seed."""
    texts = _read(data.source, data.column, data.frames > 1)
    if len(texts) < data.heldout + LEAST_TRAINED:
        expected = f"at least {data.heldout + LEAST_TRAINED}: data.heldout, and some to train on"
        raise UserError(f"{data.source}: {len(texts)} good rows: expected {expected}")
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(data.seed)).tolist()
    held = set(order[: data.heldout])
    return (
        [one for number, one in enumerate(texts) if number not in held],
        [texts[number] for number in sorted(held)],
    )


@cache
def _read(source: str, column: str, clips: bool) -> list[Text]:
    """The good rows of a folder; bad ones are told, and left out."""
    good, bad = read_texts(Path(source), column, with_images=True)
    wrong = [one for one in good if one.image is not None and is_clip(one.image) != clips]
    bad += [
        f"{one.where}: {one.image}: expected a {'clip' if clips else 'picture'}" for one in wrong
    ]
    tell(Path(source), bad)
    return [one for one in good if one not in wrong]


def square(text: Text, px: int, frames: int) -> Tensor:
    """(3, T, px, px) uint8: resized to fill the square, and cut at its middle."""
    assert text.image is not None
    images = frames_of(text.image, frames)
    arrays = [np.asarray(_fitted(image, px)) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(3, 0, 1, 2).contiguous()


def _fitted(image: Image, px: int) -> Image:
    from PIL import ImageOps

    return ImageOps.fit(image.convert("RGB"), (px, px))
