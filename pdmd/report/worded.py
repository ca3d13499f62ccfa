"""Where the words stand that go with a table or figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

REPORT = Path(__file__).resolve().parent
# Of a checkout; an installed package has a copy.
CAPTIONS = (REPORT / "captions", REPORT.parents[1] / "workflow" / "report")


def caption_file(name: str, kind: str, folders: Sequence[Path] = CAPTIONS) -> str:
    """The caption of a table or figure, below a folder of them: its kind's own, if that has one.

    Args:
        kind: `data.kind`.
    """
    own = f"{kind}/{name}.rst"
    return own if any((folder / own).exists() for folder in folders) else f"{name}.rst"


def caption_of(name: str, kind: str = "") -> str:
    """A caption as one line; empty without one."""
    for path in (folder / caption_file(name, kind) for folder in CAPTIONS):
        if path.exists():
            return " ".join(path.read_text(encoding="utf-8").replace("``", "`").split())
    return ""
