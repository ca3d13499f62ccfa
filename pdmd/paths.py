"""Where everything lies below the results folder; rules and commands share these names."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Paths:
    """The files of one scenario.

    Args:
        config: a resolved run; its `results` and `scenario` name the folder.
    """

    def __init__(self, config: dict[str, Any]):
        self.root = Path(config["results"])
        self.scenario = self.root / config["scenario"]
        self.method = self.scenario / config.get("method", "base")

    def base(self, name: str) -> Path:
        """Files of the network that students and fake scores start from."""
        return self.scenario / "base" / name

    def data(self, name: str) -> Path:
        """Precomputed latents, their codec, and the picture classifier."""
        return self.scenario / "data" / name

    def seed(self, seed: int, name: str) -> Path:
        """Files of one run."""
        return self.method / f"seed{seed}" / name

    def phase(self, seed: int, phase: int, name: str) -> Path:
        """Files of one phase of one run."""
        return self.seed(seed, f"phase{phase}/{name}")

    def bank(self, seed: int, phase: int) -> Path:
        """Folder of the intermediate latents that a phase starts from."""
        return self.phase(seed, phase, "bank")

    def state(self, stage: str, seeds: list[int]) -> Path:
        """Resumable state of a training job; never an output of a rule."""
        name = "-".join(str(seed) for seed in seeds)
        return self.root / ".state" / self.scenario.name / self.method.name / f"{stage}-seed{name}"
