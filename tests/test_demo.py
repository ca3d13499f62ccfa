import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pdmd import demo
from pdmd.config import SETTINGS, Experiment, merge, read_yaml
from pdmd.errors import UserError
from pdmd.work import describe, fit_work, phase_work, running, training_jobs, work_done


@pytest.fixture
def experiment(repository, tmp_path):
    settings = read_yaml(repository / "config" / "config.yaml")
    minute = read_yaml(repository / "config" / "minute.yaml")
    return Experiment(repository, merge(merge(settings, minute), {"results": str(tmp_path)}))


def report(tmp_path, label, step, updates, now=None):
    folder = tmp_path / ".state" / "mixture2d" / "dmd2" / "phase1-seed1-2"
    folder.mkdir(parents=True)
    now = time.time() if now is None else now
    value = {"label": label, "step": step, "updates": updates, "pid": 1}
    value |= {"started": now - 10, "now": now, "record": {"fake_loss": [1.0, 2.0]}}
    (folder / "progress.json").write_text(json.dumps(value))


def test_every_training_job_is_counted_once(experiment):
    labels = [job.label for job in training_jobs(experiment)]
    assert len(labels) == len(set(labels))
    assert "mixture2d phased2 phase 2" in labels
    assert "toy1d biased" in labels
    assert "digits base" in labels
    assert "toy1d base" not in labels  # it has no students


def test_the_work_of_a_phase_follows_its_network_calls(experiment):
    run = experiment.runs["mixture2d", "dmd2"]
    vanilla = merge(run, {"student": {"backward": "all"}})
    assert phase_work(vanilla, 2, 1) > phase_work(run, 2, 1)
    assert phase_work(run, 4, 1) == 2 * phase_work(run, 2, 1)
    bank = experiment.runs["mixture2d", "phased2"]
    online = merge(bank, {"bank": {"rows": 0}})
    assert phase_work(online, 2, 2) > phase_work(bank, 2, 2)
    assert phase_work(online, 2, 1) == phase_work(bank, 2, 1)  # control: no bank before phase 2
    assert fit_work(run, 2) == 2 * fit_work(run, 1)


def test_work_done_counts_outputs_and_the_share_of_running_jobs(experiment, tmp_path):
    jobs = training_jobs(experiment)
    assert work_done(jobs, running(tmp_path)) == 0
    report(tmp_path, "mixture2d dmd2 phase 1", 8, 16)
    (job,) = (job for job in jobs if job.label == "mixture2d dmd2 phase 1")
    assert work_done(jobs, running(tmp_path)) == job.work / 2
    job.output.parent.mkdir(parents=True)
    job.output.write_text("{}")
    assert work_done(jobs, running(tmp_path)) == job.work


def test_a_running_job_is_one_line(tmp_path):
    report(tmp_path, "mixture2d dmd2 phase 1", 8, 16)
    (value,) = running(tmp_path)
    line = describe(value)
    assert "mixture2d dmd2 phase 1" in line
    assert "8/16 updates" in line
    assert "fake loss 1.500" in line
    assert "\n" not in line


def test_a_silent_job_is_said_to_be_silent(tmp_path):
    report(tmp_path, "mixture2d dmd2 phase 1", 8, 16, now=time.time() - 300)
    assert "silent for 300 s" in describe(running(tmp_path)[0])


def test_a_failure_is_told_in_the_lines_that_matter():
    log = "noise\nError in rule fit_base:\n  more\npdmd: x.json: broken\nValueError: 3\nnoise\n"
    wanted = ["Error in rule fit_base:", "pdmd: x.json: broken", "ValueError: 3"]
    assert demo._failure(log) == wanted
    assert demo._failure("only\nnoise") == ["only", "noise"]  # control: nothing to pick


def test_progress_names_jobs_share_and_time_left(experiment, tmp_path):
    log = tmp_path / "demo.log"
    log.write_text("3 of 20 steps (15%) done\n")
    report(tmp_path, "mixture2d dmd2 phase 1", 16, 16)
    lines = demo._progress(experiment, log, time.time() - 60, 0.0)
    assert "jobs 3 of 20" in lines[0]
    assert " left" in lines[0]
    assert "mixture2d dmd2 phase 1" in lines[1]


def test_a_report_without_results_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no tables or figures"):
        demo.make_report(tmp_path, [])


def test_a_report_that_is_up_to_date_is_left_alone(tmp_path, monkeypatch):
    table = tmp_path / "toy1d" / "tables" / "runs.csv"
    for path in (table, tmp_path / SETTINGS, tmp_path / "report.html"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    os.utime(table, (1, 1))

    def refuse(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr(subprocess, "run", refuse)
    demo.make_report(tmp_path, [])
    os.utime(table, (2e9, 2e9))
    with pytest.raises(AssertionError, match="made again"):  # control: a newer table
        demo.make_report(tmp_path, [])


def test_a_running_snakemake_is_not_unlocked(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda *a, **_: calls.append(a))
    pid = tmp_path / "snakemake.pid"
    demo._unlock(pid, [])
    assert calls == []  # nothing was left behind
    command = [sys.executable, "-c", "import time; time.sleep(60)", "snakemake"]
    with subprocess.Popen(command) as process:
        pid.write_text(str(process.pid))
        deadline = time.time() + 10
        while b"snakemake" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            assert time.time() < deadline
        with pytest.raises(UserError, match=f"process {process.pid} still runs"):
            demo._unlock(pid, [])
        assert calls == []
        process.kill()
    demo._unlock(pid, [])
    assert "--unlock" in calls[0][0]
