from types import SimpleNamespace

import pytest

from pdmd.config import Experiment, merge, read_yaml
from pdmd.resources import SPEED, Requests, light, minutes, training_mb


@pytest.fixture
def experiment(repository):
    """The default experiment, with a diff for one scenario."""

    def make(diff=None):
        settings = read_yaml(repository / "config" / "config.yaml")
        return Experiment(repository, merge(settings, {"overrides": {"mixture2d": diff or {}}}))

    return make


def ask(request, attempt=1, **wildcards):
    """A request's values for one job."""
    w = SimpleNamespace(**wildcards)
    values = {}
    for name, value in request.items():
        takes = value.__code__.co_varnames[: value.__code__.co_argcount]
        values[name] = value(w, attempt) if "attempt" in takes else value(w)
    return values


def test_minutes_grow_with_the_work_and_the_attempt():
    assert minutes(0) == 10
    assert minutes(SPEED * 60 * 25) == 40
    assert minutes(SPEED * 60 * 25, attempt=3) == 160


def test_a_phase_asks_for_what_its_config_holds(experiment):
    request = Requests(experiment()).distill("mixture2d", [1, 2, 3, 4, 5])
    found = ask(request, method="phased2", phase="1")
    assert found["nodes"] == 1
    assert found["gpu"] == 0
    assert found["resumable"] == 1
    assert found["launch"] == ""
    longer = experiment({"distill": {"updates": 100_000}})
    more = ask(Requests(longer).distill("mixture2d", [1, 2, 3, 4, 5]), method="phased2", phase="1")
    assert more["runtime"] > 5 * found["runtime"]


def test_memory_grows_with_batch_and_seeds(experiment):
    run = experiment().runs["mixture2d", "dmd"]
    small, large = training_mb(run, 1, 64), training_mb(run, 5, 65536)
    assert small == 2000
    assert large > 2 * small
    assert training_mb(run, 1, 64, attempt=2) == 2 * small


def test_hardware_is_asked_for_as_totals(experiment):
    hardware = {"hardware": {"nodes": 2, "processes": 4, "gpus": 4}}
    found = ask(Requests(experiment(hardware)).distill("mixture2d", [1]), method="dmd2", phase="1")
    assert (found["nodes"], found["gpu"]) == (2, 8)
    assert found["launch"] == "launch --nodes 2 --processes 4 --gpus 4 -- "
    base = ask(Requests(experiment(hardware)).base(), scenario="mixture2d")
    assert (base["nodes"], base["gpu"]) == (2, 8)


def test_tables_ask_for_no_gpu():
    assert not {"gpu", "nodes", "resumable"} & light().keys()
    assert ask(light(), attempt=2) == {"runtime": 40, "mem_mb": 6000}


def test_every_job_of_the_workflow_says_what_it_needs(checkout, snakemake):
    """Without a request, a job would get the cluster's defaults."""
    done = snakemake(checkout, "-n", "--configfile", "config/minute.yaml")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.strip().startswith("resources:")]
    without = [line for line in lines if "runtime=" not in line or "mem_mb=" not in line]
    assert len(lines) > 30
    assert len(without) == 1  # `all`, which runs nothing
