"""Warm starts: a command ends as it would by itself, whoever is told to stop or killed."""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pdmd import warm
from pdmd.warm import THREADS, VARIABLE, warmed

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def server():
    """The path of a warm process that answers."""
    with warmed():
        path = os.environ[VARIABLE]
        until(lambda: Path(path).exists(), 120)
        yield path


def until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def start(server, *arguments, **variables):
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"), VARIABLE: str(server), **variables}
    return subprocess.Popen(
        [sys.executable, "-m", "pdmd", *arguments],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["tables", "--configs", "nowhere.json"],
        ["tables"],
        ["no-such-command"],
        ["paper", "--results", "nowhere"],
    ],
)
def test_a_command_ends_as_it_does_by_itself(server, arguments):
    assert ended(start(server, *arguments)) == ended(start("", *arguments))


@pytest.fixture
def blocked(tmp_path):
    """A command that waits for somebody to write its config."""
    fifo = tmp_path / "config.json"
    os.mkfifo(fifo)
    return fifo, ["tables", "--configs", str(fifo)]


def forked(server):
    """Children of a warm process: of its command line, and so is their parent."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            parent = path.parent.joinpath("stat").read_text().rpartition(")")[2].split()[1]
            lines = [path.read_bytes(), Path(f"/proc/{parent}/cmdline").read_bytes()]
        except OSError:
            continue  # it ended at this moment
        if all(str(server).encode() in line.split(b"\0") for line in lines):
            found.append(int(path.parent.name))
    return found


def test_it_runs_in_a_process_that_was_forked_with_its_streams_and_folder(server, blocked):
    fifo, arguments = blocked
    process = start(server, *arguments)
    until(lambda: forked(server))
    (child,) = forked(server)
    assert os.readlink(f"/proc/{child}/cwd") == str(ROOT)
    assert os.readlink(f"/proc/{child}/fd/1").startswith("pipe:")
    with fifo.open("w") as handle:
        handle.write(json.dumps([1]))
    status, _, said = ended(process)
    assert status == 2
    assert said.startswith("pdmd: ")
    assert "config.json" in said
    until(lambda: not forked(server))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_the_command_and_who_asked_for_it(server, blocked, number):
    """Also one that cannot be passed on."""
    _, arguments = blocked
    process = start(server, *arguments)
    until(lambda: forked(server))
    process.send_signal(number)
    status, _, said = ended(process)
    alone = start("", *arguments)
    time.sleep(2)
    alone.send_signal(number)
    assert (status, said) == (ended(alone)[0], said)
    until(lambda: not forked(server))


# A forked process that was told to stop before it has begun.
BEFORE = """
import os, signal, sys
from pdmd import warm

mask = signal.pthread_sigmask(signal.SIG_BLOCK, warm.PASSED_ON)
os.kill(os.getpid(), int(sys.argv[1]))
request = {"folder": ".", "variables": dict(os.environ), "arguments": [], "said": []}
warm._run(request, [os.dup(stream) for stream in warm.STREAMS], lambda: 7, mask)
"""


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [(signal.SIGINT, 130, "pdmd: stopped\n"), (signal.SIGTERM, -signal.SIGTERM, "")],
)
def test_a_signal_before_a_command_begins_ends_it(number, status, said):
    program = [sys.executable, "-c", BEFORE, str(int(number))]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (status, said)


def test_a_killed_command_is_a_killed_process(server, blocked):
    process = start(server, *blocked[1])
    until(lambda: forked(server))
    os.kill(forked(server)[0], signal.SIGKILL)
    assert ended(process)[0] == -signal.SIGKILL


def test_what_libraries_read_once_must_be_equal(server, blocked):
    fifo, arguments = blocked
    process = start(server, *arguments, OMP_NUM_THREADS="7")
    time.sleep(1)
    assert not forked(server)  # it started by itself
    with fifo.open("w") as handle:
        handle.write("{")
    assert ended(process)[0] == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_a_snakemakes_jobs_of_one_thread_are_forked(server, blocked, threads):
    """Snakemake tells each job its number of threads; the control is another number."""
    fifo, arguments = blocked
    command = f"python -m pdmd {' '.join(arguments)} || touch {{output}}"
    rule = f"rule:\n  output: 'done'\n  threads: {threads}\n  shell: {command!r}\n"
    (fifo.parent / "Snakefile").write_text(rule)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, VARIABLE: server, "PATH": path}
    snakemake = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "-c2"],
        cwd=fifo.parent,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    with fifo.open("w") as handle:  # once somebody reads it
        found = forked(server)
        handle.write("{")
    assert len(found) == (threads == 1)
    assert snakemake.wait(60) == 0


# ---- a launched job's processes


@pytest.fixture
def launched(server, tmp_path):
    """A job of two processes that wait for somebody to write their config."""
    fifo = tmp_path / "config.json"
    os.mkfifo(fifo)
    command = ["features", "--config", str(fifo), "--digest", "0" * 64, "--seeds", "1"]
    process = start(server, "launch", "--processes", "2", "--", *command, OMP_NUM_THREADS="2")
    until(lambda: len(forked(server)) == 2)
    return process


def agent_of(process):
    """The one child of a launcher."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())


def test_a_launched_jobs_processes_are_forked_with_their_share_of_its_threads(server, launched):
    paths = [Path(f"/proc/{child}/cwd") for child in forked(server)]
    assert [path.resolve() for path in paths] == [ROOT, ROOT]
    launched.terminate()
    assert ended(launched)[::2] == (143, "")
    assert not forked(server)


@pytest.mark.parametrize("killed", ["launcher", "agent"])
def test_no_process_of_a_launched_job_outlives_what_started_it(server, launched, killed):
    os.kill(launched.pid if killed == "launcher" else agent_of(launched), signal.SIGKILL)
    assert ended(launched)[0] != 0
    until(lambda: not forked(server))


def test_a_killed_process_of_a_launched_job_is_named(server, launched):
    os.kill(forked(server)[0], signal.SIGKILL)
    status, _, said = ended(launched)
    assert status == 137
    assert "of 2 processes, failed: ended by SIGKILL" in said
    until(lambda: not forked(server))


def test_many_run_at_once(server):
    every = [start(server, "--version") for _ in range(12)]
    assert {ended(one)[:2] for one in every} == {ended(start("", "--version"))[:2]}


def test_without_a_process_a_command_starts_by_itself(tmp_path):
    (tmp_path / "stale").write_text("")
    for path in (tmp_path / "nobody", tmp_path / "stale"):
        assert ended(start(path, "--version"))[0] == 0


def test_the_process_ends_with_who_started_it_and_not_before_its_commands(blocked):
    fifo, arguments = blocked
    script = "import os, sys, time\nfrom pdmd.warm import warmed\nwith warmed():\n"
    script += " print(os.environ['PDMD_WARM'], flush=True)\n time.sleep(600)"
    starter = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    path = starter.stdout.readline().strip()
    until(lambda: Path(path).exists(), 120)
    process = start(path, *arguments)
    until(lambda: forked(path))
    (child,) = forked(path)
    parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    starter.kill()
    starter.wait()
    time.sleep(0.5)
    assert Path(f"/proc/{parent}").exists()
    with fifo.open("w") as handle:
        handle.write("{")
    assert ended(process)[0] == 2
    until(lambda: not Path(f"/proc/{parent}").exists())


def test_who_asked_may_go_as_the_command_ends():
    """Its channel was closed a moment before: nothing is left to be told."""
    ours, theirs = socket.socketpair()
    process = os.fork()
    if process == 0:
        os._exit(0)
    with selectors.DefaultSelector() as selector:
        server = warm._Server(selector, ours, ours, lambda: 0)
        server.running[process] = warm.Running(ours, process)
        selector.register(ours, selectors.EVENT_READ)
        until(lambda: server._collect() or not server.running)
        theirs.close()
        server._left(ours)
