"""What rules ask of the configuration: which jobs there are, what each reads and writes.

Rules are few and named by their stage; a job is one by its wildcards. Snakemake wants a rule's
outputs before it knows wildcards, so seeds that train together have rules of their own, named after
their scenario; every other job has one seed, the wildcard {group}.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pdmd.config.experiment import Experiment
from pdmd.config.parts import Part, kept_file
from pdmd.config.sections import Networks, Run
from pdmd.config.times import chooses, ranges
from pdmd.files.storage import fingerprint
from pdmd.jobs.lanes import Declared, Inputs, Lane, either, released
from pdmd.models.source import is_tiny
from pdmd.report.registry import figure_names, figures_from, tables_from
from pdmd.scenarios.kind import Kind, kind_of
from pdmd.stages.outputs import (
    choice_reads,
    kept_files,
    known,
    range_reads,
)


class Graph:
    """The jobs of an experiment.

    Args:
        parts: scenario -> name below results/<scenario> -> what jobs read of the configuration;
        base: the repository, whose kept weights are found from everywhere.
    """

    def __init__(
        self,
        experiment: Experiment,
        parts: Mapping[str, Mapping[str, Part]],
        base: Path = Path(),
    ):
        self.experiment, self.parts, self.base = experiment, parts, base
        self.results = str(experiment.settings["results"])

    @cached_property
    def lanes(self) -> list[Lane]:
        """Jobs of one seed each; those of released models; those of seeds that train together."""
        every = self.experiment.scenarios
        groups = {name: self.experiment.groups(name) for name in every}
        together = [name for name in every if len(groups[name][0]) > 1]
        large = [name for name in every if released(self.kind(name))]
        apart = [name for name in every if name not in (*together, *large)]
        lanes = [Lane(self, tuple(apart), None)] if apart else []
        lanes += [Lane(self, tuple(large), None, "released")] if large else []
        return lanes + [Lane(self, (name,), tuple(groups[name][0])) for name in together]

    def scenarios(self, applies: Callable[[Kind], Any]) -> str:
        """A wildcard constraint: the scenarios of some kinds."""
        return either(name for name in self.experiment.scenarios if applies(self.kind(name)))

    def threads(self, wildcards: Any) -> int:
        """CPU threads of a process, as its config has them."""
        return int(self.experiment.scenario(wildcards.scenario)["threads"])

    def threads_of_all(self, wildcards: Any) -> int:
        """The same of all processes that a job has on a node."""
        method = getattr(wildcards, "method", None)
        run = self.experiment.shared(wildcards.scenario)
        if method is not None:
            run = self.experiment.runs[wildcards.scenario, method]
        return self.threads(wildcards) * run.hardware.processes

    def part(self, name: str, wildcards: Any) -> Part:
        """The sections that one kind of job reads: of a method, or of a whole scenario.

        Raises:
            KeyError: the scenario has no such method, or its kind no such job.
        """
        folder = f"{wildcards.method}/" if hasattr(wildcards, "method") else ""
        return self.parts[wildcards.scenario][f"{folder}config/{name}.json"]

    def config(self, name: str) -> Inputs:
        """An input function: their file, whose date does not count."""
        from snakemake.io import ancient

        return lambda wildcards: [ancient(str(self.part(name, wildcards).path))]

    def digest(self, name: str) -> Callable[[Any], str]:
        """A params function: their digest."""
        return lambda wildcards: self.part(name, wildcards).digest

    @property
    def kept_clip(self) -> list[str]:
        """The file of the small CLIP that is taken, if one is, and what is said of it."""
        kept = kept_file(self.experiment.settings["clip"].get("kept"), self.base)
        return list(map(str, kept_files(kept))) if kept else []

    def data(self, *names: str) -> list[str]:
        """Files of a scenario's data folder, the scenario left open."""
        return [f"{self.results}/{{scenario}}/data/{name}" for name in names]

    @property
    def measured(self) -> str:
        """A wildcard constraint: scenarios with methods whose steps or phases are chosen."""
        return self._pairs(chooses, 0)

    @property
    def choosing(self) -> str:
        """A wildcard constraint: those methods."""
        return self._pairs(chooses, 1)

    @property
    def ranged(self) -> str:
        """A wildcard constraint: scenarios with methods whose re-noising ranges are chosen."""
        return self._pairs(ranges, 0)

    @property
    def ranging(self) -> str:
        """A wildcard constraint: those methods."""
        return self._pairs(ranges, 1)

    def _pairs(self, applies: Callable[[Run], bool], place: int) -> str:
        every = self.experiment.runs.items()
        return either(pair[place] for pair, run in every if applies(run))

    def chosen_from(self, wildcards: Any) -> list[str]:
        """An input function: the measurement that a method's steps and phases are chosen from."""
        return list(map(str, choice_reads(self.part("grid", wildcards).run)))

    def ranged_by(self, wildcards: Any) -> list[str]:
        """An input function: what a method's re-noising ranges are measured with."""
        return list(map(str, range_reads(self.part("range", wildcards).run)))

    def shared_reads(self, declared: Declared) -> Inputs:
        """An input function: what a job reads that serves all methods of a scenario."""

        def paths(wildcards: Any) -> list[str]:
            return list(map(str, declared(self.experiment.shared(wildcards.scenario))))

        return paths

    def model(self, name: str) -> Callable[[Any], str]:
        """A params function: a key of a scenario's model."""
        return lambda wildcards: str(
            getattr(self.experiment.shared(wildcards.scenario).model, name)
        )

    def networks(self, wildcards: Any) -> str:
        """The options of `pdmd find-networks`: those that a scenario's samples are looked at by."""
        run = self.experiment.runs_of(wildcards.scenario)[0]
        named = (run.evaluate.networks or Networks()).fetched
        return " ".join(f"--{role} {shlex.quote(name)}" for role, name in named.items())

    def revision(self, wildcards: Any) -> str:
        """The option of `pdmd fetch` that names a revision, where there is one."""
        revision = self.experiment.shared(wildcards.scenario).model.revision
        return "" if revision is None else f"--revision {shlex.quote(revision)}"

    def tiny_model(self, wildcards: Any) -> list[str]:
        """An input function: the tiny random model that a rule writes, where that is the source."""
        source = self.experiment.shared(wildcards.scenario).model.source
        return [str(source)] if is_tiny(str(source), self.results) else []

    def tables(self, scenario: str) -> list[str]:
        """Every table of a scenario."""
        names, folder = self.kind(scenario).tables, f"{self.results}/{scenario}/tables"
        return [f"{folder}/{name}.{end}" for name in names for end in ("csv", "md", "tex")]

    def figures(self, scenario: str) -> list[str]:
        """Every figure of a scenario."""
        folder = f"{self.results}/{scenario}/figures"
        names = figure_names(self.experiment.runs_of(scenario))
        return [f"{folder}/{name}.{end}" for name in names for end in ("png", "pdf")]

    def kind(self, scenario: str) -> Kind:
        """What a scenario's kind brings."""
        return kind_of(self.experiment.shared(scenario).data)

    def targets(self, scenario: str) -> list[str]:
        """Everything a person asks of a scenario."""
        tried = scenario in self.experiment.settings["validate"]
        validation = [f"{self.results}/metrics_validation/{scenario}.csv"] if tried else []
        folder = f"{self.results}/{scenario}"
        records = [f"{folder}/{kind}/provenance.json" for kind in ("tables", "figures")]
        drawn = [*self.tables(scenario), *self.figures(scenario), *records]
        return [*drawn, *self.scores(scenario), *validation]

    def scores(self, scenario: str) -> list[str]:
        """What is known of every method's samples: asked for, so that a lost file is made again."""
        folder = f"{self.results}/{scenario}"
        return [
            f"{folder}/{method}/seed{seed}/{name}"
            for method in self.experiment.method_names(scenario)
            for seed in self.experiment.seeds(scenario)
            for name in known(self.experiment.runs[scenario, method])
        ]

    def drawn_from(self, scenario: str) -> list[Part]:
        """What tables and figures read of the configuration, a part a method."""
        methods = self.experiment.method_names(scenario)
        return [self.parts[scenario][f"{method}/config/table.json"] for method in methods]

    def drawn_configs(self, scenario: str) -> list[str]:
        """Their files."""
        from snakemake.io import ancient

        return [ancient(str(part.path)) for part in self.drawn_from(scenario)]

    def drawn_digest(self, scenario: str) -> str:
        """The digest of their contents."""
        return fingerprint([part.content for part in self.drawn_from(scenario)])

    def table_inputs(self, scenario: str) -> list[str]:
        """The results that tables are made from."""
        return self._inputs(scenario, tables_from)

    def figure_inputs(self, scenario: str) -> list[str]:
        """The results that figures are drawn from."""
        return self._inputs(scenario, figures_from)

    def _inputs(
        self, scenario: str, declared: Callable[[Sequence[Run]], dict[str, list[Path]]]
    ) -> list[str]:
        runs = [part.run for part in self.drawn_from(scenario)]
        every = (path for paths in declared(runs).values() for path in paths)
        return list(dict.fromkeys(map(str, every)))

    def reported(self) -> list[str]:
        """What a report of all scenarios shows."""
        every = self.experiment.scenarios
        drawn = [path for s in every for path in (*self.tables(s), *self.figures(s))]
        return [path for path in drawn if path.endswith((".csv", ".png"))]

    def fitted(self, name: str, declared: Declared) -> Inputs:
        """An input function: what a fit reads, whose weights serve every seed."""
        return lambda wildcards: list(map(str, declared(self.part(name, wildcards).run)))
