import copy
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from configs import saving

from pdmd import cli
from pdmd.config.sections import Fit, Model
from pdmd.data.sources import MixtureData
from pdmd.distill import PhaseTrainer
from pdmd.errors import UserError
from pdmd.files.storage import load_tensors, read_json, write_json, write_text
from pdmd.flow import RECTIFIED
from pdmd.models.base import Guided, Space
from pdmd.models.build import build, unstack_state
from pdmd.models.mixture import GaussianMixture
from pdmd.roles import Roles
from pdmd.stages import fit as fitting
from pdmd.stages.bank import make_bank
from pdmd.stages.distill import phase_recipe, starts_of
from pdmd.stages.stage import Stage, holding
from pdmd.training import stop
from pdmd.training.checkpoint import MANIFEST, STATE, Checkpoints
from pdmd.training.cost import Cost
from pdmd.training.fit import FitTrainer
from pdmd.training.journal import Journal
from pdmd.training.loop import snapshot_steps, train, write_runs
from pdmd.training.world import ALONE

SEEDS = [1, 2]
LONG = {"distill": {"updates": 1800}, "save": {"snapshots": 4}}
CLOCKS = {"seconds", "seconds_by_role", "peak_memory_mb"}  # what two equal runs may differ in


def phase_folder(results, seed, number=2, method="phased2"):
    return results / "mixture2d" / method / f"seed{seed}" / f"phase{number}"


def contents(path):
    """The header and the bytes of every tensor of a safetensors file.

    The header is compared as JSON: test_storage.py has the claim that its bytes are the same too.
    """
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def weights_of(results, seed, number=2, method="phased2"):
    """The tensors of an expert, as bytes."""
    return contents(phase_folder(results, seed, number, method) / "expert.safetensors")[1]


def records(results, seed, number=2, method="phased2"):
    """The stats of one run, without what a clock decides."""
    lines = (phase_folder(results, seed, number, method) / "stats.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCKS} for line in lines]


def assert_same_outputs(one, other, number=2, method="phased2"):
    for seed in SEEDS:
        mine, its = (phase_folder(results, seed, number, method) for results in (one, other))
        for name in ("expert.safetensors", "snapshots.safetensors"):
            assert contents(mine / name) == contents(its / name), (seed, name)
        assert records(one, seed, number, method) == records(other, seed, number, method)


def arguments(results, tiny, diff, number=2, method="phased2"):
    """The command that trains a phase, its config written as `pdmd resolve` would."""
    name = f"{method}/config/distill.json"
    path = results / "mixture2d" / name
    write_json(path, tiny(results, diff)[name])
    return ["distill", "--config", str(path), "--phase", str(number), "--seeds", *map(str, SEEDS)]


def state_folder(results, stage="phase2", method="phased2"):
    return results / ".state" / "mixture2d" / method / f"{stage}-seed1-2"


# ---- a killed run ends in the same weights


def fork(command):
    """`python -m pdmd <command>` in a forked process: no second import of torch."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os._exit(cli.main(command))
    return child


def assert_runs(child):
    """A child that has ended was not there to be killed."""
    assert os.waitpid(child, os.WNOHANG) == (0, 0), "ended too soon: more updates are needed"


def kill(child):
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])


def newest(folder):
    return max((path.name for path in folder.glob("step-*")), default="")


def kill_at_random_moments(command, state, kills, dice, longest):
    """Start, kill and start again until done; a kill comes after some new checkpoint.

    Args:
        longest: seconds between that checkpoint and the kill, at most.
    """
    done = 0
    while True:
        before, child = newest(state), fork(command)
        if done == kills:
            assert os.waitpid(child, 0)[1] == 0
            return
        while newest(state) <= before:
            assert_runs(child)
            time.sleep(0.002)
        time.sleep(dice.uniform(0, longest))
        assert_runs(child)
        kill(child)
        done += 1
        print(f"kill {done}: after {newest(state)}")


@pytest.fixture(scope="module")
def uninterrupted(chain, tmp_path_factory, tiny):
    """Results of the second phase from `python -m pdmd` in one go."""
    results = Path(shutil.copytree(chain, tmp_path_factory.mktemp("whole") / "results"))
    command = arguments(results, tiny, LONG)
    subprocess.run([sys.executable, "-m", "pdmd", *command], check=True)
    return results


@pytest.mark.long
def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(uninterrupted, copied, tiny):
    luck = random.SystemRandom().randrange(10**6)
    print(f"dice: random.Random({luck})")
    kills, state = 6, state_folder(copied)
    seconds = read_json(phase_folder(uninterrupted, 1) / "metrics.json")["seconds"]
    command, dice = arguments(copied, tiny, LONG), random.Random(luck)
    kill_at_random_moments(command, state, kills, dice, seconds / (kills + 3))
    assert_same_outputs(copied, uninterrupted)
    steps = [record["step"] for record in records(copied, 1)]
    assert steps == list(range(5, 901, 5))
    for seed in SEEDS:
        assert read_json(phase_folder(copied, seed) / "metrics.json")["restarts"] == kills
        assert read_json(phase_folder(uninterrupted, seed) / "metrics.json")["restarts"] == 0
    assert not state.exists()


def test_another_seed_ends_in_other_bytes(uninterrupted):
    """The control of the kill test: its comparison can fail."""
    assert weights_of(uninterrupted, 1) != weights_of(uninterrupted, 2)
    one, other = (
        load_tensors(phase_folder(uninterrupted, s) / "expert.safetensors") for s in SEEDS
    )
    assert not any(torch.equal(one[name], other[name]) for name in one)
    assert records(uninterrupted, 1) != records(uninterrupted, 2)


@pytest.mark.long
def test_a_kill_before_the_first_checkpoint_costs_nothing(uninterrupted, copied, tiny):
    command, state = arguments(copied, tiny, LONG), state_folder(copied)
    child = fork(command)
    while not (state / "stats.jsonl").exists():
        assert_runs(child)
        time.sleep(0.001)
    kill(child)
    assert newest(state) <= "step-00000010"
    assert cli.main(command) == 0
    assert_same_outputs(copied, uninterrupted)


SHORT = {"distill": {"updates": 60}}


class Stop(Exception):
    """Stands in for a kill, at an update of the test's choosing."""


def stop_at(monkeypatch, step, trainer=PhaseTrainer):
    """Make a trainer die at the start of an update, once."""
    original = trainer.update

    def update(self, number):
        if number == step:
            raise Stop
        return original(self, number)

    monkeypatch.setattr(trainer, "update", update)


def run_phase(results, tiny, diff, number=2, method="phased2"):
    assert cli.main(arguments(results, tiny, diff, number, method)) == 0


@pytest.fixture(scope="module")
def short(chain, tmp_path_factory, tiny):
    """Results of the second phase after 60 updates in one go."""
    results = Path(shutil.copytree(chain, tmp_path_factory.mktemp("short") / "results"))
    run_phase(results, tiny, SHORT)
    return results


def stopped(results, tiny, diff=SHORT, step=27):
    """A job that died in update `step`."""
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(Stop):
            run_phase(results, tiny, diff)
    return state_folder(results)


def test_what_a_kill_leaves_while_a_checkpoint_is_written_is_not_used(short, copied, tiny):
    state = stopped(copied, tiny)
    last = state / newest(state)
    half = state / ".step-00000030.99999"
    half.mkdir()
    whole = (last / "state.safetensors").read_bytes()
    (half / ".state.safetensors.99999").write_bytes(whole[: len(whole) // 2])
    (state / ".progress").write_text('{"label": "mix')
    run_phase(copied, tiny, SHORT)
    assert_same_outputs(copied, short)


@pytest.mark.parametrize("damage", ["flipped bit", "lost manifest", "lost folder"])
def test_a_bad_newest_checkpoint_costs_updates_and_nothing_else(short, copied, tiny, damage, capfd):
    state = stopped(copied, tiny)
    last = state / newest(state)
    assert last.name == "step-00000020"
    if damage == "flipped bit":
        data = bytearray((last / "state.safetensors").read_bytes())
        data[len(data) // 2] ^= 4
        (last / "state.safetensors").write_bytes(data)
    elif damage == "lost manifest":
        (last / "manifest.json").unlink()
    else:
        shutil.rmtree(last)
    run_phase(copied, tiny, SHORT)
    assert (str(last) in capfd.readouterr().err) == (damage != "lost folder")
    assert_same_outputs(copied, short)


def test_a_checkpoint_of_other_numbers_gives_other_bytes(short, copied, tiny):
    """The control: resuming does read the checkpoint."""
    state = stopped(copied, tiny)
    digest = read_json(state / newest(state) / "manifest.json")["identity"]
    step, tensors, extra = Checkpoints(state, digest).latest()
    tensors["generator/out.bias"] += 1e-3
    Checkpoints(state, digest).save(step, tensors, extra)
    run_phase(copied, tiny, SHORT)
    assert weights_of(copied, 1) != weights_of(short, 1)


def test_a_torn_last_line_of_the_log_is_written_again(short, copied, tiny):
    state = stopped(copied, tiny)
    with (state / "stats.jsonl").open("a") as handle:
        handle.write('{"step": 30, "seconds": 0.1, "generator_lo')
    run_phase(copied, tiny, SHORT)
    assert_same_outputs(copied, short)


def test_a_kill_while_the_log_is_rewound_loses_no_record(short, copied, tiny, monkeypatch):
    state = stopped(copied, tiny)

    def die(*_):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("pdmd.training.loop.write_text", die)
        with pytest.raises(Stop):
            run_phase(copied, tiny, SHORT)
    assert len((state / "stats.jsonl").read_text().splitlines()) >= 4
    run_phase(copied, tiny, SHORT)
    assert_same_outputs(copied, short)


def test_a_kill_while_the_outputs_are_written_is_made_good(short, copied, tiny, monkeypatch):
    def die(path, text):
        if path.parent.name == "phase2":  # an output, not the log of the state
            raise Stop
        write_text(path, text)

    with monkeypatch.context() as patch:
        patch.setattr("pdmd.training.loop.write_text", die)  # after the first seed's weights
        with pytest.raises(Stop):
            run_phase(copied, tiny, SHORT)
    assert (phase_folder(copied, 1) / "expert.safetensors").exists()
    assert not (phase_folder(copied, 2) / "expert.safetensors").exists()
    monkeypatch.setattr(PhaseTrainer, "update", None)  # no update is made again
    run_phase(copied, tiny, SHORT)
    assert_same_outputs(copied, short)


def test_a_changed_config_starts_again(short, copied, tiny, capfd):
    stopped(copied, tiny, {**SHORT, "distill": {"updates": 60, "generator_lr": 0.5}})
    run_phase(copied, tiny, SHORT)
    assert "identity" in capfd.readouterr().err
    assert_same_outputs(copied, short)


def test_changed_inputs_start_again(short, copied, tiny, capfd):
    """Weights of the first phase that changed under a half-trained second phase."""
    state = stopped(copied, tiny)
    expert = phase_folder(copied, 1, 1) / "expert.safetensors"
    shutil.copy(phase_folder(copied, 2, 1) / "expert.safetensors", expert)
    expert.with_name("provenance.json").unlink()  # it would say that they are others
    make_bank(tiny(copied, SHORT)["phased2/config/bank.json"], 2, SEEDS)
    run_phase(copied, tiny, SHORT)
    assert f"{state}/step-00000020/manifest.json: identity" in capfd.readouterr().err
    assert weights_of(copied, 1) != weights_of(short, 1)


def test_a_fit_also_resumes_in_the_same_bytes(tmp_path, tiny, monkeypatch):
    outputs = []
    for name, step in (("whole", None), ("stopped", random.randrange(11, 40))):
        results = tmp_path / name
        config = tiny(results)["config/base.json"]
        if step is not None:
            print(f"stopped at update {step}")
            with monkeypatch.context() as patch:
                stop_at(patch, step, fitting.FitTrainer)
                with pytest.raises(Stop):
                    fitting.fit_base(config)
            assert not (results / "mixture2d" / "base" / "model.safetensors").exists()
        fitting.fit_base(config)
        outputs.append(results / "mixture2d" / "base")
    whole, again = outputs
    for name in ("model.safetensors", "snapshots.safetensors"):
        assert contents(whole / name) == contents(again / name)
    assert [read_json(out / "metrics.json")["restarts"] for out in outputs] == [0, 1]
    losses = [
        [(r["step"], r["loss"]) for r in map(json.loads, (out / "stats.jsonl").open())]
        for out in outputs
    ]
    assert losses[0] == losses[1]
    early = load_tensors(whole / "snapshots.safetensors")["10/out.bias"]
    assert not torch.equal(early, load_tensors(again / "model.safetensors")["out.bias"])  # control


# ---- a run that is told to stop saves, and goes on in the same bytes


def signalled_at(monkeypatch, step, *numbers):
    """Signals arrive in the middle of an update."""
    original = PhaseTrainer.update

    def update(self, number):
        if number == step:
            for which in numbers:
                os.kill(os.getpid(), which)
        return original(self, number)

    monkeypatch.setattr(PhaseTrainer, "update", update)


def exit_status(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def told_to_stop(results, tiny, *numbers, diff=SHORT, step=26):
    """A job that was signalled in update `step`; the state it left."""
    with pytest.MonkeyPatch.context() as patch:
        signalled_at(patch, step, *numbers)
        assert exit_status(fork(arguments(results, tiny, diff))) == 143
    return state_folder(results)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.long)]
)
def test_a_run_told_to_stop_saves_says_so_and_goes_on_in_the_same_bytes(
    uninterrupted, copied, tiny, number
):
    command, state = arguments(copied, tiny, LONG), state_folder(copied)
    job = subprocess.Popen(
        [sys.executable, "-m", "pdmd", *command], stderr=subprocess.PIPE, text=True
    )
    while newest(state) <= "step-00000100":
        assert job.poll() is None, "ended too soon"
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.1))
    job.send_signal(number)
    _, errors = job.communicate()
    assert job.returncode == 143
    done = int(newest(state).removeprefix("step-"))
    assert 100 < done < 900
    assert errors == (
        f"pdmd: mixture2d phased2 phase 2: told to stop ({number.name}): saved after update {done}"
        " of 900; start again to go on\n"
    )
    assert cli.main(command) == 0
    assert_same_outputs(copied, uninterrupted)
    assert weights_of(copied, 1) != weights_of(uninterrupted, 2)  # control: another seed
    assert read_json(phase_folder(copied, 1) / "metrics.json")["restarts"] == 1


@pytest.mark.parametrize("step", range(24, 29))
def test_a_stop_anywhere_between_two_records_leaves_the_log_as_it_was(short, copied, tiny, step):
    state = told_to_stop(copied, tiny, signal.SIGTERM, step=step)
    assert newest(state) == f"step-{step + 1:08d}"
    run_phase(copied, tiny, SHORT)
    assert_same_outputs(copied, short)


def test_a_stop_in_the_last_update_finds_the_job_done(short, copied, tiny, monkeypatch):
    signalled_at(monkeypatch, 29, signal.SIGTERM)
    assert exit_status(fork(arguments(copied, tiny, SHORT))) == 0
    assert_same_outputs(copied, short)


def test_a_log_that_forgets_its_open_interval_differs(short, copied, tiny):
    """The control: the comparison of logs sees what a checkpoint keeps of them."""
    state = told_to_stop(copied, tiny, signal.SIGTERM)
    digest = read_json(state / newest(state) / "manifest.json")["identity"]
    step, tensors, extra = Checkpoints(state, digest).latest()
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("log/")}
    assert len(tensors) - len(kept) == 7
    assert tensors["log/fake_loss"].shape == (2, len(SEEDS))  # updates 26 and 27
    Checkpoints(state, digest).save(step, kept, extra)
    run_phase(copied, tiny, SHORT)
    assert weights_of(copied, 1) == weights_of(short, 1)
    differ = [a != b for a, b in zip(records(copied, 1), records(short, 1), strict=True)]
    assert differ == [False] * 5 + [True]


def test_a_second_signal_changes_nothing(short, copied, tiny, capfd):
    state = told_to_stop(copied, tiny, signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1)
    (line,) = capfd.readouterr().err.splitlines()
    assert "(SIGUSR1): saved after update 27 of 30" in line
    assert newest(state) == "step-00000027"
    run_phase(copied, tiny, SHORT)
    assert_same_outputs(copied, short)


def test_a_killed_run_goes_on_from_where_an_earlier_one_was_told_to_stop(short, copied, tiny):
    told_to_stop(copied, tiny, signal.SIGTERM, step=21)
    state = stopped(copied, tiny, step=24)
    assert newest(state) == "step-00000022"
    run_phase(copied, tiny, SHORT)
    assert_same_outputs(copied, short)


def test_a_fit_that_is_told_to_stop_resumes_too(tmp_path, tiny, monkeypatch):
    whole, again = (tiny(tmp_path / name)["config/base.json"] for name in ("whole", "again"))
    fitting.fit_base(whole)
    path = tmp_path / "again" / "base.json"
    write_json(path, again)
    with monkeypatch.context() as patch:
        original = fitting.FitTrainer.update

        def update(self, step):
            if step == 12:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, step)

        patch.setattr(fitting.FitTrainer, "update", update)
        assert exit_status(fork(["fit", "--config", str(path)])) == 143
    assert not (tmp_path / "again/mixture2d/base/model.safetensors").exists()
    fitting.fit_base(again)
    one, other = (tmp_path / name / "mixture2d/base" for name in ("whole", "again"))
    for name in ("model.safetensors", "snapshots.safetensors"):
        assert contents(one / name) == contents(other / name)


def handlers():
    return [signal.getsignal(number) for number in stop.SIGNALS]


def test_handlers_are_there_while_the_loop_runs_and_only_then(tmp_path, chain, tiny):
    before, seen = handlers(), []
    trainer = trainer_for(tiny, chain, "dmd1", 1, SEEDS)
    original = trainer.update

    def update(step):
        seen.append(handlers())
        return original(step)

    trainer.update = update
    train(
        trainer,
        2,
        saving(1, 1, 1),
        tmp_path / "main",
        "x",
        "job",
    )
    assert handlers() == before
    assert all(during != before for during in seen)
    seen.clear()
    arguments = (
        trainer,
        2,
        saving(1, 1, 1),
        tmp_path / "thread",
        "x",
        "job",
    )
    thread = threading.Thread(target=train, args=arguments)
    thread.start()
    thread.join()
    assert len(seen) == 2
    assert all(during == before for during in seen)  # a thread cannot take signals


def test_handlers_are_put_back_after_a_mistake():
    before = handlers()
    with pytest.raises(UserError), stop.Listener():
        raise UserError("wrong")
    assert handlers() == before


def test_a_signal_after_the_stop_does_not_change_the_exit_status():
    def listen():
        with stop.Listener() as told:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert told.received == signal.SIGUSR1
            raise stop.Stopped("enough")

    before = handlers()
    try:
        with pytest.raises(stop.Stopped):
            listen()
        os.kill(os.getpid(), signal.SIGTERM)  # would end the tests
        assert handlers() == [signal.SIG_IGN] * 2
    finally:
        for number, handler in zip(stop.SIGNALS, before, strict=True):
            signal.signal(number, handler)


LATE = """
import os, signal, sys
from pdmd import cli
from pdmd.stages import stage
from pdmd.training import stop
clear = stage.clear_state

def late(folder):
    clear(folder)
    os.kill(os.getpid(), signal.SIGTERM)

stage.clear_state = late
if sys.argv.pop(1) == "own":
    stop.own_process()
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("process", "status"), [("own", 0), ("shared", -signal.SIGTERM)])
def test_a_signal_after_all_is_written_loses_nothing(copied, tiny, tmp_path, process, status):
    """Its status would say that the job failed, and Snakemake would drop what it wrote."""
    command = [sys.executable, "-c", LATE, process, *arguments(copied, tiny, SHORT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert (phase_folder(copied, 2, 1) / "provenance.json").exists()


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "12"}, "12"),
        (
            {"SLURM_JOB_ID": "14", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "1"},
            "12_1",
        ),
    ],
)
def test_watchers_learn_the_host_and_the_slurm_job(tmp_path, monkeypatch, environment, job):
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Journal(tmp_path, "job", 10, "x").progress(3)
    found = read_json(tmp_path / "progress.json")
    assert (found["host"], found["slurm_job"]) == (socket.gethostname(), job)
    assert "launched" not in found
    Journal(tmp_path, "job", 10, "x", processes=4).progress(3)
    assert read_json(tmp_path / "progress.json")["launched"] == 4


# ---- what is not finite stops the run


def poisoned(monkeypatch, role, step, value=float("nan")):
    """One weight of a role turns bad just before an update."""
    original = PhaseTrainer.update

    def update(self, number):
        if number == step:
            with torch.no_grad():
                self.parameters[role][0].view(-1)[0] = value
        return original(self, number)

    monkeypatch.setattr(PhaseTrainer, "update", update)


@pytest.mark.parametrize("role", ["fake", "generator"])
def test_a_loss_that_is_not_finite_stops_with_step_role_and_last_good_checkpoint(
    copied, tiny, monkeypatch, capsys, role
):
    poisoned(monkeypatch, role, 27)
    assert cli.main(arguments(copied, tiny, SHORT)) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    state = state_folder(copied)
    for part in ("mixture2d phased2 phase 2", "step 27", "not finite", f"{state}/step-00000020"):
        assert part in errors[0]
    assert "fake" in errors[0]  # a broken generator shows in the fake score's loss first
    for seed in SEEDS:
        folder = phase_folder(copied, seed)
        assert not list(folder.glob("*.safetensors"))
        assert not list(folder.glob("*.jsonl"))
        assert not (folder / "metrics.json").exists()
    monkeypatch.undo()
    run_phase(copied, tiny, SHORT)  # control: mended, it goes on from there


def test_a_learning_rate_far_too_high_stops_too(copied, tiny, capsys):
    diff = {"distill": {"generator_lr": 1e6, "fake_lr": 1e6}}
    assert cli.main(arguments(copied, tiny, diff)) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "not finite" in error
    assert "step 0" in error
    assert "checkpoint: none" in error


def test_weights_that_are_not_finite_are_never_checkpointed(copied, tiny, monkeypatch, capsys):
    """A weight that no loss sees: only the check before the checkpoint can find it."""
    original = PhaseTrainer.update

    def update(self, step):
        record = original(self, step)
        if step == 25:
            with torch.no_grad():
                self.roles.average.out.bias[0] = float("inf")
        return record

    monkeypatch.setattr(PhaseTrainer, "update", update)
    assert cli.main(arguments(copied, tiny, SHORT)) == 2
    (error,) = capsys.readouterr().err.splitlines()
    state = state_folder(copied)
    for part in ("step 30", "average", "weights not finite", f"{state}/step-00000020"):
        assert part in error
    assert newest(state) == "step-00000020"


def test_the_last_good_checkpoint_named_is_a_good_one(copied, tiny, monkeypatch, capsys):
    state = stopped(copied, tiny)
    bad = state / newest(state)
    (bad / "manifest.json").unlink()
    poisoned(monkeypatch, "fake", 12)
    assert cli.main(arguments(copied, tiny, SHORT)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "step-00000010" in error
    assert bad.name not in error


# ---- the log


def test_a_record_holds_losses_norms_lag_spread_seconds_and_costs(short):
    lines = (phase_folder(short, 1) / "stats.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [record["step"] for record in found] == list(range(5, 31, 5))
    for record in found:
        numbers = {name: value for name, value in record.items() if not isinstance(value, dict)}
        assert numbers.keys() == {
            "step",
            "seconds",
            "generator_loss",
            "generator_gradient_norm",
            "fake_loss",
            "fake_gradient_norm",
            "fake_lag",
            "sample_mean",
            "sample_std",
            "peak_memory_mb",
        }
        assert all(isinstance(value, int | float) for value in numbers.values())
        roles = {"rollout", "fake", "generator", "teacher"}
        assert record["seconds_by_role"].keys() == roles
        assert record["forward_equivalents_by_role"].keys() == roles
        assert record["sample_std"] > 0
        assert record["peak_memory_mb"] > 10
    for name in ("seconds", "step", "peak_memory_mb"):
        values = [record[name] for record in found]
        assert values == sorted(values)
    totals = [sum(record["seconds_by_role"].values()) for record in found]
    assert totals == sorted(totals)
    assert totals[-1] <= found[-1]["seconds"]


def test_seconds_and_costs_add_up_over_restarts(short, copied, tiny):
    stopped(copied, tiny, step=10)
    run_phase(copied, tiny, SHORT)
    again, whole = (read_json(phase_folder(r, 1) / "metrics.json") for r in (copied, short))
    name = "forward_equivalents_by_role"
    assert again[name] == whole[name]
    assert again["seconds"] >= sum(again["seconds_by_role"].values()) > 0
    assert again["restarts"] == 1


def test_snapshots_are_dense_early_and_end_at_the_end():
    steps = snapshot_steps(10, 1000)
    assert steps[-1] == 1000
    assert steps[:2] == [0, 10]  # before training, too
    assert len(steps) == 11
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    assert gaps == sorted(gaps)
    assert snapshot_steps(50, 3) == [0, 1, 2, 3]


# ---- accounting


class Counting(torch.nn.Module):
    """A network that counts what it is asked for, in units of a full batch."""

    def __init__(self, network, batch):
        super().__init__()
        self.network, self.batch, self.forwards, self.null = network, batch, 0.0, None

    def forward(self, x, t, condition=None):
        out = self.network(x, t, condition)
        share = len(x) / self.batch
        self.forwards += share
        if out.requires_grad:
            out.register_hook(lambda _: self._backwards(share))
        return out

    def _backwards(self, share):
        self.forwards += 2 * share


def trainer_for(tiny, results, method, number, seeds, diff=None, count=False):
    """The trainer of a phase, as the stage makes it; with `count`, every network counts."""
    config = tiny(results, diff)[f"{method}/config/distill.json"]
    stage = Stage(config)
    phase = stage.phases[number - 1]
    recipe = phase_recipe(stage.run, phase)
    n = len(seeds)
    networks = [stage.exact(), *(stage.network(n, trainable=i < 2) for i in range(3))]
    starts = starts_of(stage, phase, seeds)
    if count:
        batch = recipe.batch * n
        networks = [Counting(network, batch) for network in networks[:3]] + networks[3:]
        if hasattr(starts, "experts"):
            starts.experts = [Counting(expert, batch) for expert in starts.experts]
    teacher, *others = networks
    roles = Roles(Guided(teacher, 1.0, None), *others)
    streams = [seed * 1000 + number for seed in seeds]
    return PhaseTrainer(stage.flow, phase, recipe, roles, starts, streams)


CASES = [
    ("dmd1", 1),
    ("dmd", 1),
    ("dmd2", 1),
    ("phased2", 1),
    ("phased2", 2),
    ("phased2-online", 2),
]


@pytest.mark.parametrize(
    ("method", "number", "batch"), [*((*case, 32) for case in CASES), ("dmd2", 1, 6)]
)
def test_forward_equivalents_are_the_calls_really_made(copied, tiny, method, number, batch):
    for folder in ("phased2-online",):
        shutil.copytree(copied / "mixture2d/phased2", copied / "mixture2d" / folder)
    diff = {"distill": {"batch": batch}}
    trainer = trainer_for(tiny, copied, method, number, SEEDS, diff, count=True)
    for step in range(3):
        trainer.update(step)
    charged, roles = trainer.cost.forwards, trainer.roles
    online = {id(e): e.forwards for e in getattr(trainer.starts, "experts", [])}
    made = [roles.teacher.field, roles.fake, roles.generator]
    assert charged["teacher"] == made[0].forwards
    assert charged["fake"] == pytest.approx(made[1].forwards)
    assert charged["rollout"] + charged["generator"] == pytest.approx(
        made[2].forwards + sum(online.values())
    )
    assert sum(charged.values()) > 3 * 2 * 3  # control: fake updates alone cost that


def test_what_an_update_costs(copied, tiny):
    """Full batches an update, two fake updates: the numbers of the cost table by hand."""
    shutil.copytree(copied / "mixture2d/phased2", copied / "mixture2d/phased2-online")
    costs = {}
    for method, number in CASES:
        trainer = trainer_for(tiny, copied, method, number, SEEDS)
        trainer.update(0)
        forwards = trainer.cost.forwards
        costs[method, number] = (forwards["rollout"], forwards["generator"])
    assert costs == {
        ("dmd1", 1): (2 * 1, 3),
        ("dmd", 1): (2 * 4, 12),
        ("dmd2", 1): (2 * 2.5, 4.5),  # exits 0, 1, 2, 3 evenly: 1 + 3/4 + 2/4 + 1/4 calls
        ("phased2", 1): (2 * 1.5, 3.5),
        ("phased2", 2): (2 * 1.5, 3.5),
        ("phased2-online", 2): (2 * 3.5, 5.5),
    }


def test_a_ledger_keeps_roles_apart():
    cost = Cost()
    with cost.time("fake"):
        time.sleep(0.01)
    cost.count("fake", 3)
    cost.count("teacher", 2)
    cost.count("fake", 1)
    assert cost.forwards == {"fake": 4, "teacher": 2}
    assert 0.01 <= cost.seconds["fake"] < 0.5
    assert "teacher" not in cost.seconds


# ---- runs that train together


def stacked_states(trainer, run):
    return {
        f"{role}/{name}": tensor
        for role, module in trainer.states.items()
        for name, tensor in unstack_state(module.state_dict(), run).items()
    }


def apart(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


UNEVEN = {"distill": {"batch": 6}}  # no multiple of four steps: lots decide who leaves where


@pytest.mark.parametrize(
    ("method", "diff"),
    [("dmd1", None), ("dmd", None), ("dmd2", None), ("phased2", None), ("dmd2", UNEVEN)],
)
def test_a_run_in_a_stack_of_three_trains_as_it_would_alone(chain, tiny, method, diff):
    together = trainer_for(tiny, chain, method, 1, [1, 2, 3], diff)
    alone = {seed: trainer_for(tiny, chain, method, 1, [seed], diff) for seed in (1, 2, 3)}
    for step in range(4):
        stacked = together.update(step)
        for run, trainer in enumerate(alone.values()):
            record = trainer.update(step)
            for name, values in record.items():
                assert float(values[0]) == pytest.approx(
                    float(stacked[name][run]), rel=1e-3, abs=1e-4
                )
    for run, trainer in enumerate(alone.values()):
        own = stacked_states(trainer, 0)
        assert apart(own, stacked_states(together, run)) < 2e-5
        assert apart(own, stacked_states(together, (run + 1) % 3)) > 1e-3  # control: another run


def test_one_exit_an_update_also_trains_several_runs(chain, tiny):
    """Each run draws its own exit, so that leading rows of the batch leave at different steps."""
    together = trainer_for(tiny, chain, "dmd2-one-exit", 1, [1, 2, 3])
    alone = trainer_for(tiny, chain, "dmd2-one-exit", 1, [1])
    for step in range(8):
        together.update(step)
        alone.update(step)
    assert apart(stacked_states(alone, 0), stacked_states(together, 0)) < 1e-4


def test_one_exit_an_update_trains_a_run_alone(chain, tiny):
    trainer = trainer_for(tiny, chain, "dmd2-one-exit", 1, [1])
    for step in range(8):
        assert torch.isfinite(trainer.update(step)["generator_loss"]).all()


def test_the_law_of_exits_is_the_one_asked_for(chain, tiny, monkeypatch):
    from pdmd import distill

    left = []
    simulate = distill.simulate_to_exit
    monkeypatch.setattr(
        distill, "simulate_to_exit", lambda *a, **k: left.append(a[5]) or simulate(*a, **k)
    )
    for method, wanted in (("dmd2-last-exit", {3}), ("dmd2", {0, 1, 2, 3})):
        left.clear()
        trainer_for(tiny, chain, method, 1, [1]).update(0)
        assert left
        assert {int(i) for exits in left for i in exits} == wanted


# ---- phases


def test_earlier_experts_stay_frozen(short, chain, copied, tiny):
    for seed in SEEDS:
        assert weights_of(short, seed, 1) == weights_of(chain, seed, 1)
        assert weights_of(short, seed, 1) != weights_of(short, seed, 2)  # control: phase 2 moved
    shutil.copytree(copied / "mixture2d/phased2", copied / "mixture2d/phased2-online")
    trainer = trainer_for(tiny, copied, "phased2-online", 2, SEEDS)
    before = [copy.deepcopy(expert.state_dict()) for expert in trainer.starts.experts]
    for step in range(3):
        trainer.update(step)
    for expert, was in zip(trainer.starts.experts, before, strict=True):
        assert all(torch.equal(tensor, was[name]) for name, tensor in expert.state_dict().items())
        assert not any(p.requires_grad or p.grad is not None for p in expert.parameters())


@pytest.mark.parametrize("number", [1, 2])
def test_every_phase_starts_from_the_base_network(copied, tiny, monkeypatch, number):
    """The fake score, the expert and its average; not from the phase before."""
    seen = {}

    def catch(self, step):
        seen.update({role: copy.deepcopy(m.state_dict()) for role, m in self.states.items()})
        raise Stop

    monkeypatch.setattr(PhaseTrainer, "update", catch)
    with pytest.raises(Stop):
        run_phase(copied, tiny, None, number)
    base = load_tensors(copied / "mixture2d" / "base" / "model.safetensors")
    previous = load_tensors(phase_folder(copied, 1, 1) / "expert.safetensors")
    assert seen.keys() == {"fake", "generator", "average"}
    for state in seen.values():
        for run in range(len(SEEDS)):
            assert all(torch.equal(t, base[n]) for n, t in unstack_state(state, run).items())
        assert apart(unstack_state(state, 0), previous) > 1e-4  # control


def test_only_the_fake_score_and_the_generator_are_trained(chain, tiny):
    trainer = trainer_for(tiny, chain, "dmd2", 1, SEEDS)
    assert trainer.optimizers.keys() == {"fake", "generator"}
    base = copy.deepcopy(trainer.roles.average.state_dict())
    assert not any(p.requires_grad for p in trainer.roles.average.parameters())
    trainer.update(0)
    moved = {role: apart(module.state_dict(), base) for role, module in trainer.states.items()}
    assert 0 < moved["average"] == moved["generator"]  # of the start nothing is left
    trainer.update(1)
    moved = {role: apart(module.state_dict(), base) for role, module in trainer.states.items()}
    assert 0 < moved["average"] < moved["generator"]


def test_a_finished_job_without_updates_left_runs_none(tmp_path, chain, tiny):
    """The loop itself: asked again for what it has done, it reads and does not train."""
    trainer = trainer_for(tiny, chain, "dmd1", 1, SEEDS)
    first = train(trainer, 4, saving(2, 2, 1), tmp_path, "x", "job")
    again = trainer_for(tiny, chain, "dmd1", 1, SEEDS)
    second = train(again, 4, saving(2, 2, 1), tmp_path, "x", "job")
    assert second.log == first.log
    assert second.snapshots == first.snapshots
    assert apart(stacked_states(trainer, 0), stacked_states(again, 0)) == 0
    assert second.summary["restarts"] == first.summary["restarts"] + 1


def test_a_user_error_is_what_a_command_prints(copied, tiny, capsys):
    command = arguments(copied, tiny, SHORT)
    shutil.rmtree(copied / "mixture2d" / "base")
    assert cli.main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pdmd: ")
    assert "base/model.safetensors" in line
    with pytest.raises(UserError):
        load_tensors(copied / "mixture2d" / "base" / "model.safetensors")


def test_a_phase_that_a_method_does_not_have_is_refused_in_one_line(copied, tiny, capsys):
    command = arguments(copied, tiny, SHORT)
    command[command.index("--phase") + 1] = "3"
    assert cli.main(command) == 2
    assert capsys.readouterr().err == "pdmd: --phase: 3: expected 1 to 2\n"


# ---- damage to the state folder, before a start and while a job runs


STEPS = 12


def small_job(state, out):
    """A whole job on a mixture: twelve updates, snapshots after 1, 5 and 12, records, outputs."""
    mixture = GaussianMixture(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), torch.ones(2) / 2, 0.3)
    model = build(Model(kind="mlp", width=4, depth=1), Space((2,)), 2, 0)
    recipe = Fit(updates=STEPS, batch=4, lr=1e-2, ema=0.9, time="uniform")
    trainer = FitTrainer(RECTIFIED, recipe, model, MixtureData(mixture), SEEDS)
    with holding(state, ALONE):
        finished = train(
            trainer,
            STEPS,
            saving(2, 3, 3),
            state,
            "f" * 64,
            "job",
        )
        folders = {seed: out / str(seed) for seed in SEEDS}
        write_runs(finished, trainer.average.state_dict(), unstack_state, folders, {})


def outcome(out):
    """All that a job leaves, clocks apart."""
    found = {}
    for seed in SEEDS:
        for name in ("expert.safetensors", "snapshots.safetensors"):
            found[seed, name] = contents(out / str(seed) / name)
        lines = (out / str(seed) / "stats.jsonl").read_text().splitlines()
        found[seed] = [{k: v for k, v in json.loads(x).items() if k not in CLOCKS} for x in lines]
    return found


@contextmanager
def moments(events):
    """Let things happen at the start of some updates."""
    original = FitTrainer.update

    def update(self, step):
        if step in events:
            events.pop(step)()
        return original(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FitTrainer, "update", update)
        yield


def die():
    raise Stop


def delete(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def put_a_folder(path):
    delete(path)
    (path / "inside").mkdir(parents=True)


def put_a_file(path):
    delete(path)
    path.write_text("{}")


def put_a_dangling_link(path):
    delete(path)
    path.symlink_to(path.parent / "no/where")


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def flip(path):
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) * 2 // 3] ^= 2
    path.write_bytes(data)


def append(path):
    with path.open("ab") as handle:
        handle.write(b"\xff[1, {")


def read_only(path):
    path.chmod(0o555 if path.is_dir() else 0o444)


def replaced(text):
    def replace(path):
        path.write_text(text)

    replace.__name__ = f"replaced by {text[:9]}"
    return replace


OF_ALL = [delete, put_a_file, put_a_folder, put_a_dangling_link, read_only]
OF_FILES = [truncate, empty, flip, append, *map(replaced, ["{}", "[]", "[" * 9999])]
CHECKPOINTS = [f"step-{step:08d}" for step in (6, 9)]
LEFT = {  # by a kill in the eleventh update
    *("lock", "starts", "progress.json", "stats.jsonl", *CHECKPOINTS),
    *(f"snapshot-ffffffffffff-{step:08d}.safetensors" for step in (0, 1, 5)),
    *(f"{folder}/{name}" for folder in CHECKPOINTS for name in (STATE, MANIFEST)),
}


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unharmed")
    small_job(folder / "state", folder / "out")
    return outcome(folder / "out")


def harmed(name, damages):
    """What does these damages to a file of a state folder that there is."""

    def harm(state):
        path = state / name
        for damage in damages:
            if path.exists() and (damage in OF_ALL or path.is_file()):
                damage(path)

    return harm


HARMS = [
    *((f"{d.__name__} {name}", harmed(name, [d])) for name in sorted(LEFT) for d in OF_ALL),
    *((f"{d.__name__} {name}", harmed(name, [d])) for name in sorted(LEFT) for d in OF_FILES),
    ("delete all", harmed("", [delete])),
    ("delete what is in it", lambda state: [delete(path) for path in state.iterdir()]),
    ("empty every file", lambda state: [empty(p) for p in state.rglob("*") if p.is_file()]),
    ("flip a bit of every file", lambda state: [flip(p) for p in state.rglob("*") if p.is_file()]),
]


@pytest.fixture
def quick(monkeypatch):
    """A disk that need not be waited for: nothing here loses its power."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def ends_right(folder, wanted, events):
    """Run a job, again after each stop and refusal, to the right end; the refusals, one a line."""
    refused = []
    for _ in range(4):
        try:
            with moments(events):
                small_job(folder / "state", folder / "out")
        except Stop:
            continue
        except UserError as error:
            refused.append(str(error))
            continue
        assert outcome(folder / "out") == wanted
        assert not (folder / "state").exists()
        return refused
    pytest.fail(f"never ended: {refused}")


def assert_one_line(refused, folder):
    """At most one refusal, which names a file in few words."""
    assert len(refused) <= 1
    for line in refused:
        assert str(folder / "state") in line
        assert "expected" in line
        assert "\n" not in line
        assert len(line.replace(str(folder), "")) < 300


def test_a_job_that_is_killed_leaves_these_files(tmp_path, unharmed):
    """What is damaged below is all there is."""
    with pytest.raises(Stop), moments({10: die}):
        small_job(tmp_path / "state", tmp_path / "out")
    found = {str(path.relative_to(tmp_path / "state")) for path in tmp_path.rglob("state/**/*")}
    assert found == LEFT
    assert ends_right(tmp_path, unharmed, {}) == []


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    with pytest.raises(Stop), moments({10: die}):
        small_job(folder / "state", folder / "out")
    return folder / "state"


@pytest.mark.parametrize(("what", "harm"), HARMS, ids=[what for what, _ in HARMS])
def test_a_job_whose_state_is_damaged_ends_in_the_same_bytes(
    tmp_path, unharmed, killed, quick, what, harm
):
    """Damaged before a start, while it runs, and while it runs with a kill afterwards."""
    before, during, both = (tmp_path / name for name in ("before", "during", "both"))
    shutil.copytree(killed, before / "state")
    harm(before / "state")
    assert ends_right(before, unharmed, {}) == []  # refused checkpoints are not a failure
    moment = 10 if CHECKPOINTS[1] in what else 8  # before or after a checkpoint is made
    events = {moment: lambda: harm(during / "state")}
    assert_one_line(ends_right(during, unharmed, events), during)
    events = {moment: lambda: harm(both / "state"), 11: die}
    assert_one_line(ends_right(both, unharmed, events), both)


def test_a_trainer_that_starts_elsewhere_ends_elsewhere(tmp_path, unharmed, killed):
    """The control: the comparison sees one weight of a checkpoint that is believed."""
    shutil.copytree(killed, tmp_path / "state")
    checkpoints = Checkpoints(tmp_path / "state", "f" * 64)
    step, tensors, extra = checkpoints.latest()
    tensors["model/out.bias"] += 1e-3
    checkpoints.save(step, tensors, extra)
    small_job(tmp_path / "state", tmp_path / "out")
    assert outcome(tmp_path / "out") != unharmed


def test_a_checkpoint_is_renamed_after_what_it_relies_on_is_flushed(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace

    def flush(descriptor):
        done.append(("flushed", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def rename(source, target):
        done.append(("renamed", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    with pytest.raises(Stop), moments({10: die}):
        small_job(tmp_path / "state", tmp_path / "out")
    places = [i for i, what in enumerate(done) if what[1].startswith("step-")]
    assert len(places) == 3
    for before, place in itertools.pairwise([0, *places]):
        assert ("flushed", "stats.jsonl") in done[before:place]
    (snapshot,) = (i for i, what in enumerate(done) if what[1].endswith("-00000005.safetensors"))
    assert places[0] < snapshot < places[1]  # renamed itself when it was flushed
    assert done[snapshot - 1][1].startswith(".snapshot-")


def test_a_checkpoint_of_another_version_is_refused(tmp_path, unharmed, killed, capsys, quick):
    """Whole and unharmed, but what it holds is not what is asked for."""
    changes = {
        "no journal": lambda tensors, extra: extra.pop("journal"),
        "no log": lambda tensors, extra: extra["journal"].pop("log"),
        "other snapshots": lambda tensors, extra: extra["journal"]["snapshots"].pop("1"),
        "no list": lambda tensors, extra: extra.update(journal=[3]),
        "a string": lambda tensors, extra: extra.update(seconds="3"),
        "no seconds": lambda tensors, extra: extra.pop("seconds"),
        "no roles": lambda tensors, extra: extra.update(seconds_by_role=None),
        "no numbers": lambda tensors, extra: extra.update(forwards_by_role={"model": None}),
        "no weight": lambda tensors, extra: tensors.pop("model/out.bias"),
        "another": lambda tensors, extra: tensors.update({"model/more": torch.zeros(2)}),
        "a shape": lambda tensors, extra: tensors.update({"model/out.bias": torch.zeros(2)}),
    }
    for name, change in changes.items():
        folder = tmp_path / name
        shutil.copytree(killed, folder / "state")
        checkpoints = Checkpoints(folder / "state", "f" * 64)
        step, tensors, extra = checkpoints.latest()
        change(tensors, extra)
        checkpoints.save(step, tensors, extra)
        assert ends_right(folder, unharmed, {}) == []
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("checkpoint refused: ")
        assert "expected" in line


def test_a_state_folder_that_goes_in_the_middle_of_a_write_is_one_line(
    tmp_path, unharmed, monkeypatch, quick
):
    state, count = tmp_path / "state", itertools.count()

    def drop(path):
        if next(count) == 3:
            shutil.rmtree(state)  # after the folder was made sure of
        elif path.exists():
            path.unlink()

    monkeypatch.setattr("pdmd.training.journal.drop", drop)
    with pytest.raises(UserError) as caught:
        small_job(state, tmp_path / "out")
    gone = f"{state}/.progress: No such file or directory"
    assert str(caught.value) == f"{gone}: expected it to stay while a job runs; start again"
    assert ends_right(tmp_path, unharmed, {}) == []


def test_a_file_that_is_missing_elsewhere_is_not_blamed_on_the_state_folder(tmp_path):
    """The control of the test above."""

    def read():
        (tmp_path / "elsewhere").read_text()

    with pytest.raises(FileNotFoundError), moments({3: read}):
        small_job(tmp_path / "state", tmp_path / "out")
