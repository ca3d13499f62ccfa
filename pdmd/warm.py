"""Warm starts: a process that has imported everything forks for each command of a local workflow.

Importing torch and diffusers takes longer than most commands of the small scenarios. `serve` is
that process; `ask` hands it a command with its folder, environment and standard streams, and ends
as the command ends. Where there is no such process a command starts by itself, as ever. Nothing of
what a command does depends on it.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pdmd.leaving import dying_with_parent, leave, stopped

VARIABLE = "PDMD_WARM"  # the socket's path
COLD = {
    "demo",
    "launch",
    "status",
    "board",
    "resolve",
    "warm",
}  # cheap, or with processes of their own
# What libraries read when they are imported: a command with others starts by itself.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # which Snakemake sets
READ_ONCE = (
    *(*THREADS, "CUDA_VISIBLE_DEVICES", "PYTHONPATH", "PYTHONHASHSEED", "PYTHONWARNINGS"),
    "SLURM_JOB_ID",  # a cluster's job has processes, and limits, of its own
)
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
STREAMS = (0, 1, 2)
PACKAGE = Path(__file__).resolve().parent  # whose commands these are
Run = Callable[[], int]
LARGEST = 1 << 20  # bytes of a request
LIBRARIES = (
    "torch",
    "numpy",
    "pandas",
    "scipy.stats",
    "scipy.linalg",
    "safetensors.torch",
    "diffusers.models.transformers.transformer_qwenimage",
    "diffusers.models.transformers.transformer_wan",
    "clip",
    "torchvision",
    "torchmetrics",
    "cv2",
    "matplotlib.figure",
    "jsonschema",
)


# ---- who asks


def ask(arguments: Sequence[str]) -> int | None:
    """Have a command run by the warm process; its exit status, None if it must run here.

    Signals are passed on; a command that a signal ended ends this process by the same one.
    """
    path = os.environ.get(VARIABLE)
    if not path or not arguments or arguments[0] in COLD:
        return None
    if "PDMD_AGENT" in os.environ:
        dying_with_parent(signal.SIGKILL)()  # a launched job's process does not outlive its agent
    with socket.socket(socket.AF_UNIX) as channel:
        try:
            channel.connect(path)
            _request(channel, list(arguments))
            reply = channel.makefile("r", encoding="utf-8")
            first = json.loads(reply.readline() or "null")
        except (OSError, ValueError):
            return None
        if first is None:
            return None  # it declined
        with _passing_on(int(first)):
            last = reply.readline()
    return _ended(json.loads(last) if last else -signal.SIGKILL)


def _request(channel: socket.socket, arguments: list[str]) -> None:
    value = {"arguments": arguments, "folder": str(Path.cwd()), "variables": dict(os.environ)}
    value |= {"package": str(PACKAGE), "said": sys.orig_argv}
    content = json.dumps(value).encode() + b"\n"
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", STREAMS).tobytes())]
    sent = channel.sendmsg([content], rights)
    channel.sendall(content[sent:])


@contextmanager
def _passing_on(process: int) -> Iterator[None]:
    def pass_on(number: int, _: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(process, number)

    before = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ended(status: int) -> int:
    """The exit status of a command, or the end of this process by the signal that ended it."""
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


# ---- who runs


@dataclass
class Running:
    """A command under way: who asked for it, by which channel."""

    channel: socket.socket
    process: int


def serve(path: Path, run: Run) -> None:
    """Import everything, then fork for each command, until standard input ends and none runs.

    Args:
        run: runs the command of `sys.argv`; its exit status.
    """
    _import_all()
    listener = socket.socket(socket.AF_UNIX)
    beside = path.with_suffix(".beside")
    listener.bind(str(beside))
    listener.listen(64)
    beside.rename(path)  # there is no time at which it is there and nobody listens
    wake, woken = socket.socketpair()
    woken.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno())
    with selectors.DefaultSelector() as selector:
        for source in (listener, wake, sys.stdin):
            selector.register(source, selectors.EVENT_READ)
        _Server(selector, listener, wake, run).run()


class _Server:
    def __init__(
        self,
        selector: selectors.BaseSelector,
        listener: socket.socket,
        wake: socket.socket,
        command: Run,
    ):
        self.selector, self.listener, self.wake = selector, listener, wake
        self.command = command
        self.running: dict[int, Running] = {}
        self.ends = False

    def run(self) -> None:
        """Answer until nobody is left who could ask."""
        while not self.ends or self.running:
            for key, _ in self.selector.select():
                source: Any = key.fileobj
                if source is self.listener:
                    self._begin(self.listener.accept()[0])
                elif source is self.wake:
                    self.wake.recv(4096)
                    self._collect()
                elif source is sys.stdin:
                    self.ends = True
                    self.selector.unregister(sys.stdin)
                else:
                    self._left(source)

    def _begin(self, channel: socket.socket) -> None:
        request, streams = _received(channel)
        if request is None or _is_another(request):
            with suppress(OSError):
                channel.sendall(b"null\n")
            channel.close()
            for stream in streams:
                os.close(stream)
            return
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # they wait until it has begun
        process = os.fork()
        if process == 0:
            self._close()
            _run(request, streams, self.command, mask)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for stream in streams:
            os.close(stream)
        self.running[process] = Running(channel, process)
        self.selector.register(channel, selectors.EVENT_READ)
        self._say(channel, process)

    def _close(self) -> None:
        """In a forked process: nothing of the server's stays open, and its signals are Python's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.selector.close()
        self.listener.close()
        self.wake.close()
        for one in self.running.values():
            one.channel.close()

    def _collect(self) -> None:
        """Tell who asked for commands that have ended."""
        for process in list(self.running):
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                one = self.running.pop(process)
                self._say(one.channel, os.waitstatus_to_exitcode(status))
                with suppress(KeyError):
                    self.selector.unregister(one.channel)
                one.channel.close()

    def _left(self, channel: socket.socket) -> None:
        """Who asked has gone, by a signal that cannot be passed on: so does the command."""
        if channel.fileno() < 0:
            return  # the command had ended, which was seen first
        self.selector.unregister(channel)
        for one in self.running.values():
            if one.channel is channel:
                os.kill(one.process, signal.SIGKILL)

    def _say(self, channel: socket.socket, number: int) -> None:
        with suppress(OSError):
            channel.sendall(f"{number}\n".encode())


def _received(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """A request and the standard streams that came with it; None of one that is torn."""
    streams = array("i")
    size = socket.CMSG_SPACE(len(STREAMS) * streams.itemsize)
    content, ancillary, _, _ = channel.recvmsg(LARGEST, size)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            streams.frombytes(data[: len(data) - len(data) % streams.itemsize])
    while content and not content.endswith(b"\n") and len(content) < LARGEST:
        more = channel.recv(LARGEST)
        if not more:
            break
        content += more
    try:
        request = json.loads(content)
    except ValueError:
        return None, list(streams)
    return (request if len(streams) == len(STREAMS) else None), list(streams)


def _is_another(request: dict[str, Any]) -> bool:
    """Whether a command is of other code, or wants other than what libraries have read once."""
    variables = request["variables"]
    others = any(variables.get(name) != os.environ.get(name) for name in READ_ONCE)
    return others or request["package"] != str(PACKAGE)


def _run(
    request: dict[str, Any], streams: Sequence[int], command: Run, mask: Iterable[int]
) -> NoReturn:
    """Be the command: in a forked process, which ends here.

    Args:
        mask: the signals that it blocks; until it begins, all that are passed on are.
    """
    status = 1
    try:
        for number, stream in zip(STREAMS, streams, strict=True):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="replace", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["variables"])
        sys.argv, sys.orig_argv = ["pdmd", *request["arguments"]], request["said"]
        for number in PASSED_ON:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        status = command()
    except KeyboardInterrupt:  # before it began: it says the same itself
        status = stopped()
    except SystemExit as error:  # of argparse
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left that it could stop
        leave(status)


def _import_all() -> None:
    """Import every module of this package that a command of a workflow may, and libraries."""
    import gc
    import pkgutil
    import warnings
    from importlib import import_module

    import pdmd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in LIBRARIES:
            with suppress(ImportError):
                import_module(name)
        for module in pkgutil.walk_packages(pdmd.__path__, "pdmd."):
            if not module.name.endswith("__main__"):
                with suppress(ImportError):
                    import_module(module.name)
    gc.collect()
    gc.freeze()  # so that forked processes share these pages


# ---- who starts it


@contextmanager
def warmed() -> Iterator[None]:
    """Start the warm process, name it in the environment, and end it; harmless where it fails."""
    with tempfile.TemporaryDirectory(prefix="pdmd-") as folder:
        path = Path(folder) / "warm"
        command = [sys.executable, "-m", "pdmd", "warm", "--serve", str(path)]
        streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
        environment = {**os.environ, **dict.fromkeys(THREADS, "1")}  # as most jobs have it
        environment.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # as processes of launched jobs do
        with subprocess.Popen(
            command, env=environment, start_new_session=True, **streams
        ) as process:
            os.environ[VARIABLE] = str(path)
            try:
                yield
            finally:
                os.environ.pop(VARIABLE, None)
                assert process.stdin is not None
                process.stdin.close()  # it ends with its last command
                if not path.exists():
                    process.terminate()  # it imports still, and has none
