"""What a driver notes of the jobs it has out, for the driver that comes after it.

Snakemake's own marker cannot serve: the Snakemake inside the job overwrites it at its start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import stat
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


def private_folder(path: Path, logger: Any = None) -> None:
    """Make a folder that nobody else enters, whatever the umask: jobs run what lies in it.

    One of another user is refused. One's own that others may enter is closed to them, and where
    they might have written into it that is said.

    Raises:
        ValueError: it is another user's, no folder, or cannot be closed.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid != os.geteuid():
            raise ValueError(
                f"{path}: of user {found.st_uid}: expected a folder of your own, since jobs run"
                " what lies in it (--submitit-folder)"
            )
        if mode != 0o700:
            path.chmod(0o700)
    except OSError as error:
        raise ValueError(
            f"{path}: {error.strerror}: expected a folder for you alone (--submitit-folder)"
        ) from None
    if mode & 0o022:
        (logger or logging.getLogger(__name__)).warning(
            f"{path}: others could write here until now: closed to them (mode 0700)"
        )


class Notes:
    """One small file a job that is out, under `folder`.

    Attributes:
        found: the notes of an earlier driver by key; a damaged one is named and left out.
    """

    def __init__(self, folder: Path, logger: Any = None):
        self.folder = folder
        private_folder(folder, logger)
        self.found: dict[str, dict[str, Any]] = {}
        for path in folder.glob("*.json"):
            note = read_note(path)
            if note is not None:
                self.found[path.stem] = note
            elif path.exists():
                (logger or logging.getLogger(__name__)).warning(
                    f"{path}: expected the note of a job: whether that job still runs is not known"
                    " (squeue --me), and it may be submitted once more"
                )

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
            "cores": task.request.cpus * task.request.tasks,
            "time": time.time(),
        }
        path = self.folder / f"{task.key}.json"
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(note))
        os.replace(beside, path)

    def drop(self, key: str) -> None:
        """Forget a job that has ended; a note that stays is found out by the next driver."""
        self.found.pop(key, None)
        with contextlib.suppress(OSError):
            (self.folder / f"{key}.json").unlink()


# What a note must hold, so that nothing that reads it has to look twice.
SHAPE: dict[str, Any] = {
    "token": str,
    "index": int | None,
    "id": str | None,
    "fingerprint": str,
    "name": str,
    "rule": str,
    "folder": str,
    "gpus": list,
    "time": int | float,
}
ID = re.compile(r"\w[\w-]*", re.ASCII)


def read_note(path: Path) -> dict[str, Any] | None:
    """A job's note, None where it is damaged or gone."""
    try:
        note = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(note, dict) or not all(
        name in note and isinstance(note[name], kind) for name, kind in SHAPE.items()
    ):
        return None
    cores = note.setdefault("cores", 1)
    sound = note["id"] is None or ID.fullmatch(note["id"])
    if not sound or not isinstance(cores, int) or "\0" in note["folder"]:
        return None
    return {**note, "gpus": [str(gpu) for gpu in note["gpus"]]}


def prune(root: Path, days: float, keep: set[str]) -> None:
    """Drop the folders of runs that ended `days` ago, but those named in `keep`."""
    for folder in root.glob("run-*"):
        with contextlib.suppress(OSError):
            old = folder.stat().st_mtime < time.time() - days * 86400
            if old and str(folder) not in keep:
                shutil.rmtree(folder, ignore_errors=True)
