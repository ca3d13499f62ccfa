import json
import os
import socket
import time

import pytest

from pdmd.config.experiment import Experiment, merge, read_yaml
from pdmd.config.plan import keep
from pdmd.jobs import status
from pdmd.jobs.claim import identity
from pdmd.jobs.events import SHARED


def note(folder, job_id, name, since=0.0):
    folder.mkdir(parents=True, exist_ok=True)
    value = {"id": job_id, "name": name, "time": since}
    (folder / f"{name}.json").write_text(json.dumps(value))


def progress(results, label, step, **more):
    now = time.time()
    value = {"label": label, "step": step, "updates": 100, "now": now, "started": now - 50}
    value |= {"record": {"fake_loss": [1.0, 2.0]}, "host": "n1", "slurm_job": None, **more}
    folder = results / ".state/mixture2d/dmd2" / label
    folder.mkdir(parents=True)
    (folder / "progress.json").write_text(json.dumps(value))


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """A squeue that says what it is told to."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def says(text, status=0):
        script = f"#!/bin/sh\ncat <<'E'\n{text}\nE\necho failed >&2\nexit {status}\n"
        (folder / "squeue").write_text(script)
        (folder / "squeue").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return says


def test_nothing_is_out(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status.print_status(tmp_path)
    assert capsys.readouterr().out == "Nothing is running, and nothing is in a queue.\n"


def test_a_job_is_shown_with_its_node_and_its_training(tmp_path, squeue):
    squeue("7_0|RUNNING|None|n1|1:00|9:00\n8|PENDING|PartitionTimeLimit||0:00|9:00")
    note(tmp_path / "notes", "8", "distill-dmd-1", 1)
    note(tmp_path / "notes", "7_0", "distill-dmd2-1", 2)
    progress(tmp_path, "mixture2d dmd2 phase 1", 50, slurm_job="7_0")
    first, below, second = status.status_lines(tmp_path, tmp_path / "notes")
    assert first.split(maxsplit=2) == ["7_0", "distill-dmd2-1", first.split(maxsplit=2)[2]]
    assert "running on n1, 1:00 of its time spent, 9:00 left" in first
    assert "50/100 updates" in below
    assert "fake loss 1.500" in below
    assert "0:50 min left" in below or "0:49 min left" in below
    assert "waits (PartitionTimeLimit)" in second


def test_the_time_left_counts_from_where_a_resumed_job_began(tmp_path):
    progress(tmp_path, "a", 90, first=80)
    (line,) = status.status_lines(tmp_path, tmp_path / "notes")
    assert "0:50 min left" in line or "0:49 min left" in line
    progress(tmp_path, "b", 90)  # the control: from the beginning it would be less
    assert any("0:05 min left" in one for one in status.status_lines(tmp_path, tmp_path / "notes"))


def test_what_the_queue_does_not_say(tmp_path, squeue):
    note(tmp_path / "notes", "9", "bank")
    note(tmp_path / "notes", None, "encode")
    squeue("", 0)
    lines = status.status_lines(tmp_path, tmp_path / "notes")
    assert any("9  bank    gone from the queue" in line for line in lines)
    assert any("-  encode  not submitted yet" in line for line in lines)
    squeue("", 1)
    lines = status.status_lines(tmp_path, tmp_path / "notes")
    assert any("9  bank    the queue does not answer" in line for line in lines)


def test_a_damaged_note_is_named_and_hides_no_other(tmp_path, squeue):
    squeue("7|RUNNING|None|n1|1:00|9:00")
    note(tmp_path / "notes", "7", "bank")
    values = [
        [],
        {},
        3,
        {"id": 7, "name": "x", "time": 0},
        {"id": "--help", "name": "x", "time": 0},
    ]
    values += [{"id": None, "name": None, "time": 0}, {"id": "1", "name": "x", "time": "now"}]
    for i, value in enumerate(values):
        (tmp_path / f"notes/{i}.json").write_text(json.dumps(value))
    (tmp_path / "notes/half.json").write_bytes(b'{"id": "\xff')
    (tmp_path / "notes/folder.json").mkdir()
    lines = status.status_lines(tmp_path, tmp_path / "notes")
    assert "bank    running on n1" in lines[0]
    assert len(lines) == 1 + len(values) + 2
    assert all("its note is damaged: " in line for line in lines[1:])


@pytest.fixture
def run(repository, tmp_path, monkeypatch):
    """Says of a run of `minute`, by this process or another, what Snakemake's logger would."""
    settings = read_yaml(repository / "config" / "config.yaml")
    settings = merge(settings, read_yaml(repository / "config" / "minute.yaml"))
    experiment = Experiment(repository, merge(settings, {"results": "results/minute"}))
    monkeypatch.chdir(tmp_path)
    plan = keep(experiment)

    def says(**process):
        of = {"scenario": "mixture2d", "method": "dmd2"}
        began = time.time() - 60
        planned = {"event": "planned", "counts": {"distill_mixture2d": 2, "sample": 3}}
        lines = [
            {**planned, "plan": plan, **identity(os.getpid()), **process, "time": began},
            {"event": "started", "id": 1, "rule": "distill_mixture2d", "threads": 1}
            | {"wildcards": {**of, "phase": "1"}, "time": began + 5},
            {"event": "started", "id": 2, "rule": "sample", "wildcards": of, "threads": 1}
            | {"time": began + 9},
        ]
        SHARED.write_text("".join(json.dumps(line) + "\n" for line in lines))

    return says


def test_a_run_of_snakemakes_is_shown_as_the_demo_shows_it(run, tmp_path):
    """With training on top that it does not know of; of other results it says nothing."""
    run()
    progress(tmp_path / "results/minute", "mixture2d dmd2 phase 1", 50)
    progress(tmp_path / "results/minute", "another", 50)
    head, first, second, other = status.status_lines(tmp_path / "results/minute")
    assert "0 of 5 jobs, about " in head
    assert "mixture2d dmd2 phase 1" in first
    assert "50/100 updates" in first
    assert "sample mixture2d dmd2 " in second
    assert other.startswith("another ")
    assert status.status_lines(tmp_path / "results") == []


def test_jobs_on_a_cluster_are_shown_once(run, tmp_path, squeue):
    run()
    squeue("7_0|RUNNING|None|n1|1:00|9:00")
    note(tmp_path / "notes", "7_0", "distill-dmd2-1", 2)
    head, row = status.status_lines(tmp_path / "results/minute", tmp_path / "notes")
    assert "0 of 5 jobs" in head
    assert "running on n1" in row


@pytest.mark.parametrize(
    ("process", "shown"),
    [({}, True), ({"start": 1}, False), ({"host": "other", "pid": 1}, True)],
    ids=["runs", "has ended", "of another machine"],
)
def test_a_run_that_has_ended_is_not_shown(run, tmp_path, process, shown):
    assert identity(os.getpid())["host"] == socket.gethostname()
    run(**process)
    assert bool(status.status_lines(tmp_path / "results/minute")) == shown


def test_a_torn_or_empty_file_of_events_says_nothing(run, tmp_path):
    run()
    text = SHARED.read_text()
    SHARED.write_text(text[: text.index("plan") + 30])
    assert status.status_lines(tmp_path / "results/minute") == []
