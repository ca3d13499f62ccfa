import json
import os
import time

import pytest

from pdmd.jobs import status


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
    assert capsys.readouterr().out == "No training job is running, and none is in a queue.\n"


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
