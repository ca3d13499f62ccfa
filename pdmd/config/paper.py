"""The registry of the paper's tables and figures: what each is made of here, and why one is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pdmd.config.claims import LETTERS, NAME
from pdmd.config.complaints import refusal
from pdmd.config.schema import check
from pdmd.config.typed import Schema, build, derived, key, schema
from pdmd.config.yaml_files import read_mapping

FILE = Path("config/paper.yaml")
SCIENCE = "science/"  # parts of `make science`
Scale = Literal["toy", "small", "tiny", "real"]
SCALES: tuple[str, ...] = get_args(Scale)
DRAWN = ("figure", "curve", "rollouts", "intervals")  # kinds of artefacts that are figures
TABLE, IMAGE = ("csv", "md", "tex"), ("png", "pdf")


@dataclass(frozen=True, kw_only=True)
class Published:
    """One group of a published table's columns."""

    base: str = key("the base model, as the paper has it", minLength=1, maxLength=LETTERS)
    version: str = key("of the paper", pattern="v[0-9]", absent="v3")
    rows: Mapping[str, tuple[Any, ...]] = derived()  # method -> a value a column

    @property
    def title(self) -> str:
        """What its columns stand below."""
        return f"published, {self.base}, {self.version}"


@dataclass(frozen=True, kw_only=True)
class Made:
    """What an artefact is made of at one scale: one scenario's methods."""

    scale: Scale = key("of the models")
    scenario: str = key("its name", pattern=NAME, maxLength=60)
    parts: tuple[str, ...] = key(
        "folders below `results` that it may lie in, such as `science/moving`; empty for `results`"
        " itself; of several that are there, the last",
        entries=(1, 10),
    )
    beside: tuple[str, ...] = key(
        "of a table: parts of `science/` with the same seeds, for methods that its own part of"
        " `science/` has not",
        absent=(),
        entries=(1, 10),
    )
    methods: tuple[str, ...] = key(
        "in the order of rows or panels; of a curve, names of grids", entries=(1, 50)
    )
    needs: tuple[str, ...] = key(
        "methods, or of a curve grids, without which it is not made", absent=(), entries=(1, 10)
    )
    drawing: str | None = key("of a `figure`: the function of the kind's room", absent=None)
    metrics: tuple[tuple[str, str], ...] = derived(())  # ours, and the head of its column
    lines: tuple[tuple[str, str], ...] = derived(())  # of a curve: a group of cells, and its label


@dataclass(frozen=True, kw_only=True)
class Absent:
    """Why an artefact cannot be made at a scale."""

    scale: Scale = key("of the models")
    why: str = key("in a line", minLength=1, maxLength=LETTERS)


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """One table or figure of the paper."""

    id: str = key("`table` or `fig`, and its number", pattern="(table[0-9]|fig[0-9]{2})")
    kind: Literal["scores", "settings", "figure", "curve", "rollouts", "intervals"] = key(
        "what it is made of: scores beside published ones, settings of methods, a figure of the"
        " kind's room, metrics over a key, rollouts or intervals of the code"
    )
    caption: str = key("ours", minLength=1, maxLength=LETTERS)
    columns: tuple[str, ...] = key("heads of the published columns", absent=(), entries=(1, 20))
    along: str | None = key("of a `curve`: its setting", absent=None, maxLength=60)
    axis: str | None = key(
        "of a `curve`: what that is called; its key's last part where nothing is said",
        absent=None,
        maxLength=60,
    )
    published: tuple[Published, ...] = derived(())
    made: tuple[Made, ...] = derived(())
    absent: tuple[Absent, ...] = derived(())

    @property
    def drawn(self) -> bool:
        """Whether it is a figure."""
        return self.kind in DRAWN

    @property
    def name(self) -> str:
        """Its number in the paper, as a reader says it."""
        word, number = ("Table", self.id[5:]) if self.id[0] == "t" else ("Fig.", self.id[3:])
        return f"{word} {int(number)}"

    @property
    def endings(self) -> tuple[str, ...]:
        """Of the files that it is written as."""
        return IMAGE if self.drawn else TABLE

    def at(self, scale: str) -> tuple[Made, ...]:
        """What it is made of at a scale."""
        return tuple(one for one in self.made if one.scale == scale)

    def why_not(self, scale: str) -> str | None:
        """Why it is not made at a scale."""
        return next((one.why for one in self.absent if one.scale == scale), None)


def paper_schema() -> Schema:
    """The JSON schema of the file."""
    numbers = {"type": "array", "items": {"type": ["number", "string", "null"]}}
    published, made = schema(Published), schema(Made)
    published["properties"]["rows"] = {"type": "object", "additionalProperties": numbers}
    published["required"] = [*published["required"], "rows"]
    named = {"type": "string", "minLength": 1, "maxLength": 60}
    for name in ("metrics", "lines"):
        made["properties"][name] = {"type": "object", "additionalProperties": named}
    artefact = schema(Artefact)
    for name, items in {"published": published, "made": made, "absent": schema(Absent)}.items():
        artefact["properties"][name] = {"type": "array", "maxItems": 100, "items": items}
    listed = {"type": "array", "maxItems": 100, "items": artefact}
    of_file: Schema = {"type": "object", "additionalProperties": False, "required": ["artefacts"]}
    return {**of_file, "properties": {"artefacts": listed}}


def read_paper(path: Path) -> list[Artefact]:
    """The artefacts of a file, in its order.

    Raises:
        UserError: one line that names the file, the key, its value and what was expected.
    """
    content = read_mapping(path)
    check(content, paper_schema(), path)
    artefacts = [_artefact(one) for one in content["artefacts"]]
    known: set[str] = set()
    for number, artefact in enumerate(artefacts):
        where = f"artefacts.{number}"
        if artefact.id in known:
            raise refusal(path, f"{where}.id", artefact.id, "an id that no other artefact has")
        known.add(artefact.id)
        _check(artefact, path, where)
    return artefacts


def _artefact(value: Mapping[str, Any]) -> Artefact:
    lists = {
        "published": [_published(one) for one in value.get("published", ())],
        "made": [
            replace(
                build(Made, one),
                metrics=tuple(one.get("metrics", {}).items()),
                lines=tuple(one.get("lines", {}).items()),
            )
            for one in value.get("made", ())
        ],
        "absent": [build(Absent, one) for one in value.get("absent", ())],
    }
    return build(Artefact, {**value, **lists})


def _published(value: Mapping[str, Any]) -> Published:
    rows = {method: tuple(row) for method, row in value["rows"].items()}
    return build(Published, {**value, "rows": rows})


def _check(artefact: Artefact, path: Path, where: str) -> None:
    """What a schema cannot say. Raises UserError."""
    for scale in SCALES:
        why, made = artefact.why_not(scale), artefact.at(scale)
        if (why is None) == (not made):
            expected = f"either what it is made of at scale {scale}, or why it is not"
            raise refusal(path, f"{where}.absent", why, expected)
    if artefact.drawn != artefact.id.startswith("fig"):
        raise refusal(path, f"{where}.kind", artefact.kind, f"what {artefact.name} can be")
    if artefact.kind == "curve" and artefact.along is None:
        raise refusal(path, f"{where}.along", None, "the setting along the curve")
    for i, one in enumerate(artefact.made):
        if artefact.kind == "figure" and one.drawing is None:
            raise refusal(path, f"{where}.made.{i}.drawing", None, "a function of the kind's room")
        if artefact.kind in ("scores", "curve") and not one.metrics:
            raise refusal(path, f"{where}.made.{i}.metrics", None, "metrics and their heads")
        if artefact.drawn and len(artefact.at(one.scale)) > 1:
            raise refusal(path, f"{where}.made.{i}.scale", one.scale, "one scenario a figure")
    wide = len(artefact.columns)
    for i, group in enumerate(artefact.published):
        for method, row in group.rows.items():
            if len(row) != wide:
                expected = f"{wide} values, one a column"
                raise refusal(path, f"{where}.published.{i}.rows.{method}", list(row), expected)


def artefacts(root: Path) -> list[Artefact]:
    """The artefacts of a repository, none where it has no such file. Raises UserError."""
    path = root / FILE
    return read_paper(path) if path.exists() else []


def made_in(
    listed: Iterable[Artefact], part: str | None, methods: Mapping[str, Iterable[str]]
) -> list[tuple[Artefact, Made]]:
    """What of the paper a results folder can give: artefacts, each with what it is made of.

    Args:
        part: the folder, below `results`; None: elsewhere. What is in no part that an artefact
            names is a user's own, and gives all but what is of tiny models.
        methods: that it has, of each scenario. What it is made of has those alone.
    """
    pairs, listed = [], list(listed)
    known = {name for artefact in listed for one in artefact.made for name in one.parts}
    own = part is None or (part not in known and not part.startswith(SCIENCE))
    for artefact in listed:
        for one in artefact.made:
            there = list(methods.get(one.scenario, ()))
            named = _named(artefact, one, there)
            fits = part in one.parts or (own and one.scale != "tiny")
            if fits and named and all(_of(artefact, want, named) for want in one.needs):
                pairs.append((artefact, replace(one, methods=tuple(named))))
    return pairs


def _named(artefact: Artefact, one: Made, there: list[str]) -> list[str]:
    """The methods of a scenario that are named; of a curve also those of a grid that is."""
    if artefact.kind != "curve":
        return [name for name in one.methods if name in there]
    known = {name for want in one.methods for name in _of(artefact, want, there)}
    return [name for name in there if name in known]


def _of(artefact: Artefact, wanted: str, there: Iterable[str]) -> list[str]:
    """The methods that a name means: itself, of a curve also the cells of a grid."""
    grid = f"{wanted}-" if artefact.kind == "curve" else None
    return [name for name in there if name == wanted or (grid and name.startswith(grid))]
