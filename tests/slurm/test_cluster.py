"""The throw-away SLURM does what the other tests rely on."""

import time
from pathlib import Path

import pytest
from cluster import PATIENCE, Cluster, environment_of, parents_by_pid


def alive(mark: str) -> bool:
    """Whether a process with this string in its environment lives."""
    return any(mark in environment_of(pid) for pid in parents_by_pid())


def test_nodes_are_idle(cluster: Cluster) -> None:
    assert cluster.node_states() == {"n1": "idle", "n2": "idle"}
    assert cluster.empty()


def test_sacct_is_disabled(cluster: Cluster) -> None:
    assert "accounting storage is disabled" in cluster.run("sacct", check=False).stderr


def test_a_job_sees_its_fake_gpus(cluster: Cluster, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script = f"echo $CUDA_VISIBLE_DEVICES >{seen}.new; mv {seen}.new {seen}"
    job = cluster.submit(script, "--gres=gpu:2")
    cluster.wait(seen.exists, 15, "the job has written")
    assert seen.read_text() == "0,1\n"
    cluster.wait_state(job, "COMPLETED")


def test_queue_and_state(cluster: Cluster) -> None:
    options = ("--comment=a|b, c", "--job-name=name", "--gpus-per-node=4", "--nodelist=n2")
    first = cluster.submit("sleep 60", *options)
    second = cluster.submit("sleep 60", *options)
    cluster.wait_state(first, "RUNNING")
    cluster.wait(lambda: cluster.queue()[0]["reason"] == "Resources", 15, "the second waits")
    common = {"name": "name", "comment": "a|b, c"}
    assert sorted(cluster.queue(), key=lambda job: job["id"]) == [
        {"id": first, "state": "RUNNING", "reason": "None", "node": "n2"} | common,
        {"id": second, "state": "PENDING", "reason": "Resources", "node": ""} | common,
    ]
    cluster.cancel_all()
    cluster.wait(cluster.empty, 15, "the queue is empty")
    assert {job["id"] for job in cluster.queue(all=True)} >= {first, second}
    assert cluster.state(second) == "CANCELLED"
    assert cluster.state(999999) == "GONE"


def test_a_job_longer_than_its_partition_allows_is_pending(cluster: Cluster) -> None:
    job = cluster.submit("true", "--partition=small", "--time=10")
    cluster.wait(lambda: cluster.queue()[0]["reason"] == "PartitionTimeLimit", 15, "a reason")
    assert cluster.state(job) == "PENDING"


def test_urgent_preempts_by_requeue(cluster: Cluster, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    script = f"echo ${{SLURM_RESTART_COUNT:-0}} >>{starts}; sleep 60"
    low = cluster.submit(script, "--gres=gpu:4", "--nodelist=n1")
    cluster.wait(starts.exists, 15, "the job has begun")
    high = cluster.submit("sleep 2", "--partition=urgent", "--gres=gpu:4", "--nodelist=n1")
    cluster.wait_state(high, "RUNNING")
    cluster.wait_state(low, "PENDING")
    with cluster.impatient():
        cluster.wait(lambda: starts.read_text() == "0\n1\n", 20, "the job has begun again")
    assert cluster.state(high) == "COMPLETED"


def test_requeue_and_start_now(cluster: Cluster) -> None:
    job = cluster.submit("sleep 60")
    cluster.wait_state(job, "RUNNING")
    cluster.run("scontrol", "requeue", job)
    cluster.wait(lambda: cluster.start_now() == [job], 10, "the job waits for its begin time")
    cluster.wait_state(job, "RUNNING", 4)


@pytest.mark.slow_slurm
def test_a_requeued_job_starts_soon_by_itself(cluster: Cluster) -> None:
    job = cluster.submit("sleep 60")
    cluster.wait_state(job, "RUNNING")
    cluster.run("scontrol", "requeue", job)
    cluster.wait_state(job, "PENDING")
    cluster.wait_state(job, "RUNNING", 15)


@pytest.mark.slow_slurm
def test_a_dead_node_loses_all_at_once_and_its_job_is_requeued(
    cluster: Cluster, tmp_path: Path
) -> None:
    mark, starts, told = "PDMD_MARK=1", tmp_path / "starts", tmp_path / "told"
    script = (
        f"trap 'touch {told}' TERM; export {mark}; setsid sleep 300 & (setsid sleep 300 &);"
        f"echo $SLURMD_NODENAME >>{starts}; sleep 300; touch {told}"
    )
    other = cluster.submit("sleep 300", "--nodelist=n2", "--cpus-per-task=1")
    cluster.submit(script, "--cpus-per-task=8")  # n1 has that many to give
    cluster.wait(starts.exists, 15, "the job has begun")
    assert starts.read_text() == "n1\n"
    cluster.run("scancel", other)
    begin = time.monotonic()
    cluster.kill_node("n1")
    cluster.wait(lambda: not alive(mark), 2 / PATIENCE, "nothing of the job lives")  # at once
    with cluster.impatient():
        cluster.wait(lambda: starts.read_text() == "n1\nn2\n", 60, "the job runs on n2")
    print(f"on the other node after {time.monotonic() - begin:.1f} s")
    assert not told.exists()
    assert cluster.node_states()["n1"].startswith("down")
    cluster.revive_node("n1")
    assert cluster.node_states()["n1"] == "idle"


@pytest.mark.slow_slurm
def test_sacct_answers(accounted: Cluster) -> None:
    job = accounted.submit("exit 3", "--gres=gpu:1")

    def row() -> str:
        fields = "--format=State,ExitCode,Account,AllocTRES"
        return accounted.run("sacct", "-X", "-n", "-P", f"--jobs={job}", fields).stdout.strip()

    accounted.wait(lambda: row().startswith("FAILED|3:0|lab|"), 20, "sacct knows the end")
    assert "gres/gpu=1" in row()


@pytest.mark.slow_slurm
def test_qos_tiny_holds_back_what_asks_for_two_cpus(accounted: Cluster) -> None:
    small = accounted.submit("true", "--qos=tiny", "--ntasks=1")
    accounted.wait_state(small, "COMPLETED")
    large = accounted.submit("true", "--qos=tiny", "--ntasks=2")
    accounted.wait(lambda: accounted.queue()[0]["reason"].startswith("QOS"), 15, "a QOS reason")
    assert accounted.state(large) == "PENDING"
    assert accounted.queue()[0]["reason"] == "QOSMaxCpuPerJobLimit"
