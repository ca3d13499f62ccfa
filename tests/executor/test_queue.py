"""squeue and sacct, with and without answers; stand-ins for both."""

import os

import pytest
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from snakemake_executor_plugin_submitit import ExecutorSettings
from snakemake_executor_plugin_submitit.resources import Request
from snakemake_executor_plugin_submitit.runner import SnakemakeJob
from snakemake_executor_plugin_submitit.slurm import (
    REJECTED,
    NotSubmitted,
    Sbatch,
    Slurm,
    forget_allocation,
    overruled,
)
from snakemake_executor_plugin_submitit.task import State, Task


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
        (
            "QOSMaxSubmitJobPerUserLimit; Batch job submission failed: Job violates accounting/QOS"
            " policy (job submit limit, user's size and/or time limits)",
            False,
        ),
        (
            "QOSMaxCpuPerJobLimit; Batch job submission failed: Job violates accounting/QOS"
            " policy (job submit limit, user's size and/or time limits)",
            True,
        ),
        (
            "QOSMinGRES; Batch job submission failed: Job violates accounting/QOS policy (job"
            " submit limit, user's size and/or time limits)",
            True,
        ),
        ("I/O error writing script/environment to file", False),
        ("This does not look like a batch script.", True),
        ("unrecognized option '--foo=1'", True),
        ("option '--hold' doesn't allow an argument", True),
        ("--mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive.", True),
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


CONFIG = """Configuration data as of 2026-01-01T00:00:00
MaxArraySize            = {size}
MaxDBDMsgs              = 20032
SchedulerParameters     = bf_interval=1{more}
"""


def tasks(tmp_path, count):
    """As many tasks that ask for the same."""
    info, call = SubmittedJobInfo(None), SnakemakeJob("true", ".")
    return [Task(info, Request("r"), call, "r", f"k{i}", "f", tmp_path) for i in range(count)]


def sizes(own, some):
    return [len(batch) for batch in own.batches(some)]


@pytest.mark.parametrize(
    ("limit", "count", "expected"),
    [
        (5, 4, [4]),
        (5, 5, [5]),
        (5, 6, [5, 1]),
        (5, 11, [5, 5, 1]),
        (1, 2, [1, 1]),
        (0, 2, [1, 1]),  # no arrays
        (1000, 12, [8, 4]),  # the setting is less
    ],
)
def test_arrays_are_as_long_as_setting_and_cluster_allow(
    commands, tmp_path, limit, count, expected
):
    asked = commands("scontrol", CONFIG.format(size=limit, more=""))
    own = Slurm(ExecutorSettings(arrays=True, array_size=8))
    some = tasks(tmp_path, count)
    assert sizes(own, some) == expected
    assert sizes(own, some) == expected
    assert len(asked.read_text().splitlines()) == 1, "asked once"


def test_a_cluster_may_allow_fewer_tasks_than_indices(commands, tmp_path):
    commands("scontrol", CONFIG.format(size=1001, more=",max_array_tasks=3,bf_max_job_test=5"))
    assert sizes(Slurm(ExecutorSettings(arrays=True)), tasks(tmp_path, 7)) == [3, 3, 1]


@pytest.mark.parametrize("said", [("", "Unable to contact slurm controller", 1), ("nothing",)])
def test_a_cluster_that_does_not_say_gets_arrays_that_most_take(commands, tmp_path, said):
    asked = commands("scontrol", *said)
    own = Slurm(ExecutorSettings(arrays=True, array_size=5000))
    assert sizes(own, tasks(tmp_path, 1500)) == [1000, 500]
    assert sizes(own, tasks(tmp_path, 1500)) == [1000, 500]
    assert len(asked.read_text().splitlines()) == 1
    own._ask_from = 0.0  # a while later it answers
    commands("scontrol", CONFIG.format(size=4000, more=""))
    assert sizes(own, tasks(tmp_path, 1500)) == [1500]


def test_one_job_alone_asks_nobody(commands, tmp_path):
    asked = commands("scontrol", CONFIG.format(size=5, more=""))
    assert sizes(Slurm(ExecutorSettings(arrays=True)), tasks(tmp_path, 1)) == [1]
    assert sizes(Slurm(ExecutorSettings()), tasks(tmp_path, 3)) == [1, 1, 1]
    assert not asked.exists()


FULL = (
    "sbatch: error: AssocMaxSubmitJobLimit\n"
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit"
    " limit, user's size and/or time limits)"
)
LONG = "sbatch: error: Batch job submission failed: Invalid job array specification"


def refuse(own, batch):
    """What an sbatch that refuses is taken for."""
    with pytest.raises(NotSubmitted) as caught:
        own.submit(batch)
    return caught.value


@pytest.mark.parametrize(("error", "full"), [(FULL, True), (LONG, False)])
def test_an_array_for_which_there_is_no_room_is_made_shorter(commands, tmp_path, error, full):
    commands("scontrol", CONFIG.format(size=1001, more=""))
    commands("srun")
    commands("sbatch", error=error, status=1)
    own, some = Slurm(ExecutorSettings(arrays=True, array_size=8)), tasks(tmp_path, 8)
    lengths = []
    while len(batch := own.batches(some)[0]) > 1:
        lengths.append(len(batch))
        refusal = refuse(own, batch)
        assert (refusal.final, refusal.full) == (False, full)
    assert lengths == [8, 4, 2]
    assert refuse(own, batch).final != full, "one job that is refused for its array is hopeless"
    commands("sbatch", "Submitted batch job 17")
    own.submit(batch)
    assert batch[0].id == "17"
    assert len(own.batches(some)[0]) == 2, "where there is room again they grow"


def test_a_refusal_is_told_in_sbatch_s_words(commands, tmp_path):
    commands("srun")
    commands(
        "sbatch",
        error="sbatch: unrecognized option '--foo=1'\nTry \"sbatch --help\" for more",
        status=1,
    )
    refusal = refuse(Slurm(ExecutorSettings()), tasks(tmp_path, 1))
    assert str(refusal) == "unrecognized option '--foo=1'"
    assert refusal.final
    commands("sbatch", error="sbatch: fatal: --a is mutually exclusive with --b", status=1)
    assert str(refuse(Slurm(ExecutorSettings()), tasks(tmp_path, 1))).startswith("--a is mutually")


def test_variables_that_sbatch_would_believe_first_are_kept_from_it(tmp_path):
    """sbatch takes SBATCH_PARTITION before what the script says."""
    script = tmp_path / "s.sh"
    script.write_text("#!/bin/bash\n#SBATCH --partition=gpu\n#SBATCH --mem=5M\n#SBATCH --requeue\n")
    command = Sbatch._make_submission_command(Sbatch.__new__(Sbatch), script)
    assert command[-2:] == ["sbatch", str(script)]
    unset = {word.partition("=")[2] for word in command if word.startswith("--unset=")}
    assert {"SBATCH_PARTITION", "SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU"} < unset
    assert {"SBATCH_NO_REQUEUE", "SBATCH_ARRAY_INX", "SBATCH_WAIT"} < unset
    assert "SBATCH_ACCOUNT" not in unset, "the control: nothing is said of it, so it holds"
    assert "SBATCH_TIMELIMIT" in overruled({"time"})
