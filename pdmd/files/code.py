"""Digests of this package's own code, so that what it made is made again when it changes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORT = re.compile(
    r"^[ \t]*(?:from|import) pdmd(?:\.([\w.]+))?(?: import (\([\w, \n]+|[\w, ]+))?", re.M
)
# What tables and figures are made by, with all that these import; what scores, by itself.
DRAWING = {
    "tables": ["report.tables"],
    "figures": ["report.figures", "scenarios"],
    "claims": ["report.claims"],
    "paper": ["report.paper", "report.figures", "scenarios"],
}
SCORING = [
    "stages.score",
    "stages.diagnostics",
    "stages.trajectories",
    "stages.scoring",
    "stages.swaps",
    "metrics",
    *(f"scenarios.{path.parent.name}.metrics" for path in ROOT.glob("scenarios/*/metrics.py")),
]


def drawing_code(what: str) -> str:
    """The digest of the code that makes what DRAWING names, and of all that it imports."""
    todo, sources = _files(DRAWING[what]), dict[Path, str]()
    while todo:
        path = todo.pop()
        if path not in sources:
            sources[path] = path.read_text(encoding="utf-8")
            todo += _imported(sources[path])
    return _digest(sources)


def scoring_code() -> str:
    """The digest of the code that scores samples; that of the networks under it is not counted."""
    return _digest({path: path.read_text(encoding="utf-8") for path in _files(SCORING)})


def _files(modules: Iterable[str]) -> list[Path]:
    """The files of modules, and of packages all."""
    paths: list[Path] = []
    for name in modules:
        path = ROOT / name.replace(".", "/")
        paths += sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return paths


def _imported(text: str) -> list[Path]:
    """The files of this package that a source imports, lazily or not."""
    paths = []
    for match in IMPORT.finditer(text):
        folder = ROOT / (match[1] or "").replace(".", "/")
        names = re.findall(r"\w+", match[2] or "")
        choices = [folder.with_suffix(".py"), *(folder / f"{name}.py" for name in names)]
        paths += [path for path in choices if path.is_file()]
    return paths


def _digest(sources: dict[Path, str]) -> str:
    named = sorted((str(path.relative_to(ROOT)), text) for path, text in sources.items())
    return hashlib.sha256(repr(named).encode()).hexdigest()
