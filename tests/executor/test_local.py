"""Jobs as processes of this machine: each with its own GPUs, and none left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle
import pytest
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from snakemake_executor_plugin_submitit import ExecutorSettings
from snakemake_executor_plugin_submitit.local import Local
from snakemake_executor_plugin_submitit.resources import Request
from snakemake_executor_plugin_submitit.runner import SnakemakeJob
from snakemake_executor_plugin_submitit.task import Task

SNAKEFILE = """
rule all:
    input: expand("{i}.txt", i=range(4))
rule one:
    output: "{i}.txt"
    resources: gpu=GPUS
    shell: "d=$CUDA_VISIBLE_DEVICES; b=$(date +%s.%N); sleep SECONDS; "
           "echo $d $b $(date +%s.%N) > {output}"
"""


def start(folder, gpus, seconds, *arguments, names="0,1", **variables):
    """Snakemake on two GPUs of this machine."""
    text = SNAKEFILE.replace("GPUS", str(gpus)).replace("SECONDS", str(seconds))
    (folder / "Snakefile").write_text(text)
    command = [sys.executable, "-m", "snakemake", "--executor", "submitit", "--jobs", "10"]
    command += ["--submitit-cluster", "local", "--submitit-poll", "0.5"]
    command += ["--submitit-gpus", names] if names else []
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / ".cache"), **variables}
    return subprocess.Popen(
        [*command, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


UUIDS = ("GPU-8f2a11c0-1", "GPU-77e3d2b4-2")


@pytest.mark.parametrize("names", [("0", "1"), pytest.param(UUIDS, marks=pytest.mark.long)])
def test_parallel_jobs_never_share_a_gpu(tmp_path, names):
    driver = start(tmp_path, 1, 1, names=",".join(names))
    output, _ = driver.communicate(timeout=240)
    assert driver.returncode == 0, output
    rows = [(tmp_path / f"{i}.txt").read_text().split() for i in range(4)]
    spans = sorted((float(begin), float(end), gpu) for gpu, begin, end in rows)
    overlapping = [(a, b) for a in spans for b in spans if a < b and b[0] < a[1]]
    assert overlapping, "the control: two jobs did run at once"
    assert all(a[2] != b[2] for a, b in overlapping)
    assert {gpu for gpu, _, _ in rows} == set(names)


def test_more_gpus_than_there_are_is_refused(tmp_path):
    driver = start(tmp_path, 3, 0)
    output, _ = driver.communicate(timeout=240)
    assert driver.returncode == 1
    assert "resource gpu: 3: expected at most the 2 of this machine (submitit-gpus" in output


def test_ctrl_c_leaves_no_process_behind(tmp_path):
    seconds = f"987.{os.getpid()}"  # of this very test
    driver = start(tmp_path, 1, seconds)
    sleeping = ["pgrep", "-f", f"^sleep {seconds}"]
    end = time.time() + 30
    while subprocess.run(sleeping, capture_output=True).returncode and time.time() < end:
        time.sleep(0.2)
    assert subprocess.run(sleeping, capture_output=True).returncode == 0, "the jobs run"
    os.kill(driver.pid, signal.SIGINT)
    driver.communicate(timeout=240)
    assert driver.returncode == 1
    end = time.time() + 20
    while subprocess.run(sleeping, capture_output=True).returncode == 0 and time.time() < end:
        time.sleep(0.2)
    assert subprocess.run(sleeping, capture_output=True).returncode == 1


class SlowStart(SnakemakeJob):
    """A job whose process is up, with submitit's handlers, but has not begun for a while yet."""

    def __call__(self):
        """Wait, then run."""
        Path(self.folder, "up").touch()
        time.sleep(1.5)
        return super().__call__()


@pytest.mark.parametrize("marked", [True, False])
def test_a_job_that_is_cancelled_while_it_starts_never_begins(tmp_path, marked):
    """The control without the written mark: submitit passes the signal over, and the job runs."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cluster = Local(ExecutorSettings(gpus="0"))
    call = SlowStart("touch begun", str(tmp_path))
    info = SubmittedJobInfo(None)
    task = Task(info, Request("rule"), call, "rule", "k", "f", tmp_path / "job")
    cluster.submit([task])
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    end = time.time() + 30
    while not (tmp_path / "up").exists() and time.time() < end:
        time.sleep(0.05)
    if not marked:
        cluster._folders.clear()
    cluster.cancel([task.id])
    while cluster.states([task.id])[task.id].name == "RUNNING" and time.time() < end:
        time.sleep(0.1)
    assert (tmp_path / "begun").exists() != marked
    assert ("cancelled before it began" in str(task.result())) == marked


def test_a_gpu_job_where_the_environment_names_none_is_refused(tmp_path):
    driver = start(tmp_path, 1, 0, names=None, CUDA_VISIBLE_DEVICES="-1")
    output, _ = driver.communicate(timeout=240)
    assert driver.returncode == 1
    assert (
        "resource gpu: 1: expected at most the 0 of this machine (CUDA_VISIBLE_DEVICES=-1,"
        in output
    )


def test_a_list_that_names_a_gpu_twice_is_refused_at_once(tmp_path):
    driver = start(tmp_path, 1, 0, names=None, CUDA_VISIBLE_DEVICES="0,0")
    output, _ = driver.communicate(timeout=240)
    assert driver.returncode == 1
    assert "CUDA_VISIBLE_DEVICES: '0,0': expected indices such as 0,1,2,3" in output
    assert "Traceback" not in output


def test_gpus_of_a_process_that_outlived_its_driver_are_not_handed_out(tmp_path):
    """The next driver has other jobs to run, and knows nothing of the first one's."""
    driver = start(tmp_path, 1, 20, "--", "0.txt")
    notes = tmp_path / ".snakemake/submitit/running"
    end = time.time() + 60
    while not any(json.loads(path.read_text())["id"] for path in notes.glob("*.json")):
        assert time.time() < end
        time.sleep(0.2)
    (note,) = [json.loads(path.read_text()) for path in notes.glob("*.json")]
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    try:
        second = start(tmp_path, 1, 0, "--nolock", "--", "1.txt", "2.txt")
        output, _ = second.communicate(timeout=240)
        assert second.returncode == 0, output
        used = {(tmp_path / f"{i}.txt").read_text().split()[0] for i in (1, 2)}
        assert note["gpus"] == ["0"]
        assert used == {"1"}
    finally:
        Local(ExecutorSettings(gpus="0")).cancel([note["id"]])
