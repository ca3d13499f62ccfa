"""`pdmd ablate`: run an ablation beside what is there, and make its table and figure.

Cells lie with the scenario's other methods, so that data, base network, teacher and every method
that a cell equals are used as they are.
"""

from __future__ import annotations

import subprocess
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pdmd.config.ablation import BESIDE, Ablation, cells_of, read_ablation
from pdmd.config.experiment import Config, Experiment
from pdmd.config.paths import Paths
from pdmd.config.plan import read_workflow
from pdmd.config.sections import Run
from pdmd.errors import UserError
from pdmd.files import provenance
from pdmd.files.storage import write_text
from pdmd.jobs.claim import snakemake_command
from pdmd.jobs.command import CORES, given_settings, read_arguments
from pdmd.metrics.ranges import ranges
from pdmd.report.looks import call, look, name_methods
from pdmd.report.reading import read_metrics
from pdmd.report.registry import READS
from pdmd.report.tables import interval_table
from pdmd.report.writing import write_table
from pdmd.scenarios.kind import kind_of
from pdmd.stages.outputs import phases_of
from pdmd.warm import warmed

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "ablations"  # below the results


@dataclass(frozen=True)
class Planned:
    """An ablation with the experiment that runs it.

    Attributes:
        cells: of its grid, each with the method that it is.
    """

    ablation: Ablation
    experiment: Experiment
    cells: Mapping[str, str]

    @property
    def folder(self) -> Path:
        """Where its table and figure go."""
        return Path(self.experiment.settings["results"]) / FOLDER

    @property
    def runs(self) -> list[Run]:
        """What the table shows: teacher and DMD2, then each cell."""
        every, scenario = self.experiment, self.ablation.scenario
        names = [name for name in BESIDE if name in every.method_names(scenario)]
        return [every.runs[scenario, name] for name in [*names, *self.methods] if name]

    @property
    def methods(self) -> list[str]:
        """The methods that the cells are, each once."""
        beside = {name for name in BESIDE if name in self.cells.values()}
        return [name for name in dict.fromkeys(self.cells.values()) if name not in beside]


def ablate(path: Path, settings: Config, arguments: Sequence[str], dry: bool = False) -> None:
    """Run an ablation to its table and figure.

    Args:
        settings: those that its results are of; arguments: further ones of Snakemake, whose
            --configfile and --config go over the settings.
        dry: say what would be trained, and end.
    Raises:
        UserError: the file is wrong, or the workflow failed.
    """
    given = read_arguments("ablate", arguments)
    if given.targets:
        raise UserError(f"ablate: {next(iter(given.targets))}: expected no target: it has its own")
    planned = plan(read_ablation(path), given_settings("ablate", given, settings))
    print(summary(planned))
    if dry:
        return
    overlay = planned.folder / f"{planned.ablation.name}.yaml"
    write_text(overlay, yaml.safe_dump(planned.experiment.settings, sort_keys=False))
    with warmed():
        done = subprocess.run(snakemake_command(command(planned, overlay, arguments)), check=False)
    if done.returncode:
        raise UserError(f"ablate: {path}: the workflow failed: see above")
    write(planned)
    print(f"{planned.folder / planned.ablation.name}.md")


def command(planned: Planned, overlay: Path, arguments: Sequence[str]) -> list[str]:
    """Snakemake's arguments: an option of the user's that takes a list takes no target of ours.

    Args:
        overlay: all of its settings, those of the user's --configfile among them.
    """
    targets = [str(one) for run in planned.runs for one in READS["metrics"](run)]
    first = [f"-c{CORES}", "--rerun-incomplete"]
    return [*first, *arguments, "--configfile", str(overlay), "--", *targets]


def plan(ablation: Ablation, settings: Config) -> Planned:
    """The experiment of an ablation, and its cells. Raises UserError."""
    wanted = ablation.overlay(settings)
    scenario = ablation.scenario
    base = read_workflow(Path(), {**wanted, "methods": {}})
    listed = base.scenario(scenario)["methods"]
    diff: Config = {"methods": [*listed, ablation.name]}
    if ablation.seeds is not None:
        diff["seeds"] = list(ablation.seeds)
    overrides = dict(wanted.get("overrides", {}))
    overrides[scenario] = {**overrides.get(scenario, {}), **diff}
    experiment = read_workflow(Path(), {**wanted, "overrides": overrides})
    return Planned(ablation, experiment, cells_of(ablation, experiment))


def summary(planned: Planned) -> str:
    """How many training jobs it needs, and how many it does without."""
    scenario, every = planned.ablation.scenario, planned.experiment
    groups = len(every.groups(scenario))
    wanted = sum(groups * len(phases_of(every.runs[scenario, cell])) for cell in planned.cells)
    new = [name for cell, name in planned.cells.items() if cell == name]
    needed = [
        (name, number, seed)
        for name in new
        for number in phases_of(every.runs[scenario, name])
        for seed in [group[-1] for group in every.groups(scenario)]
    ]
    there = [one for one in needed if _expert(every.runs[scenario, one[0]], *one[1:]).exists()]
    equal = [f"{cell} is {name}" for cell, name in planned.cells.items() if cell != name]
    left = len(needed) - len(there)
    lines = [
        f"{planned.ablation.name}: {len(planned.cells)} cells, {wanted} training jobs,"
        f" {wanted - left} of them avoided: {wanted - len(needed)} are another method's,"
        f" {len(there)} are finished; {left} to run"
    ]
    return "\n".join([*lines, *(f"  {one}" for one in equal)])


def _expert(run: Run, number: int, seed: int) -> Path:
    return Paths(run).phase(seed, number, "expert.safetensors")


def write(planned: Planned) -> None:
    """Write <folder>/<name>.csv, .md, .tex, .png, .pdf, and the record of what made them."""
    from pdmd.report.figures import style
    from pdmd.report.figures.dots import dots

    runs, name = planned.runs, planned.ablation.name
    name_methods(runs)
    for run in runs:
        call(run.method, planned.experiment.overlay.labels.get(run.method))
    first = runs[0]
    kind = kind_of(first.data)
    names = planned.ablation.metrics or next(iter(kind.metrics().values()))[0]
    table = interval_table(read_metrics(runs, names), names, ranges(names, first.data))
    table = with_values(table, planned)
    keys = ", ".join(planned.ablation.grid)
    caption = f"{first.title}: {look(planned.ablation.of).label} by {keys}."
    write_table(table, planned.folder / name, caption)
    with style.paper():
        style.save(dots(runs, names[:5]), planned.folder / name)
    made_from = {name: [path for run in runs for path in READS["metrics"](run)]}
    written = [f"{name}.{end}" for end in ("csv", "md", "tex", "png", "pdf")]
    record, config = planned.folder / f"{name}.json", {"settings": planned.experiment.settings}
    provenance.record_drawn(record, config, first.seeds, made_from, written)


def with_values(table: pd.DataFrame, planned: Planned) -> pd.DataFrame:
    """The table with a column a key of the grid: the value that each method has, "-" of none."""
    runs = {run.method: run for run in planned.runs}
    for place, name in enumerate(planned.ablation.grid, start=1):
        values = [_value(runs[method], name) for method in table["method"]]
        table.insert(place, name.rpartition(".")[2], values)
    return table


def _value(run: Run, name: str) -> str:
    if run.kind == "teacher":
        return "-"
    value: Any = run
    for key in name.split("."):
        value = getattr(value, key, None)
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def listed(root: Path, scenarios: Sequence[str]) -> list[str]:
    """The ablations of a repository that are of some scenarios. Raises UserError."""
    files = sorted((root / "config" / FOLDER).glob("*.yaml"))
    return [str(path) for path in files if read_ablation(path).scenario in scenarios]


def places(command: Sequence[str]) -> list[str]:
    """Of a command line of Snakemake's what says where jobs run, and how many at once."""
    given = _read(command)
    found = [word for one in given.profile or () for word in ("--profile", str(one))]
    if given.executor:
        jobs = ["--jobs", str(given.jobs)] if given.jobs else []
        found += ["--executor", given.executor, *jobs]
    return found


def cores(command: Sequence[str]) -> int:
    """How many cores of this machine a command line of Snakemake's gives, by -c or by -j."""
    from snakemake.cli import parse_cores

    given = _read(command)
    said = given.cores or (None if given.executor else given.jobs)
    return CORES if said is None else int(parse_cores(said))


def _read(command: Sequence[str]) -> Namespace:
    from snakemake.cli import get_argument_parser

    return get_argument_parser().parse_known_args(list(command[1:]))[0]
