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
    r"unable to open file|batch script|mutually exclusive|option '|requires an argument|"
    r"\b(QOS|Assoc)\w*(PerJob|PerNode|WallDuration)|\bQOSMin|policy(?!.*(submit|time))",
    re.IGNORECASE | re.DOTALL,
)
# There are too many jobs in the queue: there is room again as some of them end.
FULL = re.compile(r"SubmitJob|policy.*submit limit|temporarily un(able|available)", re.DOTALL)
TOO_LONG = "Invalid job array specification"
SERIOUS = re.compile(r"(error|fatal): |^(unrecognized )?option ")  # what sbatch fails of
SACCT_AGAIN = 600.0  # seconds until a sacct that failed is tried again
ASK_AGAIN = 60.0  # seconds until a scontrol that failed is tried again
SAFE_ARRAY = 1000  # of a cluster that does not say; Slurm's own default is 1001


class NotSubmitted(Exception):
    """sbatch failed.

    Attributes:
        final: trying again is in vain; full: it helps once jobs have left the queue.
    """

    def __init__(self, message: str, final: bool, full: bool = False):
        super().__init__(message)
        self.final, self.full = final, full


class Sbatch(submitit.SlurmExecutor):
    """submitit's, with an sbatch that a Ctrl-C at the terminal does not reach.

    Nor do variables that sbatch would put before what the script asks for.
    """

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        lines = submission_file_path.read_text(encoding="utf-8").splitlines()
        flags = {found[1] for line in lines if (found := re.match(r"#SBATCH --([\w-]+)", line))}
        unset = [f"--unset={name}" for name in overruled(flags)]
        command = super()._make_submission_command(submission_file_path)
        return ["setsid", "--wait", "env", *unset, *command]


ALIKE = (  # sbatch takes one of each row
    {"mem", "mem-per-cpu", "mem-per-gpu"},
    {"gpus", "gpus-per-node", "gpus-per-task", "gres"},
    {"requeue", "no-requeue"},
    {"cpus-per-task", "cpus-per-gpu"},
)
VARIABLES = {"time": "TIMELIMIT", "array": "ARRAY_INX", "mem": "MEM_PER_NODE"}


def overruled(flags: set[str]) -> list[str]:
    """Variables that sbatch would believe before flags in a script, and those never wanted."""
    alike = {flag for row in ALIKE if row & flags for flag in row}
    names = flags | alike | {"array", "wait", "export"}
    return sorted(f"SBATCH_{VARIABLES.get(n, n.upper().replace('-', '_'))}" for n in names)


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
        self._sacct_from = self._ask_from = 0.0
        self._most: int | None = None  # tasks that the cluster takes in an array
        self._fits = settings.array_size  # tasks in an array for which there was room
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
        if max(map(len, alike.values()), default=1) == 1:
            return list(alike.values())
        size = max(1, min(self.settings.array_size, self._fits, self._array_limit()))
        return [some[i : i + size] for some in alike.values() for i in range(0, len(some), size)]

    def _array_limit(self) -> int:
        """Tasks that the cluster takes in one array: asked once, and again if it did not say."""
        if self._most is None and time.time() >= self._ask_from:
            text = _run("scontrol", "show", "config") or ""
            named = re.search(r"^MaxArraySize\s*=\s*(\d+)", text, re.MULTILINE)
            fewer = re.search(
                r"^SchedulerParameters\s*=.*\bmax_array_tasks=(\d+)", text, re.MULTILINE
            )
            if named:
                self._most = min(int(found[1]) for found in (named, fewer) if found)
            self._ask_from = time.time() + ASK_AGAIN
        return SAFE_ARRAY if self._most is None else self._most

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
            raise self._refused(self._why(str(error)), len(batch)) from error
        except (FailedSubmissionError, OSError) as error:
            raise NotSubmitted(str(error), isinstance(error, FileNotFoundError)) from error
        finally:
            for link in batch[0].folder.glob(".submission_file_*"):
                link.unlink()
        for task, handle in zip(batch, handles, strict=True):
            task.adopt(str(handle.job_id))
        self._fits = max(self._fits, 2 * len(batch))

    def _refused(self, message: str, size: int) -> NotSubmitted:
        """What sbatch's words mean; where an array was too long, the next ones are shorter."""
        final, full = bool(REJECTED.search(message)), bool(FULL.search(message))
        if size > 1 and (TOO_LONG in message or (full and not final)):
            self._fits = size // 2
            final = False
        return NotSubmitted(message, final, full and not final)

    @staticmethod
    def _why(text: str) -> str:
        """sbatch's own words in submitit's report of a failure."""
        lines = [line.removeprefix("sbatch: ") for line in text.splitlines()]
        said = [re.sub(r"^.*(error|fatal): ", "", line) for line in lines if SERIOUS.search(line)]
        return "; ".join(dict.fromkeys(map(str.strip, said))) or text.strip().rpartition("\n")[2]

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
    return _run(command[0], "--noheader", "--array", *command[1:])


def _run(*command: str) -> str | None:
    """Output of one of Slurm's commands, None where it does not answer."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 or "Invalid job id" in done.stderr else None
