"""Where everything lies below the results folder; rules and commands share these names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from pdmd.config.sections import Run
from pdmd.errors import UserError


def results_folder(text: str) -> str:
    """The folder that `results` names, `~` and environment variables replaced.

    Raises:
        UserError: no folder can lie there, or not under this name in a shell or a rule.
    """

    def refuse(expected: str) -> UserError:
        shown = text if len(text) < 80 else f"{text[:77]}..."
        return UserError(f"config: results: {shown!r}: expected {expected}")

    path = os.path.normpath(os.path.expandvars(os.path.expanduser(text)))
    if "$" in path or path.startswith("~"):
        raise refuse("a path whose variables are set")
    if set(path) & set("{}") or not path.isprintable():
        raise refuse("a path without braces and control characters")
    if path != path.strip() or path.startswith("-") or path == ".":
        raise refuse("a folder's path that starts and ends with no blank, and not with -")
    if len(os.fsencode(path)) > 1000 or any(len(os.fsencode(p)) > 255 for p in Path(path).parts):
        raise refuse("a path of at most 1000 bytes, of names of at most 255")
    nearest = Path(path)
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if nearest.is_symlink() and not nearest.exists():
        raise refuse(f"a folder, but {nearest} is a link to nothing")
    if not nearest.is_dir():
        raise refuse(f"a folder, but {nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise refuse(f"a folder to write to, but {nearest} is not")
    return path


def seeds_name(seeds: Sequence[int], between: str = "-") -> str:
    """Seeds that train together, in a name: all of them, or of many the ends and a digest."""
    name = between.join(map(str, seeds))
    if len(name) <= 60:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return between.join([str(seeds[0]), "to", str(seeds[-1]), digest])


def job_label(run: Run, phase: int | None, seeds: Sequence[int]) -> str:
    """What a training job calls itself; one that trains a seed alone names it."""
    label = f"{run.scenario} {run.method}"
    if phase is not None:
        label += f" phase {phase}"
    return f"{label} seed {seeds[0]}" if len(seeds) == 1 else label


class Paths:
    """The files of one scenario.

    Args:
        run: its `results`, `scenario` and `method`, which what serves all methods has not, name
            the folders.
    """

    def __init__(self, run: Run):
        self.root = Path(run.results)
        self.scenario = self.root / run.scenario
        self.method = self.scenario / getattr(run, "method", "base")

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

    def state(self, stage: str, seeds: Sequence[int]) -> Path:
        """Resumable state of a training job; never an output of a rule."""
        name = f"{stage}-seed{seeds_name(seeds)}"
        return self.root / ".state" / self.scenario.name / self.method.name / name
