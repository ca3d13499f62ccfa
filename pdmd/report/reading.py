"""What tables and figures read of finished runs: whole files, or one line that names the file."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdmd.config.paths import Paths
from pdmd.config.sections import Run
from pdmd.errors import UserError
from pdmd.files.digests import check_recorded
from pdmd.files.storage import read_json, reading
from pdmd.stages.outputs import measured_costs

if TYPE_CHECKING:
    import pandas as pd

BESIDE = "_teacher"  # ends a metric that only methods other than the teacher have
EXPECTED = "expected a finite number, or nothing where it is undefined"
COST = ("updates", "seconds", "runs_trained_together", "peak_memory_mb")
PASSES = "forward_equivalents_by_role"


def read_scores(path: Path, names: Sequence[str] = ()) -> dict[str, float]:
    """Metric -> value of a JSON file; null, which is undefined, is read as NaN.

    Args:
        names: metrics that must be there, but for comparisons with the teacher.
    Raises:
        UserError: the file is damaged, a value is no finite number, or a metric is missing.
    """
    scores = read_json(path)
    if not isinstance(scores, dict) or not scores:
        raise UserError(f"{path}: {_short(scores)}: expected a map of metrics to numbers")
    for name in names:
        if name not in scores and not name.endswith(BESIDE):
            raise UserError(f"{path}: {name}: missing: expected every metric of the scenario")
    return {name: _number(path, name, value) for name, value in scores.items()}


def _short(value: Any) -> str:
    return repr(value)[:60]


def _number(path: Path, name: str, value: Any) -> float:
    if value is None:
        return math.nan
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not known or not math.isfinite(value):
        raise UserError(f"{path}: {name}: {_short(value)}: {EXPECTED}")
    return value


def read_metrics(
    runs: Iterable[Run], names: Sequence[str] = ()
) -> dict[str, list[dict[str, float]]]:
    """Method -> metrics.json of each seed, with these metrics."""
    return {
        run.method: [
            read_scores(Paths(run).seed(seed, "metrics.json"), names) for seed in run.seeds
        ]
        for run in runs
    }


def read_strata(path: Path, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Stratum -> its scores, and how many `samples` they are of.

    Raises:
        UserError: the file is damaged, or a stratum lacks a metric.
    """
    strata = read_json(path)
    if not isinstance(strata, dict) or not strata:
        raise UserError(f"{path}: {_short(strata)}: expected a map of strata to their scores")
    found = {}
    for stratum, scores in strata.items():
        if not isinstance(scores, dict) or not {"samples", *names} <= scores.keys():
            raise UserError(f"{path}: {stratum}: {_short(scores)}: expected samples and scores")
        values = {
            name: _number(path, f"{stratum}: {name}", value) for name, value in scores.items()
        }
        if not values["samples"] >= 1:
            raise UserError(f"{path}: {stratum}: samples: {values['samples']}: expected at least 1")
        found[stratum] = values
    return found


def read_costs(runs: Iterable[Run]) -> dict[str, list[dict[str, float]]]:
    """Method -> cost of each seed, summed over phases; seeds trained together share the seconds.

    What settings are chosen by comes first, once: of the teacher, or of one method.
    """
    costs: dict[str, list[dict[str, float]]] = {}
    for run in runs:
        for path in measured_costs(run):
            costs[_measurement(run, path)] = [_cost([path])]
    for run in runs:
        if run.kind == "teacher":
            continue
        paths = Paths(run)
        phases = len(run.student.ends) if run.kind == "distill" else 1
        costs[run.method] = [
            _cost([paths.phase(seed, number + 1, "metrics.json") for number in range(phases)])
            for seed in run.seeds
        ]
    return costs


def _measurement(run: Run, path: Path) -> str:
    """What the cost of a measurement is called: `measure`, or `range` of a method."""
    return f"range of {run.method}" if path.parent == Paths(run).method else "measure"


def _cost(files: Sequence[Path]) -> dict[str, float]:
    """The cost of a seed's phases."""
    parts = [_phase_cost(path) for path in files]
    return {
        "updates": sum(part["updates"] for part in parts),
        "seconds": sum(part["seconds"] / part["runs_trained_together"] for part in parts),
        "forward_equivalents": sum(part[PASSES] for part in parts),
        "peak_memory_mb": max(part["peak_memory_mb"] for part in parts),
    }


def _phase_cost(path: Path) -> dict[str, float]:
    metrics = read_json(path)
    passes = metrics.get(PASSES) if isinstance(metrics, dict) else None
    if not isinstance(passes, dict):
        raise UserError(f"{path}: {_short(metrics)}: expected the cost of a phase with {PASSES}")
    cost = {PASSES: sum(_number(path, name, value) for name, value in passes.items())}
    for name in COST:
        cost[name] = _number(path, name, metrics.get(name))
    for name, value in cost.items():
        if not value >= (1 if name == "runs_trained_together" else 0):
            raise UserError(f"{path}: {name}: {value}: expected a number that is not negative")
    return cost


def read_boundaries(path: Path, phases: int) -> list[dict[str, float]]:
    """t and the energy distance at the end of each phase."""
    boundaries = read_json(path)
    if not isinstance(boundaries, list) or len(boundaries) != phases:
        raise UserError(
            f"{path}: {_short(boundaries)}: expected a record for each of {phases} phases"
        )
    for record in boundaries:
        if not isinstance(record, dict) or not {"t", "energy"} <= record.keys():
            raise UserError(f"{path}: {_short(record)}: expected t and energy of a phase")
    return [
        {name: _number(path, name, one[name]) for name in ("t", "energy")} for one in boundaries
    ]


def read_frames(paths: Sequence[Path], key: str, names: Sequence[str]) -> list[pd.DataFrame]:
    """CSV files of the seeds of a method, which have the same rows.

    Args:
        key: the column that names a row; names: columns of numbers that must be there.
    Raises:
        UserError: a file is damaged or cut short, lacks a column, or has other rows than the first.
    """
    frames = [read_frame(path, key, names) for path in paths]
    wanted = frames[0][key].tolist()
    for path, frame in zip(paths, frames, strict=True):
        rows = frame[key].tolist()
        if rows != wanted:
            raise UserError(
                f"{path}: {key} {', '.join(rows)[:60]}: expected {', '.join(wanted)[:60]}, as in"
                f" {paths[0].parent.name}"
            )
    return frames


def read_frame(path: Path, key: str, names: Sequence[str]) -> pd.DataFrame:
    """A CSV file as text in column `key` and numbers in all others; an empty cell is NaN.

    Raises:
        UserError: the file is damaged or cut short, or lacks a column.
    """
    import pandas as pd

    header, *rows = _cells(path)
    missing = [name for name in (key, *names) if name not in header]
    if missing or len(set(header)) < len(header):
        raise UserError(
            f"{path}: columns {', '.join(header)[:60]}: expected each once, with"
            f" {', '.join(missing) or 'no other'}"
        )
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    numbers = {
        name: list(cells) if name == key else [_cell(path, name, cell) for cell in cells]
        for name, cells in columns.items()
    }
    return pd.DataFrame(numbers)


def _cells(path: Path) -> list[list[str]]:
    """The header and the rows of a CSV file, all equally long and at least one."""
    check_recorded(path)
    try:
        text = path.read_bytes().decode()
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: {error}: expected a readable CSV file") from error
    if len(rows) < 2 or not text.endswith("\n"):
        raise UserError(f"{path}: {len(text)} letters: expected a whole CSV file with rows")
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise UserError(f"{path}: line {number}: {len(row)} cells: expected {len(rows[0])}")
    return rows


def _cell(path: Path, name: str, cell: str) -> float:
    if not cell:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path}: {name}: {_short(cell)}: {EXPECTED}")
    return value


def read_every_recorded(path: Path) -> dict[str, dict[int, dict[str, float]]]:
    """Method -> seed -> scores of a record of scores; NaN where one is undefined.

    Raises:
        UserError: the file is damaged.
    """
    import pandas as pd

    every: dict[str, dict[int, dict[str, float]]] = {}
    with reading(path, "a record of scores"):
        frame = pd.read_csv(path)
        names = [name for name in frame.columns if name not in ("method", "seed")]
        for row in frame.to_dict("records"):
            scores = {name: float(row[name]) for name in names}
            every.setdefault(str(row["method"]), {})[int(row["seed"])] = scores
    return every


def read_jsonl(path: Path, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The records of a stats.jsonl, each with these numbers.

    Raises:
        UserError: the file is damaged or empty; names the line.
    """
    check_recorded(path)
    try:
        lines = path.read_bytes().decode().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}: expected a readable file of JSON records") from error
    records = [_record(path, number, line, names) for number, line in enumerate(lines, 1)]
    if not records:
        raise UserError(f"{path}: no lines: expected a JSON record a line")
    return records


def _record(path: Path, number: int, line: str, names: Sequence[str]) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}: line {number}: {error}: expected a JSON record") from error
    known = record if isinstance(record, dict) else {}
    for name in names:
        if isinstance(known.get(name), bool) or not isinstance(known.get(name), (int, float)):
            raise UserError(f"{path}: line {number}: {_short(line)}: expected a number {name}")
    return known
