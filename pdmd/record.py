"""Keep a finished demo's tables and a figure in docs/record, and README's table equal to them."""

from __future__ import annotations

import shutil
from pathlib import Path

from pdmd.catalogue import FIGURES, TABLES
from pdmd.errors import UserError
from pdmd.naming import look
from pdmd.storage import read_json, write_json, write_text

BEGIN, END = "<!-- headline table: made by `make record` -->", "<!-- end of headline table -->"
HEADLINE = ("inliers", "modes_covered", "tv", "spread", "energy")


def keep_record(results: Path, docs: Path, readme: Path) -> None:
    """Copy a demo's tables and figures to docs/record and renew README's table from them.

    Tables of the ablations and of the small models in full, in <results>/ablations and
    <results>/small, are kept beside them if they are there.

    Raises:
        UserError: the results were made from a dirty checkout or are not there.
    """
    made = _copy(results, docs, figures=True)
    if not made:
        raise UserError(f"{results}: no tables: expected a finished `make demo`")
    ablations = _copy(results / "ablations", docs / "ablations", figures=False)
    made |= {f"ablations/{scenario}": source for scenario, source in ablations.items()}
    small = _copy(results / "small", docs / "small", figures=True)
    made |= {f"small/{scenario}": source for scenario, source in small.items()}
    write_json(docs / "provenance.json", made)
    write_text(readme, with_headline(readme.read_text(), docs))


def _copy(results: Path, docs: Path, figures: bool) -> dict[str, object]:
    """Copy every scenario's tables, and perhaps figures; returns what made them."""
    made: dict[str, object] = {}
    for folder in sorted(results.glob("*/tables")):
        scenario = folder.parent.name
        source = read_json(folder / "provenance.json")
        if source["dirty"] is not False:
            raise UserError(f"{folder}: dirty checkout: expected results of a clean commit")
        made[scenario] = {key: source[key] for key in ("commit", "packages", "python")}
        shutil.rmtree(docs / scenario, ignore_errors=True)
        (docs / scenario).mkdir(parents=True)
        kind = source["config"]["data"]["kind"]
        for name in TABLES[kind]:
            shutil.copy(folder / f"{name}.csv", docs / scenario)
        for name in FIGURES[kind] if figures else ():
            shutil.copy(folder.parent / "figures" / f"{name}.png", docs / scenario)
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
