"""The Snakemake side: which jobs are out, which have ended, and how to stop them.

Snakemake's thread only enqueues. The waiting thread submits and watches, so that a Ctrl-C in the
main thread never falls into a submission.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shlex
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

from snakemake_executor_plugin_submitit.local import Debug, Local
from snakemake_executor_plugin_submitit.notes import (
    Notes,
    fingerprint_of,
    key_of,
    private_folder,
    prune,
)
from snakemake_executor_plugin_submitit.predecessor import Predecessor
from snakemake_executor_plugin_submitit.resources import Request
from snakemake_executor_plugin_submitit.runner import SnakemakeJob
from snakemake_executor_plugin_submitit.settings import check_settings
from snakemake_executor_plugin_submitit.slurm import NotSubmitted, Slurm
from snakemake_executor_plugin_submitit.task import State, Task
from snakemake_executor_plugin_submitit.verdict import LIVE, PASSING, Verdict, hint, judge

TICK = 0.5  # seconds between two looks at the result files
NAMED_AFTER = 10.0  # seconds in which a reason to wait may pass
FIRST_PAUSE = 5.0  # seconds until a failed sbatch is tried again, doubled each time
# Errors of the file system that pass, or that any other job would meet as well.
PASSES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE)
SLOWEST = 120.0  # seconds between two looks at a queue that does not answer
CLUSTERS: dict[str, type[Slurm] | type[Local]] = {"slurm": Slurm, "local": Local, "debug": Debug}


class Executor(RemoteExecutor):
    """Submit Snakemake's jobs through submitit."""

    def __init__(self, workflow: Any, logger: Any):
        # The base class starts the waiting thread at once.
        self._submitting = threading.Lock()  # held while ids are on their way
        self._news = threading.Event()
        self._out: dict[int, Task] = {}  # all that have not ended, whatever Snakemake holds
        self._sent = 0
        self._stopping = False
        self._said = set[str]()  # unexpected exceptions, not to be told at every tick
        self._next_look = self._looked = self._next_try = self._failing_since = 0.0
        self._pause = FIRST_PAUSE
        super().__init__(workflow, logger)

    def __post_init__(self) -> None:
        try:
            self._set_up(self.workflow.executor_settings)
        except WorkflowError:
            self.wait = False  # the waiting thread runs already
            raise

    def _set_up(self, settings: Any) -> None:
        self.settings = settings
        self.root = Path(settings.folder).absolute()
        self.token = f"smk-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        self.folder = self.root / f"run-{self.token[4:]}"
        try:
            check_settings(settings)
            private_folder(self.root, self.logger)
            self._lock_folder()
            self.notes = Notes(self.root / "running", self.logger)
            private_folder(self.folder)
        except ValueError as error:
            raise WorkflowError(str(error)) from None
        prune(self.root, settings.keep_days, {note["folder"] for note in self.notes.found.values()})
        self.cluster = self._find_cluster()
        self._gap = float(settings.poll)
        self.predecessor = Predecessor(self.notes, self.cluster, self.logger, self._gap)

    def _lock_folder(self) -> None:
        """Refuse a second driver; the kernel lets go of the lock however this one ends."""
        self._held = (self.root / "driver").open("a+")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._held.seek(0)
            raise WorkflowError(
                f"{self.root}: {self._held.read().strip() or 'another Snakemake'} submits jobs from"
                " here: let it end, or give another --submitit-folder and working directory"
            ) from None
        self._held.truncate(0)
        self._held.write(f"Snakemake with process id {os.getpid()} on {socket.gethostname()}")
        self._held.flush()

    def _find_cluster(self) -> Slurm | Local:
        import submitit

        name = self.settings.cluster or submitit.AutoExecutor.which()
        if name not in CLUSTERS:
            raise WorkflowError(f"submitit-cluster: {name!r}: expected slurm, local or debug")
        try:
            return CLUSTERS[name](self.settings)
        except ValueError as error:
            raise WorkflowError(str(error)) from None

    # -- from Snakemake -------------------------------------------------------------------------

    def run_job(self, job: Any) -> None:
        """Enqueue a job, or refuse what it asks for."""
        info = SubmittedJobInfo(job)
        try:
            task = self._task(info)
        except ValueError as error:
            self.report_job_error(info, msg=f"{error}. ")
            return
        info.aux = {"task": task}
        self._out[id(info)] = task
        # The Snakemake in the job sets the marker of an unfinished job itself.
        self.report_job_submission(info, register_job=False)
        self._news.set()

    def _task(self, info: SubmittedJobInfo) -> Task:
        job = info.job
        rule = f"{job.groupid}_{min(job.rules)}" if job.is_group() else job.name
        request = Request.of(self._name(job, rule), job.threads, dict(job.resources), self.settings)
        call = SnakemakeJob(
            self.format_job_exec(job),
            folder=os.getcwd(),
            resumable=request.resumable,
            grace=self.settings.grace,
            kill_wait=self.settings.kill_wait,
        )
        return Task(info, request, call, rule, key_of(job), fingerprint_of(job), self.folder)

    @staticmethod
    def _name(job: Any, rule: str) -> str:
        """What squeue shows: the rule and its wildcards."""
        one = next(iter(job.jobs)) if job.is_group() else job
        return "-".join([rule, *map(str, one.wildcards_dict.values())])

    def get_job_args(self, job: Any, **kwargs: Any) -> str:
        """Arguments of the Snakemake in the job.

        Unlike the base class's they name nothing that goes when this driver does, since a job may
        be requeued after that, and they give the job the cores it was allocated.
        """
        files = list(map(str, job.get_wait_for_files()))
        arguments = RealExecutor.get_job_args(self, job, cores=max(1, job.threads))
        if not files:
            return arguments
        if len(files) <= 20:
            return f"{arguments} --wait-for-files {shlex.join(files)}"
        path = self.folder / f"{key_of(job)}.inputs"
        path.write_text("\n".join(files) + "\n")
        return f"{arguments} --wait-for-files-file {shlex.quote(str(path))}"

    def additional_general_args(self) -> str:
        """Leave a job's log to the job."""
        return "--quiet progress rules reason host"

    async def sleep(self) -> None:
        """Until the next look at the result files, or new jobs."""
        end = time.time() + TICK
        while time.time() < end and not self._news.is_set():
            await asyncio.sleep(0.02)
        while self._news.is_set():  # more may become ready together with the first
            self._news.clear()
            await asyncio.sleep(0.05)

    async def check_active_jobs(
        self, active_jobs: list[SubmittedJobInfo]
    ) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Submit, look, report. An exception from here would end this thread without a cancel."""
        tasks = [info.aux["task"] for info in active_jobs if info.aux]
        with self._apart():
            self._start([task for task in tasks if task.id is None])
        with self._apart():
            self._look(
                [task for task in tasks if task.id is not None and id(task.info) in self._out]
            )
        for task in tasks:
            if id(task.info) in self._out:
                yield task.info

    @contextlib.contextmanager
    def _apart(self) -> Iterator[None]:
        """Say what goes wrong inside, once, and go on: no job's trouble hides another's end."""
        try:
            yield
        except Exception:
            text = traceback.format_exc()
            if text not in self._said:
                self._said.add(text)
                self.logger.error(f"submitit executor: {text}")

    def cancel(self) -> None:
        """Cancel this driver's jobs, and only those."""
        self._stopping = True
        with self._submitting:
            tasks = list(self._out.values())
            ids = {task.id for task in tasks if task.id}
            tokens = {task.token for task in tasks if task.token and not task.id}
            if tokens:  # an sbatch that failed here may have got through all the same
                for found in (self.cluster.named(tokens) or {}).values():
                    ids.update(found)
            self.cluster.cancel(ids)
            for task in tasks:
                if not self.predecessor.holds(task):
                    self._note_end(task, "cancelled")
        self.shutdown()

    def shutdown(self) -> None:
        """End the waiting thread; leave no notes of jobs that have ended."""
        with contextlib.suppress(OSError):
            self.predecessor.forget_ended()
        super().shutdown()

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancel these."""
        self.cluster.cancel({info.external_jobid for info in active_jobs if info.external_jobid})

    # -- submission -----------------------------------------------------------------------------

    def _start(self, tasks: list[Task]) -> None:
        """Attach to what an earlier driver left, submit the rest."""
        with self._submitting:
            if self._stopping or not tasks:
                return
            with self._apart():
                self.predecessor.settle(tasks)
            if time.time() < self._next_try:
                return
            new = [t for t in tasks if t.id is None and not self.predecessor.holds(t)]
            for batch in self.cluster.batches(self.cluster.free(new)):
                if not self._submit(batch):
                    return

    def _submit(self, batch: Sequence[Task]) -> bool:
        """Submit jobs that ask for the same; returns whether the cluster takes more."""
        self._sent += 1
        try:
            for index, task in enumerate(batch):
                task.token = f"{self.token}-{self._sent}"
                task.index = index if len(batch) > 1 else None
                self.notes.write(task)
            self.cluster.submit(batch)
        except NotSubmitted as error:
            return self._not_submitted(batch, error)
        except OSError as error:  # without its note a job could not be found again
            return self._not_submitted(batch, NotSubmitted(str(error), error.errno not in PASSES))
        except Exception as error:  # these jobs' own trouble
            last = traceback.format_exception_only(error)[-1].strip()
            self._cancel_lost(batch)
            return self._not_submitted(batch, NotSubmitted(last, True))
        self._failing_since, self._pause = 0.0, FIRST_PAUSE
        for task in batch:
            with contextlib.suppress(OSError):  # the note has the token, which finds the id
                self.notes.write(task)
        self._ledger("".join(task.entry(logs=[str(log) for log in task.logs]) for task in batch))
        first = batch[0]
        more = f" and {len(batch) - 1} more of its array" if len(batch) > 1 else ""
        self.logger.info(
            f"{first.rule}: {self.cluster.name} job {first.id}{more}, log: {first.logs[1]}"
        )
        return True

    def _not_submitted(self, batch: Sequence[Task], error: NotSubmitted) -> bool:
        """Fail jobs whose submission is hopeless, else wait; returns whether to go on."""
        now = time.time()
        mine = error.full and any(task.id for task in self._out.values())
        if mine:  # there is room again as they end, however long that takes
            self._failing_since = now
        self._failing_since = self._failing_since or now
        waited = now - self._failing_since
        if error.final or waited > self.settings.patience:
            for task in batch:
                self._end(task, Verdict(False, f"not submitted: {error}"))
            return True
        self._next_try = now + self._pause
        left = "while jobs of this run are in the queue"
        if not mine:
            left = f"for {self.settings.patience - waited:.0f} s more"
        self.logger.warning(f"submission failed ({error}): next try in {self._pause:.0f} s, {left}")
        shorter = error.full and len(batch) > 1  # the next array is half as long
        self._pause = FIRST_PAUSE if shorter else min(60.0, self._pause * 2)
        self._cancel_lost(batch)
        return False

    def _cancel_lost(self, batch: Sequence[Task]) -> None:
        """Cancel what a submission that failed may have left in the queue all the same."""
        lost = self.cluster.named([batch[0].token])
        if lost:
            self.cluster.cancel([name for names in lost.values() for name in names])

    # -- watching -------------------------------------------------------------------------------

    def _look(self, tasks: list[Task]) -> None:
        """Result files at every tick; the queue when it is time."""
        reported = set[int]()
        for task in tasks:
            with self._apart():
                result = task.result()
                if result:
                    reported.add(id(task))
                if result and result[0]:
                    self._end(task, Verdict(True))
        rest = [task for task in tasks if id(task.info) in self._out]
        hurry = any(id(task) in reported or task.since for task in rest)
        if not rest or not self._ask(rest, hurry):
            return
        now = time.time()
        for task in rest:
            with self._apart():
                self._judge(task, now)
        self._name_reasons([task for task in rest if id(task.info) in self._out])

    def _judge(self, task: Task, now: float) -> None:
        """Report a job if what it left and what the queue says make a verdict."""
        name = task.state.name if task.state else None
        passing = name in LIVE and name != "COMPLETING"
        task.since = None if passing else task.since or now
        waited = now - task.since if task.since else 0.0
        verdict = judge(task.result(), name, waited, task.request.minutes)
        if verdict:
            self._end(task, verdict)

    def _ask(self, tasks: Sequence[Task], hurry: bool) -> bool:
        """Ask the queue, if it is time: less often where it is slow; returns whether it spoke."""
        now = time.time()
        if now < (min(self._next_look, self._looked + 1.0) if hurry else self._next_look):
            return False
        states = self.cluster.states([str(task.id) for task in tasks])
        self._looked = time.time()
        took = self._looked - now
        if states is None:
            self._gap = min(SLOWEST, 2 * self._gap)
            self.logger.warning(
                f"the queue does not answer: asked again in {self._gap:.0f} s; jobs go on, and"
                " results are collected all the same"
            )
        else:
            self._gap = max(self.settings.poll, 10 * took)
            for task in tasks:
                task.state = states.get(str(task.id))
        self._next_look = self._looked + self._gap
        return states is not None

    def _name_reasons(self, tasks: Sequence[Task]) -> None:
        """Say once why jobs wait, where that will not pass by itself."""
        now, stuck = time.time(), list[tuple[str, Task]]()
        for task in tasks:
            state = task.state or State("")
            reason = state.reason if state.name in ("PENDING", "REQUEUE_HOLD") else ""
            if reason != task.reason[0]:
                task.reason = (reason, now)
            elif reason in PASSING or reason in task.named:
                continue
            elif now - task.reason[1] >= NAMED_AFTER:
                task.named.add(reason)
                stuck.append((reason, task))
        for reason, count in Counter(reason for reason, _ in stuck).items():
            task = next(task for why, task in stuck if why == reason)
            more = f" and {count - 1} more" if count > 1 else ""
            self.logger.warning(
                f"{task.rule}: {self.cluster.name} job {task.id}{more} cannot start:"
                f" {reason}: {hint(reason)}"
            )

    def _end(self, task: Task, verdict: Verdict) -> None:
        """Report a job's end to Snakemake."""
        if verdict.success:
            self._note_end(task, "success")
            self.report_job_success(task.info)
            task.clear()
            return
        message = verdict.why
        if task.id:
            self.cluster.cancel([task.id])
            node = f" on {task.state.node}" if task.state and task.state.node else ""
            message = f"{self.cluster.name} job {task.id}{node}: {verdict.why}"
            message += "".join(f"\n    {line}" for line in task.tail())
            message += "\nstdout: {}\nstderr: {}".format(*task.logs)
        self._note_end(task, verdict.why)
        self.report_job_error(task.info, msg=message + "\n")

    def _note_end(self, task: Task, how: str) -> None:
        self._out.pop(id(task.info), None)
        self.notes.drop(task.key)
        if task.id:
            self._ledger(task.entry(end=how))

    def _ledger(self, lines: str) -> None:
        """Keep ids; a full disk costs the line, not the run."""
        try:
            with (self.root / "jobs.jsonl").open("a") as handle:
                handle.write(lines)
        except OSError as error:
            self.logger.warning(f"{self.root / 'jobs.jsonl'}: {error}")
