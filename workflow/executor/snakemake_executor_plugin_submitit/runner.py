"""What runs on the node: a picklable call around one Snakemake command line.

It imports nothing of Snakemake, so that starting it costs next to nothing.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import pickletools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import IO, Any

KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
STUCK = 10.0  # seconds after which a Snakemake that runs nothing is taken to hang


class JobFailed(RuntimeError):
    """The command failed; the message is all there is to say."""


# What a pickle of containers, strings and numbers is made of. No opcode here looks anything up,
# calls anything or sizes memory by a number in the file.
PLAIN = {
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "MEMOIZE", "BINPUT", "BINGET"),
    *("LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"),
    *("BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "EMPTY_TUPLE", "TUPLE"),
    *("TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM"),
    "SETITEMS",
}
LARGEST_RESULT = 1 << 24  # bytes; a traceback has thousands
KINDS = {"success": dict, "error": str}


def read_result(path: Path) -> tuple[str, Any] | None:
    """What submitit wrote at a job's end: ("success", value) or ("error", traceback).

    A file that is damaged in any way, or holds anything else, counts as none: what the queue says
    then decides. Reading it never runs code.
    """
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_RESULT:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    try:
        if not all(opcode.name in PLAIN for opcode, _, _ in pickletools.genops(data)):
            return None
        outcome, value = pickle.loads(data)
        return (outcome, value) if isinstance(value, KINDS[outcome]) else None
    except Exception:  # a damaged pickle raises whatever it likes, MemoryError among it
        return None


def copy_stream(source: IO[bytes], target: int) -> None:
    """Copy a child's output to a log; a log that cannot be written costs the log, not the job."""
    lost = 0
    for block in iter(lambda: source.read1(1 << 16), b""):  # type: ignore[attr-defined]
        try:
            if lost:
                os.write(target, b"\n[%d bytes of output could not be written here]\n" % lost)
                lost = 0
            view = memoryview(block)
            while view:
                view = view[os.write(target, view) :]
        except OSError:
            lost += len(block)


def family(session: int) -> dict[int, int]:
    """The living processes of a session, each with its parent."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, _, number = (
                stat.read_text(encoding="utf-8").rpartition(")")[2].split()[:4]
            )
        except (OSError, ValueError):
            continue
        if int(number) == session and state != "Z":
            found[int(stat.parent.name)] = int(parent)
    return found


def arguments(pid: int) -> list[bytes]:
    """A process's command line; empty where it has ended."""
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def passes_on(pid: int) -> bool:
    """Whether a process is a shell that SIGTERM would end at once, whatever it waits for."""
    try:
        status = Path("/proc", str(pid), "status").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    masks = dict(line.split(":\t") for line in status.splitlines())
    if masks["Name"] not in ("bash", "sh", "dash"):
        return False
    handled = int(masks["SigCgt"], 16) | int(masks["SigIgn"], 16)
    return not handled >> (signal.SIGTERM - 1) & 1


def overseers(session: int) -> set[int]:
    """A session's Snakemake with the shells around it, above and below; none without Snakemake.

    A resumable job that was writing its last file as it was told to stop ends well. Were these told
    too, its success would be taken for a failure, and all of it made again from the beginning.
    """
    parents = family(session)
    above, pid = {session}, session
    while (b"-m", b"snakemake") not in pairwise(arguments(pid)):
        children = [child for child, parent in parents.items() if parent == pid]
        if len(children) != 1:
            return set()
        (pid,) = children
        above.add(pid)
    jobs = [child for child, parent in parents.items() if parent == pid and passes_on(child)]
    return above.union(child for child in jobs if child in parents.values())


def hangs(session: int) -> bool:
    """Whether of a session nothing is left but a Snakemake and the shells that it was started by.

    Snakemake (9.x) takes a lock in its handler of SIGTERM that its main thread may hold as the
    signal comes, while it selects jobs: it then waits for itself. SIGINT raises out of that.
    """
    parents = family(session)
    leaves = parents.keys() - parents.values()
    return bool(leaves) and all(b"snakemake" in b" ".join(arguments(pid)) for pid in leaves)


def runs_still(job: str) -> bool:
    """Whether Slurm runs this very start of a job, and not a later one."""
    command = ["scontrol", "--oneliner", "show", "job", job]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return False
    start = f"Restarts={os.environ.get('SLURM_RESTART_COUNT', '0')}"
    return {"JobState=RUNNING", start} <= set(done.stdout.split())


def _job_id() -> str:
    """The id that submitit gives this job."""
    from submitit import JobEnvironment

    return str(JobEnvironment().job_id)


def cancelled_mark(folder: Path, job_id: str) -> Path:
    """The file that says of a process of this machine that it was cancelled, however early."""
    return folder / f"{job_id}_cancelled"


class SnakemakeJob:
    """Run a command in a session of its own; stop, requeue or report as Slurm asks.

    Args:
        command: shell command line; folder: where it runs.
        resumable: it saves at SIGTERM and goes on from there when it is started again.
        grace: seconds to save in; kill_wait: seconds after SIGTERM in which Slurm ends the job.
    """

    def __init__(
        self,
        command: str,
        folder: str,
        resumable: bool = False,
        grace: float = 90,
        kill_wait: float = 60,
        restarts: int = 0,
    ):
        self.command, self.folder, self.resumable = command, folder, resumable
        self.grace, self.kill_wait, self.restarts = grace, kill_wait, restarts
        self._arm()

    def _arm(self) -> None:
        """What is not pickled."""
        self._received: dict[int, float] = {}  # signal -> when
        if self.resumable:  # submitit takes the attribute for the ability
            self.checkpoint = self._checkpoint

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_received", "checkpoint")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._arm()

    def __call__(self) -> dict[str, Any]:
        """Run the command. Raises JobFailed with its exit status."""
        result = self._result_path()
        earlier = read_result(result) if result else None
        if earlier and earlier[0] == "success":  # the node was lost after the work was done
            return dict(earlier[1])
        if result:
            result.unlink(missing_ok=True)
        requeue = self._take_signals()
        if result and cancelled_mark(result.parent, _job_id()).exists():
            raise JobFailed("the job was cancelled before it began")
        code = self._run()
        if code == 0:
            value = {"restarts": self.restarts, "host": os.uname().nodename}
            self._ensure_result(result)
            return value
        if signal.SIGUSR2 in self._received and requeue:
            requeue(signal.SIGUSR2, None)  # submitit: save the callable, requeue, leave
        if signal.SIGTERM in self._received:
            self._await_end()
        if code in KILLED:
            time.sleep(5)  # where a node dies, its processes do not die at one instant
        raise JobFailed(self._reason(code))

    def _take_signals(self) -> Any:
        """Install our handlers; returns the one with which submitit requeues, if there is one."""
        if threading.current_thread() is not threading.main_thread():
            return None  # submitit's debug executor calls from Snakemake's waiting thread
        requeue = signal.getsignal(signal.SIGUSR2)
        wanted = [signal.SIGTERM, signal.SIGINT]
        if self.resumable:
            wanted.append(signal.SIGUSR2)
        for number in wanted:
            signal.signal(number, self._on_signal)
        return requeue if self.resumable and callable(requeue) else None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        print(f"[{signal.Signals(number).name}: the job is told to stop]", file=sys.stderr)
        self._received.setdefault(number, time.time())

    def _run(self) -> int:
        """Run to the end, or to the end of the grace after a signal; returns the exit status.

        The command has its own session: Slurm signals a step's process group, and a Snakemake
        that is signalled itself would not wait for what it runs.
        """
        environment = {k: v for k, v in os.environ.items() if k != "SUBMITIT_EXECUTOR"}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment["PYTHONUNBUFFERED"] = "1"
        process = subprocess.Popen(
            ["/bin/bash", "-c", self.command],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        pumps = [
            threading.Thread(target=copy_stream, args=(stream, target), daemon=True)
            for stream, target in ((process.stdout, 1), (process.stderr, 2))
        ]
        for pump in pumps:
            pump.start()
        told, heard, freed = 0.0, set[int](), False
        while True:
            try:
                code = process.wait(0.2)
                if not told or not family(process.pid) or time.time() > told + self.grace:
                    break
            except subprocess.TimeoutExpired:
                pass
            if self._received and not told:
                told = time.time()
            if told and time.time() > told + self.grace:
                self._signal(process.pid, signal.SIGKILL)
            elif told and not freed and time.time() > told + STUCK and self._hangs(process.pid):
                freed = bool(self._signal(process.pid, signal.SIGINT))
            elif told:  # also what is started by then
                spared = overseers(process.pid) if self.resumable else set[int]()
                heard |= self._signal(process.pid, signal.SIGTERM, heard | spared)
            if process.returncode is not None:
                time.sleep(0.1)
        self._signal(process.pid, signal.SIGKILL)  # what it left behind
        for pump in pumps:
            pump.join(5)
        return code

    def _hangs(self, session: int) -> bool:
        """Whether a Snakemake waits for itself: only where Slurm has told it, too, to stop."""
        return signal.SIGTERM in self._received and hangs(session)

    @staticmethod
    def _signal(session: int, number: int, but: Collection[int] = ()) -> set[int]:
        """Signal every process of a session but some, group leaders of their own included."""
        pids = set(family(session)).difference(but)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def _await_end(self) -> None:
        """Told to stop by Slurm: what comes next, an end or a requeue, is Slurm's to say."""
        job = os.environ.get("SLURM_JOB_ID")
        if not job:
            return
        end = self._received[signal.SIGTERM] + self.kill_wait
        while time.time() < end:
            time.sleep(0.2)
        if self.resumable and runs_still(job):  # nobody came: a signal with nothing behind it
            subprocess.run(["scontrol", "requeue", job], check=False, timeout=60)
            time.sleep(self.kill_wait)

    def _reason(self, code: int) -> str:
        received = ", ".join(signal.Signals(number).name for number in self._received)
        after = f" after {received}" if received else ""
        if code < 0:
            return f"the job's command was ended by {signal.Signals(-code).name}{after}"
        return f"the job's command ended with exit status {code}{after}"

    @staticmethod
    def _result_path() -> Path | None:
        """Where submitit will write this job's result."""
        from submitit import JobEnvironment

        try:
            return Path(JobEnvironment().paths.result_pickle)
        except (RuntimeError, KeyError):
            return None

    @staticmethod
    def _ensure_result(path: Path | None) -> None:
        """Leave with success where a full disk would keep submitit from saying so."""
        if path is None:
            return
        probe = path.with_suffix(".probe")
        try:
            with probe.open("wb") as handle:
                handle.write(bytes(1 << 14))
                handle.flush()
                os.fsync(handle.fileno())
            probe.unlink()
        except OSError as error:
            try:
                print(f"{path}: {error}: success is left to the exit status", file=sys.stderr)
            finally:
                os._exit(0)

    def _checkpoint(self) -> Any:
        """For submitit: this job again. The command has been told to save before this."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(
            SnakemakeJob(
                self.command,
                self.folder,
                self.resumable,
                self.grace,
                self.kill_wait,
                self.restarts + 1,
            )
        )
