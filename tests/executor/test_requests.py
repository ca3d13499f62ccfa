"""Snakemake's resources as what sbatch is asked for."""

import pytest

from snakemake_executor_plugin_submitit import ExecutorSettings
from snakemake_executor_plugin_submitit.resources import Request, slurm_parameters

SETTINGS = ExecutorSettings(partition="gpu", account="lab", qos="normal", runtime=7)


def asked(threads=1, **resources):
    """The parameters that submitit gets."""
    request = Request.of("rule", threads, resources, SETTINGS)
    return slurm_parameters(request, SETTINGS, "token")


def test_without_wishes_the_settings_hold():
    found = asked(threads=3)
    assert found["cpus_per_task"] == 3
    assert found["time"] == 7
    assert (found["partition"], found["account"], found["qos"]) == ("gpu", "lab", "normal")
    assert found["nodes"] == found["ntasks_per_node"] == 1
    assert not {"gres", "mem_per_cpu", "constraint"} & found.keys()
    assert "gpus-per-node" not in found["additional_parameters"]


def test_a_job_s_own_wishes_go_before_the_settings():
    found = asked(slurm_partition="long", slurm_account="a", qos="q", constraint="ib", runtime=90)
    assert (found["partition"], found["account"], found["qos"]) == ("long", "a", "q")
    assert (found["constraint"], found["time"]) == ("ib", 90)


def test_gpus_and_tasks_are_totals_shared_by_the_nodes():
    found = asked(nodes=2, gpu=4, tasks=4, cpus_per_task=5, gpu_model="a100")
    assert found["additional_parameters"]["gpus-per-node"] == "a100:2"
    assert (found["nodes"], found["ntasks_per_node"], found["cpus_per_task"]) == (2, 2, 5)


def test_gres_stands_for_itself():
    found = asked(gpu=2, gres="gpu:h100:2")
    assert found["gres"] == "gpu:h100:2"
    assert "gpus-per-node" not in found["additional_parameters"]


def test_memory_of_a_node_or_of_a_cpu():
    assert asked(mem_mb=900)["additional_parameters"]["mem"] == "900M"
    found = asked(mem_mb=900, mem_mb_per_cpu=100)
    assert found["mem_per_cpu"] == "100M"
    assert "mem" not in found["additional_parameters"]


def test_only_a_resumable_job_is_signalled():
    assert asked(resumable=1)["additional_parameters"]["signal"] == "B:USR2@120"
    assert asked(resumable=0)["additional_parameters"]["signal"] == "B:CONT@1"


def test_further_flags_in_each_spelling():
    found = asked(slurm_extra="--exclude=n7 --exclusive --reservation 'my own'")
    flags = found["additional_parameters"]
    assert flags["exclude"] == "n7"
    assert flags["exclusive"] is True
    assert flags["reservation"] == "my own"


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"gpu": 3, "nodes": 2}, "resource gpu: 3: expected a multiple of nodes = 2"),
        ({"tasks": 3, "nodes": 2}, "resource tasks: 3: expected a multiple of nodes = 2"),
        ({"gpu": "two"}, "resource gpu: 'two': expected a whole number"),
        ({"runtime": -1}, "resource runtime: -1: expected a whole number"),
        ({"slurm_extra": "exclude"}, "resource slurm_extra: 'exclude': expected --flag"),
    ],
)
def test_a_wish_that_makes_no_sense_is_told_in_one_line(wishes, message):
    with pytest.raises(ValueError, match=r"^resource ") as caught:
        asked(**wishes)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_name_that_sbatch_takes():
    assert Request.of("a b/c:d", 1, {}, SETTINGS).name == "a_b_c_d"
