"""What made a file: commit, package versions, seeds, digests of the inputs, resolved config."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pdmd.files.digests import OUTPUTS, result_sha256, sha256
from pdmd.files.storage import write_json

ROOT = Path(__file__).resolve().parents[2]  # of the checkout, if this is one
PACKAGES = ("pdmd", "torch", "numpy", "diffusers", "snakemake", "torchmetrics", "safetensors")


CODE = ("pdmd", "rules", "workflow", "config", "Snakefile")  # what decides results, in the root
GIT_SECONDS = 20.0  # a file system that hangs costs no more than this, and no training


def _git(*arguments: str) -> str | None:
    """What git says of the repository around this package; None where it cannot say."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    command = ["git", "-C", str(ROOT), "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def checkout() -> tuple[str | None, bool | None]:
    """(commit, dirty) of the repository that this package is a part of, asked once a process.

    Dirty are changes of any tracked file, and untracked files among the code.  None is what git
    cannot say: where it is missing, fails or hangs, and where the package merely lies in a
    repository, whose commit says nothing of this code.
    """
    mark = "pdmd/__init__.py"  # its path from the top of the repository, if it is tracked there
    if _git("ls-files", "--error-unmatch", "--full-name", mark) != mark:
        return None, None
    commit = _git("rev-parse", "--verify", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    added = _git("ls-files", "--others", "--exclude-standard", "--", *CODE)
    if commit is None or changed is None or added is None:
        return commit, None
    return commit, bool(changed or added)


def versions() -> dict[str, str | None]:
    """Versions of the packages that decide the numbers; None where one is not installed."""
    by_package: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            by_package[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            by_package[name] = None
    return by_package


def record(
    path: Path,
    config: dict[str, Any],
    seeds: Sequence[int],
    inputs: Iterable[Path],
    outputs: Iterable[str],
) -> None:
    """Write the record of a stage, last of its files.

    Args:
        outputs: names, beside the record, of the files that the stage wrote; those who read them
            compare their digests. The record's own is left out.
    """
    write_json(path, _value(path, config, seeds, inputs, outputs))


def record_drawn(
    path: Path,
    config: dict[str, Any],
    seeds: Sequence[int],
    made_from: Mapping[str, Iterable[Path]],
    outputs: Iterable[str],
) -> None:
    """Write the record of tables or figures: each traced to what it was made from.

    Args:
        made_from: name of a table or figure -> files; outputs: as in `record`.
    """
    every = {name: sorted(map(str, paths)) for name, paths in made_from.items()}
    inputs = {Path(path) for paths in every.values() for path in paths}
    write_json(path, {**_value(path, config, seeds, inputs, outputs), "made_from": every})


def _value(
    path: Path,
    config: dict[str, Any],
    seeds: Sequence[int],
    inputs: Iterable[Path],
    outputs: Iterable[str],
) -> dict[str, Any]:
    commit, dirty = checkout()
    return {
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": versions(),
        "seeds": list(seeds),
        "inputs_sha256": {str(name): result_sha256(name) for name in sorted(inputs)},
        OUTPUTS: {name: sha256(path.parent / name) for name in outputs if name != path.name},
        "config": config,
    }
