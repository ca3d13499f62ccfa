"""Keep finished runs' tables and figures in docs/record, and README's table equal to them."""

from __future__ import annotations

import shutil
from pathlib import Path

from pdmd.catalogue import FIGURES, TABLES
from pdmd.errors import UserError
from pdmd.naming import look
from pdmd.storage import read_json, write_json, write_text

BEGIN, END = "<!-- headline table: made by `make record` -->", "<!-- end of headline table -->"
PARTS = {  # figures or not
    "": True,
    "ablations": False,
    "small": True,
    "small_ablations": False,
    "small_capacity": False,
}
HEADLINE = ("inliers", "modes_covered", "tv", "spread", "energy")


def keep_record(results: Path, docs: Path, readme: Path) -> None:
    """Copy tables and figures to docs/record and renew README's table from them.

    What of <results> itself and of the PARTS below it is not there stays as it was recorded.

    Raises:
        UserError: the results were made from a dirty checkout or are not there.
    """
    made: dict[str, object] = {}
    for part, figures in PARTS.items():
        source, target = results / part, docs / part
        found = _copy(source, target, figures) | _copy_validation(source, target)
        made |= {str(Path(part, name)): origin for name, origin in found.items()}
    if not made:
        raise UserError(f"{results}: no tables: expected a finished `make demo` or `make small`")
    path = docs / "provenance.json"
    write_json(path, (read_json(path) if path.exists() else {}) | made)
    write_text(readme, with_headline(readme.read_text(), docs))


def _origin(provenance: Path) -> dict[str, object]:
    """What made some results. Raises UserError for a dirty checkout's."""
    source = read_json(provenance)
    if source["dirty"] is not False:
        raise UserError(f"{provenance}: dirty checkout: expected results of a clean commit")
    return {key: source[key] for key in ("commit", "packages", "python")}


def _copy(results: Path, docs: Path, figures: bool) -> dict[str, object]:
    """Copy every scenario's tables, and perhaps figures; returns what made them."""
    made: dict[str, object] = {}
    for folder in sorted(results.glob("*/tables")):
        scenario = folder.parent.name
        made[scenario] = _origin(folder / "provenance.json")
        shutil.rmtree(docs / scenario, ignore_errors=True)
        (docs / scenario).mkdir(parents=True)
        kind = read_json(folder / "provenance.json")["config"]["data"]["kind"]
        for name in TABLES[kind]:
            shutil.copy(folder / f"{name}.csv", docs / scenario)
        for name in FIGURES[kind] if figures else ():
            shutil.copy(folder.parent / "figures" / f"{name}.png", docs / scenario)
    return made


def _copy_validation(results: Path, docs: Path) -> dict[str, object]:
    """Copy the tables of metrics under known damage; returns what made them."""
    made: dict[str, object] = {}
    for table in sorted(results.glob("metrics_validation/*.csv")):
        made[f"metrics_validation/{table.stem}"] = _origin(table.with_suffix(".json"))
        (docs / "metrics_validation").mkdir(parents=True, exist_ok=True)
        shutil.copy(table, docs / "metrics_validation")
    return made


def with_headline(text: str, docs: Path) -> str:
    """README's text with its table renewed from docs/record."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n{headline(docs)}{END}{tail}"


def headline(docs: Path) -> str:
    """The mixture's table as Markdown: a row a method, mean and 95% interval."""
    import pandas as pd

    from pdmd.tables import markdown, readable

    frame = pd.read_csv(docs / "mixture2d" / "modes.csv")
    wanted = [f"{name}_{end}" for name in HEADLINE for end in ("mean", "low", "high")]
    short = readable(frame[["method", "n", *wanted]])
    short["method"] = [f"`{name}` {look(name).label}" for name in frame["method"]]
    return markdown(short)
