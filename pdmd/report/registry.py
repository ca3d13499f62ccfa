"""What each table and figure of a scenario is made from: declared once.

The declaration gives its edges in the graph, and its digests in the record. A kind's `kind.py`
names its tables and figures; those that several kinds have stand here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pdmd.config.paths import Paths
from pdmd.config.sections import Run
from pdmd.config.times import chooses, ranges
from pdmd.scenarios.kind import kind_of
from pdmd.stages.outputs import (
    STRATA,
    choice_reads,
    exchanges,
    grid_reads,
    is_exact,
    measured_costs,
    phases_of,
    ranged_reads,
)

METRIC = ("metrics",)  # what a table of metrics is made from


@dataclass(frozen=True)
class Table:
    """A table that several kinds of scenario have; report/tables.py makes it.

    Attributes:
        reads: names in READS; caption: after the scenario's title; {fidelity}: see Kind.
    """

    reads: tuple[str, ...]
    caption: str


TABLES = {
    "equal_fidelity": Table(
        ("frontier",), "diversity where training last passes the same {fidelity}"
    ),
    "exits": Table(("exits",), "samples by exit step of the last phase, and their mixture"),
    "boundary": Table(("boundary",), "energy distance to the exact law at the end of each phase"),
    "recovered": Table(METRIC, "share of the gap from DMD2 to the teacher that is closed"),
    "strata": Table(
        ("strata",), "scores of the samples of each stratum of prompts alone, and how many they are"
    ),
    "experts": Table(("swaps",), "change of pictures when one expert is exchanged"),
    "differences": Table(
        METRIC,
        "differences from DMD2 and from the untrained teacher on a student's own steps, by seed,"
        " and p of the paired t test",
    ),
    "runs": Table(("cost", "measured cost"), "cost of one seed's training"),
}


# That no kind names: of scenarios whose methods choose their steps, or ranges of re-noising levels.
FIGURES = {"steps": ("steps",), "overlap": ("overlap",)}
CHOOSING = {"steps": chooses, "overlap": ranges}


def _seeds(name: str) -> Callable[[Run], list[Path]]:
    return lambda run: [Paths(run).seed(seed, name) for seed in run.seeds]


def _first(name: str) -> Callable[[Run], list[Path]]:
    return lambda run: [Paths(run).seed(run.seeds[0], name)]


def _phases(name: str) -> Callable[[Run], list[Path]]:
    def paths(run: Run) -> list[Path]:
        numbers = phases_of(run) if run.kind == "distill" else [1]
        return [Paths(run).phase(seed, number, name) for seed in run.seeds for number in numbers]

    return paths


def _data(name: str) -> Callable[[Run], list[Path]]:
    return lambda run: [Paths(run).data(name)]


def _where(
    applies: Callable[[Run], bool], paths: Callable[[Run], list[Path]]
) -> Callable[[Run], list[Path]]:
    return lambda run: paths(run) if applies(run) else []


def distilled(run: Run) -> bool:
    """Whether a run is of a student."""
    return run.kind == "distill"


READS: Mapping[str, Callable[[Run], list[Path]]] = {  # name -> files of a method, or of its data
    "metrics": _seeds("metrics.json"),
    "strata": _seeds(STRATA),
    "samples": _first("samples.safetensors"),
    "every sample": _seeds("samples.safetensors"),
    "decoded": _first("decoded.safetensors"),
    "every decoded": _seeds("decoded.safetensors"),
    "cost": _where(lambda run: run.kind != "teacher", _phases("metrics.json")),
    "measured cost": measured_costs,
    "training": _where(distilled, _phases("stats.jsonl")),
    "frontier": _where(distilled, _seeds("frontier.csv")),
    "exits": _where(
        lambda run: distilled(run) and run.student.backward == "exit", _seeds("exits.csv")
    ),
    "boundary": _where(lambda run: distilled(run) and is_exact(run), _seeds("boundary.json")),
    "swaps": _where(lambda run: distilled(run) and exchanges(run), _seeds("experts.csv")),
    "swapped": _where(lambda run: distilled(run) and exchanges(run), _first("experts.safetensors")),
    "steps": _where(chooses, lambda run: [*choice_reads(run), *grid_reads(run)]),
    "overlap": ranged_reads,
    "fitted": lambda run: [*_seeds("config.json")(run), *_phases("expert.safetensors")(run)],
    "codec": _data("codec.safetensors"),
    "heldout": _data("heldout.safetensors"),
    "prompts": _data("prompts.json"),
    "pictures": _data("pictures.safetensors"),
}


def table_reads(run: Run, name: str) -> list[str]:
    """The names in READS of what one of a scenario's tables is made from."""
    return list(TABLES[name].reads if name in TABLES else METRIC)


def figure_reads(run: Run, name: str) -> list[str]:
    """The names in READS of what one of a scenario's figures is drawn from."""
    kind = kind_of(run.data)
    return list({**kind.figures, **kind.further, **FIGURES}[name])


def figure_names(runs: Sequence[Run]) -> list[str]:
    """The figures of a scenario: those of its kind, and of methods that choose their levels."""
    chosen = [name for name in FIGURES if any(map(CHOOSING[name], runs))]
    return [*kind_of(runs[0].data).figures, *chosen]


def files(runs: Sequence[Run], reads: Iterable[str]) -> list[Path]:
    """What is read of a scenario's methods, and of its data once.

    Args:
        reads: names in READS.
    """
    return list(dict.fromkeys(path for name in reads for run in runs for path in READS[name](run)))


def tables_from(runs: Sequence[Run]) -> dict[str, list[Path]]:
    """Name of each of a scenario's tables -> what it is made from."""
    first = runs[0]
    return {name: files(runs, table_reads(first, name)) for name in kind_of(first.data).tables}


def figures_from(runs: Sequence[Run]) -> dict[str, list[Path]]:
    """Name of each of a scenario's figures -> what it is drawn from."""
    first = runs[0]
    return {name: files(runs, figure_reads(first, name)) for name in figure_names(runs)}
