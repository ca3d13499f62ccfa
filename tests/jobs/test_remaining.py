"""The time left: each job by its own estimate, corrected by what has run."""

import json
import time
from pathlib import Path

import pytest

from pdmd.jobs.estimates import Job
from pdmd.jobs.events import Jobs, Reader, Started
from pdmd.jobs.remaining import LEAST, SECONDS, WORK_A_SECOND, expected, seconds_left


def job(rule, number=0, when=0.0):
    return Started(rule, {"scenario": "s", "method": f"m{number}", "phase": "1"}, when)


def left(jobs, training=(), reports=(), cores=1, clock=0.0):
    return seconds_left(jobs, training, reports, lambda one: f"{one.name}", cores, clock)


def test_nothing_is_said_before_there_is_a_plan():
    assert left(Jobs()) is None


def test_waiting_jobs_count_by_their_own_estimates():
    jobs = Jobs()
    jobs.planned.update({"sample": 2, "features": 1})
    assert left(jobs) == 2 * SECONDS["sample"] + SECONDS["features"]
    assert left(jobs, cores=2) == left(jobs) / 2
    jobs.planned.update({"features": 1})
    assert left(jobs) > 2 * SECONDS["sample"] + SECONDS["features"]  # the control


def test_what_has_run_corrects_what_waits():
    """Ten times as slow as was thought: the estimate follows within a few jobs."""
    jobs = Jobs()
    jobs.planned["sample"] = 20
    for _ in range(9):
        jobs.finished.append((job("sample"), 10 * SECONDS["sample"]))
    wanted = 11 * 10 * SECONDS["sample"]
    assert 0.85 * wanted < left(jobs) < wanted
    assert expected(jobs, "features") == SECONDS["features"]  # control: of its own rule alone


def test_a_running_job_has_its_rest_left_and_never_less_than_nothing():
    jobs = Jobs()
    jobs.planned["features"] = 1
    jobs.running[1] = job("features", when=100.0)
    assert left(jobs, clock=104.0) == SECONDS["features"] - 4
    assert left(jobs, clock=1e6) == 1


@pytest.fixture
def training(tmp_path):
    """Two jobs of equal work whose outputs are not there."""
    work = 100 * WORK_A_SECOND
    return [Job(f"distill s m{n} phase 1", tmp_path / str(n), work) for n in (1, 2)]


def test_training_is_estimated_by_its_work_and_corrected_by_what_trains(training):
    jobs = Jobs()
    jobs.planned["distill"] = 2
    assert left(jobs, training) == pytest.approx(200)
    now = {"label": training[0].label, "step": 50, "updates": 100, "first": 0}
    reports = [{**now, "started": 0.0, "now": 500.0}]  # half of a job in 500 s: ten times as slow
    slower = (LEAST + 500) / (LEAST + 50)
    assert left(jobs, training, reports) == pytest.approx(150 * slower)
    resumed = [{**reports[0], "first": 40}]  # ten updates in 500 s
    assert left(jobs, training, resumed) > 1.9 * left(jobs, training, reports)


def test_finished_training_leaves_nothing(training):
    jobs = Jobs()
    jobs.planned["distill"] = 2
    for number, one in enumerate(training, 1):
        one.output.touch()
        jobs.finished.append((job("distill", number), 50.0))
    assert left(jobs, training) == 0


# ---- what Snakemake says


def test_a_reader_follows_a_file_that_grows(tmp_path):
    path, now = tmp_path / "jobs.jsonl", time.time()
    reader = Reader(path, now - 1)
    assert reader.look().total == 0
    lines = [
        {"event": "planned", "counts": {"sample": 3}, "time": now},
        {"event": "started", "id": 1, "rule": "sample", "wildcards": {}, "time": now},
        {"event": "started", "id": 2, "rule": "sample", "wildcards": {}, "time": now},
        {"event": "finished", "id": 1, "time": now + 4},
        {"event": "failed", "id": 2, "time": now + 5},
    ]
    text = "".join(json.dumps(one) + "\n" for one in lines)
    with path.open("w") as handle:
        handle.write(text[:200])
        handle.flush()
        assert reader.look().total == 3
        handle.write(text[200:] + "no JSON\n[1]\n")
    jobs = reader.look()
    assert (jobs.total, jobs.done, len(jobs.failed), jobs.running) == (3, 1, 1, {})
    assert jobs.took("sample") == [pytest.approx(4)]
    assert jobs.waiting() == {"sample": 1}
    assert Reader(path, now + 3).look().total == 0  # control: of an earlier run


def test_snakemake_itself_tells_what_its_jobs_do(tmp_path, snakemake_logged):
    path = snakemake_logged(
        tmp_path,
        "rule all:\n  input: 'a.x', 'b.x'\nrule make:\n  output: '{name}.x'\n"
        "  shell: 'touch {output}'\n",
    )
    jobs = Reader(path, 0.0).look()
    assert jobs.planned == {"all": 1, "make": 2}
    assert jobs.done == 3
    assert {one.wildcards.get("name") for one, _ in jobs.finished} == {"a", "b", None}
    assert all(0 <= seconds < 60 for _, seconds in jobs.finished)


def test_a_job_that_fails_is_told(tmp_path, snakemake_logged):
    path = snakemake_logged(tmp_path, "rule one:\n  output: 'a'\n  shell: 'exit 3'\n")
    jobs = Reader(path, 0.0).look()
    assert [one.rule for one in jobs.failed] == ["one"]
    assert jobs.done == 0


@pytest.fixture
def snakemake_logged():
    """(folder, Snakefile) -> the file of events of a run."""
    import subprocess
    import sys

    def run(folder: Path, text: str) -> Path:
        (folder / "Snakefile").write_text(text)
        path = folder / "state" / "jobs.jsonl"
        command = [sys.executable, "-m", "snakemake", "-c1", "--logger", "pdmd"]
        command += ["--logger-pdmd-file", str(path)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert path.exists(), done.stderr
        return path

    return run
