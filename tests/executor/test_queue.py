"""squeue and sacct, with and without answers; stand-ins for both."""

import os

import pytest

from snakemake_executor_plugin_submitit import ExecutorSettings
from snakemake_executor_plugin_submitit.slurm import REJECTED, Slurm, forget_allocation
from snakemake_executor_plugin_submitit.task import State


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Put a stand-in for a command first in PATH; what it was called with is in <name>.calls."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def install(name, out="", error="", status=0):
        lines = [f'echo "$@" >> {tmp_path}/{name}.calls', f"cat <<'E'\n{out}\nE"]
        lines += [f"cat >&2 <<'E'\n{error}\nE", f"exit {status}"]
        (tmp_path / name).write_text("\n".join(["#!/bin/sh", *lines]))
        (tmp_path / name).chmod(0o755)
        return tmp_path / f"{name}.calls"

    return install


def slurm():
    return Slurm(ExecutorSettings())


def test_one_squeue_for_all_jobs_and_no_sacct_where_it_knows_them(commands):
    asked = commands(
        "squeue", "1|RUNNING|None|n1\n2_0|PENDING|Priority|\n2_1|FAILED||n2\n9|RUNNING||"
    )
    accounting = commands("sacct")
    found = slurm().states(["1", "2_0", "2_1"])
    assert found == {
        "1": State("RUNNING", "None", "n1"),
        "2_0": State("PENDING", "Priority", ""),
        "2_1": State("FAILED", "", "n2"),
    }
    assert len(asked.read_text().splitlines()) == 1
    assert "--jobs 1,2" in asked.read_text()
    assert not accounting.exists()


def test_one_sacct_for_the_jobs_that_squeue_forgot(commands):
    commands("squeue", "1|RUNNING|None|n1")
    asked = commands("sacct", "2|CANCELLED by 0|n1\n3|COMPLETED|n2\n3.batch|COMPLETED|n2")
    found = slurm().states(["1", "2", "3", "4"])
    assert found["2"] == State("CANCELLED", "", "n1")
    assert found["3"].name == "COMPLETED"
    assert "4" not in found
    assert len(asked.read_text().splitlines()) == 1


def test_where_there_is_no_sacct_it_is_not_asked_again(commands):
    commands("squeue", error="slurm_load_jobs error: Invalid job id specified", status=1)
    asked = commands("sacct", error="Slurm accounting storage is disabled", status=1)
    own = slurm()
    assert own.states(["1"]) == {}
    assert own.states(["1"]) == {}
    assert len(asked.read_text().splitlines()) == 1


def test_a_queue_that_does_not_answer_is_no_answer(commands):
    commands("squeue", "1|RUNNING|None|n1", "Unable to contact slurm controller", status=1)
    assert slurm().states(["1"]) is None
    assert slurm().named(["token"]) is None


def test_jobs_are_found_by_their_token(commands):
    commands("squeue", "1|a-1\n2_0|a-2\n2_1|a-2\n3|other|x")
    assert slurm().named(["a-1", "a-2", "a-3"]) == {"a-1": ["1"], "a-2": ["2_0", "2_1"]}


@pytest.mark.parametrize(
    ("message", "final"),
    [
        ("Batch job submission failed: Invalid partition name specified", True),
        ("Batch job submission failed: Requested node configuration is not available", True),
        ("Unable to contact slurm controller (connect failure)", False),
        ("Batch job submission failed: Socket timed out on send/recv operation", False),
        ("Batch job submission failed: Resource temporarily unavailable", False),
        (
            "AssocMaxSubmitJobLimit; Batch job submission failed: Job violates accounting/QOS"
            " policy (job submit limit, user's size and/or time limits)",
            False,
        ),
    ],
)
def test_which_refusals_are_for_good(message, final):
    assert bool(REJECTED.search(message)) == final


def test_inside_an_allocation_its_variables_are_dropped():
    environment = {"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "4", "SLURM_CONF": "c", "HOME": "h"}
    forget_allocation(environment)
    assert environment == {"SLURM_CONF": "c", "HOME": "h"}
    outside = {"SLURM_CLUSTERS": "a"}
    forget_allocation(outside)
    assert outside == {"SLURM_CLUSTERS": "a"}
