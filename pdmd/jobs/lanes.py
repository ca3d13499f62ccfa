"""Jobs that differ by their wildcards alone, and the constraints of these wildcards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pdmd.config.experiment import Experiment
from pdmd.config.parts import uses_bank
from pdmd.config.sections import Run
from pdmd.jobs.resources import Request, Requests
from pdmd.scenarios.kind import Kind
from pdmd.stages.outputs import (
    DIAGNOSTICS,
    STRATA,
    diagnostics,
    is_seen,
    scored,
)
from pdmd.training.launch import prefix

if TYPE_CHECKING:
    from pdmd.jobs.graph import Graph

NOTHING = "(?!)"  # what no name matches
Inputs = Callable[[Any], list[str]]
Declared = Callable[..., Iterable[Any]]


def either(names: Iterable[str]) -> str:
    """A wildcard constraint: one of these names."""
    return "|".join(dict.fromkeys(names)) or NOTHING


def classed(kind: Kind) -> bool:
    """Whether data are latents with classes."""
    return kind.classes > 0


def with_prompts(kind: Kind) -> bool:
    """Whether data are pictures or clips with prompts."""
    return kind.prompted is not None


def released(kind: Kind) -> bool:
    """Whether the base network is a released model."""
    return kind.pretrained


@dataclass(frozen=True)
class Lane:
    """Jobs that differ by their wildcards alone.

    Attributes:
        scenarios: whose jobs they are; seeds: that train together, None for one seed a job;
        ending: what names of rules end with, "" for the stage alone.
    """

    graph: Graph
    scenarios: tuple[str, ...]
    seeds: tuple[int, ...] | None
    ending: str = ""

    @property
    def experiment(self) -> Experiment:
        """Whose jobs these are."""
        return self.graph.experiment

    @property
    def only(self) -> str:
        """A wildcard constraint: the lane's scenarios."""
        return either(self.scenarios)

    @property
    def seen(self) -> str:
        """A wildcard constraint: those of them whose samples are decoded, and looked at."""
        kinds = {name: self.graph.kind(name) for name in self.scenarios}
        return either(name for name, one in kinds.items() if one.prompted or one.frozen)

    @property
    def scored(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """Stage, wildcard constraint of scenarios, and files: of those with strata, and without."""
        by_files: dict[tuple[str, ...], list[str]] = {}
        for name in self.scenarios:
            by_files.setdefault(scored(self.graph.kind(name)), []).append(name)
        return [
            ("score_strata" if STRATA in files else "score", either(names), files)
            for files, names in by_files.items()
        ]

    @property
    def released(self) -> str:
        """A wildcard constraint: those of them whose base network is a released model."""
        return either(name for name in self.scenarios if released(self.graph.kind(name)))

    @property
    def group(self) -> str:
        """A wildcard constraint: one seed."""
        return "[0-9]+"

    def name(self, stage: str) -> str:
        """A rule's name: the stage, of released models so marked; or with the scenario's name."""
        if self.seeds is None:
            return f"{stage}_{self.ending}" if self.ending else stage
        return f"{stage}_{self.scenarios[0]}"

    @property
    def bundle(self) -> str | None:
        """The group of jobs that are submitted as one: short ones of one process, none of them a
        released model's."""
        runs = self.experiment.runs.items()
        large = any(prefix(run.hardware) for (name, _), run in runs if name in self.scenarios)
        return None if self.ending or large else "score"

    def methods(self, *kinds: str) -> str:
        """A wildcard constraint: the lane's methods of some kinds."""
        names = (name for one in self.scenarios for name in self.experiment.select(one, kinds))
        return either(names)

    def has(self, *kinds: str) -> bool:
        """Whether there are methods of some kinds."""
        return self.methods(*kinds) != NOTHING

    @property
    def diagnostics(self) -> list[str]:
        """The diagnostics that are made of some method."""
        return [name for name in DIAGNOSTICS if self.diagnosed(name)[0] != NOTHING]

    def diagnosed(self, diagnostic: str) -> tuple[str, str]:
        """Wildcard constraints: the scenarios and methods that a diagnostic is made of."""
        pairs = [
            pair
            for pair, run in self.experiment.runs.items()
            if pair[0] in self.scenarios and diagnostic in diagnostics(run)
        ]
        return either(scenario for scenario, _ in pairs), either(method for _, method in pairs)

    def folders(self, below: str = "") -> list[str]:
        """Folders of the job's seeds, wildcards left open."""
        seeds: Sequence[Any] = ["{group}"] if self.seeds is None else self.seeds
        root = f"{self.graph.results}/{{scenario}}/{{method}}"
        return ["/".join(filter(None, (root, f"seed{seed}", below))) for seed in seeds]

    def files(self, names: Iterable[str], below: str = "") -> list[str]:
        """Files of the job's seeds, wildcards left open."""
        return [f"{folder}/{name}" for folder in self.folders(below) for name in names]

    def benchmark(self, below: str) -> str:
        """Where Snakemake keeps what a job took: with the first of its seeds."""
        return f"{self.folders(below)[0]}/benchmark.tsv"

    def diagnostic(self, name: str) -> list[str]:
        """The files of a diagnostic, for the job's seeds."""
        return self.files(DIAGNOSTICS[name].files)

    def numbers(self, wildcards: Any) -> list[int]:
        """The job's seeds."""
        return [int(wildcards.group)] if self.seeds is None else list(self.seeds)

    @property
    def named(self) -> str:
        """The same as a command has them, wildcards left open."""
        return "{group}" if self.seeds is None else " ".join(map(str, self.seeds))

    def run(self, wildcards: Any) -> Run:
        """The resolved run of a job."""
        return self.experiment.runs[wildcards.scenario, wildcards.method]

    def reads(self, declared: Declared) -> Inputs:
        """An input function: what a stage reads for the job's seeds."""

        def paths(wildcards: Any) -> list[str]:
            phase = [int(wildcards.phase)] if hasattr(wildcards, "phase") else []
            run, seeds = self.run(wildcards), self.numbers(wildcards)
            every = (path for seed in seeds for path in declared(run, seed, *phase))
            return list(dict.fromkeys(map(str, every)))

        return paths

    def banks(self, wildcards: Any) -> list[str]:
        """An input function: the banks that a later phase starts from."""
        if int(wildcards.phase) == 1 or not uses_bank(self.run(wildcards)):
            return []
        folders = self.folders(f"phase{wildcards.phase}/bank")
        return [folder.format(**wildcards) for folder in folders]

    def requests(self, stage: str) -> Request:
        """What a job that trains or draws asks of a cluster, as functions of its wildcards."""
        requests = Requests(self.experiment)
        if stage in ("bank", "sample", "decode", "features"):
            return requests.drawing(stage, self.numbers)
        return requests.of(stage, self.numbers)

    @property
    def urgency(self) -> int:
        """The longest chains first: of scenarios with prompts, then by number of phases."""
        chains = [
            10 * is_seen(run) + self.experiment.phases(*pair)
            for pair, run in self.experiment.runs.items()
            if pair[0] in self.scenarios
        ]
        return max(chains)
