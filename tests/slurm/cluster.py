"""A throw-away SLURM on this machine for tests, and what a test does to it."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SCRIPT = Path(__file__).with_name("cluster.sh")
PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "munged": "munge",
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
}
BASIC = ("slurmctld", "slurmd", "sbatch")
FIELDS = {"id": "%i", "name": "%j", "state": "%T", "reason": "%r", "node": "%N", "comment": "%k"}
UP = ("idle", "mixed", "allocated")
PORTS = 32
QUIET = 1.5  # seconds after which no message of a requeued job's former start is under way
PATIENCE = 4  # times what a wait takes at most on an idle machine: limits are for failures alone


class ClusterError(RuntimeError):
    """The throw-away SLURM, or a command to it, failed."""


def missing(commands: tuple[str, ...] = BASIC) -> list[str]:
    """The Debian packages that lack for these commands."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [PACKAGES[command] for command in commands if not shutil.which(command, path=path)]


class Cluster:
    """A SLURM of two fake nodes, n1 and n2; knobs are those of cluster.sh, in any case."""

    def __init__(self, **knobs: str | int) -> None:
        self.scratch = Path(tempfile.gettempdir())
        self.env: dict[str, str] = {}
        self.knobs = {"NODES": "2"} | {name.upper(): str(value) for name, value in knobs.items()}
        self.waiting: dict[str, float] = {}  # job -> when it was first seen to wait to begin again

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes."""
        return [f"n{number}" for number in range(1, int(self.knobs["NODES"]) + 1)]

    @property
    def log(self) -> Path:
        """The folder of the daemons' logs."""
        return self.scratch / "log"

    def up(self) -> "Cluster":
        """Start SLURM in a new scratch folder, on free ports; all nodes idle on return."""
        self.scratch = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.knobs |= {"SCRATCH": str(self.scratch), "BASEPORT": str(free_ports(PORTS))}
        self.env = clean_environment() | {"SLURM_CONF": str(self.scratch / "etc" / "slurm.conf")}
        try:
            self._script("up")
        except ClusterError as error:
            logs = tails(self.log)
            self.down()
            raise ClusterError(f"{error}\n{logs}") from None
        return self

    def down(self) -> None:
        """Kill every daemon and every job, and remove the scratch folder."""
        if "SCRATCH" in self.knobs:
            self._script("down")
            del self.knobs["SCRATCH"]

    def _script(self, action: str) -> None:
        """Run an action of cluster.sh."""
        # no pipe: daemons would inherit it, and the end of the output would never come
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [str(SCRIPT), action],
                env=self.env | self.knobs,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            output.seek(0)
            if done.returncode:
                raise ClusterError(f"cluster.sh {action}: {output.read().strip()}")

    def run(
        self, *command: str | Path, check: bool = True, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command against this SLURM, in the scratch folder by default."""
        done = subprocess.run(
            [str(part) for part in command],
            env=self.env,
            cwd=cwd or self.scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if check and done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise ClusterError(f"{' '.join(done.args)}: exit status {done.returncode}: {said}")
        return done

    def submit(self, script: str, *options: str) -> str:
        """Submit a line of shell by sbatch; returns the job's id."""
        command = ("sbatch", "--parsable", "--output=/dev/null", *options, "--wrap", script)
        return self.run(*command).stdout.strip()

    def queue(self, all: bool = False) -> list[dict[str, str]]:
        """squeue's jobs, array elements one by one; with `all` those just finished too."""
        form = "\x1f".join(FIELDS.values())
        states = ["--states=all"] if all else []
        lines = self.run("squeue", "-a", "-r", "-h", "-o", form, *states).stdout.splitlines()
        return [dict(zip(FIELDS, line.split("\x1f"), strict=True)) for line in lines]

    def state(self, jobid: str | int) -> str:
        """A job's state as squeue has it; GONE when SLURM has forgotten the job."""
        done = self.run("squeue", "-h", "--states=all", "-o%T", f"--jobs={jobid}", check=False)
        if done.returncode and "Invalid job id" not in done.stderr:
            raise ClusterError(f"squeue of job {jobid}: {done.stderr.strip()}")
        return " ".join(done.stdout.split()) or "GONE"

    def node_states(self) -> dict[str, str]:
        """State by node: idle, mixed, allocated, down .., with * where it does not answer."""
        lines = self.run("sinfo", "-h", "-N", "-p", "gpu", "-o%N %T").stdout.splitlines()
        pairs = [line.split() for line in lines]
        return {pair[0]: pair[1] for pair in pairs}

    def start_now(self) -> list[str]:
        """Let requeued jobs start that have waited a while for their begin time; returns their ids.

        A job that starts again at once can be ended by the late word that its former start is over,
        from which SLURM's own begin time keeps it.
        """
        now = time.monotonic()
        waiting = [job["id"] for job in self.queue() if job["reason"] == "BeginTime"]
        self.waiting = {job: self.waiting.get(job, now) for job in waiting}
        ready = [job for job, since in self.waiting.items() if now - since >= QUIET]
        for job in ready:  # one that has begun meanwhile refuses
            self.run("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)
        return ready

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """Twice a second, let requeued jobs start at once."""
        over = threading.Event()

        def push() -> None:
            while not over.wait(0.5):
                try:
                    self.start_now()
                except ClusterError:  # a controller that is busy answers the next time
                    continue

        thread = threading.Thread(target=push, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def kill_node(self, name: str) -> None:
        """Kill slurmd, every slurmstepd and every job process of a node, as a power cut does."""
        freeze(lambda: self._processes_of(name))
        (self.scratch / "run" / f"slurmd.{name}.pid").unlink(missing_ok=True)

    def _processes_of(self, name: str) -> set[int]:
        """The daemons of a node, known by its log; their descendants; its jobs' processes."""
        parents = parents_by_pid()
        log = self.log / f"slurmd.{name}.log"
        daemons = {pid for pid in parents if holds_open(pid, log)}
        return with_descendants(daemons | self._processes_of_jobs(name), parents)

    def _processes_of_jobs(self, *nodes: str) -> set[int]:
        """The processes of the jobs on some nodes, known by their environment."""
        conf = f"SLURM_CONF={self.env['SLURM_CONF']}"
        names = {f"SLURMD_NODENAME={name}" for name in nodes}
        environments = {pid: environment_of(pid) for pid in parents_by_pid()}
        return {pid for pid, own in environments.items() if conf in own and names & own}

    def revive_node(self, name: str, timeout: float = 30) -> None:
        """Start a node that was killed; idle, or at work, on return."""
        if self.node_is_dead(name):
            self._script("up")
        if self.node_states()[name] not in UP:
            resume = ("scontrol", "update", f"NodeName={name}", "State=RESUME")
            self.run(*resume, check=False)  # a node that is up already refuses
        self.wait(lambda: self.node_states()[name] in UP, timeout, f"node {name} is up")

    def node_is_dead(self, name: str) -> bool:
        """Whether a node's slurmd has been killed."""
        return not (self.scratch / "run" / f"slurmd.{name}.pid").exists()

    def wait(self, predicate: Callable[[], object], timeout: float, what: str) -> None:
        """Return as soon as the predicate is true; TimeoutError with SLURM's view after that."""
        end = time.monotonic() + PATIENCE * timeout
        while not predicate():
            if time.monotonic() > end:
                view = self.run("squeue", "-a", "-r", "--states=all", check=False).stdout
                raise TimeoutError(
                    f"not within {PATIENCE * timeout:g} s: {what}\n{self.node_states()}\n{view}"
                )
            time.sleep(0.05)

    def wait_state(self, jobid: str | int, state: str, timeout: float = 15) -> None:
        """Wait until a job is in a state."""
        self.wait(lambda: self.state(jobid) == state, timeout, f"job {jobid} is {state}")

    def cancel_all(self) -> None:
        """Cancel every job, with SIGKILL to those that run."""
        jobs = [job["id"] for job in self.queue()]
        if jobs:
            self.run("scancel", "--state=PENDING", *jobs, check=False)
            self.run("scancel", "--signal=KILL", "--full", "--quiet", *jobs, check=False)
            self.run("scancel", "--quiet", *jobs, check=False)

    def empty(self) -> bool:
        """Whether no job is pending, running or completing."""
        return not self.queue()

    def settle(self, timeout: float = 30) -> None:
        """Back to the beginning: all nodes up and idle, no job."""
        self.cancel_all()
        for name in self.nodes:
            self.revive_node(name)
        self.cancel_all()
        self.wait(self.empty, timeout, "the queue is empty")
        idle = {"idle"}
        self.wait(lambda: set(self.node_states().values()) == idle, timeout, "nodes are idle")
        freeze(lambda: self._processes_of_jobs(*self.nodes))  # what has detached itself


def clean_environment() -> dict[str, str]:
    """This process's environment without SLURM's own variables, and with the daemons' paths."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    return own | {"PATH": f"{own.get('PATH', '')}:/usr/sbin:/sbin"}


def free_ports(number: int) -> int:
    """The first of so many ports in a row that nobody listens on, below the ephemeral ones."""
    start = 17000 + os.getpid() % 300 * number
    for first in range(start, 32000, number):
        if all(is_free(port) for port in range(first, first + number)):
            return first
    raise ClusterError(f"no {number} free ports in a row from {start} to 32000")


def is_free(port: int) -> bool:
    """Whether a port of the loopback address can be bound."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def tails(folder: Path, lines: int = 5) -> str:
    """The last lines of each log in a folder."""
    found = [(path, path.read_text(errors="replace")) for path in sorted(folder.glob("*.log"))]
    return "\n".join(
        f"{path.name}: {line}" for path, text in found for line in text.splitlines()[-lines:]
    )


def freeze(find: Callable[[], set[int]]) -> None:
    """Kill processes at one go: stop them, and whatever they start meanwhile, then kill all."""
    stopped: set[int] = set()
    while new := find() - stopped:
        send(new, signal.SIGSTOP)
        stopped |= new
    send(stopped, signal.SIGKILL)


def send(pids: set[int], number: signal.Signals) -> None:
    """Signal processes that may be gone."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def parents_by_pid() -> dict[int, int]:
    """Parent by process, zombies left out."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # gone meanwhile
            continue
        if state not in "ZX":
            parents[int(path.parent.name)] = int(parent)
    return parents


def with_descendants(roots: set[int], parents: dict[int, int]) -> set[int]:
    """Processes and all that descend from them."""
    family = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def holds_open(pid: int, file: Path) -> bool:
    """Whether a process has a file open."""
    try:
        return any(os.readlink(link) == str(file) for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # gone meanwhile
        return False


def environment_of(pid: int) -> set[str]:
    """The NAME=value strings that a process was started with."""
    try:
        return set(Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0"))
    except OSError:  # gone meanwhile
        return set()
