"""What a driver notes of the jobs it has out, for the driver that comes after it.

Snakemake's own marker cannot serve: the Snakemake inside the job overwrites it at its start.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit.task import Task


def key_of(job: Any) -> str:
    """What a job is: its outputs; for a job without any its rule and wildcards."""
    return _hash([sorted(map(str, one.output)) or _rule(one) for one in _members(job)])


def fingerprint_of(job: Any) -> str:
    """What a job does: rule, wildcards, inputs, parameters and command."""
    return _hash(
        [
            [_rule(one), sorted(map(str, one.input)), repr(one.params), str(one.rule.shellcmd)]
            for one in _members(job)
        ]
    )


def _members(job: Any) -> list[Any]:
    return sorted(job.jobs, key=_rule) if job.is_group() else [job]


def _rule(job: Any) -> str:
    return f"{job.rule.name} {sorted(job.wildcards_dict.items())}"


def _hash(value: Any) -> str:
    return hashlib.sha1(repr(value).encode()).hexdigest()


class Notes:
    """One small file a job that is out, under `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.found = {path.stem: note for path in folder.glob("*.json") if (note := _read(path))}

    def write(self, task: Task) -> None:
        """Note a job before it is submitted, and again when its id is known."""
        note = {
            "token": task.token,
            "index": task.index,
            "id": task.id,
            "fingerprint": task.fingerprint,
            "name": task.request.name,
            "rule": task.rule,
            "folder": str(task.folder),
            "gpus": list(task.gpus),
            "time": time.time(),
        }
        path = self.folder / f"{task.key}.json"
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(note))
        os.replace(beside, path)

    def drop(self, key: str) -> None:
        """Forget a job that has ended."""
        self.found.pop(key, None)
        (self.folder / f"{key}.json").unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        note = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and "fingerprint" in note else None


def prune(root: Path, days: float, keep: set[str]) -> None:
    """Drop the folders of runs that ended `days` ago, but those named in `keep`."""
    for folder in root.glob("run-*"):
        old = folder.stat().st_mtime < time.time() - days * 86400
        if old and str(folder) not in keep:
            shutil.rmtree(folder, ignore_errors=True)
