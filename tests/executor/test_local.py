"""Jobs as processes of this machine: each with its own GPUs, and none left behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from snakemake_executor_plugin_submitit.local import visible_gpus

SNAKEFILE = """
rule all:
    input: expand("{i}.txt", i=range(4))
rule one:
    output: "{i}.txt"
    resources: gpu=GPUS
    shell: "d=$CUDA_VISIBLE_DEVICES; b=$(date +%s.%N); sleep SECONDS; "
           "echo $d $b $(date +%s.%N) > {output}"
"""


def start(folder, gpus, seconds, *arguments):
    """Snakemake on two GPUs of this machine."""
    text = SNAKEFILE.replace("GPUS", str(gpus)).replace("SECONDS", str(seconds))
    (folder / "Snakefile").write_text(text)
    command = [sys.executable, "-m", "snakemake", "--executor", "submitit", "--jobs", "10"]
    command += ["--submitit-cluster", "local", "--submitit-gpus", "0,1", "--submitit-poll", "0.5"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / ".cache")}
    return subprocess.Popen(
        [*command, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_parallel_jobs_never_share_a_gpu(tmp_path):
    driver = start(tmp_path, 1, 1)
    output, _ = driver.communicate(timeout=90)
    assert driver.returncode == 0, output
    rows = [(tmp_path / f"{i}.txt").read_text().split() for i in range(4)]
    spans = sorted((float(begin), float(end), gpu) for gpu, begin, end in rows)
    overlapping = [(a, b) for a in spans for b in spans if a < b and b[0] < a[1]]
    assert overlapping, "the control: two jobs did run at once"
    assert all(a[2] != b[2] for a, b in overlapping)
    assert {gpu for gpu, _, _ in rows} == {"0", "1"}


def test_more_gpus_than_there_are_is_refused(tmp_path):
    driver = start(tmp_path, 3, 0)
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 1
    assert "resource gpu: 3: expected at most the 2 of this machine (--submitit-gpus)" in output


def test_ctrl_c_leaves_no_process_behind(tmp_path):
    seconds = f"987.{os.getpid()}"  # of this very test
    driver = start(tmp_path, 1, seconds)
    sleeping = ["pgrep", "-f", f"^sleep {seconds}"]
    end = time.time() + 30
    while subprocess.run(sleeping, capture_output=True).returncode and time.time() < end:
        time.sleep(0.2)
    assert subprocess.run(sleeping, capture_output=True).returncode == 0, "the jobs run"
    os.kill(driver.pid, signal.SIGINT)
    driver.communicate(timeout=60)
    assert driver.returncode == 1
    end = time.time() + 20
    while subprocess.run(sleeping, capture_output=True).returncode == 0 and time.time() < end:
        time.sleep(0.2)
    assert subprocess.run(sleeping, capture_output=True).returncode == 1


def test_gpus_come_from_the_setting_or_from_the_environment(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert visible_gpus(None) == (2, 5)
    assert visible_gpus("1") == (1,)
    assert visible_gpus("") == ()
    with pytest.raises(ValueError, match="expected indices such as 0,1,2,3"):
        visible_gpus("GPU-8f2a")
