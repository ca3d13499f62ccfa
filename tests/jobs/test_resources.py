from types import SimpleNamespace

import pytest
from configs import accepted, own

from pdmd.config.experiment import Experiment, merge, read_yaml
from pdmd.jobs.graph import Graph
from pdmd.jobs.resources import SPEED, Requests, light, minutes, released_mb, training_mb


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
        if not callable(value):
            values[name] = value
            continue
        takes = value.__code__.co_varnames[: value.__code__.co_argcount]
        values[name] = value(w, attempt) if "attempt" in takes else value(w)
    return values


PHASE = {"scenario": "mixture2d", "method": "phased2", "phase": "1"}


def five(wildcards):
    return [1, 2, 3, 4, 5]


def test_minutes_grow_with_the_work_and_the_attempt():
    assert minutes(0) == 10
    assert minutes(SPEED * 60 * 25) == 40
    assert minutes(SPEED * 60 * 25, attempt=3) == 160


def test_a_phase_asks_for_what_its_config_holds(experiment):
    request = Requests(experiment()).of("distill", five)
    found = ask(request, **PHASE)
    assert found["nodes"] == 1
    assert found["gpu"] == 0
    assert found["resumable"] == 1
    assert found["launch"] == ""
    longer = experiment({"distill": {"updates": 100_000}})
    more = ask(Requests(longer).of("distill", five), **PHASE)
    assert more["runtime"] > 5 * found["runtime"]


def test_memory_grows_with_batch_and_seeds(experiment):
    run = experiment().runs["mixture2d", "dmd"]
    small, large = training_mb(run, 1, 64), training_mb(run, 5, 65536)
    assert small == 2000
    assert large > 2 * small
    assert training_mb(run, 1, 64, attempt=2) == 2 * small


def test_hardware_is_asked_for_as_totals(experiment):
    hardware = {"hardware": {"nodes": 2, "processes": 4, "gpus": 4}}
    found = ask(Requests(experiment(hardware)).of("distill", lambda w: [1]), **PHASE)
    assert (found["nodes"], found["gpu"]) == (2, 8)
    assert found["launch"] == "launch --nodes 2 --processes 4 --gpus 4 -- "
    base = ask(Requests(experiment(hardware)).base(), scenario="mixture2d")
    assert (base["nodes"], base["gpu"]) == (2, 8)


def test_samples_and_banks_ask_for_what_their_method_trains_on(experiment):
    hardware = {"hardware": {"nodes": 2, "processes": 4, "gpus": 4}}
    for stage in ("bank", "sample"):
        small = ask(Requests(experiment()).drawing(stage, five), **{**PHASE, "phase": "2"})
        assert (small["runtime"], small["mem_mb"], small["gpu"], small["launch"]) == (
            20,
            3000,
            0,
            "",
        )
        large = {**hardware, "model": {"width": 16384}, "bank": {"rows": 10_000_000}}
        large["evaluate"] = {"samples": 10_000_000}
        found = ask(Requests(experiment(large)).drawing(stage, five), **{**PHASE, "phase": "2"})
        assert (found["nodes"], found["gpu"]) == (2, 8)
        assert found["launch"].startswith("launch --nodes 2")
        assert found["runtime"] > small["runtime"]
        assert found["mem_mb"] > 4 * small["mem_mb"]


@pytest.mark.parametrize("stage", ["decode", "features"])
def test_evaluation_asks_for_that_hardware_and_minutes_by_sample(experiment, stage):
    hardware = {"hardware": {"nodes": 2, "processes": 4, "gpus": 4}}
    few, many = (
        ask(
            Requests(experiment({**hardware, "evaluate": {"samples": n}})).drawing(stage, five),
            **PHASE,
        )
        for n in (100, 1_000_000)
    )
    assert (few["nodes"], few["gpu"]) == (2, 8)
    assert many["runtime"] > few["runtime"] == 20


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


@pytest.mark.parametrize("stage", ["decode", "features"])
def test_looking_at_released_samples_takes_time_by_their_pixels(stage):
    """220 clips of 480p by RAFT-large and a VAE: not the 20 ms of a small sample."""
    few, many, pictures = (
        ask(
            Requests(accepted(own(scenario, hardware=hardware))).drawing(stage, lambda w: [1]),
            scenario=scenario,
            method="teacher",
        )["runtime"]
        for scenario, hardware in (
            ("wan22t2v", {"processes": 8, "gpus": 8}),
            ("wan22t2v", {"processes": 1, "gpus": 0}),
            ("wan22t2i", {"processes": 1, "gpus": 0}),
        )
    )
    clip = {"decode": 81 * 480 * 832 * 9e6, "features": 81 * (480 * 832 * 3.26e6 + 2.88e11)}[stage]
    assert few == pytest.approx(10 + 220 * clip / 1e13 / 60 / 8, abs=10)
    assert many == pytest.approx(10 + 220 * clip / 2e10 / 60, rel=1e-2)  # days, and it says so
    assert pictures < many / 20  # control: pictures have no flow


def test_a_full_fake_is_of_training_alone_and_rows_of_a_sharded_job():
    def asked(shard, trains):
        distill = {"fake": {"mode": "full"}, "parallel": {"shard": shard}}
        hardware, offload = {"processes": 8, "gpus": 8}, {"offload": "none"}
        diff = own("wan22t2v", distill=distill, hardware=hardware, model=offload)
        return released_mb(accepted(diff).runs["wan22t2v", "phased2"], trains=trains)

    whole, shared, drawing = asked("none", True), asked("full", True), asked("full", False)
    assert whole == pytest.approx(9 * drawing, rel=0.05)  # 18 bytes a weight, and 2
    assert shared == pytest.approx(whole / 8, rel=0.03)
    assert asked("none", False) == drawing


def test_jobs_of_several_processes_have_threads_for_each(experiment):
    made = experiment({"hardware": {"nodes": 2, "processes": 4}, "threads": 3})
    graph, job = Graph(made, {}), SimpleNamespace(scenario="mixture2d", method="dmd2")
    assert graph.threads_of_all(job) == 12
    assert graph.threads_of_all(SimpleNamespace(scenario="mixture2d")) == 12
    assert graph.threads(job) == 3  # control: one that is not launched


def test_an_expert_that_waits_has_pinned_memory():
    mb = [
        released_mb(accepted(own("wan22t2v", model={"offload": one})).runs["wan22t2v", "phased2"])
        for one in ("none", "idle")
    ]
    assert mb == [56500, 67500]  # 2 x 26.6 GiB, and 2 x 32
