"""Tables of record: a row a method, 95% intervals over seeds, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pdmd.config.experiment import Config
from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.config.sections import Data, Run
from pdmd.errors import UserError
from pdmd.files import provenance
from pdmd.metrics.intervals import defined, mean_interval
from pdmd.metrics.ranges import ANY, Range, ranges
from pdmd.report.differences import differences_table
from pdmd.report.looks import name_methods
from pdmd.report.reading import (
    read_boundaries,
    read_costs,
    read_frames,
    read_metrics,
    read_strata,
)
from pdmd.report.registry import TABLES, tables_from
from pdmd.report.writing import is_count, write_table
from pdmd.scenarios.kind import kind_of
from pdmd.stages.outputs import PROVENANCE, STRATA

if TYPE_CHECKING:
    import pandas as pd

COST = ["updates", "seconds", "forward_equivalents", "peak_memory_mb"]


def interval_table(
    values: Mapping[str, Sequence[Mapping[str, float | None]]],
    names: Sequence[str],
    limits: Mapping[str, Range] | None = None,
) -> pd.DataFrame:
    """Method -> its seeds' metrics, as a tidy frame: method, n, <metric>_mean, _low, _high.

    n counts a method's seeds. A metric that only some seeds of a method have (in others it is not
    defined) has one more column, <metric>_n: the seeds that its mean is over.

    Args:
        limits: metric -> its range, at which intervals are cut.
    """
    import pandas as pd

    rows, ends = [], limits or {}
    for method, seeds in values.items():
        row: dict[str, Any] = {"method": method, "n": len(seeds)}
        for name in names:
            values_of = [seed.get(name) for seed in seeds]
            interval = mean_interval(values_of, ends.get(name, ANY))
            row |= dict(zip(_columns(name), (*interval, len(defined(values_of))), strict=True))
        rows.append(row)
    columns = ["method", "n", *(column for name in names for column in _columns(name))]
    return _without_full_counts(pd.DataFrame(rows, columns=columns))


def _columns(name: str) -> list[str]:
    return [f"{name}_{end}" for end in ("mean", "low", "high", "n")]


def _without_full_counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Drop <metric>_n where every method's seeds all have the metric, or none has."""
    counts = [column for column in frame.columns if is_count(frame, column)]
    full = [name for name in counts if (frame[name].eq(0) | frame[name].eq(frame["n"])).all()]
    return frame.drop(columns=full)


def stacked(frames: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Frames one below the other, each metric's seeds counted in all if in one; or no rows."""
    import pandas as pd

    if not frames:
        return pd.DataFrame(columns=list(columns))
    table = pd.concat(frames, ignore_index=True)
    counts = [column for column in table.columns if is_count(table, column)]
    for column in counts:
        name = column.removesuffix("_n")
        all_or_none = table["n"].where(table[f"{name}_mean"].notna(), 0)
        values = table.pop(column).fillna(all_or_none).astype(int)
        table.insert(list(table.columns).index(f"{name}_high") + 1, column, values)
    return table


def crossing(frontier: pd.DataFrame, fidelity: str, level: float) -> dict[str, float] | None:
    """Metrics where training last passes a level of fidelity, linear between snapshots.

    The last pass, because students start as the teacher's few-step sampler. Inliers count on the
    way up only: a collapsed start has many, too, and loses them first. Density falls as a student
    gains diversity, and counts both ways. None if training never passes the level. Snapshots whose
    fidelity is undefined are left out.
    """
    frontier = frontier.dropna(subset=[fidelity])
    above = (frontier[fidelity] >= level).to_numpy()
    passes = above[1:] > above[:-1] if fidelity == "inliers" else above[1:] != above[:-1]
    if not passes.any():
        return None
    last = passes.nonzero()[0][-1]
    before, after = frontier.iloc[last], frontier.iloc[last + 1]
    share = (level - before[fidelity]) / (after[fidelity] - before[fidelity])
    mixed = before + share * (after - before)
    return {str(name): float(value) for name, value in mixed.items()}


def equal_fidelity_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Diversity where each seed's training last passes a level of fidelity.

    `n` counts the seeds that pass it; a method that never does has n = 0.
    """
    data = runs[0].data
    fidelity, names, frames = compared_at(data), list(kind_of(data).equal), []
    for level in runs[0].tables.levels:
        by_method: dict[str, list[dict[str, float]]] = {}
        for run in _distilled(runs):
            paths = [Paths(run).seed(seed, "frontier.csv") for seed in run.seeds]
            hits = [
                crossing(frontier.drop(columns="step"), fidelity, level)
                for frontier in read_frames(paths, "step", [fidelity, *names])
            ]
            by_method[run.method] = [hit for hit in hits if hit is not None]
        frame = interval_table(by_method, names, ranges(names, data))
        frame.insert(1, fidelity, level)
        frames.append(frame)
    return stacked(frames, ["method", fidelity, "n"])


def _distilled(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.kind == "distill"]


def exits_table(runs: Sequence[Run]) -> pd.DataFrame:
    """What each exit step of the last phase gives, for methods that train with random exits.

    Exit "all" is the mixture over exits, which the truncated gradient matches to the teacher.
    """
    data = runs[0].data
    names, frames = [compared_at(data), *kind_of(data).equal], []
    for run in _distilled(runs):
        if run.student.backward != "exit":
            continue
        paths = [Paths(run).seed(seed, "exits.csv") for seed in run.seeds]
        seeds = read_frames(paths, "exit", names)
        if "all" not in set(seeds[0]["exit"]):
            raise UserError(f"{paths[0]}: exit all: missing: expected the mixture over exits")
        if len(seeds[0]) <= 2:
            continue  # a phase of one step has one exit
        frames += _by_row(run.method, seeds, "exit", names, data)
    return stacked(frames, ["method", "exit", "n"])


def experts_table(runs: Sequence[Run]) -> pd.DataFrame:
    """How pictures change when one of two experts is exchanged: in layout, and in detail."""
    names, frames = ["layout", "detail"], []
    for run in _distilled(runs):
        if len(run.student.ends) != 2:
            continue
        paths = [Paths(run).seed(seed, "experts.csv") for seed in run.seeds]
        seeds = read_frames(paths, "variant", names)
        frames += _by_row(run.method, seeds, "variant", names, runs[0].data)
    return stacked(frames, ["method", "variant", "n"])


def _by_row(
    method: str, seeds: Sequence[pd.DataFrame], key: str, names: Sequence[str], data: Data
) -> list[pd.DataFrame]:
    """A frame for each row of the seeds' files, which have the same rows."""
    frames = []
    for number, row in enumerate(seeds[0][key]):
        by_seed = [{name: float(seed[name].iloc[number]) for name in names} for seed in seeds]
        frame = interval_table({method: by_seed}, names, ranges(names, data))
        frame.insert(1, key, row)
        frames.append(frame)
    return frames


def boundary_table(runs: Sequence[Run]) -> pd.DataFrame:
    """How far the samples that leave each phase are from the teacher's law at that noise level."""
    frames = []
    for run in _distilled(runs):
        paths = [Paths(run).seed(seed, "boundary.json") for seed in run.seeds]
        seeds = [read_boundaries(path, len(run.student.ends)) for path in paths]
        for number in range(len(seeds[0])):
            frame = interval_table({run.method: [one[number] for one in seeds]}, ["energy"])
            frame.insert(1, "phase", number + 1)
            frame.insert(2, "t", round(seeds[0][number]["t"], 4))
            frames.append(frame)
    return stacked(frames, ["method", "phase", "t", "n"])


def recovered_table(runs: Sequence[Run]) -> pd.DataFrame:
    """The share of the gap from DMD2 to the teacher that each method closes, seed by seed.

    (value - DMD2) / (teacher - DMD2): 1 is the teacher, 0 is DMD2, more than 1 is past the teacher.
    The row `gap` is the mean gap and its 95% interval; where that holds 0, or there is none, a
    share of it would mean nothing and is NaN.
    """
    import pandas as pd

    names = kind_of(runs[0].data).recovered
    metrics = read_metrics(runs, names)
    if not {"teacher", "dmd2"} <= metrics.keys():
        return pd.DataFrame(columns=["method", "n"])
    pairs = list(zip(metrics["teacher"], metrics["dmd2"], strict=True))
    shares: dict[str, list[dict[str, float]]] = {
        "gap": [{name: t[name] - d[name] for name in names} for t, d in pairs]
    }
    shown = [name for name in names if is_sure([gap[name] for gap in shares["gap"]])]
    for method, seeds in metrics.items():
        if method in ("teacher", "dmd2"):
            continue
        shares[method] = [
            {name: closed(scores[name], t[name], d[name]) for name in shown}
            for scores, (t, d) in zip(seeds, pairs, strict=True)
        ]
    return interval_table(shares, names)


def strata_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Scores of the samples of each stratum of prompts alone, a row a method and stratum."""
    data = runs[0].data
    names, frames = list(kind_of(data).strata), []
    for run in runs:
        paths = [Paths(run).seed(seed, STRATA) for seed in run.seeds]
        seeds = [read_strata(path, names) for path in paths]
        for path, one in zip(paths, seeds, strict=True):
            sizes, wanted = (
                {stratum: int(scores["samples"]) for stratum, scores in each.items()}
                for each in (one, seeds[0])
            )
            if sizes != wanted:
                raise UserError(f"{path}: samples {sizes}: expected {wanted}, as of the first seed")
        for stratum, scores in seeds[0].items():
            by_seed = {run.method: [one[stratum] for one in seeds]}
            frame = interval_table(by_seed, names, ranges(names, data))
            frame.insert(1, "stratum", stratum)
            frame.insert(2, "samples", int(scores["samples"]))
            frames.append(frame)
    return stacked(frames, ["method", "stratum", "samples", "n"])


def runs_table(runs: Sequence[Run]) -> pd.DataFrame:
    """What one seed's training of each method cost."""
    return interval_table(read_costs(runs), COST, ranges(COST))


def closed(value: float, teacher: float, dmd2: float) -> float:
    """The share of the gap from DMD2 to the teacher that a value closes, NaN of no gap."""
    return (value - dmd2) / (teacher - dmd2) if teacher != dmd2 else math.nan


def is_sure(gaps: Sequence[float]) -> bool:
    """Whether the gaps have a 95% interval, and it excludes 0."""
    _, low, high = mean_interval(gaps)
    return low > 0 or high < 0


NOTE = "Mean and 95% interval over seeds, if three or more, cut to what the metric can be."


def compared_at(data: Data) -> str:
    """The fidelity at which training's paths are compared. Raises ValueError without one."""
    fidelity = kind_of(data).fidelity
    if fidelity is None:
        raise ValueError(f"data.kind: {data.kind}: expected one with a path of training")
    return fidelity


MAKE: dict[str, Callable[[Sequence[Run]], pd.DataFrame]] = {
    "equal_fidelity": equal_fidelity_table,
    "exits": exits_table,
    "boundary": boundary_table,
    "recovered": recovered_table,
    "strata": strata_table,
    "experts": experts_table,
    "differences": differences_table,
    "runs": runs_table,
}


def make_table(runs: Sequence[Run], name: str) -> tuple[pd.DataFrame, str]:
    """One of a scenario's tables, and its caption."""
    kind, title = kind_of(runs[0].data), runs[0].title
    if name in TABLES:
        caption = TABLES[name].caption.format(fidelity=kind.fidelity)
        return MAKE[name](runs), f"{title}: {caption}. {NOTE}"
    columns, what = kind.metrics()[name]
    metrics = read_metrics(runs, columns)
    table = interval_table(metrics, columns, ranges(columns, runs[0].data))
    return table, f"{title}: {what}. {NOTE}"


def write_tables(configs: Sequence[Config]) -> None:
    """Write every table of one scenario from its resolved runs."""
    runs = [read_run(config) for config in configs]
    name_methods(runs)
    names, folder = kind_of(runs[0].data).tables, Paths(runs[0]).scenario / "tables"
    for name in names:
        table, caption = make_table(runs, name)
        write_table(table, folder / name, caption)
    written = [f"{name}.{end}" for name in names for end in ("csv", "md", "tex")]
    made_from = tables_from(runs)
    provenance.record_drawn(folder / PROVENANCE, configs[0], runs[0].seeds, made_from, written)
