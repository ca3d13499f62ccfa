"""A table of the paper: published values, and beside them ours with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdmd.config.paper import SCIENCE, Artefact, Made, Published
from pdmd.metrics.intervals import mean_interval
from pdmd.metrics.ranges import ANY, Range, metric_range
from pdmd.report.claims import RECORDED, seed_scores
from pdmd.report.looks import look
from pdmd.report.reading import read_every_recorded, read_scores
from pdmd.report.tables import closed, is_sure

if TYPE_CHECKING:
    import pandas as pd

DMD2, TEACHER = "dmd2", "teacher"  # between which a share of the gap is closed
BETWEEN = ": "  # a group's title and a column's head
Seeds = dict[int, dict[str, float]]  # seed -> scores


@dataclass(frozen=True)
class Group:
    """Columns of ours.

    Attributes:
        made: what they are made of; scores: method -> seed -> scores; files: that these are from.
    """

    made: Made
    scores: Mapping[str, Seeds]
    files: tuple[Path, ...]

    @property
    def title(self) -> str:
        """What its columns stand below."""
        return f"ours, {self.made.scenario}"


def read_group(results: Path, made: Made) -> Group | None:
    """The scores of one scenario's methods, of runs or of runs on record; None of none.

    Of several parts that have some, the last one's; a part of the science may have others beside
    it, for methods that it lacks.

    Raises:
        UserError: a file is damaged.
    """
    for part in reversed(made.parts):
        scores, files = _scores(results / part / made.scenario, made.methods)
        if not scores:
            continue
        seeds = set().union(*scores.values())
        for other in made.beside if part.startswith(SCIENCE) else ():
            more, of = _scores(
                results / other / made.scenario, [one for one in made.methods if one not in scores]
            )
            same = {name: found for name, found in more.items() if set(found) == seeds}
            scores |= same
            files += of if same else []
        return Group(
            made, {name: scores[name] for name in made.methods if name in scores}, tuple(files)
        )
    return None


def _scores(folder: Path, methods: Sequence[str]) -> tuple[dict[str, Seeds], list[Path]]:
    """The scores of a scenario's methods that have some, and the files that they are from."""
    if (folder / RECORDED).exists():
        every = read_every_recorded(folder / RECORDED)
        return {name: every[name] for name in methods if name in every}, [folder / RECORDED]
    paths = {name: of for name in methods if (of := seed_scores(folder / name))}
    scores = {
        name: {seed: read_scores(path) for seed, path in of.items()} for name, of in paths.items()
    }
    return scores, [path for of in paths.values() for path in of.values()]


def score_tables(artefact: Artefact, groups: Sequence[Group]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row a method, a group of columns a published base, then one a scenario of ours.

    Returns:
        values: of ours n, <head>_mean, _low, _high; and shares of the gap from DMD2 to the teacher
        that a method closes: 1 is the teacher, 0 is DMD2; empty where there is none. Ours is NaN
        where the gap's interval holds 0.
    """
    import pandas as pd

    methods = _methods(artefact, groups)
    values: list[dict[str, Any]] = [{"method": _label(name)} for name in methods]
    shares: list[dict[str, Any]] = [{"method": _label(name)} for name in methods]
    for published in artefact.published:
        for name, row, share in zip(methods, values, shares, strict=True):
            row |= _published(published, artefact.columns, name)
            share |= _published_shares(published, artefact.columns, name)
    for group in groups:
        for name, row, share in zip(methods, values, shares, strict=True):
            row |= _ours(group, name)
            share |= _our_shares(group, name)
    closing = [name not in (DMD2, TEACHER) for name in methods]
    kept = [share for share, closes in zip(shares, closing, strict=True) if closes]
    return pd.DataFrame(values), _without_empty(pd.DataFrame(kept))


def _methods(artefact: Artefact, groups: Sequence[Group]) -> list[str]:
    """Those that a group has, in the order of what is made; published ones without ours last."""
    ours = {name for group in groups for name in group.scores}
    order = [name for made in artefact.made for name in made.methods]
    published = [name for one in artefact.published for name in one.rows]
    return list(dict.fromkeys([name for name in order if name in {*ours, *published}]))


def _label(method: str) -> str:
    return look(method).label


def _published(published: Published, heads: Sequence[str], method: str) -> dict[str, Any]:
    row = published.rows.get(method, (None,) * len(heads))
    return {
        f"{published.title}{BETWEEN}{head}": math.nan if value is None else value
        for head, value in zip(heads, row, strict=True)
    }


def _published_shares(published: Published, heads: Sequence[str], method: str) -> dict[str, Any]:
    rows, shares = published.rows, {}
    for column, head in enumerate(heads):
        triple = [rows[name][column] if name in rows else None for name in (method, TEACHER, DMD2)]
        value, teacher, dmd2 = (math.nan if one is None else one for one in triple)
        shares[f"{published.title}{BETWEEN}{head}"] = closed(value, teacher, dmd2)
    return shares


def _ours(group: Group, method: str) -> dict[str, Any]:
    seeds = group.scores.get(method, {})
    row: dict[str, Any] = {f"{group.title}{BETWEEN}n": len(seeds)}
    for metric, head in group.made.metrics:
        values = [scores.get(metric, math.nan) for scores in seeds.values()]
        row |= _interval(f"{group.title}{BETWEEN}{head}", values, metric_range(metric))
    return row


def _our_shares(group: Group, method: str) -> dict[str, Any]:
    row: dict[str, Any] = {}
    every = [group.scores.get(name, {}) for name in (method, TEACHER, DMD2)]
    seeds = sorted(set.intersection(*map(set, every)))
    for metric, head in group.made.metrics:
        triples = [[one[seed].get(metric, math.nan) for one in every] for seed in seeds]
        sure = is_sure([teacher - dmd2 for _, teacher, dmd2 in triples])
        values = [closed(*triple) for triple in triples] if sure else []
        row |= _interval(f"{group.title}{BETWEEN}{head}", values, ANY)
    return row


def _interval(name: str, values: Sequence[float], limits: Range) -> dict[str, float]:
    ends = zip(("mean", "low", "high"), mean_interval(values, limits), strict=True)
    return {f"{name}_{end}": value for end, value in ends}


def _without_empty(frame: pd.DataFrame) -> pd.DataFrame:
    """Without columns that no row has a value in."""
    return frame.dropna(axis=1, how="all")
