"""What made a file: commit, package versions, seeds, digests of the inputs, resolved config."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from pdmd.digests import OUTPUTS, sha256
from pdmd.storage import write_json

PACKAGES = ("pdmd", "torch", "numpy", "diffusers", "snakemake", "torchmetrics", "safetensors")


def _git(*arguments: str) -> str | None:
    root = Path(__file__).parent
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None


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
    """Write the record of a stage, last of its files; `dirty` is None outside a git checkout.

    Args:
        outputs: names, beside the record, of the files that the stage wrote; those who read them
            compare their digests. The record's own is left out.
    """
    status = _git("status", "--porcelain", "--untracked-files=no")
    value = {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": versions(),
        "seeds": list(seeds),
        "inputs_sha256": {str(name): sha256(name) for name in sorted(inputs)},
        OUTPUTS: {name: sha256(path.with_name(name)) for name in outputs if name != path.name},
        "config": config,
    }
    write_json(path, value)
