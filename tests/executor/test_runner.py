"""What runs on the node, told to stop."""

import os
import signal
import subprocess
import sys
import time

import pytest

GRACE = 6
RUN = """
from snakemake_executor_plugin_submitit.runner import SnakemakeJob
import sys
SnakemakeJob(sys.argv[1], ".", grace=float(sys.argv[2]))()
"""


def seconds_to_stop(folder, command, grace=GRACE, ready="touch ready; "):
    """How long a job with this command lives on after a SIGTERM."""
    job = subprocess.Popen(
        [sys.executable, "-c", RUN, ready + command, str(grace)],
        cwd=folder,
        stderr=subprocess.PIPE,
    )
    end = time.time() + 30
    while not (folder / "ready").exists() and time.time() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    begin = time.time()
    os.kill(job.pid, signal.SIGTERM)
    _, said = job.communicate(timeout=240)
    assert b"after SIGTERM" in said
    return time.time() - begin


def test_what_starts_just_after_the_signal_is_told_too(tmp_path):
    """As of a Snakemake that is signalled while it starts a job: it then waits for that job."""
    assert seconds_to_stop(tmp_path, "trap : TERM; sleep 31; sleep 0.5; sleep 32") < GRACE / 2


WAITS_FOR_ITSELF = """
import signal, threading, time
lock = threading.Lock()
def handler(*_):
    with lock:
        pass
signal.signal(signal.SIGTERM, handler)
with lock:
    open("ready", "w")
    time.sleep(34)
"""


@pytest.mark.parametrize("name", ["snakemake", "other"])
def test_a_snakemake_that_waits_for_itself_is_let_go(tmp_path, name):
    """As Snakemake's scheduler may at SIGTERM; the control by another name lives to the grace."""
    (tmp_path / f"{name}.py").write_text(WAITS_FOR_ITSELF)
    took = seconds_to_stop(tmp_path, f"{sys.executable} {name}.py; true", grace=16, ready="")
    assert (took < 14) == (name == "snakemake")


@pytest.mark.slow
def test_what_does_not_listen_is_killed_after_the_grace(tmp_path):
    """The control: nothing but the signal ended the one above."""
    took = seconds_to_stop(tmp_path, "trap '' TERM; sleep 33")
    assert GRACE - 1 < took < GRACE + 10


OVERSEER = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, lambda *_: open("told", "w").close())
sys.exit(subprocess.call(["bash", "-c", open("job.sh").read()]))
"""
LAST_FILE = f"""
{sys.executable} -c '
import pathlib, signal, time
signal.signal(signal.SIGTERM, lambda *_: pathlib.Path("heard").touch())
pathlib.Path("ready").touch()
time.sleep(3)
' > log
exit $?
"""
RUN_RESUMABLE = """
from snakemake_executor_plugin_submitit.runner import SnakemakeJob
import sys
print(SnakemakeJob(f"{sys.executable} -m {sys.argv[1]}; exit $?", ".", True, grace=20)())
"""


@pytest.mark.parametrize(
    ("name", "job", "succeeds"),
    [
        ("snakemake", LAST_FILE, True),
        ("other", LAST_FILE, False),
        ("snakemake", "trap 'exit 3' TERM; touch ready; sleep 30 & wait", False),
    ],
    ids=["snakemake", "another overseer", "a shell that listens"],
)
def test_a_resumable_jobs_shells_and_snakemake_are_not_told(tmp_path, name, job, succeeds):
    """Whose success would be lost; the controls are told, and fail."""
    (tmp_path / f"{name}.py").write_text(OVERSEER)
    (tmp_path / "job.sh").write_text(job)
    command = [sys.executable, "-c", RUN_RESUMABLE, name]
    runner = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.time() + 30
    while not (tmp_path / "ready").exists() and time.time() < end:
        time.sleep(0.05)
    os.kill(runner.pid, signal.SIGUSR2)
    printed, said = runner.communicate(timeout=60)
    assert ("restarts" in printed) == succeeds, said
    assert (tmp_path / "told").exists() == (name == "other")
    assert (tmp_path / "heard").exists() == (job == LAST_FILE)
