"""What goes wrong with one job hides no other."""

import asyncio
import json
import logging
import os
import pickle
import random
import threading

import pytest
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from snakemake_executor_plugin_submitit import ExecutorSettings
from snakemake_executor_plugin_submitit.executor import Executor
from snakemake_executor_plugin_submitit.notes import Notes, read_note
from snakemake_executor_plugin_submitit.predecessor import Predecessor
from snakemake_executor_plugin_submitit.resources import Request
from snakemake_executor_plugin_submitit.runner import SnakemakeJob
from snakemake_executor_plugin_submitit.slurm import NotSubmitted
from snakemake_executor_plugin_submitit.task import State, Task


class Cluster:
    """One that takes every job but those in `refused`, and runs them until told otherwise."""

    name = "Slurm"

    def __init__(self):
        self.said, self.refused, self.cancelled, self.next = {}, {}, [], 0
        self.taken = []

    def free(self, tasks):
        return list(tasks)

    def batches(self, tasks):
        return [[task] for task in tasks]

    def submit(self, batch):
        (task,) = batch
        if task.rule in self.refused:
            raise self.refused[task.rule]
        task.adopt(str(self.next))
        self.taken.append(task.rule)
        self.next += 1

    def states(self, ids):
        return {name: State(self.said.get(name, "RUNNING")) for name in ids}

    def named(self, tokens):
        return {}

    def cancel(self, ids):
        self.cancelled += ids


@pytest.fixture
def driver(tmp_path):
    """An executor without a Snakemake: what it would report is in `ended`."""
    own = Executor.__new__(Executor)
    own._submitting, own._news, own._out = threading.Lock(), threading.Event(), {}
    own._sent, own._stopping, own._said, own._pause = 0, False, set(), 5.0
    own._next_look = own._looked = own._next_try = own._failing_since = 0.0
    own._gap = 0.0
    own.settings, own.logger = ExecutorSettings(poll=0.0), logging.getLogger("driver")
    own.root = own.folder = tmp_path
    own.notes, own.token, own.cluster = Notes(tmp_path / "running"), "smk", Cluster()
    own.predecessor = Predecessor(own.notes, own.cluster, own.logger, 0.0)
    own.ended = {}
    own.report_job_success = lambda info: own.ended.update({info.aux["task"].rule: "success"})
    own.report_job_error = lambda info, msg="": own.ended.update({info.aux["task"].rule: msg})
    return own


def add(driver, *rules):
    """Jobs that Snakemake has handed over, one a rule."""
    tasks = []
    for rule in rules:
        info, call = SubmittedJobInfo(None), SnakemakeJob("true", ".")
        task = Task(info, Request(rule), call, rule, f"key-{rule}", "same", driver.folder)
        info.aux = {"task": task}
        driver._out[id(info)] = task
        tasks.append(task)
    return tasks


def look(driver, tasks):
    """One turn of the waiting thread; returns the rules that are still out."""
    driver._next_look = 0.0  # it is time to ask the queue, however long its last answer took

    async def turn():
        infos = [task.info for task in tasks if id(task.info) in driver._out]
        return [info.aux["task"].rule async for info in driver.check_active_jobs(infos)]

    return asyncio.run(turn())


def finish(task, value=None):
    value = value or ("success", {})
    task.path("0_result.pkl").write_bytes(pickle.dumps(value))


def test_a_damaged_result_leaves_the_others_alone(driver):
    tasks = add(driver, "a", "b", "c")
    assert look(driver, tasks) == ["a", "b", "c"]
    finish(tasks[0])
    data = bytearray(pickle.dumps(("success", {})))
    data[12] ^= 1
    tasks[1].path("0_result.pkl").write_bytes(data)
    finish(tasks[2])
    assert look(driver, tasks) == ["b"]
    assert driver.ended == {"a": "success", "c": "success"}
    driver.cluster.said[tasks[1].id] = "FAILED"  # the queue's word counts now
    look(driver, tasks)
    tasks[1].since -= 60
    assert look(driver, tasks) == []
    assert "FAILED" in driver.ended["b"]


@pytest.mark.parametrize("method", ["result", "clear"])
def test_an_unforeseen_error_of_one_job_leaves_the_others_alone(driver, method, caplog):
    tasks = add(driver, "a", "b", "c")
    look(driver, tasks)

    def fail(*arguments):
        raise ZeroDivisionError("of b")

    setattr(tasks[1], method, fail)
    for task in tasks:
        finish(task)
    for _ in range(5):
        look(driver, tasks)
    assert driver.ended.keys() >= ({"a", "c"} if method == "result" else {"a", "b", "c"})
    assert 1 <= caplog.text.count("ZeroDivisionError: of b\n") <= 2, "not at each tick"


@pytest.mark.parametrize(
    "error", [AssertionError("a file exists"), ValueError("x"), NotSubmitted("no such", True)]
)
def test_a_job_that_cannot_be_submitted_is_failed_alone(driver, error):
    driver.cluster.refused["b"] = error
    tasks = add(driver, "a", "b", "c")
    assert look(driver, tasks) == ["a", "c"]
    assert driver.cluster.taken == ["a", "c"]
    assert driver.ended["b"].startswith("not submitted: ")
    assert str(error) in driver.ended["b"]


def test_a_busy_controller_is_waited_for(driver):
    """The control of the one above."""
    driver.cluster.refused["b"] = NotSubmitted("Socket timed out", False)
    tasks = add(driver, "a", "b", "c")
    assert look(driver, tasks) == ["a", "b", "c"]
    assert driver.ended == {}


def test_a_full_queue_is_waited_for_as_long_as_own_jobs_are_in_it(driver):
    (first,) = add(driver, "a")
    look(driver, [first])
    driver.cluster.refused["b"] = NotSubmitted("AssocMaxSubmitJobLimit", False, full=True)
    (second,) = add(driver, "b")
    for _ in range(3):
        driver._next_try, driver._failing_since = 0.0, 1.0  # it has been failing for ages
        assert look(driver, [first, second]) == ["a", "b"]
    finish(first)
    look(driver, [first, second])
    driver._next_try, driver._failing_since = 0.0, 1.0
    assert look(driver, [second]) == [], "the control: others' jobs have its patience only"
    assert "not submitted" in driver.ended["b"]


def test_a_note_that_cannot_be_written_fails_its_job_alone(driver):
    (driver.notes.folder / "key-b.json").mkdir()
    tasks = add(driver, "a", "b", "c")
    assert look(driver, tasks) == ["a", "c"]
    assert "not submitted" in driver.ended["b"]


def test_a_note_that_cannot_be_dropped_keeps_no_job_from_its_end(driver):
    (task,) = add(driver, "a")
    look(driver, [task])
    finish(task)
    (driver.notes.folder / "key-a.json").unlink()
    (driver.notes.folder / "key-a.json").mkdir()
    (driver.root / "jobs.jsonl").unlink()
    (driver.root / "jobs.jsonl").mkdir()
    assert look(driver, [task]) == []
    assert driver.ended == {"a": "success"}


NOTE = {
    "token": "smk-1",
    "index": None,
    "id": "7_1",
    "fingerprint": "f",
    "name": "one",
    "rule": "one",
    "folder": "/x",
    "gpus": ["0", "GPU-8f2a"],
    "cores": 2,
    "time": 1.0,
}


def test_a_note_is_read_as_it_was_written(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(NOTE))
    assert read_note(tmp_path / "a.json") == NOTE
    old = {key: value for key, value in NOTE.items() if key != "cores"} | {"gpus": [0, 1]}
    (tmp_path / "a.json").write_text(json.dumps(old))
    assert read_note(tmp_path / "a.json") == NOTE | {"cores": 1, "gpus": ["0", "1"]}


def test_notes_damaged_in_any_way_are_named_and_left_out(tmp_path, caplog):
    """A driver starts whatever its predecessor's notes look like, and knows the sound ones."""
    values = [None, 3, -1.5, "x", "", [], [[]], {}, {"a": 1}, True, "a\0b", "../x", "a b"]
    texts = ["", "{", "[]", "null", "[" * 3000, "\xff", '{"id": 1e999}']
    texts += [json.dumps({**NOTE, name: value}) for name in NOTE for value in values]
    texts += [json.dumps({k: v for k, v in NOTE.items() if k != name}) for name in NOTE]
    dice, data = random.Random(0), json.dumps(NOTE).encode()
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.json").write_bytes(text.encode("latin-1"))
    for i in range(300):
        broken = bytearray(data)
        broken[dice.randrange(len(data))] = dice.randrange(256)
        (tmp_path / f"random{i}.json").write_bytes(broken)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "loop.json").symlink_to("loop.json")
    (tmp_path / "sound.json").write_text(json.dumps(NOTE))
    notes = Notes(tmp_path)
    assert notes.found["sound"] == NOTE
    assert len(notes.found) < len(texts) + 300
    assert "folder.json: expected the note of a job" in caplog.text
    cluster = Cluster()
    predecessor = Predecessor(notes, cluster, logging.getLogger("test"), 0.0)
    predecessor._ids([])
    tasks = []
    for key in list(notes.found):
        call = SnakemakeJob("true", ".")
        tasks.append(Task(SubmittedJobInfo(None), Request("r"), call, "r", key, "other", tmp_path))
    predecessor.settle(tasks)
    assert not notes.found
    predecessor.forget_ended()


def test_a_folder_that_may_not_be_read_is_no_error(driver, tmp_path):
    """As root everything may be read; a file in the place of a folder says the same."""
    (tmp_path / "file").write_text("")
    note = {**NOTE, "folder": str(tmp_path / "file")}
    driver.notes.found["key-a"] = note
    (task,) = add(driver, "a")
    driver.predecessor.settle([task])
    assert driver.cluster.cancelled == [note["id"]]
    assert task.blockers == [note["id"]]
    os.unlink(tmp_path / "file")
