"""The executor on a SLURM: Snakemake's own cases, many small jobs, and what it costs."""

import json
import os
import resource
import signal

import pytest
from lab import Lab
from snakemake.common.tests import TestWorkflowsLocalStorageBase

from snakemake_executor_plugin_submitit import ExecutorSettings

MANY = """
N = int(config["count"])
rule all:
    input: expand("out/{i}.txt", i=range(N))
rule one:
    output: "out/{i}.txt"
    resources: mem_mb=50, runtime=5
    shell: "echo {wildcards.i} >> starts.txt; sleep {config[seconds]}; touch {output}"
"""


@pytest.mark.slow_slurm
class TestSnakemakesOwn(TestWorkflowsLocalStorageBase):
    """A simple workflow, and one with groups."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def here(self, cluster, tmp_path, monkeypatch):
        for name, value in cluster.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)

    def get_executor(self):
        return "submitit"

    def get_executor_settings(self):
        return ExecutorSettings(cluster="slurm", poll=0.5)


@pytest.fixture
def many(cluster, tmp_path):
    """A folder with many small jobs: start(count, seconds, **settings)."""
    (tmp_path / "nothing").mkdir()
    lab = Lab(cluster, tmp_path / "lab", tmp_path / "nothing")
    (lab.folder / "Many").write_text(MANY)

    def start(count, seconds=0, *arguments, **settings):
        config = {"count": count, "seconds": seconds}
        chosen = ["--snakefile", "Many", "--jobs", str(count), *arguments]
        lab.start(*chosen, config=config, **settings)

    lab.many = start
    yield lab
    lab.kill()


def starts(lab):
    """Which jobs did their work, each as often as it did."""
    return sorted(map(int, (lab.folder / "starts.txt").read_text().split()))


def ledger(lab):
    """The executor's own record of submissions and ends."""
    lines = (lab.folder / ".snakemake/submitit/jobs.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_jobs_that_ask_for_the_same_are_one_array(many):
    many.many(12, arrays=True, array_size=8)
    assert many.end() == 0, many.output()
    assert starts(many) == list(range(12))
    ids = {line["id"] for line in ledger(many)}
    assert len(ids) == 12
    assert all("_" in name for name in ids)
    assert len({name.partition("_")[0] for name in ids}) < 12
    many.settled_queue()


def test_without_arrays_each_is_a_job(many):
    """The control of the one above."""
    many.many(3)
    assert many.end() == 0, many.output()
    assert not any("_" in line["id"] for line in ledger(many))


def test_the_queue_shows_names_that_a_person_can_read(many):
    many.many(2, 30)
    many.cluster.wait(lambda: len(many.cluster.queue()) == 2, 20, "two jobs")
    assert {row["name"] for row in many.cluster.queue()} == {"one-0", "one-1"}
    os.killpg(many.driver.pid, signal.SIGINT)
    assert many.end() == 1
    many.settled_queue()


def test_a_killed_driver_finds_the_jobs_of_its_arrays(many):
    many.many(6, 15, arrays=True)
    many.cluster.wait(lambda: (many.folder / "starts.txt").exists(), 20, "the first job")
    many.kill()
    many.unlock()
    many.many(6, 15, "--rerun-incomplete", arrays=True)
    assert many.end() == 0, many.output()
    assert many.output().count("one: attached to job") >= 1
    assert many.submissions("one") == 0
    assert starts(many) == list(range(6))
    many.settled_queue()


def measured(lab, count, **settings):
    """Seconds from the first submission to the last, and CPU seconds of the driver, a job."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    lab.many(count, **settings)
    assert lab.end(400) == 0, lab.output()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    times = [line["time"] for line in ledger(lab) if "end" not in line]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{count} jobs: submitted in {max(times) - min(times):.2f} s,", end=" ")
    print(f"{cpu / count:.3f} CPU s of the driver a job")
    return max(times) - min(times), cpu / count


@pytest.mark.slow_slurm
def test_200_jobs_are_submitted_within_5_seconds_and_cost_the_driver_little(many):
    submission, cpu = measured(many, 200, arrays=True)
    assert submission < 5
    assert cpu < 0.3
    assert starts(many) == list(range(200))


@pytest.fixture
def with_sacct(accounted, tmp_path):
    """A folder with small jobs on the SLURM that keeps accounts."""
    (tmp_path / "nothing").mkdir()
    lab = Lab(accounted, tmp_path / "lab", tmp_path / "nothing")
    (lab.folder / "Many").write_text(MANY)
    yield lab
    lab.kill()


@pytest.mark.slow_slurm
def test_sacct_tells_of_a_job_that_squeue_has_forgotten(with_sacct):
    """squeue forgets after MinJobAge, 30 s here; the driver asks for the first time after that."""
    lab = with_sacct
    lab.start("--snakefile", "Many", config={"count": 1, "seconds": 120}, poll=75)
    lab.cluster.wait(lambda: (lab.folder / "starts.txt").exists(), 30, "the job")
    job = lab.job("one")
    lab.cluster.run("scancel", job)
    lab.cluster.wait(lambda: lab.cluster.state(job) == "GONE", 70, "squeue to forget the job")
    assert lab.end(90) == 1
    assert "CANCELLED: someone cancelled it" in lab.output()


@pytest.mark.slow_slurm
def test_a_limit_of_the_quality_of_service_is_named(with_sacct):
    lab = with_sacct
    wishes = ["--set-resources", "one:cpus_per_task=2"]
    config = {"count": 1, "seconds": 0}
    lab.start("--snakefile", "Many", *wishes, config=config, qos="tiny")
    lab.wait_output("a limit of the quality of service stands against it", 60)
    os.killpg(lab.driver.pid, signal.SIGINT)
    assert lab.end() == 1
    lab.settled_queue()
