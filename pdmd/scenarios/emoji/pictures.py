"""Text to image: emoji of sixteen objects in four styles, asked for by name or by category."""

from __future__ import annotations

import torch
from torch import Tensor

from pdmd.data.prompts import NULL, Prompt, with_article
from pdmd.scenarios.emoji.kind import Emoji
from pdmd.scenarios.sprites import STYLES, nouns, place, sprite
from pdmd.streams import Stream

CATEGORIES = {
    "fruit": ("red-apple", "banana", "strawberry", "watermelon"),
    "food": ("pizza", "hamburger", "doughnut", "carrot"),
    "animal": ("fox", "frog", "panda", "octopus"),
    "vehicle": ("rocket", "airplane", "automobile", "sailboat"),
}
OBJECTS = tuple(name for names in CATEGORIES.values() for name in names)
ADJECTIVES = {"fox": "red fox", "red-apple": "red apple"}
SPRITE = 96  # px that sprites are rendered at
BACKGROUND = (0.96, 0.96, 0.96)
SPLITS = {"train": "copies", "heldout": "heldout"}

TRAINED = ("{a}", "a picture of {a}", "{n} emoji", "a drawing of {a}")
UNSEEN = ("an image of {a}", "a small {n}")
TRAINED_ANY = ("{a}", "some kind of {n}", "a picture of {a}", "a drawing of {a}")
UNSEEN_ANY = ("an image of {a}", "any {n}")


def noun_of(name: str) -> str:
    """The words for an object."""
    return ADJECTIVES.get(name, nouns()[name])


def prompts() -> list[Prompt]:
    """Every wording of the sixteen objects and four categories; the null prompt is last."""
    wordings = []
    for split, fine, coarse in (
        ("train", TRAINED, TRAINED_ANY),
        ("heldout", UNSEEN, UNSEEN_ANY),
    ):
        for number, name in enumerate(OBJECTS):
            noun = noun_of(name)
            texts = [wording.format(a=with_article(noun), n=noun) for wording in fine]
            wordings += [Prompt(text, "fine", split, {"objects": [number]}) for text in texts]
        for category, names in CATEGORIES.items():
            truth = {"objects": [OBJECTS.index(name) for name in names]}
            texts = [w.format(a=with_article(category), n=category) for w in coarse]
            wordings += [Prompt(text, "coarse", split, truth) for text in texts]
    return [*wordings, NULL]


def make_pictures(data: Emoji) -> dict[str, Tensor]:
    """Pictures of both splits with their objects, styles and right captions.

    Args:
        data: px; copies and heldout: jittered pictures of each sprite in a split; seed.
    Returns:
        for each split: uint8 (N, 3, px, px), `<split>_object`, `<split>_style` (N,) and
        `<split>_prompts` (N, K), the trained wordings of object and category equally often.
    """
    sprites = torch.stack([sprite(name, style, SPRITE) for name in OBJECTS for style in STYLES])
    tensors = {}
    for split, key in SPLITS.items():
        stream = Stream([data.seed], 0, f"pictures {split}")
        each = torch.arange(len(sprites)).repeat_interleave(getattr(data, key))
        tensors[split] = jittered(sprites[each], data.px, stream)
        tensors[f"{split}_object"] = each // len(STYLES)
        tensors[f"{split}_style"] = each % len(STYLES)
        tensors[f"{split}_prompts"] = captions()[tensors[f"{split}_object"]]
    return tensors


def jittered(sprites: Tensor, px: int, stream: Stream) -> Tensor:
    """(N, 3, px, px) uint8: each sprite a little larger or smaller, moved and turned."""
    n = len(sprites)
    scale = 0.84 + 0.12 * stream.uniform(n)
    dx, dy = (2 * stream.uniform(n) - 1 for _ in range(2))
    angle = 12 * stream.uniform(n) - 6
    pictures = place(sprites, px, scale, dx, dy, torch.tensor(BACKGROUND), angle)
    return ((pictures + 1) * 127.5).round().clamp(0, 255).byte()


def captions() -> Tensor:
    """(objects, K): the trained wordings that are right for each object."""
    known = [(i, p) for i, p in enumerate(prompts()) if p.split == "train" and p.kind != "null"]
    rows = [
        [i for i, prompt in known if number in prompt.truth["objects"]]
        for number in range(len(OBJECTS))
    ]
    return torch.tensor(rows)
