"""What a running workflow trains is what it was started with, whatever happens beside it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pdmd.files.storage import read_json

pytestmark = pytest.mark.slow

WANTED = "results/mixture2d/dmd2/seed1/phase1/expert.safetensors"
OVERLAY = {
    "scenarios": ["mixture2d"],
    "overrides": {
        "mixture2d": {
            "methods": ["teacher", "dmd2"],
            "seeds": [1],
            "model": {"width": 8},
            "fit": {"updates": 1500, "batch": 64},
            "distill": {"updates": 16, "batch": 8, "fake_updates": 1},
            "save": {"log_every": 4, "checkpoint_every": 4, "snapshots": 1},
        }
    },
}


def overlay(checkout, name, updates):
    wanted = yaml.safe_load(yaml.safe_dump(OVERLAY))
    wanted["overrides"]["mixture2d"]["distill"]["updates"] = updates
    (checkout / name).write_text(yaml.safe_dump(wanted))
    return ["--configfile", name]


def said(done):
    return done.stdout + done.stderr


@pytest.fixture
def started(checkout):
    """Start Snakemake and wait until it fits the base network: arguments -> the process."""
    processes = []

    def start(*arguments):
        binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        paths = f"{checkout}{os.pathsep}{checkout / 'workflow' / 'executor'}"
        environment = {**os.environ, "PYTHONPATH": paths, "PATH": binaries, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "snakemake", WANTED, *arguments]
        with (checkout / "log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=checkout, env=environment, stdout=log, stderr=log
            )
        processes.append(process)
        deadline = time.time() + 120
        while not list((checkout / "results/.state").glob("*/*/*/progress.json")):
            assert process.poll() is None, (checkout / "log").read_text()
            assert time.time() < deadline
            time.sleep(0.02)
        return process

    yield start
    for process in processes:
        process.terminate()
        process.wait(60)


def trained(checkout, process):
    """Updates that the run was trained for, when the workflow has ended."""
    base = checkout / "results/mixture2d/base/metrics.json"
    assert not base.exists(), "the base was fitted before anything happened beside it"
    assert process.wait(240) == 0, (checkout / "log").read_text()
    return read_json((checkout / WANTED).with_name("metrics.json"))["updates"]


@pytest.mark.long
@pytest.mark.parametrize("command", [["-n"], ["--rulegraph"], ["--lint"], []])
def test_a_start_beside_a_running_workflow_changes_nothing_of_it(
    checkout, started, snakemake, command
):
    mine, other = overlay(checkout, "a.yaml", 16), overlay(checkout, "b.yaml", 32)
    process = started("-c1", *mine)
    beside = snakemake(checkout, WANTED, *(command or ["-c1"]), *other)
    if not command:
        assert "lock" in said(beside)  # a second start is refused
    assert trained(checkout, process) == 16
    assert "Nothing to be done" in said(snakemake(checkout, "-n", WANTED, *mine))
    plan = said(snakemake(checkout, "-n", WANTED, *other))  # control: the other would train
    assert "rule distill:" in plan


@pytest.mark.long
def test_jobs_that_read_the_workflow_anew_do_what_was_planned(checkout, started, snakemake):
    """As on a cluster, where a job's own Snakemake starts long after an edit."""
    mine = overlay(checkout, "a.yaml", 16)
    here = ["--executor", "submitit", "--submitit-cluster", "local", "--jobs", "1"]
    process = started(*here, *mine)
    overlay(checkout, "a.yaml", 32)
    methods = checkout / "config" / "methods.yaml"
    methods.write_text(methods.read_text().replace("dmd2: {kind: distill}", "dmd2: {kind: 3}"))
    assert trained(checkout, process) == 16
    done = snakemake(checkout, "-n", WANTED, *mine)  # control: the next start reads the edit
    assert "pdmd: config/methods.yaml: dmd2: kind: 3" in said(done)
