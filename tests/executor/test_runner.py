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
