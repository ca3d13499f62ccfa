"""What made a file: commit, package versions, seeds, digests of the inputs, resolved config."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pdmd.digests import OUTPUTS, result_sha256, sha256
from pdmd.storage import write_json

ROOT = Path(__file__).resolve().parent.parent  # of the checkout, if this is one
PACKAGES = ("pdmd", "torch", "numpy", "diffusers", "snakemake", "torchmetrics", "safetensors")


CODE = ("pdmd", "rules", "workflow", "config", "Snakefile")  # what decides results, in the root
GIT_SECONDS = 20.0  # a file system that hangs costs no more than this, and no training


def _git(*arguments: str) -> str | None:
    """What git says of the repository around this package; None where it cannot say."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    own |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    command = ["git", "-C", str(ROOT), "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(
            command,
            env=own,
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
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


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
    commit, dirty = checkout()
    value = {
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": versions(),
        "seeds": list(seeds),
        "inputs_sha256": {str(name): result_sha256(name) for name in sorted(inputs)},
        OUTPUTS: {name: sha256(path.with_name(name)) for name in outputs if name != path.name},
        "config": config,
    }
    write_json(path, value)
