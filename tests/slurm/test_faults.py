"""What clusters do to jobs, and that a workflow comes through it as if nothing had happened.

Every test compares the weights with those of an undisturbed run bit for bit, counts the updates,
and looks for what is left: jobs, notes, half-written files. On SLURM without accounting, so that
sacct is absent, unless a test says otherwise.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lab import PHASE, Lab, same
from safetensors.torch import load_file

from pdmd.files.storage import write_json
from pdmd.stages import fit as fitting
from pdmd.stages.bank import make_bank
from pdmd.stages.distill import distill_phase

CHECKPOINT = 10  # updates between two checkpoints: what a kill may cost


@pytest.fixture(scope="module")
def base(tmp_path_factory, tiny):
    """Results up to what the second phase of phased2 needs, with paths that hold in any folder."""
    folder = tmp_path_factory.mktemp("base")
    with contextlib.chdir(folder):
        parts = tiny(Path("results"), {"distill": {"updates": 80}})
        fitting.fit_base(parts["config/base.json"])
        distill_phase(parts["phased2/config/distill.json"], 1, [1, 2])
        make_bank(parts["phased2/config/bank.json"], 2, [1, 2])
        write_json(
            Path("results/mixture2d/phased2/config/distill.json"),
            parts["phased2/config/distill.json"],
        )
    return folder / "results"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, base):
    """The same job outside of SLURM and Snakemake, at full speed."""
    return train_undisturbed(tmp_path_factory.mktemp("undisturbed"), base)


def train_undisturbed(folder, base, *launch):
    """Train in a folder of its own, without SLURM and Snakemake."""
    shutil.copytree(base, folder / "results")
    command = [sys.executable, "-m", "pdmd", *launch, "distill", "--phase", "2"]
    command += ["--config", "results/mixture2d/phased2/config/distill.json", "--seeds", "1", "2"]
    subprocess.run(command, cwd=folder, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return folder


@pytest.fixture
def lab(cluster, tmp_path, base):
    """A fresh folder; its driver does not outlive the test."""
    own = Lab(cluster, tmp_path / "lab", base)
    yield own
    own.kill()


def test_the_seeds_differ(undisturbed):
    """The control of every comparison below: weights of another seed are not equal."""
    one, two = (
        load_file(undisturbed / PHASE.format(seed=s) / "expert.safetensors") for s in (1, 2)
    )
    assert not same(one, two)


def test_without_a_fault(lab, undisturbed):
    lab.start(config={"pace": 0.02})
    assert lab.end() == 0, lab.output()
    lab.check(undisturbed)
    assert lab.submissions() == 1


@pytest.mark.parametrize("resumable", [1, pytest.param(0, marks=pytest.mark.slow_slurm)])
def test_scancel_fails_the_job_and_a_new_start_goes_on(lab, undisturbed, resumable):
    lab.start(config={"resumable": resumable})
    lab.wait_steps(15)
    job = lab.job()
    lab.cluster.run("scancel", job)
    assert lab.end() == 1
    assert f"Slurm job {job} on n" in lab.output()
    assert "CANCELLED: someone cancelled it" in lab.output()
    assert f"{job}_0_log.out" in lab.output()
    assert f"{job}_0_log.err" in lab.output()
    lab.settled_queue()
    made = len(lab.steps())
    assert made < 40
    lab.start("--rerun-incomplete", config={"resumable": resumable, "pace": 0.02})
    assert lab.end() == 0, lab.output()
    lab.check(undisturbed)
    assert len(lab.steps()) == 40


@pytest.mark.long
def test_at_its_walltime_a_resumable_job_saves_and_goes_on_under_its_id(lab, undisturbed):
    """Slurm counts minutes and looks twice in one, hence a walltime of one and updates that last
    longer, and a signal in its middle: a busy machine starts a job, too, in half a minute."""
    lab.start(config={"runtime": 1, "pace": 2.5}, signal_delay=30)
    lab.wait_steps(1)
    job = lab.job()
    assert lab.end(180) == 0, lab.output()
    lab.check(undisturbed)
    assert lab.submissions() == 1
    (log,) = lab.folder.glob(f".snakemake/submitit/run-*/{job}_0_log.out")
    assert f"Requeued job {job}" in log.read_text()


@pytest.mark.parametrize("resumable", [1, pytest.param(0, marks=pytest.mark.slow_slurm)])
def test_a_resumable_job_told_to_stop_once_all_is_written_succeeds(lab, undisturbed, resumable):
    """A failure, it would be made again from its first update: what it went on from is dropped. The
    control is a job that cannot be requeued, whose Snakemake is told to stop, too."""
    lab.start(config={"pace": 0.02, "last": 5, "resumable": resumable})
    done = lab.folder / "done.txt"
    lab.cluster.wait(lambda: done.exists() or lab.driver.poll() is not None, 40, "results")
    job = lab.job()
    lab.cluster.run("scancel", "--full", f"--signal={'USR2' if resumable else 'TERM'}", job)
    assert lab.end() == 1 - resumable, lab.output()
    if resumable:
        lab.check(undisturbed)
    assert len(lab.steps()) == 40
    (log,) = lab.folder.glob(f".snakemake/submitit/run-*/{job}_0_log.err")
    assert "the job is told to stop" in log.read_text()


@pytest.mark.slow_slurm
def test_at_its_walltime_any_job_is_retried_with_more(lab, undisturbed):
    lab.start(config={"runtime": 1, "pace": 3.0, "resumable": 0, "retries": 1})
    assert lab.end(300) == 0, lab.output()
    lab.check(undisturbed, repeated=CHECKPOINT)
    assert "TIMEOUT: its walltime of 1 min" in lab.output()
    assert lab.submissions() == 2


@pytest.mark.slow_slurm
def test_scontrol_requeue(lab, undisturbed):
    lab.start()
    lab.wait_steps(15)
    job = lab.job()
    lab.cluster.run("scontrol", "requeue", job)
    assert lab.end() == 0, lab.output()
    lab.check(undisturbed)
    assert lab.submissions() == 1


@pytest.mark.long
def test_preemption_by_a_partition_of_higher_priority(lab, undisturbed):
    lab.start()
    lab.wait_steps(15)
    job = lab.job()
    urgent = lab.cluster.submit("sleep 1", "-p", "urgent", "-N2", "--exclusive")
    lab.cluster.wait(lambda: lab.cluster.state(urgent) == "RUNNING", 40, "the urgent job")
    assert lab.cluster.state(job) == "PENDING"
    assert lab.end() == 0, lab.output()
    lab.check(undisturbed)
    assert lab.submissions() == 1


@pytest.mark.long
def test_death_of_the_node_in_the_middle_of_training(lab, undisturbed):
    lab.start()
    lab.wait_steps(15)
    (node,) = lab.nodes()
    lab.cluster.kill_node(node)
    assert lab.end(180) == 0, lab.output()
    assert len(lab.nodes()) == 2
    lab.check(undisturbed, repeated=CHECKPOINT)
    assert lab.submissions() == 1


@pytest.mark.long
def test_driver_killed_and_started_again_takes_over_the_running_job(lab, undisturbed):
    lab.start(config={"pace": 0.5})
    lab.wait_steps(5)
    job = lab.job()
    lab.kill()
    lab.unlock()
    lab.start("--rerun-incomplete", config={"pace": 0.5})
    assert lab.end() == 0, lab.output()
    assert f"train: attached to job {job} of an earlier run" in lab.output()
    lab.check(undisturbed)
    assert lab.submissions() == 0


def test_driver_killed_and_the_job_ends_before_the_next_one(lab, undisturbed):
    lab.start(config={"pace": 0.02})
    lab.wait_steps(1)
    lab.kill()
    lab.cluster.wait(lab.cluster.empty, 30, "the end of the job")
    lab.unlock()
    lab.start("--rerun-incomplete", config={"pace": 0.02})
    assert lab.end() == 0, lab.output()
    lab.check(undisturbed)
    assert lab.submissions() == 0
    assert lab.submissions("sums") == 1


@pytest.mark.slow_slurm
def test_driver_killed_and_the_job_changed_since(lab, undisturbed):
    """A job that does another thing than it should now is cancelled before its place is taken."""
    lab.start()
    lab.wait_steps(10)
    job = lab.job()
    lab.kill()
    lab.unlock()
    lab.start("--rerun-incomplete", config={"pace": 0.05})
    assert lab.end() == 0, lab.output()
    assert f"cancelled job {job}, which did another thing" in lab.output()
    lab.check(undisturbed)


def test_ctrl_c_cancels_its_own_jobs_and_only_those(lab, undisturbed):
    other = lab.cluster.submit("sleep 60")
    lab.start()
    lab.wait_steps(5)
    os.killpg(lab.driver.pid, signal.SIGINT)
    assert lab.end() == 1
    lab.cluster.wait(lambda: [r["id"] for r in lab.cluster.queue()] == [other], 30, "the end")
    lab.cluster.run("scancel", other)
    lab.start("--rerun-incomplete", config={"pace": 0.02})
    assert lab.end() == 0, lab.output()
    lab.check(undisturbed)


SBATCH = """#!/bin/sh
echo x >> {count}
if [ $(wc -l < {count}) -le {fails} ]; then echo "sbatch: error: {error}" >&2; exit 1; fi
exec {real} "$@"
"""


def stand_in(lab, error, fails):
    """An sbatch that fails before it works."""
    folder = lab.folder / "bin"
    folder.mkdir()
    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True).stdout.strip()
    script = SBATCH.format(count=folder / "count", fails=fails, error=error, real=real)
    (folder / "sbatch").write_text(script)
    (folder / "sbatch").chmod(0o755)
    lab.environment["PATH"] = f"{folder}{os.pathsep}{lab.environment['PATH']}"
    return folder / "count"


def test_sbatch_fails_for_a_while(lab, undisturbed):
    message = "Batch job submission failed: Socket timed out on send/recv operation"
    stand_in(lab, message, fails=1)
    lab.start(config={"pace": 0.02})
    assert lab.end() == 0, lab.output()
    lab.check(undisturbed)
    assert lab.output().count(f"submission failed ({message})") == 1
    assert lab.submissions() == 1


def test_sbatch_refuses_for_good(lab):
    message = "Batch job submission failed: Invalid account or account/partition combination"
    count = stand_in(lab, message, fails=99)
    lab.start()
    assert lab.end(30) == 1
    assert f"not submitted: {message}" in lab.output()
    assert len(count.read_text().split()) == 1
    lab.settled_queue()


@pytest.mark.long
def test_two_workflows_in_one_folder(lab, undisturbed):
    lab.start()
    lab.wait_steps(5)
    first, log = lab.driver, lab.log
    lab.start()
    assert lab.driver.wait(120) == 1
    assert "Directory cannot be locked" in lab.output()
    lab.start("--nolock")
    assert lab.driver.wait(120) == 1
    assert "submits jobs from here" in lab.output()
    lab.driver, lab.log = first, log
    assert lab.end() == 0, lab.output()
    lab.check(undisturbed)


@pytest.fixture
def full_disk(lab):
    """The executor's folder on a disk of 1 MB, and the command that fills it."""
    folder = lab.folder / ".snakemake/submitit"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.long
def test_the_disk_of_the_logs_is_full(lab, undisturbed, full_disk):
    lab.start()
    lab.wait_steps(5)
    with contextlib.suppress(OSError):
        (full_disk / "filler").write_bytes(bytes(2 << 20))
    assert os.statvfs(full_disk).f_bavail == 0
    lab.wait_output("No space left on device): next try", 60)
    assert set(lab.steps()) == set(range(40)), "the job that ran did not mind"
    (full_disk / "filler").unlink()
    assert lab.end() == 0, lab.output()
    lab.check(undisturbed)


NOISY = """
rule all:
    input: "done.txt"
rule noisy:
    output: "done.txt"
    shell:
        "python -c 'print((chr(120) * 99 + chr(10)) * 1000000)'; "
        "echo the last line >&2; {command}"
"""


@pytest.mark.parametrize(("command", "status"), [("touch {output}", 0), ("exit 3", 1)])
def test_a_job_that_prints_100_mb(lab, command, status):
    snakefile = lab.folder / "Noisy"
    snakefile.write_text(NOISY.replace("{command}", command))
    lab.start("--snakefile", str(snakefile))
    assert lab.end(60) == status, lab.output()
    (log,) = lab.folder.glob(".snakemake/submitit/run-*/*_0_log.out")
    assert log.stat().st_size >= 100_000_000
    assert len(lab.output()) < 20_000
    assert ("the last line" in lab.output()) == bool(status)
    lab.settled_queue()


# ---- two nodes with two processes each

TWO_BY_TWO = {"nodes": 2, "gpu": 2, "launch": "'launch --nodes 2 --processes 2 --'"}


@pytest.fixture(scope="module")
def undisturbed4(tmp_path_factory, base):
    """The same in four processes of this machine."""
    launch = ["launch", "--nodes", "1", "--processes", "4", "--"]
    return train_undisturbed(tmp_path_factory.mktemp("undisturbed4"), base, *launch)


def test_four_processes_differ_from_one_in_their_roundings_only(undisturbed, undisturbed4):
    """The control: comparing with the wrong one of the two would be seen."""
    one, four = (
        load_file(folder / PHASE.format(seed=1) / "expert.safetensors")
        for folder in (undisturbed, undisturbed4)
    )
    assert not same(one, four)
    assert all(torch.allclose(one[name], four[name], atol=1e-4) for name in one)


@pytest.mark.long
def test_two_nodes_with_two_processes_each(lab, undisturbed4):
    lab.start(config={**TWO_BY_TWO, "pace": 0.02})
    assert lab.end() == 0, lab.output()
    lab.check(undisturbed4)


@pytest.mark.slow_slurm
def test_a_job_on_two_nodes_is_requeued_and_goes_on(lab, undisturbed4):
    lab.start(config=TWO_BY_TWO)
    lab.wait_steps(15)
    lab.cluster.run("scontrol", "requeue", lab.job())
    assert lab.end() == 0, lab.output()
    lab.check(undisturbed4, repeated=CHECKPOINT)
    assert lab.submissions() == 1


@pytest.mark.slow_slurm
def test_a_job_on_two_nodes_at_its_walltime(lab, undisturbed4):
    lab.start(config={**TWO_BY_TWO, "runtime": 1, "pace": 0.5}, signal_delay=45)
    assert lab.end(180) == 0, lab.output()
    lab.check(undisturbed4)
    assert lab.submissions() == 1


@pytest.mark.slow_slurm
@pytest.mark.parametrize("last", [False, True])
def test_a_job_on_two_nodes_loses_one(cluster, tmp_path, base, undisturbed4, last):
    """The node of the batch script, or the other; a third one takes its place."""
    lab = Lab(cluster, tmp_path / "lab", base)
    try:
        lab.start(config={**TWO_BY_TWO, "retries": 2})
        lab.wait_steps(15)
        (row,) = [row for row in cluster.queue() if row["name"] == "train"]
        cluster.kill_node(sorted(cluster.nodes)[-1 if last else 0])
        cluster.wait(lambda: cluster.state(row["id"]) != "RUNNING", 60, "the end of the first try")
        cluster.revive_node(sorted(cluster.nodes)[-1 if last else 0])
        assert lab.end(180) == 0, lab.output()
        lab.check(undisturbed4, repeated=CHECKPOINT)
    finally:
        lab.kill()


def test_a_reason_that_will_not_pass_is_named_within_a_minute(lab):
    lab.start(config={"nodes": 2}, partition="small")
    lab.wait_output("cannot start: PartitionNodeLimit: it asks for more nodes", 60)
    os.killpg(lab.driver.pid, signal.SIGINT)
    assert lab.end() == 1
    lab.settled_queue()


def test_a_resource_that_makes_no_sense(lab):
    lab.start("--set-resources", "train:gpu=3", "train:nodes=2")
    assert lab.end(30) == 1
    assert "resource gpu: 3: expected a multiple of nodes = 2" in lab.output()
