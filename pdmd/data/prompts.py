"""Prompts and what is true of a picture or clip that satisfies them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pdmd.errors import UserError
from pdmd.files.storage import read_json, shown, write_json


@dataclass(frozen=True)
class Prompt:
    """A wording of something that can be asked for.

    Attributes:
        text: as the text encoder reads it; kind: coarse, fine, free, stated, camera or null.
        split: "train", or "heldout" for a wording that no network is trained on.
        truth: what is true of a sample that satisfies it, label -> value, None where it is free.
    """

    text: str
    kind: str
    split: str = "train"
    truth: dict[str, Any] = field(default_factory=dict)


NULL = Prompt("", "null")
SPLITS = ("train", "heldout")
KEYS = ", ".join(one.name for one in fields(Prompt))


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    """Write prompts as JSON, in the order of their indices."""
    write_json(path, [asdict(prompt) for prompt in prompts])


def read_prompts(path: Path) -> list[Prompt]:
    """Read what write_prompts wrote. Raises UserError that names the file."""
    values = read_json(path, list)
    if not values:
        raise UserError(f"{path}: []: expected a list of prompts")
    wanted = {"text": str, "kind": str, "split": str, "truth": dict}
    for number, value in enumerate(values):
        have = {k: type(v) for k, v in value.items()} if isinstance(value, dict) else None
        if have != wanted or value["split"] not in SPLITS:
            raise UserError(f"{path}: {number}: {shown(value)}: expected a prompt's {KEYS}")
    return [Prompt(**value) for value in values]


def heldout(prompts: Sequence[Prompt]) -> list[int]:
    """Prompts of evaluation: the first unseen wording of each truth, by index."""
    first_of: dict[tuple[str, str], int] = {}
    for number, prompt in enumerate(prompts):
        if prompt.split == "heldout":
            first_of.setdefault((prompt.kind, repr(sorted(prompt.truth.items()))), number)
    return sorted(first_of.values())


def with_article(noun: str) -> str:
    """ "fox" -> "a fox", "owl" -> "an owl"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
