"""What a job's files say of it."""

import pickle
from pathlib import Path

import pytest
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from snakemake_executor_plugin_submitit.resources import Request
from snakemake_executor_plugin_submitit.runner import SnakemakeJob, read_result
from snakemake_executor_plugin_submitit.task import Task, read_end

ERR = """Building DAG of jobs...
Select jobs to execute...
loading
Traceback (most recent call last):
  File "train.py", line 3, in <module>
ValueError: broken
RuleException:
CalledProcessError in file "Snakefile", line 7:
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
  File "/x/submitit/core/_submit.py", line 11, in <module>
snakemake_executor_plugin_submitit.runner.JobFailed: the job's command ended with exit status 1
"""


@pytest.fixture
def task(tmp_path):
    info = SubmittedJobInfo(None)  # the tests ask nothing of the Snakemake job
    own = Task(info, Request("rule"), SnakemakeJob("true", "."), "rule", "k", "f", tmp_path)
    own.adopt("7")
    return own


def test_the_last_lines_are_those_of_the_command_that_failed(task):
    task.logs[1].write_text(ERR)
    assert task.tail() == [
        "loading",
        "Traceback (most recent call last):",
        '  File "train.py", line 3, in <module>',
        "ValueError: broken",
    ]


def test_without_a_rule_that_failed_submitit_s_own_account_is_left_out(task):
    task.logs[1].write_text(ERR.replace("RuleException:", "MissingInputException"))
    assert task.tail()[-1].startswith("CalledProcessError")


def test_a_long_log_is_read_from_its_end(tmp_path):
    path = tmp_path / "log"
    path.write_text("x" * 99 + "\n" + "y\n" * 100_000)
    lines = read_end(path)
    assert len(lines) < 10_000
    assert lines[-1] == "y"
    assert read_end(tmp_path / "none") == []


def test_a_result_counts_when_it_is_whole(task):
    path = task.path("0_result.pkl")
    assert task.result() is None
    path.write_bytes(pickle.dumps(("success", {"host": "n1"})))
    assert task.result() == (True, "")
    path.write_bytes(pickle.dumps(("success", {"host": "n1"}))[:5])
    assert task.result() is None
    path.write_bytes(pickle.dumps(("error", "Traceback\nm.JobFailed: exit status 3\n")))
    assert task.result() == (False, "exit status 3")


def test_what_submitit_left_is_read_as_it_is(tmp_path):
    path = tmp_path / "result"
    assert read_result(path) is None
    path.write_bytes(pickle.dumps(("error", "trace")))
    assert read_result(path) == ("error", "trace")
    path.write_bytes(pickle.dumps(("success", {"restarts": 1})))
    assert read_result(path) == ("success", {"restarts": 1})


def test_the_ledger_names_the_job(task):
    assert '"id": "7"' in task.entry(end="success")
    assert Path(task.path("x")).name == "7_x"
