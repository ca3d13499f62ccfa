"""Slurm: one sbatch for jobs that ask for the same, one squeue for all, sacct for the forgotten."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from snakemake_executor_plugin_submitit.resources import slurm_parameters
from snakemake_executor_plugin_submitit.task import State, Task

# What no further try will mend.
REJECTED = re.compile(
    r"invalid|unrecognized|not available|not permitted|denied|more processors requested|"
    r"unable to open file|script|policy(?!.*(submit|time))",
    re.IGNORECASE | re.DOTALL,
)
SACCT_AGAIN = 600.0  # seconds until a sacct that failed is tried again


class NotSubmitted(Exception):
    """sbatch failed. Attribute final: whether trying again is in vain."""

    def __init__(self, message: str, final: bool):
        super().__init__(message)
        self.final = final


class Sbatch(submitit.SlurmExecutor):
    """submitit's, with an sbatch that a Ctrl-C at the terminal does not reach."""

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return ["setsid", "--wait", *super()._make_submission_command(submission_file_path)]


def forget_allocation(environment: Any = os.environ) -> None:
    """Inside an allocation, drop its variables: sbatch would take them for wishes."""
    if "SLURM_JOB_ID" in environment:
        for name in [n for n in environment if re.match("SLURM_|SLURMD_|SRUN_|PMI", n)]:
            if name != "SLURM_CONF":
                del environment[name]


class Slurm:
    """A Slurm cluster."""

    name = "Slurm"

    def __init__(self, settings: Any):
        self.settings = settings
        self._sacct_from = 0.0
        forget_allocation()

    def free(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks that may be submitted now: all, Slurm has a queue."""
        return list(tasks)

    def batches(self, tasks: Sequence[Task]) -> list[list[Task]]:
        """Tasks by sbatch: an array where they ask for the same, and arrays are wanted."""
        if not self.settings.arrays:
            return [[task] for task in tasks]
        alike: dict[str, list[Task]] = {}
        for task in tasks:
            alike.setdefault(repr((task.rule, replace(task.request, name=""))), []).append(task)
        size = max(1, self.settings.array_size)
        return [some[i : i + size] for some in alike.values() for i in range(0, len(some), size)]

    def submit(self, batch: Sequence[Task]) -> None:
        """Submit tasks that ask for the same. Raises NotSubmitted."""
        request = batch[0].request
        if len(batch) > 1:
            request = replace(request, name=batch[0].rule)
        # Python takes the place of the batch shell: a shell would die of the first signal, and
        # Slurm then kills what it started.
        python = self.settings.python or shlex.quote(sys.executable)
        executor = Sbatch(
            batch[0].folder, max_num_timeout=self.settings.max_timeouts, python=f"exec {python}"
        )
        try:
            executor.update_parameters(**slurm_parameters(request, self.settings, batch[0].token))
            handles = executor.submit_array([task.call for task in batch])
        except FailedJobError as error:
            message = self._why(str(error))
            raise NotSubmitted(message, bool(REJECTED.search(message))) from error
        except (FailedSubmissionError, OSError) as error:
            raise NotSubmitted(str(error), isinstance(error, FileNotFoundError)) from error
        finally:
            for link in batch[0].folder.glob(".submission_file_*"):
                link.unlink()
        for task, handle in zip(batch, handles, strict=True):
            task.adopt(str(handle.job_id))

    @staticmethod
    def _why(text: str) -> str:
        """sbatch's own words in submitit's report of a failure."""
        said = [line.partition("error: ")[2] for line in text.splitlines() if "error: " in line]
        return "; ".join(dict.fromkeys(said)) or text.strip().rpartition("\n")[2]

    def states(self, ids: Iterable[str]) -> dict[str, State] | None:
        """What the queue says of jobs; ids that it does not know are left out. None: no answer."""
        wanted = set(ids)
        if not wanted:
            return {}
        text = _ask("squeue", "--states=all", "--format=%i|%T|%r|%N", "--jobs", _jobs(wanted))
        if text is None:
            return None
        rows = [line.strip().split("|") for line in text.splitlines()]
        found = {row[0]: State(row[1], row[2], row[3]) for row in rows if len(row) == 4}
        missing = wanted - found.keys()
        if missing and time.time() >= self._sacct_from:
            found.update(self._accounted(missing))
        return {name: state for name, state in found.items() if name in wanted}

    def _accounted(self, ids: set[str]) -> dict[str, State]:
        command = ["sacct", "-X", "-n", "-P", "-o", "JobID,State,NodeList", "-j", _jobs(ids)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=60, check=True
            )
        except (OSError, subprocess.SubprocessError):
            self._sacct_from = time.time() + SACCT_AGAIN
            return {}
        rows = [line.split("|") for line in done.stdout.splitlines()]
        whole = [row for row in rows if len(row) == 3 and row[0] in ids and row[1].strip()]
        return {row[0]: State(row[1].split()[0], "", row[2]) for row in whole}

    def named(self, tokens: Iterable[str]) -> dict[str, list[str]] | None:
        """Ids of my jobs by the token in their comment, for tokens given. None: no answer."""
        wanted = set(tokens)
        text = _ask("squeue", "--me", "--format=%i|%k")
        if text is None:
            return None
        found: dict[str, list[str]] = {}
        for line in text.splitlines():
            name, _, comment = line.strip().partition("|")
            if comment in wanted:
                found.setdefault(comment, []).append(name)
        return found

    def cancel(self, ids: Iterable[str]) -> None:
        """Cancel jobs; those that have ended are no error."""
        names = sorted(ids)
        for start in range(0, len(names), 500):
            command = ["scancel", "--quiet", *names[start : start + 500]]
            # What cannot be cancelled now is found by its note; others must not wait for it.
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(command, capture_output=True, timeout=120, check=False)


def _jobs(ids: set[str]) -> str:
    """Jobs for squeue and sacct; an array is asked for as one."""
    return ",".join(sorted({name.partition("_")[0] for name in ids}))


def _ask(*command: str) -> str | None:
    """Output of squeue, None where it does not answer. Jobs that it forgot are no failure."""
    try:
        done = subprocess.run(
            [command[0], "--noheader", "--array", *command[1:]],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 or "Invalid job id" in done.stderr else None
