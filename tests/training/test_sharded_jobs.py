"""`pdmd launch` of a released model's phase whose processes share its networks."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from released import parts_of, prepare
from test_launch import descendants, gone

from pdmd.files.storage import load_tensors, read_json, write_json
from pdmd.stages.distill import distill_phase

pytestmark = [pytest.mark.slow, pytest.mark.long]

SCENARIO = "wan22t2v"
WHOLE = {
    "model": {"offload": "none"},
    "distill": {"updates": 6, "budget": "expert", "fake_updates": 1},
}
SHARDED = {**WHOLE, "distill": {**WHOLE["distill"], "parallel": {"shard": "full"}}}


def merged(diff, **distill):
    return {**diff, "distill": {**diff["distill"], **distill}}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    results = tmp_path_factory.mktemp("prepared") / "results"
    prepare(results, SCENARIO)
    return results


@pytest.fixture
def results(prepared, tmp_path):
    """A copy of what training reads; the model stays where it is."""
    for name in ("base", "data"):
        shutil.copytree(prepared / SCENARIO / name, tmp_path / "results" / SCENARIO / name)
    return tmp_path / "results"


def config_of(results, diff):
    return parts_of(results, SCENARIO, diff)["phased2/config/distill.json"]


def start(results, diff, processes=2):
    """Start the job of the first phase in so many processes, its stderr kept."""
    path = results / "job.json"
    write_json(path, config_of(results, diff))
    words = ["launch", "--processes", str(processes), "--"]
    words += ["distill", "--config", str(path), "--phase", "1", "--seeds", "1"]
    command = [sys.executable, "-m", "pdmd", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def finish(process):
    """(exit status, stderr) of a process."""
    _, errors = process.communicate(timeout=600)
    return process.returncode, errors


def expert(results):
    return load_tensors(results / f"{SCENARIO}/phased2/seed1/phase1/expert.safetensors")


def records(results):
    return read_json(results / f"{SCENARIO}/phased2/seed1/phase1/metrics.json")


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory):
    """The weights of two processes that share networks, and the seconds of an update."""
    results = tmp_path_factory.mktemp("undisturbed") / "results"
    for name in ("base", "data"):
        shutil.copytree(prepared / SCENARIO / name, results / SCENARIO / name)
    assert finish(start(results, SHARDED)) == (0, "")
    return expert(results), records(results)["seconds"] / SHARDED["distill"]["updates"]


def close(one, other):
    """Whether weights are equal but for the order in which floats are added."""
    assert one.keys() == other.keys()
    return all(torch.allclose(one[k], other[k], rtol=1e-3, atol=2e-5) for k in one)


@pytest.mark.parametrize(
    ("parallel", "fake", "dtype"),
    [
        ({"shard": "full"}, "lora", "bfloat16"),
        ({"shard": "full"}, "full", "float32"),
        ({"context": 2}, "lora", "float32"),
    ],
)
def test_a_launched_job_that_shares_networks_or_tokens_ends_where_one_alone_does(
    parallel, fake, dtype, results
):
    """In float32 a full fake computes in the precision that it is kept in, shared or not."""
    more = {"model": {"dtype": dtype, "offload": "none"}}
    diff = merged(WHOLE | more, fake={"mode": fake}, parallel=parallel)
    hardware = {"processes": parallel.get("context", 1)}
    status, errors = finish(start(results, diff | {"hardware": hardware}))
    assert (status, re.sub(r"\s*Loading checkpoint shards: .*\s*", "", errors)) == (0, "")
    shared = expert(results)
    assert records(results)["processes"] == 2
    assert not list((results / ".state").rglob("step-*"))
    shutil.rmtree(results / SCENARIO / "phased2")
    distill_phase(config_of(results, merged(WHOLE | more, fake={"mode": fake})), 1, [1])
    assert close(shared, expert(results))
    distill_phase(config_of(results, merged(WHOLE | more, generator_lr=1e-3)), 1, [1])
    assert not close(shared, expert(results))  # control: another rate


def changed(path):
    """When a file was last written, None of none."""
    return path.stat().st_mtime_ns if path.is_file() else None


def await_updates(process, results, count):
    """Wait until a job's log has so many records, one of them of this start's own."""
    state = results / f".state/{SCENARIO}/phased2/phase1-seed1"
    log, before = state / "stats.jsonl", changed(state / "stats.jsonl")
    while changed(log) == before or len(log.read_text().splitlines()) < count:
        assert process.poll() is None, "ended too soon"
        time.sleep(0.01)
    return state


def workers(pid):
    """Rank -> process of a launcher's workers."""
    found = {}
    for child in descendants(pid):
        try:
            environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ranks = [one.partition(b"=")[2] for one in environment if one.startswith(b"RANK=")]
        if ranks:
            found[int(ranks[0])] = child
    return found


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_the_job_in_its_words_and_it_goes_on(rank, results, undisturbed):
    """Killed wherever it is: in a call, in an exchange, in a checkpoint."""
    weights, pace = undisturbed
    for count in (1, 3):
        process = start(results, SHARDED)
        await_updates(process, results, count)
        time.sleep(random.uniform(0, pace))
        below = descendants(process.pid)
        os.kill(workers(process.pid)[rank], signal.SIGKILL)
        status, errors = finish(process)
        assert status == 137, errors
        last = errors.splitlines()[-1]
        assert re.fullmatch(
            rf"pdmd: launch: rank {rank} on host \S+, of 2 processes, failed: ended by SIGKILL",
            last,
        )
        assert gone(below)
    assert finish(start(results, SHARDED)) == (0, "")
    found = expert(results)
    assert all(torch.equal(found[name], weights[name]) for name in found)
    assert records(results)["restarts"] == 2


@pytest.mark.parametrize("processes", [1, 2])
def test_a_job_told_to_stop_saves_and_another_number_of_processes_goes_on(
    processes, results, undisturbed
):
    weights, _ = undisturbed
    process = start(results, SHARDED)
    state = await_updates(process, results, 2)
    process.send_signal(signal.SIGTERM)
    status, errors = finish(process)
    assert status == 143
    assert re.search("saved after update [0-9]+ of 6; start again to go on", errors)
    assert len(list(state.glob("step-*"))) in (1, 2)
    assert not list(state.glob(".step-*"))
    assert finish(start(results, SHARDED, processes)) == (0, "")
    found = expert(results)
    if processes == 2:
        assert all(torch.equal(found[name], weights[name]) for name in found)
    assert close(found, weights)
