"""What rules ask of the registry of the paper: its tables and figures that an experiment gives."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pdmd.config.claims import part_of
from pdmd.config.paper import SCALES, artefacts
from pdmd.files.storage import fingerprint
from pdmd.jobs.graph import Graph
from pdmd.report.paper.make import Plan, outputs, planned, reads


class Papered:
    """The paper's artefacts of an experiment's own results, by scale."""

    def __init__(self, graph: Graph):
        self.graph = graph
        experiment = graph.experiment
        self.listed = artefacts(experiment.root)
        parts = [
            graph.parts[scenario][f"{method}/config/paper.json"]
            for scenario in experiment.scenarios
            for method in experiment.method_names(scenario)
        ]
        self.parts = {(part.run.scenario, part.run.method): part for part in parts}

    @cached_property
    def plans(self) -> dict[str, Plan]:
        """Scale -> what is made, of scales that have some."""
        runs = [part.run for part in self.parts.values()]
        results = self.graph.results
        part = part_of(results)
        every = {s: planned(self.listed, s, part, runs, Path(results)) for s in SCALES}
        return {scale: plan for scale, plan in every.items() if plan}

    def files(self, scale: str) -> list[str]:
        """What is written at a scale, the record last."""
        return [f"{self.graph.results}/paper/{scale}/{name}" for name in outputs(self.plans[scale])]

    def every(self) -> list[str]:
        """What is written at all scales."""
        return [path for scale in self.plans for path in self.files(scale)]

    def inputs(self, scale: str) -> list[str]:
        """The results that it is made from."""
        paths = (path for one in self.plans[scale] for path in reads(*one))
        return list(dict.fromkeys(map(str, paths)))

    def configs(self, scale: str) -> list[str]:
        """The configs of the methods that it shows, whose dates do not count."""
        from snakemake.io import ancient

        return [ancient(str(self.parts[key].path)) for key in self._shown(scale)]

    def digest(self, scale: str) -> str:
        """The digest of their contents."""
        return fingerprint([self.parts[key].content for key in self._shown(scale)])

    def wanted(self, scale: str) -> str:
        """The digest of what the registry wants of them, and of what it says of the others."""
        plan = [
            (repr(artefact), [one.made.methods for one in of]) for artefact, of in self.plans[scale]
        ]
        return fingerprint([plan, [one.why_not(scale) for one in self.listed]])

    def _shown(self, scale: str) -> list[tuple[str, str]]:
        runs = [run for _, sources in self.plans[scale] for one in sources for run in one.runs]
        return list(dict.fromkeys((run.scenario, run.method) for run in runs))
