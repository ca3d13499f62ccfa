"""A driver that starts where another has been killed."""

import logging
import pickle

import pytest
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from snakemake_executor_plugin_submitit.notes import Notes
from snakemake_executor_plugin_submitit.predecessor import Predecessor
from snakemake_executor_plugin_submitit.resources import Request
from snakemake_executor_plugin_submitit.runner import SnakemakeJob
from snakemake_executor_plugin_submitit.task import State, Task


class Queue:
    """A queue that says what it is told to, and counts how often it is asked."""

    def __init__(self):
        self.known, self.tokens, self.answers = {}, {}, True
        self.asked, self.cancelled = 0, []

    def states(self, ids):
        self.asked += 1
        return {i: State(self.known[i]) for i in ids if i in self.known} if self.answers else None

    def named(self, tokens):
        return self.tokens if self.answers else None

    def cancel(self, ids):
        self.cancelled += ids


@pytest.fixture
def queue():
    return Queue()


@pytest.fixture
def left(tmp_path, queue):
    """left(count, fingerprint) -> tasks as before, and a driver that finds their notes."""
    old = tmp_path / "old"
    old.mkdir()

    def make(count, fingerprint="same", ids=True):
        notes, tasks = Notes(tmp_path / "running"), []
        for i in range(count):
            task = new(f"k{i}", "same", old)
            if ids:
                task.adopt(str(i))
            notes.write(task)
            (old / f"{i}_submitted.pkl").touch()
            tasks.append(new(f"k{i}", fingerprint, tmp_path))
        found = Notes(tmp_path / "running")
        return tasks, Predecessor(found, queue, logging.getLogger("test"), gap=0.0)

    return make


def new(key, fingerprint, folder):
    info = SubmittedJobInfo(None)  # nothing is asked of the Snakemake job
    call = SnakemakeJob("true", ".")
    task = Task(info, Request("rule"), call, "rule", key, fingerprint, folder)
    task.token = f"token-{key}"
    return task


def test_all_running_jobs_are_taken_over_at_one_look_at_the_queue(left, queue):
    tasks, predecessor = left(50)
    queue.known = {str(i): "RUNNING" for i in range(50)}
    predecessor.settle(tasks)
    assert [task.id for task in tasks] == [str(i) for i in range(50)]
    assert queue.asked == 1
    assert not queue.cancelled


def test_a_job_that_has_changed_is_cancelled_and_waited_for(left, queue):
    (task,), predecessor = left(1, fingerprint="other")
    queue.known = {"0": "RUNNING"}
    predecessor.settle([task])
    assert queue.cancelled == ["0"]
    assert task.id is None
    assert predecessor.holds(task)
    predecessor.settle([task])
    assert predecessor.holds(task)
    queue.known = {"0": "CANCELLED"}
    predecessor.settle([task])
    assert not predecessor.holds(task)


def test_a_job_that_has_left_the_queue_is_made_again(left, queue):
    (task,), predecessor = left(1)
    predecessor.settle([task])
    assert task.id is None
    assert not predecessor.holds(task)


def test_a_job_that_ended_well_since_the_start_is_collected(left, queue, tmp_path):
    (task,), predecessor = left(1)
    (tmp_path / "old" / "0_0_result.pkl").write_bytes(pickle.dumps(("success", {})))
    predecessor.settle([task])
    assert task.id == "0"
    assert task.result() == (True, "")


def test_nothing_is_submitted_while_the_queue_does_not_answer(left, queue):
    (task,), predecessor = left(1)
    queue.answers = False
    predecessor.settle([task])
    assert predecessor.holds(task)
    queue.answers, queue.known = True, {"0": "PENDING"}
    predecessor.settle([task])
    assert task.id == "0"


def test_a_job_whose_id_was_not_noted_is_found_by_its_token(left, queue):
    (task,), predecessor = left(1, ids=False)
    queue.tokens, queue.known = {"token-k0": ["0"]}, {"0": "RUNNING"}
    predecessor.settle([task])
    assert task.id == "0"


def test_notes_of_ended_jobs_are_dropped_and_of_living_ones_kept(left, queue, tmp_path):
    _, predecessor = left(2)
    queue.known = {"0": "RUNNING", "1": "COMPLETED"}
    predecessor.forget_ended()
    assert [path.stem for path in (tmp_path / "running").glob("*.json")] == ["k0"]
