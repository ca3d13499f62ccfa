"""`pdmd launch` on this machine; tests/slurm has it on several nodes."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pdmd import cli
from pdmd.config.sections import Hardware
from pdmd.errors import UserError
from pdmd.files.storage import load_tensors, read_json, write_json
from pdmd.training import agent, launch

SEEDS = [1, 2]
DIFF = {"distill": {"updates": 500}, "save": {"checkpoint_every": 50}}
SHORT = {"distill": {"updates": 20}}
HARDWARE = Hardware(nodes=1, processes=1, gpus=0)


def job(results, tiny, diff=DIFF, phase=1):
    """The command of a job, its config written."""
    path = results / "job.json"
    write_json(path, tiny(results, diff)["dmd2/config/distill.json"])
    return ["distill", "--config", str(path), "--phase", str(phase), "--seeds", *map(str, SEEDS)]


def start(*arguments, **options):
    """Start `pdmd launch` with two processes, its stderr kept."""
    command = [sys.executable, "-m", "pdmd", "launch", "--processes", "2", "--", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def finish(process):
    """(exit status, stderr) of a process."""
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def expert(results, seed):
    return load_tensors(results / f"mixture2d/dmd2/seed{seed}/phase1/expert.safetensors")


@pytest.fixture(scope="module")
def undisturbed(chain, tiny, tmp_path_factory):
    """Results of a job of two, and its stderr."""
    results = Path(shutil.copytree(chain, tmp_path_factory.mktemp("launch") / "results"))
    return results, *finish(start(*job(results, tiny)))


def test_a_job_that_ends_well_says_nothing(undisturbed):
    results, status, errors = undisturbed
    assert (status, errors) == (0, "")
    assert read_json(results / "mixture2d/dmd2/seed1/phase1/metrics.json")["processes"] == 2


def await_checkpoint(process, results):
    state = results / ".state/mixture2d/dmd2/phase1-seed1-2"
    while not list(state.glob("step-*")):
        assert process.poll() is None, "ended too soon"
        time.sleep(0.01)
    return state


def descendants(pid):
    """All processes below one, in whatever session."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def gone(pids):
    """Whether processes have ended, within ten seconds."""
    end = time.time() + 10
    while time.time() < end:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_launcher_told_to_stop_has_all_save_and_they_go_on(undisturbed, copied, tiny, number):
    process = start(*job(copied, tiny))
    state = await_checkpoint(process, copied)
    time.sleep(random.uniform(0, 0.3))
    below = descendants(process.pid)
    assert len(below) == 3  # torchrun and its workers
    process.send_signal(number)
    status, errors = finish(process)
    done = max(int(path.name.removeprefix("step-")) for path in state.glob("step-*"))
    assert status == 143
    assert errors == (
        f"pdmd: mixture2d dmd2 phase 1: told to stop ({number.name}): saved after update {done} of"
        " 500; start again to go on\n"
    )
    assert gone(below)
    assert finish(start(*job(copied, tiny))) == (0, "")
    for seed in SEEDS:
        mine, its = expert(copied, seed), expert(undisturbed[0], seed)
        assert all(torch.equal(mine[name], its[name]) for name in mine)
    other = expert(undisturbed[0], 2)  # control: another seed
    assert not any(torch.equal(expert(copied, 1)[name], other[name]) for name in other)


def test_a_signal_to_every_process_at_once_stops_as_one_does(copied, tiny):
    """As an executor does that signals all it finds, and again a little later."""
    process = start(*job(copied, tiny))
    await_checkpoint(process, copied)
    below = descendants(process.pid)
    for _ in range(2):
        for pid in [process.pid, *below]:
            os.kill(pid, signal.SIGTERM)
    status, errors = finish(process)
    assert status == 143
    assert len(errors.splitlines()) == 1
    assert gone(below)


@pytest.mark.parametrize(("workers", "leaves"), [([], True), (["attempt_0"], False)])
def test_an_agent_leaves_at_a_signal_only_before_its_workers(
    tmp_path, monkeypatch, workers, leaves
):
    """Afterwards they have ended by themselves: that they were told to stop would be wrong."""
    monkeypatch.setattr(agent, "workers", list)
    monkeypatch.setattr(agent, "_logs", tmp_path / "logs")
    (tmp_path / "logs").mkdir()
    for name in workers:
        (tmp_path / "logs" / name).mkdir()
    with pytest.raises(SystemExit) if leaves else nullcontext():
        agent._forward(signal.SIGTERM, None)
    monkeypatch.setattr(agent, "_logs", tmp_path / "gone")
    agent._forward(signal.SIGTERM, None)
    monkeypatch.setattr(agent, "_logs", None)
    with pytest.raises(SystemExit):  # control: before torchrun is there
        agent._forward(signal.SIGTERM, None)


@pytest.mark.slow
@pytest.mark.long
def test_slow_saving_is_waited_for(copied, tiny, tmp_path):
    """torchrun by itself would end a worker half a minute after its signal."""
    folder = patched(tmp_path, "pdmd.training.loop", SLOW)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    process = start(*job(copied, tiny, SHORT), env=environment)
    state = copied / ".state/mixture2d/dmd2/phase1-seed1-2"
    while not (state / "stats.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    started = time.time()
    status, errors = finish(process)
    assert status == 143
    assert "told to stop" in errors
    assert time.time() - started > 33


def test_a_killed_launcher_leaves_nobody_behind(copied, tiny):
    process = start(*job(copied, tiny))
    await_checkpoint(process, copied)
    below = descendants(process.pid)
    process.kill()
    process.communicate()
    assert gone(below)


# ---- failures

# Put before the package by PYTHONPATH: a module of this name runs when Python starts.
PATCH = """
import sys, importlib.abc, importlib.util

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != {name!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            exec({code!r}, module.__dict__)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""
FAIL = """
import os, signal
original = PhaseTrainer.update
def update(self, step):
    if step == 7 and self.world.rank == 1:
        {how}
    return original(self, step)
PhaseTrainer.update = update
"""
SLOW = """
original = Run.checkpoint
def checkpoint(self, done):
    if self.world.leads:
        time.sleep(33)
    original(self, done)
Run.checkpoint = checkpoint
update = Run.update
def slow(self, step):
    time.sleep(0.2)
    update(self, step)
Run.update = slow
"""


def patched(tmp_path, name, code):
    """A folder for PYTHONPATH that runs code after a module of the package is imported."""
    folder = tmp_path / "patch"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PATCH.format(name=name, code=code))
    return folder


def failing(copied, tiny, tmp_path, how):
    """(exit status, stderr lines) of a job whose rank 1 fails in update 7."""
    folder = patched(tmp_path, "pdmd.distill", FAIL.format(how=how))
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    status, errors = finish(start(*job(copied, tiny, SHORT), env=environment))
    return status, errors.splitlines()


def test_a_failing_ranks_traceback_comes_first(copied, tiny, tmp_path):
    status, lines = failing(copied, tiny, tmp_path, "raise ValueError('seven')")
    assert status == 1
    assert lines[0] == f"rank 1 on host {agent.host()} failed:"
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-2] == "ValueError: seven"
    assert lines[-1] == (
        f"pdmd: launch: rank 1 on host {agent.host()}, of 2 processes, failed: ValueError: seven"
    )
    text = "\n".join(lines)
    assert text.count("Traceback") == 1  # rank 0's, which lost its peer, is not shown
    assert "torchelastic" not in text
    assert "ChildFailedError" not in text


def test_a_killed_rank_is_named_with_its_signal(copied, tiny, tmp_path):
    status, lines = failing(copied, tiny, tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert status == 137
    assert lines == [
        f"rank 1 on host {agent.host()} failed:",
        "ended by SIGKILL",
        f"pdmd: launch: rank 1 on host {agent.host()}, of 2 processes, failed: ended by SIGKILL",
    ]


def test_a_users_mistake_is_its_line_once(copied, tiny):
    status, errors = finish(start(*job(copied, tiny, SHORT, phase=3)))
    assert status == 2
    lines = errors.splitlines()
    assert lines[0].startswith("rank ")
    assert lines[1:2] == ["pdmd: --phase: 3: expected 1 to 1"]
    assert len(lines) == 3


def test_an_uneven_batch_is_refused(copied, tiny):
    diff = {**SHORT, "distill": {"updates": 20, "batch": 33}}
    status, errors = finish(start(*job(copied, tiny, diff)))
    assert status == 2
    assert (
        errors.splitlines()[1] == "pdmd: distill.batch: 33: expected a multiple of the 2 processes"
    )


# ---- what is launched


def test_one_process_needs_no_launcher():
    assert launch.prefix(HARDWARE) == ""
    assert launch.prefix(replace(HARDWARE, nodes=2, processes=2)) == (
        "launch --nodes 2 --processes 2 -- "
    )
    assert launch.prefix(replace(HARDWARE, gpus=1)) == "launch --nodes 1 --processes 1 --gpus 1 -- "


def test_processes_share_the_threads_of_their_job():
    environment = {"OMP_NUM_THREADS": "8", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "4,2"}
    assert launch.threads_each(3, environment) == {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "1"}
    assert launch.threads_each(3, {}) == {}


@pytest.mark.parametrize(
    "hardware", [HARDWARE, Hardware(nodes=2, processes=4, gpus=4), replace(HARDWARE, gpus=1)]
)
def test_the_prefix_is_a_command_line_that_is_understood(hardware):
    words = [*launch.prefix(hardware).split(), "distill", "--config", "x", "--phase", "1"]
    if words[0] == "distill":
        assert hardware == HARDWARE
        return
    args = cli.parser().parse_args(words)
    assert all(getattr(args, name) == value for name, value in vars(hardware).items())
    assert args.command == ["distill", "--config", "x", "--phase", "1"]


KNOWN = (
    "expected one of fit, measure, range, bank, distill, sample, decode, features, previews,"
    " embed-prompts, encode-images"
)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "--processes 2 -- tables",
            f"launch: 'tables': {KNOWN}",
        ),
        (
            "--processes 2",
            f"launch: '': {KNOWN}",
        ),
        ("--nodes 2 -- fit", "launch: --nodes: 2: expected as many as Slurm gave: no nodes"),
        (
            "--processes 2 --gpus 1 -- fit",
            "launch: hardware.gpus: 1: expected 0 or hardware.processes = 2, a GPU for each"
            " process of a node",
        ),
    ],
)
def test_what_cannot_be_launched_is_refused_in_one_line(words, line, monkeypatch, capsys):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert cli.main(["launch", *words.split()]) == 2
    assert capsys.readouterr().err == f"pdmd: {line}\n"


SLURM = {
    "SLURM_JOB_ID": "20007",
    "SLURM_RESTART_COUNT": "3",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_JOB_NODELIST": "n[1-2]",
}


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A scontrol that knows two nodes of one machine."""
    program = tmp_path / "scontrol"
    program.write_text(
        "#!/bin/sh\n"
        'case "$2 $3" in\n'
        "  'hostnames n[1-2]') echo n1; echo n2;;\n"
        "  'node n1'|'node n2') echo \"NodeName=$3 CoresPerSocket=2\"\n"
        '    echo "   NodeAddr=127.0.0.1 NodeHostName=localhost";;\n'
        '  *) echo "Node $3 not found" >&2; exit 1;;\n'
        "esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def test_an_agent_is_started_on_every_node(scontrol):
    found = launch.agent_command(2, 4, ["fit"], SLURM)
    assert found[0] == "srun"
    wanted = {
        "--nodes=2",
        "--ntasks=2",
        "--ntasks-per-node=1",
        "--cpu-bind=none",
        "--kill-on-bad-exit=1",
        "--export=ALL",
        "--processes=4",
    }
    assert wanted < set(found)
    (endpoint,) = (word for word in found if word.startswith("--endpoint="))
    address, port = endpoint.removeprefix("--endpoint=").split(":")
    assert address == "127.0.0.1"
    assert 20007 <= int(port) < 20107
    assert found[-2:] == ["--", "fit"]


def test_a_smaller_allocation_is_refused(scontrol):
    with pytest.raises(UserError, match="--nodes: 3: expected as many as Slurm gave: 2 nodes"):
        launch.agent_command(3, 1, ["fit"], SLURM)
    with pytest.raises(UserError, match="Node n9 not found: expected host names"):
        launch.agent_command(2, 1, ["fit"], {**SLURM, "SLURM_JOB_NODELIST": "n9"})


def test_a_node_that_cannot_be_reached_is_named(monkeypatch):
    monkeypatch.setattr(launch, "hosts", lambda nodes: ["n1", "no-such-host.invalid"])
    monkeypatch.setattr(launch, "node_address", lambda node: node)
    with pytest.raises(UserError, match=r"launch: no-such-host.invalid: .*: expected a node"):
        launch.agent_command(2, 1, ["fit"], SLURM)


def test_a_node_is_reached_where_slurm_says(scontrol):
    assert agent.node_address("n2") == "127.0.0.1"
    assert agent.node_address("elsewhere") == "elsewhere"


def test_a_port_in_use_is_passed_over():
    first = launch.free_port(23456)
    with socket.socket() as taken:
        taken.bind(("", first))
        assert launch.free_port(first) > first
    assert launch.free_port(first) == first  # control


def account(*reports, other=()):
    """The account of a launcher whose agents reported so."""
    found = launch.Account()
    lines = [f"{agent.MARK}{json.dumps(report)}\n" for report in reports]
    found.read([*other, *lines])
    return found


def failure(rank, moment, lost=False):
    return {
        "host": "n1",
        "rank": rank,
        "status": 1,
        "text": "x",
        "time": moment,
        "lost": lost,
    }


def test_the_first_to_fail_of_its_own_is_to_blame():
    found = account(failure(0, 1.0, True), failure(3, 2.5), failure(2, 2.0), {"stopped": True})
    assert found.culprit()["rank"] == 2
    assert account(failure(0, 2.0, True), failure(1, 1.0, True)).culprit()["rank"] == 1
    assert account(failure(0, 2.0, True), {"stopped": True}).culprit() is None
    assert account().culprit() is None


@pytest.mark.parametrize(
    "report", ["", "{", "[1]", "3", '{"text": "x"}', '{"text": 3, "time": "a"}']
)
def test_a_line_like_a_report_is_a_line(report, capsys):
    """A worker may print anything: its reader must go on, or the worker waits for it for ever."""
    odd = f"{agent.MARK}{report}\n"
    found = account(failure(0, 1.0), other=["before\n", odd, "after\n"])
    assert capsys.readouterr().err == f"before\n{odd}after\n"
    assert found.culprit()["rank"] == 0, "the control: true reports count"


def test_other_lines_are_shown_and_slurms_are_held_back(capsys):
    slurms = ["srun: error: n2: task 1\n", "slurmstepd-n1: error: CANCELLED\n"]
    found = account(failure(0, 1.0), other=["hello\n", *slurms, "half"])
    assert capsys.readouterr().err.split() == ["hello", "half"]
    assert found.held == slurms


# ---- the rules


def test_a_rule_launches_its_job_and_other_hardware_runs_none_again(checkout, snakemake):
    target = "results/minute/mixture2d/base/model.safetensors"

    def run(*arguments, **diff):
        overlay = {"overrides": {"mixture2d": {"methods": ["dmd2", "base"], **diff}}}
        (checkout / "own.yaml").write_text(json.dumps(overlay))
        files = ("--configfile", "config/minute.yaml", "own.yaml")
        done = snakemake(checkout, "-c1", target, *arguments, *files, "-p")
        text = done.stdout + done.stderr  # the report at the end finds no tables: no matter
        assert "Error in rule" not in text
        return text

    wide = {"nodes": 1, "processes": 2, "gpus": 0}
    assert "python -m pdmd fit --config" in run()
    assert "Nothing to be done" in run(hardware=wide)
    assert "pdmd fit" in run("-n", threads=2)  # control
    again = run("--forcerun", "fit_base", hardware=wide)
    assert "python -m pdmd launch --nodes 1 --processes 2 -- fit --config" in again
    assert (
        read_json(checkout / target.replace("model.safetensors", "metrics.json"))["processes"] == 2
    )
