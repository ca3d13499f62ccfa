"""Prompts and what is true of a picture or clip that satisfies them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pdmd.errors import UserError
from pdmd.storage import read_json, write_json


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


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    """Write prompts as JSON, in the order of their indices."""
    write_json(path, [asdict(prompt) for prompt in prompts])


def read_prompts(path: Path) -> list[Prompt]:
    """Read what write_prompts wrote. Raises UserError that names the file."""
    try:
        return [Prompt(**value) for value in read_json(path)]
    except TypeError as error:
        raise UserError(f"{path}: {error}: expected a list of prompts") from error


def heldout(prompts: Sequence[Prompt]) -> list[int]:
    """Prompts of evaluation: the first unseen wording of each truth, by index."""
    found: dict[tuple[str, str], int] = {}
    for number, prompt in enumerate(prompts):
        if prompt.split == "heldout":
            found.setdefault((prompt.kind, repr(sorted(prompt.truth.items()))), number)
    return sorted(found.values())


def with_article(noun: str) -> str:
    """ "fox" -> "a fox", "owl" -> "an owl"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
