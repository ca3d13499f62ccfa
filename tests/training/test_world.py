"""Training in several processes; the real ones are two that torchrun starts, over gloo."""

import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch
from configs import saving

from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.config.sections import Average, Fake, Fit, Model
from pdmd.data.sources import MixtureData
from pdmd.distill import PhaseTrainer, Recipe, spread
from pdmd.errors import UserError
from pdmd.files.storage import load_tensors, read_json, save_tensors, write_json
from pdmd.flow import RECTIFIED
from pdmd.metrics.prompted import over_processes
from pdmd.models.base import Space
from pdmd.models.build import build
from pdmd.models.experts import Experts
from pdmd.models.mixture import GaussianMixture
from pdmd.phases import split_phases
from pdmd.roles import Roles
from pdmd.rollout import exit_steps
from pdmd.stages.distill import distill_phase
from pdmd.stages.sample import sample_method
from pdmd.stages.stage import Stage
from pdmd.starts import NoiseStarts
from pdmd.streams import Stream
from pdmd.training.checkpoint import state_tensors
from pdmd.training.fit import FitTrainer
from pdmd.training.loop import train
from pdmd.training.optim import average_gradients
from pdmd.training.world import ALONE, World, join

SEEDS = [1, 2]
JOBS = [
    ("dmd1", 1),
    ("dmd", 1),
    ("dmd2", 1),
    ("dmd2-one-exit", 1),
    ("dmd2-normalised", 1),
    ("dmd2-adaptive", 1),
    ("phased2", 1),
    ("phased2", 2),
]
# An uneven number of samples for each exit step, in each share: 17 of 34 over 4 steps.
DIFF = {"methods": ["dmd2-normalised", "base", *dict(JOBS)], "distill": {"batch": 34}}
DIFF["methods"] = list(dict.fromkeys(DIFF["methods"]))
CLOCKS = {"seconds", "seconds_by_role", "peak_memory_mb"}

# Trains the jobs of a list, each rank keeping its weights of all roles beside the results.
SCRIPT = """
import json, os, sys
from pathlib import Path
from pdmd.stages import distill
from pdmd.training import world as processes
from pdmd.training.checkpoint import state_tensors
from pdmd.files.storage import save_tensors

jobs, out, averaging = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "averaging"
if not averaging:
    processes.World.average = lambda self, tensors: None
with processes.join() as world:
    for path, phase in jobs:
        config, trainers = json.loads(Path(path).read_text()), []
        original = distill.PhaseTrainer.__init__
        def keep(self, *arguments):
            original(self, *arguments)
            trainers.append(self)
        distill.PhaseTrainer.__init__ = keep
        distill.distill_phase(config, phase, [1, 2], world)
        distill.PhaseTrainer.__init__ = original
        name = f"{config['method']}-{phase}-rank{world.rank}.safetensors"
        tensors = state_tensors(trainers[0].states, trainers[0].optimizers)
        save_tensors(out / name, tensors)
"""


def torchrun(*arguments, processes=2, **options):
    """Start a command under torchrun, in this environment."""
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*program, "--nproc-per-node", str(processes), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    return subprocess.Popen(command, env=environment, text=True, **options)


def write_jobs(results, tiny, jobs, diff=DIFF):
    """Write the configs of jobs; [(file, phase)]."""
    parts, found = tiny(results, diff), []
    for method, phase in jobs:
        path = results / "jobs" / f"{method}.json"
        write_json(path, parts[f"{method}/config/distill.json"])
        found.append((str(path), phase))
    return found


def train_jobs(chain, folder, tiny, jobs, processes, averaging="averaging"):
    """Train jobs in so many processes, from a copy of the chain's base and bank."""
    results = folder / "results"
    shutil.copytree(chain, results)
    listed = json.dumps(write_jobs(results, tiny, jobs))
    (folder / "job.py").write_text(SCRIPT)
    process = torchrun(folder / "job.py", listed, folder, averaging, processes=processes)
    assert process.wait() == 0
    return folder


@pytest.fixture(scope="module")
def single(chain, tiny, tmp_path_factory):
    return train_jobs(chain, tmp_path_factory.mktemp("single"), tiny, JOBS, 1)


@pytest.fixture(scope="module")
def double(chain, tiny, tmp_path_factory):
    return train_jobs(chain, tmp_path_factory.mktemp("double"), tiny, JOBS, 2)


def relative(one, other):
    """The largest difference of two weight files, over the size of the tensor it is in."""
    return max(
        float((one[name] - other[name]).abs().max() / one[name].abs().max().clamp_min(1e-6))
        for name in one
        if not name.startswith("optimizer")
    )


def weights(folder, method, phase, rank=0):
    return load_tensors(folder / f"{method}-{phase}-rank{rank}.safetensors")


def records(results, method, phase, seed=1):
    path = results / f"mixture2d/{method}/seed{seed}/phase{phase}/stats.jsonl"
    lines = path.read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCKS} for line in lines]


# ---- two processes train what one trains


@pytest.mark.parametrize(("method", "phase"), JOBS)
def test_two_processes_end_in_the_weights_of_one(single, double, method, phase):
    one, two = weights(single, method, phase), weights(double, method, phase)
    assert relative(one, two) < 1e-5
    other = weights(single, "dmd" if method == "dmd2" else "dmd2", 1)
    assert relative(other, one) > 1e-2  # control: another method


@pytest.mark.parametrize(("method", "phase"), JOBS)
def test_all_processes_hold_the_same_bits(double, method, phase):
    first, second = (weights(double, method, phase, rank) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(name.startswith("optimizer.fake/") for name in first)


def test_without_averaging_each_process_goes_its_own_way(single, chain, tiny, tmp_path):
    """The control of both: gradients of one share are not those of the batch."""
    folder = train_jobs(chain, tmp_path, tiny, [("dmd2", 1)], 2, "none")
    first, second = (weights(folder, "dmd2", 1, rank) for rank in (0, 1))
    assert relative(first, second) > 1e-3
    assert relative(weights(single, "dmd2", 1), first) > 1e-3


@pytest.mark.parametrize(("method", "phase"), JOBS)
def test_logged_values_are_the_whole_batchs(single, double, method, phase):
    for seed in SEEDS:
        one, two = (records(f / "results", method, phase, seed) for f in (single, double))
        assert len(one) == len(two) > 3
        for mine, its in zip(one, two, strict=True):
            mine.pop("fake_lag"), its.pop("fake_lag")  # a small difference of two large losses
            forwards = mine.pop("forward_equivalents_by_role")
            assert its.pop("forward_equivalents_by_role") == pytest.approx(forwards)
            assert its == pytest.approx(mine, rel=1e-4, abs=1e-5)


def test_only_the_leading_process_writes_and_it_says_how_many_there_were(double):
    found = read_json(double / "results/mixture2d/dmd2/seed1/phase1/metrics.json")
    assert found["processes"] == 2
    assert found["restarts"] == 0  # each start is counted once
    assert not (double / "results/.state/mixture2d/dmd2").exists() or not list(
        (double / "results/.state/mixture2d/dmd2").iterdir()
    )


# ---- a signal to one process stops all


LONG = {"distill": {"updates": 500}, "save": {"checkpoint_every": 50, "snapshots": 4}}


def start(results, tiny, **options):
    ((path, phase),) = write_jobs(results, tiny, [("dmd2", 1)], LONG)
    job = ["distill", "--config", path, "--phase", str(phase), "--seeds", "1", "2"]
    return torchrun("-m", "pdmd", *job, **options)


def children(pid):
    """The child processes of a process, oldest first."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return sorted(found)


def rank_of(pid):
    """A worker's rank, as torchrun told it."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return int(dict(pair.split(b"=", 1) for pair in pairs if pair)[b"RANK"])


@pytest.fixture(scope="module")
def undisturbed(chain, tiny, tmp_path_factory):
    results = Path(shutil.copytree(chain, tmp_path_factory.mktemp("long") / "results"))
    assert start(results, tiny).wait() == 0
    return results


def expert(results, seed):
    return load_tensors(results / f"mixture2d/dmd2/seed{seed}/phase1/expert.safetensors")


@pytest.fixture(params=[0, 1])
def told(request, copied, tiny):
    """Results, step and stderr of a job of two, one of which was told to stop."""
    process = start(copied, tiny, stderr=subprocess.PIPE)
    state = copied / ".state/mixture2d/dmd2/phase1-seed1-2"
    while not list(state.glob("step-*")):
        assert process.poll() is None, "ended too soon"
        time.sleep(0.01)
    assert read_json(state / "progress.json")["launched"] == 2
    time.sleep(random.uniform(0, 0.3))
    (worker,) = (pid for pid in children(process.pid) if rank_of(pid) == request.param)
    os.kill(worker, signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode != 0
    done = max(int(path.name.removeprefix("step-")) for path in state.glob("step-*"))
    return copied, done, errors


@pytest.mark.long
@pytest.mark.slow
def test_a_signal_to_one_process_saves_once_and_stops_all(told, undisturbed, tiny):
    results, done, errors = told
    lines = [line for line in errors.splitlines() if "told to stop" in line]
    assert lines == [
        f"pdmd: mixture2d dmd2 phase 1: told to stop (SIGTERM): saved after update {done} of 500;"
        " start again to go on"
    ]
    assert "exitcode  : 143" in errors
    assert "exitcode  : -9" not in errors  # nobody had to be killed
    assert start(results, tiny).wait() == 0
    for seed in SEEDS:
        mine, its = expert(results, seed), expert(undisturbed, seed)
        assert all(torch.equal(mine[name], its[name]) for name in mine)
        assert records(results, "dmd2", 1, seed) == records(undisturbed, "dmd2", 1, seed)
    other = expert(undisturbed, 2)  # control: another seed
    assert not any(torch.equal(expert(results, 1)[name], other[name]) for name in other)


def test_one_process_goes_on_from_what_two_have_saved(chain, copied, tiny, single):
    """The number of processes may change between restarts."""
    ((path, _),) = write_jobs(copied, tiny, [("dmd2", 1)])
    config = read_json(Path(path))
    script = copied / "stop.py"
    script.write_text(
        "import json, os, signal, sys\n"
        "from pdmd import cli\n"
        "from pdmd.distill import PhaseTrainer\n"
        "original = PhaseTrainer.update\n"
        "def update(self, step):\n"
        "    if step == 17 and self.world.rank == 1:\n"
        "        os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    return original(self, step)\n"
        "PhaseTrainer.update = update\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    job = ["distill", "--config", path, "--phase", "1", "--seeds", "1", "2"]
    assert torchrun(script, *job, stderr=subprocess.DEVNULL).wait() != 0
    state = copied / ".state/mixture2d/dmd2/phase1-seed1-2"
    assert (state / "step-00000018").exists()
    distill_phase(config, 1, SEEDS)
    for seed in SEEDS:
        mine = expert(copied, seed)
        path = single / f"results/mixture2d/dmd2/seed{seed}/phase1/expert.safetensors"
        assert relative(load_tensors(path), mine) < 1e-5


# ---- two experts, each used by the processes that have rows for it


def in_processes(count, work, folder):
    """What work(world) -> tensors gives in each of so many forked processes, over gloo.

    They meet where this process listens, as torchrun's workers do at their agent: a port that is
    only looked up can be another's by the time it is used. It listens when all are forked: a lock
    that its thread holds, as of the resolver, would stay locked in a fork for ever.
    """
    folder.mkdir()
    told, port = os.pipe()
    children = []
    sys.stdout.flush()
    for rank in range(count):
        child = os.fork()
        if child == 0:
            try:
                meet_at(int(os.read(told, PORT)), rank, count)
                with join() as world:
                    save_tensors(folder / f"{rank}.safetensors", work(world))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        children.append(child)
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    os.write(port, str(store.port).rjust(PORT).encode() * count)
    for child in children:
        os.waitpid(child, 0)
    del store  # and its thread, before another fork
    for end in (told, port):
        os.close(end)
    return [load_tensors(folder / f"{rank}.safetensors") for rank in range(count)]


PORT = 5  # letters


def meet_at(port, rank, count):
    """Be one of so many processes, which an agent that listens at a port has started."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count}
    meeting |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
    values = {**meeting, "RANK": rank, "LOCAL_RANK": rank}
    os.environ.update({name: str(value) for name, value in values.items()})
    # A fork's pool of threads is no good: made anew here, before threads of a backward
    # pass race to do it, and one finds none ("Invalid thread pool").
    torch.set_num_threads(1)


def unpadded(world, parameters, loss):
    """The control: gradients that a process lacks are left out of its exchange."""
    loss = loss.detach().clone()
    world.average([*(p.grad for p in parameters if p.grad is not None), loss])
    return loss


def three_parameters(world, average):
    """The first used in process 0 alone, the second in process 1, the third nowhere."""
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    if world.rank < 2:
        parameters[world.rank].grad = torch.full((2,), 30.0 * (world.rank + 1))
    loss = average(world, parameters, torch.tensor([float(world.rank)]))
    found = {f"{i}": p.grad for i, p in enumerate(parameters) if p.grad is not None}
    return {**found, "loss": loss}


@pytest.mark.parametrize("processes", [2, 3])
def test_a_gradient_that_a_process_lacks_is_zero(tmp_path, processes):
    found = in_processes(
        processes, lambda w: three_parameters(w, average_gradients), tmp_path / "x"
    )
    for rank in range(processes):
        assert found[rank].keys() == {"0", "1", "loss"}  # nobody's gradient is nowhere
        assert found[rank]["0"].tolist() == [pytest.approx(30 / processes)] * 2
        assert found[rank]["1"].tolist() == [pytest.approx(60 / processes)] * 2
        assert found[rank]["loss"].tolist() == [pytest.approx((processes - 1) / 2)]


def test_gradients_left_out_of_an_exchange_mix_with_others(tmp_path):
    """The control: buffers of one size, and nobody is told."""
    first, second = in_processes(2, lambda w: three_parameters(w, unpadded), tmp_path / "x")
    assert first["0"].tolist() == second["1"].tolist() == [45.0] * 2


SMALL = Model(kind="mlp", width=8, depth=1)


def two_experts(trainable=True):
    """A network of two experts, high noise and low, that can be told apart."""
    high, low = (build(SMALL, Space((2,)), 1, i) for i in (1, 2))
    return Experts(high, low, 0.6).requires_grad_(trainable)


MIXTURE = GaussianMixture(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), torch.tensor([0.5, 0.5]), 0.3)


def fit_trainer(batch, world):
    recipe = Fit(updates=12, batch=batch, lr=1e-2, ema=0.9, time="uniform", weight_decay=0.1)
    return FitTrainer(RECTIFIED, recipe, two_experts(), MixtureData(MIXTURE), [3], None, world)


def phase_trainer(batch, world, region="row"):
    values = {
        "updates": 12,
        "budget": "expert",
        "batch": batch,
        "fake_updates": 2,
        "generator_lr": 2e-3,
        "fake_lr": 4e-3,
        "betas": (0.0, 0.999),
        "weight_decay": 0.1,
        "clip": 1.0,
        "average": Average(law="power", width=0.1),
        "decay": 0.1,
        "backward": "exit",
        "exits": "stratified",
        "target": "unbiased",
        "gradient": "normalised",
        "rollout": "fresh",
        "normaliser": "batch",
        "region": region,
        "fake": Fake(mode="full"),
        "checkpointing": False,
    }
    (phase,) = split_phases(4, (4,), 1.0, "nested", 0.02, switch=0.6)
    phase = dataclasses.replace(phase, floor=0.0)  # both experts take part
    starts = NoiseStarts(RECTIFIED, [], phase.times, (2,), lambda stream, batch: None)
    roles = Roles(MIXTURE, two_experts(), two_experts(), two_experts(False))
    return PhaseTrainer(RECTIFIED, phase, Recipe(**values), roles, starts, [3], world)


def region_trainer(batch, world):
    return phase_trainer(batch, world, "update")


def train_experts(make, batch, world):
    """Everything that a trainer holds after twelve updates, and which parameters each one used."""
    trainer = make(batch, world)
    used, step = [], torch.optim.AdamW.step

    def watch(self):
        used.append([p.grad is not None for group in self.param_groups for p in group["params"]])
        return step(self)

    for optimizer in trainer.optimizers.values():
        optimizer.step = watch.__get__(optimizer)
    values = [trainer.update(number) for number in range(12)]
    logged = {name: torch.stack([value[name] for value in values]) for name in values[0]}
    state = state_tensors(trainer.states, trainer.optimizers)
    return {**state, "used": torch.tensor(used), **{f"log/{k}": v for k, v in logged.items()}}


def apart_from(one, other):
    """The largest difference of any tensor, over its size."""
    return max(
        float((one[name].double() - other[name].double()).abs().max())
        / max(1e-3, float(one[name].double().abs().max()))
        for name in one
    )


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("make", [fit_trainer, phase_trainer, region_trainer])
def test_experts_on_several_processes_train_as_in_one(tmp_path, make, processes):
    """A sample a process: an expert's rows are in some processes, in all or in none."""
    single = train_experts(make, processes, ALONE)
    found = in_processes(processes, lambda w: train_experts(make, processes, w), tmp_path / "x")
    for name, tensor in found[0].items():
        assert all(torch.equal(tensor, other[name]) for other in found), name
    assert found[0].keys() == single.keys()
    assert apart_from(single, found[0]) < 1e-4
    # Adam leaves an expert without rows as it is, its decay and its count of steps included.
    assert torch.equal(found[0]["used"], single["used"])
    steps = [name for name in single if name.endswith("/step")]
    assert all(torch.equal(found[0][name], single[name]) for name in steps)
    assert not single["used"].all()  # control: there were such updates


@pytest.mark.parametrize("make", [fit_trainer, phase_trainer])
def test_experts_whose_gradients_are_left_out_train_otherwise(tmp_path, make, monkeypatch):
    """The control of the test above."""
    for module in ("distill", "training.fit"):
        monkeypatch.setattr(f"pdmd.{module}.average_gradients", unpadded)
    single = train_experts(make, 2, ALONE)
    found = in_processes(2, lambda w: train_experts(make, 2, w), tmp_path / "x")
    assert apart_from(single, found[0]) > 1e-2


def stopped_by(world, folder):
    """What training says in each process when one of them holds a weight that is not finite."""
    trainer = fit_trainer(2, world)
    if world.rank == 1:
        with torch.no_grad():
            next(trainer.average.parameters()).view(-1)[0] = float("inf")
    with pytest.raises(UserError) as caught:
        train(
            trainer,
            4,
            saving(2, 2, 1),
            folder,
            "x",
            "job",
            world,
        )
    return {"said": torch.tensor(list(str(caught.value).encode()))}


def test_weights_broken_in_one_process_stop_all_in_the_same_words(tmp_path):
    found = in_processes(2, lambda world: stopped_by(world, tmp_path / "state"), tmp_path / "x")
    said = {bytes(one["said"].tolist()).decode() for one in found}
    assert said == {"job: step 2: average: weights not finite; last good checkpoint: none"}
    assert not list((tmp_path / "state").glob("step-*"))


# ---- shares


@pytest.mark.parametrize("draw", ["normal", "uniform", "integers"])
def test_shares_are_parts_of_the_batch_that_one_process_draws(draw):
    def rows(world):
        stream = Stream(SEEDS, 3, "fake0", world.device, world.samples)
        return {
            "normal": lambda: stream.normal(6, (2,)),
            "uniform": lambda: stream.uniform(6),
            "integers": lambda: stream.integers(6, 100),
        }[draw]()

    whole = rows(ALONE)
    shares = [rows(World(rank, 3)) for rank in range(3)]
    for rank, share in enumerate(shares):
        assert torch.equal(share, World(rank, 3).share(whole, len(SEEDS)))
    assert sum(len(share) for share in shares) == len(whole)
    assert torch.cat(shares).unique(dim=0).shape == whole.unique(dim=0).shape


def test_every_share_has_its_part_of_every_exit_step(tiny, chain):
    stage = Stage(tiny(chain)["dmd2/config/distill.json"])
    whole = exit_steps(stage.phases[0], 32, 2)
    for rank in range(2):
        share = World(rank, 2).share(whole, 2)
        assert share.bincount().tolist() == [8] * 4
        assert share.tolist() == sorted(share.tolist())  # cheapest so
    assert whole[:32].bincount().tolist() == [16] * 2  # control: halves as they lie


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 6, 8])
def test_the_shares_of_a_lot_are_parts_of_one_batch(batch):
    """Every process draws the same lots, so that no row's exit is drawn twice or lost."""
    for steps, size in itertools.product((1, 2, 3, 4), (1, 2, 3)):
        if batch % size:
            continue
        (phase,) = split_phases(steps, (steps,), 1.0, "nested", 0.02)
        for step in range(20):
            shares = []
            for rank in range(size):
                world = World(rank, size)
                stream = Stream(SEEDS, step, "fake0", "cpu", world.samples)
                stream.normal(batch, (2,))  # what was drawn before decides nothing
                shares.append(world.share(exit_steps(phase, batch, 2, stream), 2).view(-1, 2))
            whole = exit_steps(phase, batch, 2, Stream(SEEDS, step, "fake0")).view(-1, 2)
            assert torch.equal(torch.cat(shares).sort(0).values, whole)
            assert {len(share) for share in shares} == {batch // size}
            assert all(torch.equal(share, share.sort(0).values) for share in shares)


def test_one_process_shares_nothing_out():
    x = torch.randn(6, 3)
    assert torch.equal(ALONE.share(x, 2), x)
    assert ALONE.mean(x) is x
    assert ALONE.agree(5) == 5
    loss = x.sum(0)
    assert torch.equal(average_gradients(ALONE, [], loss), loss)
    mean, deviation = spread(ALONE, x.view(3, 2, 3))
    assert torch.equal(mean, x.view(3, 2, 3).mean((0, 2)))
    assert deviation[0] == pytest.approx(float(x[0::2].std()))


def test_a_batch_without_equal_shares_is_refused(tiny):
    recipe = Fit(updates=2, batch=64, lr=1e-3, ema=0.9, time="uniform")
    model = build(SMALL, Space((2,)), 1, 0)
    with pytest.raises(UserError) as caught:
        FitTrainer(RECTIFIED, recipe, model, None, [0], None, World(1, 3))
    assert str(caught.value) == "fit.batch: 64: expected a multiple of the 3 processes"
    FitTrainer(RECTIFIED, recipe, model, None, [0], None, World(1, 4))  # control


def test_without_torchrun_there_is_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with join() as world:
        assert world == ALONE
        assert world.leads
    assert not World(1, 2).leads


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_one_line():
    with (
        pytest.raises(UserError, match="--device: cuda: expected a GPU for each process"),
        join("cuda"),
    ):
        pass


# ---- drawing in several processes


def drawn(world, config):
    """The samples of record of a method, as the leading process writes them."""
    sample_method(config, SEEDS, world)
    return {"rank": torch.tensor(world.rank)}


@pytest.mark.parametrize("processes", [2, 3])
def test_samples_of_several_processes_are_those_of_one(tiny, copied, tmp_path, processes):
    config = tiny(copied)["base/config/sample.json"]
    paths = Paths(read_run(config))
    sample_method(config, SEEDS)
    alone = {seed: load_tensors(paths.seed(seed, "samples.safetensors")) for seed in SEEDS}
    in_processes(processes, lambda world: drawn(world, config), tmp_path / "x")
    for seed in SEEDS:
        shared = load_tensors(paths.seed(seed, "samples.safetensors"))
        assert shared["x"].shape == alone[seed]["x"].shape
        torch.testing.assert_close(shared["x"], alone[seed]["x"], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(alone[SEEDS[0]]["x"], alone[SEEDS[1]]["x"])  # control


def gathered(world):
    rows = torch.arange(14.0).view(7, 2).flatten()  # seven samples of two runs
    return {"rows": world.gather(world.share(rows, 2), 7, 2)}


@pytest.mark.parametrize("processes", [2, 3])
def test_what_is_shared_is_put_together_again(tmp_path, processes):
    for found in in_processes(processes, gathered, tmp_path / "x"):
        assert found["rows"].tolist() == list(range(14))


@pytest.mark.parametrize("processes", [2, 3])
def test_rows_that_processes_share_out_come_back_in_order(tmp_path, processes):
    """Also where some have none: frozen networks and decoders are given whatever there is."""
    x = torch.arange(14.0).view(7, 2)

    def work(world):
        seen = []

        def network(rows):
            seen.append(len(rows))
            return 2 * rows + 1

        found = {str(count): over_processes(network, world)(x[:count]) for count in (1, 2, 7)}
        return {**found, "seen": torch.tensor(seen)}

    for rank, found in enumerate(in_processes(processes, work, tmp_path / "x")):
        for count in (1, 2, 7):
            assert torch.equal(found[str(count)], 2 * x[:count] + 1)
        shares = [len(range(rank, count, processes)) for count in (1, 2, 7)]
        assert found["seen"].tolist() == [max(1, share) for share in shares]


def test_one_process_gives_a_network_its_rows_as_they_are():
    network = torch.nn.Identity()
    assert over_processes(network, ALONE) is network
