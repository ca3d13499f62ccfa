import json
import os
import socket
import subprocess
import time
from dataclasses import replace

import pytest

from pdmd.config.experiment import Experiment, merge, read_yaml
from pdmd.config.sections import Bank
from pdmd.errors import UserError
from pdmd.jobs import demo
from pdmd.jobs.claim import Claim
from pdmd.jobs.estimates import describe, fit_work, phase_work, running, training_jobs
from pdmd.jobs.events import EVENTS
from pdmd.jobs.view import View


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
    vanilla = replace(run, student=replace(run.student, backward="all"))
    assert phase_work(vanilla, 2, 1) > phase_work(run, 2, 1)
    assert phase_work(run, 4, 1) == 2 * phase_work(run, 2, 1)
    bank = experiment.runs["mixture2d", "phased2"]
    online = replace(bank, bank=Bank(rows=0, shard_rows=1, used=False))
    assert phase_work(online, 2, 2) > phase_work(bank, 2, 2)
    assert phase_work(online, 2, 1) == phase_work(bank, 2, 1)  # control: no bank before phase 2
    assert fit_work(run, 2) == 2 * fit_work(run, 1)


def test_a_running_job_is_one_line(tmp_path):
    report(tmp_path, "mixture2d dmd2 phase 1", 8, 16)
    (value,) = running(tmp_path)
    line = describe(value)
    assert "mixture2d dmd2 phase 1" in line
    assert "8/16 updates" in line
    assert "fake loss 1.500" in line
    assert "\n" not in line


@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"label": 3}', "[" * 100_000, "\xff"])
def test_a_damaged_report_does_not_end_the_watchers(tmp_path, text):
    report(tmp_path, "mixture2d dmd2 phase 1", 8, 16)
    other = tmp_path / ".state" / "mixture2d" / "dmd2" / "phase2-seed1-2" / "progress.json"
    other.parent.mkdir()
    other.write_text(text, encoding="latin-1")
    assert [value["step"] for value in running(tmp_path)] == [8]


def test_a_silent_job_is_said_to_be_silent(tmp_path):
    report(tmp_path, "mixture2d dmd2 phase 1", 8, 16, now=time.time() - 300)
    assert "silent for 300 s" in describe(running(tmp_path)[0])


def test_a_failure_is_told_in_the_lines_that_matter():
    log = "noise\nError in rule fit_base:\n  more\npdmd: x.json: broken\nValueError: 3\nnoise\n"
    wanted = ["Error in rule fit_base:", "pdmd: x.json: broken", "ValueError: 3"]
    assert demo._failure(log) == wanted
    assert demo._failure("only\nnoise") == ["only", "noise"]  # control: nothing to pick


def events(folder, *lines):
    path = folder / EVENTS
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        handle.write("".join(json.dumps(one) + "\n" for one in lines))


def started(number, rule, when, **wildcards):
    job = {"id": number, "rule": rule, "wildcards": wildcards, "threads": 1}
    return {"event": "started", **job, "time": when}


def test_every_running_job_is_named_with_its_own_progress(experiment, tmp_path):
    """A training job by its updates, another by its time; what has ended is not."""
    begin, now = time.time() - 60, time.time()
    of = {"scenario": "mixture2d", "method": "dmd2"}
    events(
        tmp_path,
        {"event": "planned", "counts": {"distill_mixture2d": 2, "sample": 3}, "time": begin},
        started(1, "distill_mixture2d", now - 30, **of, phase="1"),
        started(2, "sample", now - 20, **of, group="1"),
        started(3, "sample", now - 9, **of, group="2"),
        {"event": "finished", "id": 2, "time": now - 10},
    )
    report(tmp_path, "mixture2d dmd2 phase 1", 8, 16)
    head, *lines = View(experiment, 2, begin - 1).lines()
    assert "1 of 5 jobs" in head
    assert " left" in head
    assert len(lines) == 2
    assert "mixture2d dmd2 phase 1" in lines[0]
    assert "8/16 updates" in lines[0]
    assert "sample mixture2d dmd2 seed 2" in lines[1]
    assert "0:09 of about" in lines[1]
    assert "? jobs, planning" in View(experiment, 2, now + 1).lines()[0]  # an earlier run's


def test_a_report_without_results_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no tables or figures"):
        demo.make_report(tmp_path, None)


def test_a_report_that_is_up_to_date_is_left_alone(tmp_path, monkeypatch):
    table = tmp_path / "toy1d" / "tables" / "runs.csv"
    for path in (table, tmp_path / demo.LAST_SETTINGS, tmp_path / "report.html"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    os.utime(table, (1, 1))

    def refuse(*_):
        raise AssertionError("made again")

    monkeypatch.setattr("pdmd.config.experiment.Experiment", refuse)
    demo.make_report(tmp_path, None)
    os.utime(table, (2e9, 2e9))
    with pytest.raises(AssertionError, match="made again"):  # control: a newer table
        demo.make_report(tmp_path, None)


# ---- locks of a Snakemake that was killed


@pytest.fixture
def claim(tmp_path, monkeypatch):
    """(fresh claim on the same folder, commands run)"""
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: calls.append(command))
    (tmp_path / "locks").mkdir()

    def make():
        return Claim(tmp_path / "state" / "demo.json", tmp_path / "locks")

    return make, calls


def ended():
    """The number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def killed(claim, pid):
    """What a demo leaves that is killed while its Snakemake of number `pid` holds the locks."""
    with claim as mine:
        mine.note(pid)
        text = mine.path.read_text()
    mine.path.write_text(text)


def test_a_demo_that_fails_forgets_no_snakemake_that_lives_on(claim):
    make, _ = claim
    with subprocess.Popen(["sleep", "60"]) as process:
        with make() as mine:
            mine.note(process.pid)
        assert mine.path.exists()
        process.kill()
    with make() as mine:
        mine.note(ended())
    assert not mine.path.exists()  # control


def lock(tmp_path):
    (tmp_path / "locks" / "0.input.lock").write_text("x")


def test_the_lock_of_a_snakemake_of_ours_that_has_ended_is_cleared(claim, tmp_path):
    make, calls = claim
    lock(tmp_path)
    killed(make(), ended())
    with make() as mine:
        mine.unlock(["--configfile", "x.yaml"])
    assert "--unlock" in calls[0]
    assert calls[0][-2:] == ["--configfile", "x.yaml"]


def test_a_folder_that_nothing_was_left_in_is_not_unlocked(claim, tmp_path):
    make, calls = claim
    lock(tmp_path)
    with make() as mine:
        mine.unlock([])
    assert calls == []


def test_somebody_elses_lock_is_left_alone(claim, tmp_path):
    """A note of ours is stale, and since then another Snakemake locked the folder."""
    make, calls = claim
    lock(tmp_path)
    killed(make(), ended())
    (tmp_path / "locks" / "0.input.lock").unlink()
    time.sleep(0.02)
    lock(tmp_path)
    with make() as mine:
        mine.unlock([])
    assert calls == []


def test_a_lock_noted_by_another_host_is_left_alone(claim, tmp_path, monkeypatch):
    make, calls = claim
    lock(tmp_path)
    monkeypatch.setattr(socket, "gethostname", lambda: "n7")
    killed(make(), ended())
    monkeypatch.undo()
    monkeypatch.setattr(subprocess, "run", lambda command, **_: calls.append(command))
    with make() as mine:
        mine.unlock([])
    assert calls == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": "x", "locks": 1}', "null"])
def test_a_torn_note_unlocks_nothing(claim, tmp_path, text):
    make, calls = claim
    lock(tmp_path)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "demo.json").write_text(text)
    with make() as mine:
        mine.unlock([])
    assert calls == []


def test_a_snakemake_that_outlived_its_demo_is_waited_for(claim, tmp_path):
    make, calls = claim
    lock(tmp_path)
    with subprocess.Popen(["sleep", "60"]) as process:
        killed(make(), process.pid)
        for _ in range(2):  # being refused forgets nothing
            with pytest.raises(UserError, match=f"process {process.pid} still runs"), make() as one:
                one.unlock([])
        process.kill()
    assert calls == []
    with make() as mine:  # control: now it has ended
        mine.unlock([])
    assert "--unlock" in calls[0]


def test_the_number_of_an_ended_process_may_be_anothers(claim, tmp_path):
    make, calls = claim
    lock(tmp_path)
    killed(make(), os.getpid())
    path = make().path
    note = json.loads(path.read_text())
    path.write_text(json.dumps({**note, "start": note["start"] - 1}))
    with make() as mine:
        mine.unlock([])
    assert "--unlock" in calls[0]


def test_two_demos_do_not_run_in_one_folder(claim):
    make, _ = claim
    with make(), pytest.raises(UserError, match="another demo runs here"), make():
        pass
    with make():  # control: the first has ended
        pass
