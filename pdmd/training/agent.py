"""One node's part of `pdmd launch`: torchrun, its workers' signals and what they die of.

torchrun itself would end workers that take longer than half a minute to save, and would print its
own account of a failure over theirs; so it runs inside this program, which passes signals on and
reports to the launcher in lines of JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from pdmd.errors import PeerLost
from pdmd.training.stop import SIGNALS, STATUS

SECRET = "PDMD_RENDEZVOUS"  # in the environment, where other users do not see it
MARK = "pdmd-agent "  # what a report starts with, on stderr
ENDED = (STATUS, *(-number for number in SIGNALS))  # exit statuses of workers told to stop
_logs: Path | None = None  # torchrun's, which it fills when it starts workers
LOST_PATIENCE = 5.0  # seconds in which the node where it began can say so first


def leave_word(text: str, error: BaseException) -> bool:
    """In a worker of an agent, leave for it what the worker dies of; else say False."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path or "PDMD_AGENT" not in os.environ:
        return False
    lost = isinstance(error, PeerLost)
    value = {"message": text, "timestamp": int(time.time()), "time": time.time(), "lost": lost}
    Path(path).write_text(json.dumps(value), encoding="utf-8")
    return True


def host() -> str:
    """This node's name, Slurm's if it has one."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def node_rank() -> int:
    """This node's place in the allocation."""
    return int(os.environ.get("SLURM_NODEID", "0"))


def node_address(node: str) -> str:
    """Where a node of the cluster is reached; the name itself if Slurm does not say."""
    command = ["scontrol", "show", "node", node]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return node
    match = re.search(r"\bNodeAddr=(\S+)", done.stdout)
    return match[1] if match else node


def address_towards(host: str) -> str:
    """The address of this machine by which it reaches a host. Raises OSError."""
    family, kind, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)  # sends nothing
        return str(probe.getsockname()[0])


def workers() -> list[int]:
    """The child processes of this one."""
    numbers = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = path.read_text().rpartition(")")[2].split()[1]
        except (OSError, IndexError):
            continue  # it ended at this moment
        if int(parent) == os.getpid():
            numbers.append(int(path.parent.name))
    return numbers


def _forward(number: int, frame: FrameType | None) -> None:
    """Pass a signal on; torchrun goes on waiting for the workers, however long they save."""
    processes = workers()
    for pid in processes:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    if not processes and not _started():
        raise SystemExit(STATUS)


def _started() -> bool:
    """Whether there have been workers: where none is left they have ended, and that counts."""
    return _logs is not None and (not _logs.exists() or any(_logs.iterdir()))


def _report(**value: Any) -> None:
    print(f"{MARK}{json.dumps({'host': host(), **value})}", file=sys.stderr, flush=True)


def _torchrun(args: argparse.Namespace, logs: str) -> list[str]:
    """The arguments of torchrun."""
    command = [
        f"--nnodes={args.nodes}",
        f"--nproc-per-node={args.processes}",
        "--rdzv-backend=pdmd",
        f"--rdzv-endpoint={args.endpoint}",
        f"--rdzv-id={os.environ.pop(SECRET)}",
        f"--rdzv-conf=rank={node_rank() if args.nodes > 1 else 0}",
        "--max-restarts=0",
        "--signals-to-handle=SIGQUIT",  # the others are ours
        f"--log-dir={logs}",
    ]
    return [*command, "--module", "pdmd", *args.command]


def _tell(failures: Mapping[int, Any], nodes: int) -> int:
    """Report how workers ended; returns the agent's exit status."""
    failed = {rank: failure for rank, failure in failures.items() if failure.exitcode not in ENDED}
    words = {rank: _word(failure) for rank, failure in failed.items()}
    for rank, failure in failed.items():
        data = words[rank]
        text = data.get("message") if "time" in data else None
        if text is None and failure.exitcode < 0:
            text = f"ended by {_signal_name(-failure.exitcode)}"
        moment, lost = data.get("time", time.time()), data.get("lost", False)
        text = text or f"ended with exit status {failure.exitcode}, without a word"
        _report(rank=rank, status=failure.exitcode, text=text, time=moment, lost=lost)
    if not failed:
        _report(stopped=True)
        return 0
    if nodes > 1 and all(data.get("lost") for data in words.values()):
        time.sleep(LOST_PATIENCE)
    return 1


def _word(word: Any) -> dict[str, Any]:
    """What a worker left of its end."""
    return word.error_file_data if isinstance(word.error_file_data, dict) else {}


def _signal_name(number: int) -> str:
    known = {int(each): each.name for each in signal.Signals}
    return known.get(number, f"signal {number}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run this node's workers to their end. Exit status 0 also where they were told to stop."""
    global _logs
    parser = argparse.ArgumentParser(prog="pdmd.training.agent", description=__doc__)
    for name, kind in (("nodes", int), ("processes", int), ("endpoint", str)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("command", nargs="+", help="pdmd's arguments, after --")
    args = parser.parse_args(arguments)
    for number in SIGNALS:
        signal.signal(number, _forward)
    logging.disable()  # torchrun's account is not wanted
    os.environ["PDMD_AGENT"] = "1"
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # nor its stacks of a lost connection
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # jobs set their threads themselves
    try:
        from torch.distributed import run
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

        from pdmd.training import rendezvous

        rendezvous.register()
        first = args.endpoint.rpartition(":")[0].strip("[]")
        rendezvous.stay_at(address_towards(first))
        with tempfile.TemporaryDirectory(prefix="pdmd-agent-") as logs:
            _logs = Path(logs)
            try:
                run.run(run.parse_args(_torchrun(args, logs)))
            except ChildFailedError as error:
                return _tell(error.failures, args.nodes)
    except SystemExit as leave:
        if leave.code != STATUS:
            raise
        _report(stopped=True)
    except Exception:
        _report(rank=None, status=1, text=traceback.format_exc(), time=time.time(), lost=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
