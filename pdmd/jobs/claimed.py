"""What rules ask of the registry of claims: those that an experiment decides, and by what."""

from __future__ import annotations

from pathlib import Path

from pdmd.config.claims import Claim, belonging, digest, registered
from pdmd.config.experiment import Experiment
from pdmd.report.registry import READS

ENDINGS = ("csv", "md", "tex")


class Claimed:
    """The claims of an experiment's own results.

    Attributes:
        claims: those of the registry, in its order, whose methods the experiment runs in the
            folder that they are claimed in; without a registry none.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.results = str(experiment.settings["results"])
        methods = {name: experiment.method_names(name) for name in experiment.scenarios}
        every = registered(experiment.root)
        self.claims: list[Claim] = belonging(every, self.results, methods)

    @property
    def ids(self) -> list[str]:
        """Their ids."""
        return [claim.id for claim in self.claims]

    @property
    def digest(self) -> str:
        """The digest of what is claimed."""
        return digest(self.claims)

    @property
    def scores(self) -> list[str]:
        """What decides them: the scores of their methods."""
        pairs = dict.fromkeys((c.scenario, name) for c in self.claims for _, name in c.needs)
        return [
            str(path) for pair in pairs for path in READS["metrics"](self.experiment.runs[pair])
        ]

    @property
    def files(self) -> list[str]:
        """Their table."""
        return [str(Path(self.results, f"claims.{end}")) for end in ENDINGS] if self.claims else []
