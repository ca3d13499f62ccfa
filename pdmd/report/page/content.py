"""What the report shows, gathered from finished results."""

from __future__ import annotations

import base64
import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pdmd.config.paper import SCALES, Artefact
from pdmd.files.storage import read_json, reading
from pdmd.report.looks import look
from pdmd.report.registry import TABLES
from pdmd.report.worded import caption_of
from pdmd.report.writing import cell
from pdmd.scenarios.kind import Kind, kinds

ENDS = ("_mean", "_low", "_high")
METHOD, AGAINST = "method", "against"


@dataclass(frozen=True)
class Origin:
    """What made a table or figure: one click away from it.

    Attributes:
        record: its file; commit, state: of the code; made_from: input -> digest.
    """

    record: str
    commit: str
    state: str
    packages: Mapping[str, str]
    made_from: Mapping[str, str]


@dataclass(frozen=True)
class Cell:
    """One cell: what is shown, and what it is sorted by."""

    text: str
    key: str


@dataclass(frozen=True)
class Shown:
    """A table or a figure.

    Attributes:
        heads, rows: of a table; image: of a figure, as an address that holds it.
    """

    name: str
    title: str
    caption: str
    origin: Origin
    heads: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    image: str = ""


@dataclass(frozen=True)
class Clip:
    """One prompt, a picture or a moving one for each method."""

    prompt: str
    shown: Sequence[tuple[str, str]]  # method's label, address


@dataclass(frozen=True)
class Scenario:
    """All that is shown of one scenario."""

    name: str
    title: str
    tables: Sequence[Shown]
    figures: Sequence[Shown]
    clips: Sequence[Clip]
    configs: Sequence[tuple[str, str]]  # a method's label, its settings


@dataclass(frozen=True)
class Page:
    """The whole."""

    title: str
    commit: str
    headline: Sequence[Shown]
    claims: Shown | None
    paper: Sequence[tuple[str, Sequence[Shown], Sequence[tuple[str, str]]]]
    scenarios: Sequence[Scenario]


def address(content: bytes, kind: str) -> str:
    """Content as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture(path: Path) -> str:
    """A PNG file as an address. Raises UserError."""
    with reading(path, "a picture"):
        return address(path.read_bytes(), "image/png")


def origin(record: Path, name: str) -> Origin:
    """What a record says of one table or figure. Raises UserError."""
    value = read_json(record, dict, ("commit", "dirty", "packages", "inputs_sha256"))
    with reading(record, "a record of what made tables or figures"):
        digests = {str(path): str(digest) for path, digest in value["inputs_sha256"].items()}
        paths = value.get("made_from", {}).get(name, sorted(digests))
        state = {False: "clean", True: "changed since", None: "unknown"}[value["dirty"]]
        packages = {str(k): str(v) for k, v in value["packages"].items()}
        made_from = {str(path): digests[str(path)] for path in paths}
        return Origin(str(record), str(value["commit"] or "none"), state, packages, made_from)


def table(path: Path, title: str, caption: str, record: Path, name: str) -> Shown:
    """A CSV of tidy columns as a table: mean and interval in one cell. Raises UserError."""
    with reading(path, "a table in CSV"), path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
        heads = _heads(rows[0]) if rows else []
        cells = [[_cell(row, head) for head in heads] for row in rows]
    return Shown(name, title, caption, origin(record, name), heads, cells)


def _heads(row: Mapping[str, str]) -> list[str]:
    folded = [name.removesuffix("_mean") for name in row if not name.endswith(ENDS[1:])]
    return list(dict.fromkeys(folded))


def _cell(row: Mapping[str, str], head: str) -> Cell:
    if f"{head}_mean" not in row:
        value = row[head]
        named = head in (METHOD, AGAINST)
        return Cell(look(value).label if named else _number(value), value)
    mean, low, high = (float(row[f"{head}{end}"] or "nan") for end in ENDS)
    return Cell(cell(mean, low, high), row[f"{head}_mean"])


def _number(text: str) -> str:
    """A number as people read it; other text as it is, "-" of none."""
    if not text:
        return "–"
    try:
        value = float(text)
    except ValueError:
        return text
    if value.is_integer() and "." not in text:
        return text
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}" if value else "0"


def tables_of(folder: Path, kind: Kind, title: str) -> list[Shown]:
    """The tables of a scenario, in the order of its kind."""
    named = {name: what for name, (_, what) in kind.metrics().items()}
    shown = []
    for name in kind.tables:
        path = folder / "tables" / f"{name}.csv"
        if path.exists():
            what = named.get(name) or TABLES[name].caption.format(fidelity=kind.fidelity)
            record = folder / "tables" / "provenance.json"
            words = caption_of(name, kind.name)
            shown.append(table(path, f"{title}: {what}", words, record, name))
    return shown


def figures_of(folder: Path, kind: Kind, title: str, names: Iterable[str]) -> list[Shown]:
    """The figures of a scenario that are there."""
    record, shown = folder / "figures" / "provenance.json", []
    for name in names:
        path = folder / "figures" / f"{name}.png"
        if path.exists():
            made = origin(record, name)
            shown.append(
                Shown(
                    name, f"{title}: {name}", caption_of(name, kind.name), made, image=picture(path)
                )
            )
    return shown


def paper_of(
    results: Path, listed: Sequence[Artefact]
) -> list[tuple[str, list[Shown], list[tuple[str, str]]]]:
    """Scale -> the paper's artefacts that were made, and why others were not."""
    found = []
    for scale in SCALES:
        folder = results / "paper" / scale
        record = folder / "provenance.json"
        if not record.exists():
            continue
        shown, absent = [], []
        for artefact in listed:
            image, values = folder / f"{artefact.id}.png", folder / f"{artefact.id}.csv"
            title = f"{artefact.name} of the paper"
            if image.exists():
                made = origin(record, artefact.id)
                one = Shown(artefact.id, title, artefact.caption, made, image=picture(image))
                shown.append(one)
            elif values.exists():
                shown.append(table(values, title, artefact.caption, record, artefact.id))
            else:
                why = artefact.why_not(scale) or "its methods were not run here"
                absent.append((artefact.name, why))
        found.append((scale, shown, absent))
    return found


def scenario(folder: Path, clips: Sequence[Clip]) -> Scenario | None:
    """All that is shown of a scenario, None of one without tables. Raises UserError."""
    record = folder / "tables" / "provenance.json"
    if not record.exists():
        return None
    with reading(record, "the record of a scenario's tables"):
        config = read_json(record)["config"]
        kind, title = kinds()[config["data"]["kind"]], str(config["title"])
    chosen = [path.stem for path in (folder / "figures").glob("*.png")]
    names = [*kind.figures, *(name for name in sorted(chosen) if name not in kind.figures)]
    return Scenario(
        folder.name,
        title,
        tables_of(folder, kind, title),
        figures_of(folder, kind, title, names),
        clips,
        configs_of(folder),
    )


def configs_of(folder: Path) -> list[tuple[str, str]]:
    """What each method was trained, or sampled, by: the newest settings of its longest stage."""
    found = []
    for method in sorted(path for path in folder.iterdir() if (path / "config").is_dir()):
        for stage in ("distill", "fit", "sample"):
            paths = sorted(
                (method / "config").glob(f"{stage}.*.json"), key=lambda one: one.stat().st_mtime
            )
            if paths:
                text = yaml.safe_dump(read_json(paths[-1], dict), sort_keys=False)
                found.append((look(method.name).label, text))
                break
    return found


def claims_of(results: Path) -> Shown | None:
    """The ledger of claims that these results decide, None without one."""
    path = results / "claims.csv"
    if not path.exists():
        return None
    shown = table(path, "Claims", caption_of("claims"), path.with_suffix(".json"), "claims")
    kept = ("claim", "verdict", "effect", "n", "p_holm", "metric", METHOD, AGAINST, "place")
    places = [shown.heads.index(head) for head in kept if head in shown.heads]
    rows = [[row[place] for place in places] for row in shown.rows]
    value: dict[str, Any] = {**vars(shown), "heads": [shown.heads[i] for i in places], "rows": rows}
    return Shown(**value)
