"""Keep finished runs' tables and figures in docs/record, and README's table equal to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pdmd.errors import UserError
from pdmd.files.storage import read_json, reading, replacing, write_json, write_text, writing
from pdmd.report.looks import look
from pdmd.scenarios.kind import kinds

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

    What of <results> itself and of the PARTS below it is not there stays as it was recorded, and
    so does everything if one file of the results is refused.

    Raises:
        UserError: the results were made from a dirty checkout, are damaged or are not there.
    """
    made: dict[str, object] = {}
    copies: dict[Path, Path] = {}
    for part, figures in PARTS.items():
        origins = _scenarios(results / part, docs / part, figures, copies)
        origins |= _validations(results / part, docs / part, copies)
        made |= {str(Path(part, name)): origin for name, origin in origins.items()}
    if not made:
        raise UserError(f"{results}: no tables: expected a finished `make demo` or `make small`")
    path = docs / "provenance.json"
    known = read_json(path, dict) if path.exists() else {}
    with reading(readme, f"a table between {BEGIN!r} and {END!r}"):
        text = readme.read_text(encoding="utf-8")
        _parts(text)
    _copy(copies)
    write_json(path, known | made)
    write_text(readme, with_headline(text, docs))


def _origin(provenance: Path) -> dict[str, object]:
    """What made some results. Raises UserError for a dirty checkout's."""
    source = read_json(provenance, dict, ("dirty",))
    if source["dirty"] is not False:
        raise UserError(f"{provenance}: dirty checkout: expected results of a clean commit")
    with reading(provenance, "a file of provenance"):
        return {key: source[key] for key in ("commit", "packages", "python")}


def _scenarios(
    results: Path, docs: Path, figures: bool, copies: dict[Path, Path]
) -> dict[str, object]:
    """Note in `copies`, target -> source, every scenario's tables, and perhaps figures.

    Returns:
        scenario -> what made them.
    """
    made: dict[str, object] = {}
    for folder in sorted(results.glob("*/tables")):
        scenario, provenance = folder.parent.name, folder / "provenance.json"
        made[scenario] = _origin(provenance)
        with reading(provenance, "the provenance of a scenario's tables"):
            kind = read_json(provenance)["config"]["data"]["kind"]
            brings = kinds()[kind]
            tables, drawn = brings.tables, brings.figures if figures else []
        sources = [folder / f"{name}.csv" for name in tables]
        sources += [folder.parent / "figures" / f"{name}.png" for name in drawn]
        copies |= {docs / scenario / source.name: source for source in sources}
    return made


def _validations(results: Path, docs: Path, copies: dict[Path, Path]) -> dict[str, object]:
    """Note the tables of metrics under known damage; returns what made them."""
    made: dict[str, object] = {}
    for table in sorted(results.glob("metrics_validation/*.csv")):
        made[f"metrics_validation/{table.stem}"] = _origin(table.with_suffix(".json"))
        copies[docs / "metrics_validation" / table.name] = table
    return made


def _copy(copies: Mapping[Path, Path]) -> None:
    """Copy files whole, once all of them are there; of scenarios drop what was recorded before."""
    contents = {}
    for target, source in copies.items():
        with reading(source, "a file of finished results"):
            contents[target] = source.read_bytes()
    for target, content in contents.items():
        with replacing(target) as beside:
            beside.write_bytes(content)
    folders = {target.parent for target in copies}
    for folder in [one for one in folders if one.name != "metrics_validation"]:
        for path in set(folder.iterdir()) - copies.keys():
            with writing(path):
                path.unlink()


def with_headline(text: str, docs: Path) -> str:
    """README's text with its table renewed from docs/record."""
    head, tail = _parts(text)
    return f"{head}{BEGIN}\n{headline(docs)}{END}{tail}"


def _parts(text: str) -> tuple[str, str]:
    """What stands before and after README's table. Raises ValueError without one."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return head, tail


def headline(docs: Path) -> str:
    """The mixture's table as Markdown: a row a method, mean and 95% interval."""
    import pandas as pd

    from pdmd.report.tables import markdown, readable

    path = docs / "mixture2d" / "modes.csv"
    wanted = [f"{name}_{end}" for name in HEADLINE for end in ("mean", "low", "high")]
    with reading(path, "the recorded table of modes"):
        frame = pd.read_csv(path)
        short = readable(frame[["method", "n", *wanted]])
    short["method"] = [f"`{name}` {look(name).label}" for name in frame["method"]]
    return markdown(short)
