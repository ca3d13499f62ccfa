"""`pdmd launch`: one training job in several processes, on this machine or a Slurm allocation."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from pdmd.config.hardware_checks import check_hardware
from pdmd.config.sections import Hardware
from pdmd.errors import UserError
from pdmd.leaving import dying_with_parent
from pdmd.training.agent import MARK, SECRET, address_towards, node_address
from pdmd.training.stop import Listener, Stopped, finish
from pdmd.warm import THREADS

# The commands that share their work out.
PARALLEL = (
    *("fit", "measure", "range", "bank", "distill", "sample", "decode", "features", "previews"),
    *("embed-prompts", "encode-images"),
)
AGAIN = 10.0  # seconds after which a stop signal is passed on again: it may have come too early
REPORTED = {"host": str, "rank": int | None, "status": int, "time": int | float, "lost": bool}
SLURM_SAYS = re.compile(r"srun: |slurmstepd(-\S+)?: ")  # how Slurm's own lines begin


def prefix(hardware: Hardware) -> str:
    """What stands before a command of `python -m pdmd` so that it runs on this hardware.

    Args:
        hardware: the `hardware` section of a run.
    Returns:
        "" for one process without a GPU, else such as "launch --nodes 2 --processes 2 -- ".
    """
    nodes, processes, gpus = hardware.nodes, hardware.processes, hardware.gpus
    if nodes * processes == 1 and not gpus:
        return ""
    cards = f"--gpus {gpus} " if gpus else ""
    return f"launch --nodes {nodes} --processes {processes} {cards}-- "


@dataclass
class Account:
    """What the agents reported of their workers' ends.

    Attributes:
        failures: rank, host, status, text, time, lost; stopped: whether some were told to stop.
        held: what Slurm had to say of it.
    """

    failures: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False
    held: list[str] = field(default_factory=list)

    def read(self, stream: IO[str]) -> None:
        """Take the agents' reports out of their stderr and show all else."""
        for line in stream:
            before, mark, report = line.partition(MARK)
            value = _report(report) if mark else None
            if value is None:
                before, mark = line, ""
            else:
                self.stopped |= bool(value.get("stopped", False))
                if "text" in value:
                    self.failures.append(value)
            if SLURM_SAYS.match(before):
                self.held.append(before)
            elif before:
                print(before, end="\n" if mark else "", file=sys.stderr, flush=True)

    def culprit(self) -> dict[str, Any] | None:
        """Where it began: the first to fail of its own, else the first to miss another."""
        at_fault = [value for value in self.failures if not value["lost"]]
        if not at_fault and self.stopped:
            return None
        return min(at_fault or self.failures, key=lambda value: float(value["time"]), default=None)


def _report(text: str) -> dict[str, Any] | None:
    """An agent's report; None where a worker has printed something like one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or ("text" in value and not value.keys() >= REPORTED.keys()):
        return None
    sound = all(isinstance(value[name], kind) for name, kind in REPORTED.items() if name in value)
    return value if sound else None


def launch(nodes: int, processes: int, gpus: int, command: Sequence[str]) -> int:
    """Run a pdmd command in nodes * processes processes; returns the exit status.

    SIGTERM and SIGUSR1 are passed on to all of them and waited for, however long they save.

    Raises:
        UserError: the command, or the allocation, is not for this.
        Stopped: the processes were told to stop, and have saved.
    """
    check_hardware(Hardware(nodes=nodes, processes=processes, gpus=gpus), "launch")
    if not command or command[0] not in PARALLEL:
        given = command[0] if command else ""
        raise UserError(f"launch: {given!r}: expected one of {', '.join(PARALLEL)}")
    command = [*command, *(["--device", "cuda"] if gpus else [])]
    if nodes * processes == 1:
        os.execv(sys.executable, [sys.executable, "-m", "pdmd", *command])
    program = agent_command(nodes, processes, command, os.environ)
    environment = {**os.environ, **threads_each(processes, os.environ)}
    account = Account()
    with Listener() as listener:
        status = _run(program, environment, listener, account, through_srun=nodes > 1)
        culprit = account.culprit()
        if culprit is None and (account.stopped or (listener.received and status)):
            raise Stopped("")
        if not status:  # all is written, however late a signal came
            finish()
    if culprit is not None:
        return _blame(culprit, nodes * processes)
    print("".join(account.held) if status else "", end="", file=sys.stderr)
    if status:
        raise UserError(f"launch: exit status {status}: expected 0 of {' '.join(program[:2])} ...")
    return 0


def threads_each(processes: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that give each process of a node its share of the threads that all may have."""
    given = {name: environment.get(name, "") for name in THREADS}
    return {
        name: str(max(1, int(value) // processes))
        for name, value in given.items()
        if value.isdecimal()
    }


def agent_command(
    nodes: int, processes: int, command: Sequence[str], environment: Mapping[str, str]
) -> list[str]:
    """The command that starts an agent on every node.

    Args:
        environment: of this process, with Slurm's variables.
    Raises:
        UserError: more nodes than one, and no allocation of as many.
    """
    job = environment.get("SLURM_JOB_ID")
    agent = [
        sys.executable,
        "-m",
        "pdmd.training.agent",
        f"--nodes={nodes}",
        f"--processes={processes}",
    ]
    if nodes == 1:
        return [*agent, "--endpoint=127.0.0.1:0", "--", *command]
    held = environment.get("SLURM_JOB_NUM_NODES", "no")
    if not job or held != str(nodes):
        raise UserError(f"launch: --nodes: {nodes}: expected as many as Slurm gave: {held} nodes")
    address = own_address(environment["SLURM_JOB_NODELIST"])
    endpoint = f"--endpoint={address}:{free_port(20000 + int(job) % 20000)}"
    srun = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    srun += ["--cpu-bind=none", "--kill-on-bad-exit=1", "--export=ALL"]
    return [*srun, *agent, endpoint, "--", *command]


def own_address(nodes: str) -> str:
    """The address by which this node, the first, reaches the others. Raises UserError.

    Its own name may mean loopback here, and another's does not.
    """
    last = node_address(hosts(nodes)[-1])
    try:
        address = address_towards(last)
    except OSError as error:
        raise UserError(f"launch: {last}: {error}: expected a node that can be reached") from error
    return f"[{address}]" if ":" in address else address


def hosts(nodes: str) -> list[str]:
    """A list of nodes in Slurm's notation, one by one. Raises UserError."""
    command = ["scontrol", "show", "hostnames", nodes]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"launch: {' '.join(command)}: {error}: expected host names") from error
    if not done.stdout.strip():
        raise UserError(f"launch: {' '.join(command)}: {done.stderr.strip()}: expected host names")
    return done.stdout.split()


def free_port(start: int) -> int:
    """The first port from `start` on that nobody listens at here, where the first node is."""
    for port in range(start, start + 100):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise UserError(f"launch: port {start}: expected a free one up to {start + 99}")


def _run(
    program: Sequence[str],
    environment: Mapping[str, str],
    listener: Listener,
    account: Account,
    through_srun: bool,
) -> int:
    """Run the agents to their end; returns their exit status.

    They have a session of their own, so that what signals this session, a terminal or an executor,
    reaches them by us alone: srun would answer SIGTERM by killing them.
    """
    process = subprocess.Popen(
        program,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**environment, SECRET: secrets.token_hex(16)},
        start_new_session=True,
        preexec_fn=dying_with_parent(signal.SIGTERM),
    )
    assert process.stderr is not None
    reader = threading.Thread(target=account.read, args=(process.stderr,), daemon=True)
    reader.start()
    due = 0.0
    try:
        while True:
            try:
                status = process.wait(0.2)
                break
            except subprocess.TimeoutExpired:
                if listener.received and time.monotonic() >= due:
                    process.send_signal(signal.SIGUSR1 if through_srun else listener.received)
                    due = time.monotonic() + AGAIN
    finally:
        if process.poll() is None:  # a Ctrl-C here
            process.terminate()
    reader.join(10)
    return status


def _blame(culprit: Mapping[str, Any], processes: int) -> int:
    """Print what the first process to fail had to say; returns an exit status."""
    rank, text, status = culprit["rank"], str(culprit["text"]).rstrip(), int(culprit["status"])
    who = f"torchrun on host {culprit['host']}"
    if rank is not None:
        who = f"rank {rank} on host {culprit['host']}"
    last = re.sub(r"^pdmd: ", "", text.splitlines()[-1])
    print(f"{who} failed:\n{text}", file=sys.stderr)
    print(f"pdmd: launch: {who}, of {processes} processes, failed: {last}", file=sys.stderr)
    return status if status > 0 else 128 - status
