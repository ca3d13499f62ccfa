"""Checkpoints that all processes of a job write together, while it trains on."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from configs import saving
from safetensors import safe_open
from safetensors.torch import save_file
from sharded import Case, contents, make
from test_parallel import distance
from test_world import in_processes

from pdmd.errors import UserError
from pdmd.models.tiny import write_tiny
from pdmd.training import loop, shards
from pdmd.training.parallel import mesh_of
from pdmd.training.shards import Rows, shard_name

CASE = Case("wan2.2-t2v-a14b", 2, "full", (("updates", 4),))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / CASE.family
    write_tiny(CASE.family, folder)
    return folder


def run(world, model, folder, updates=4, change=None):
    """Train a job with a checkpoint after every second update; what it ends with."""
    with mesh_of(world) as mesh:
        trainer = make(CASE, model, world, mesh)
        if change is not None:
            change(trainer)
        loop.train(trainer, updates, saving(1, 2, 1), folder, "this run", "a job", world)
        return contents(trainer)


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """(state folder, what it ended with) of two processes that were not disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    state = folder / "state"
    found = in_processes(2, lambda world: run(world, model, state), folder / "x")
    return state, found[0]


@pytest.fixture
def halted(whole, tmp_path):
    """A copy of the state as it was after two updates."""
    state = Path(shutil.copytree(whole[0], tmp_path / "state"))
    shutil.rmtree(state / "step-00000004")
    return state


def weights(found):
    return {name: one for name, one in found.items() if not name.startswith("gradient")}


# ---- rows of files


@pytest.fixture
def rows(tmp_path):
    """Seven rows in files of three, three, one and none."""
    whole, parts, start = torch.arange(14.0).view(7, 2), [], 0
    for number, count in enumerate((3, 3, 1, 0)):
        path = tmp_path / f"{number}.safetensors"
        save_file({"x": whole[start : start + count].clone()}, path)
        parts.append(safe_open(path, "pt").__enter__().get_slice("x"))
        start += count
    return Rows(parts, (7, 2)), whole


def test_rows_are_read_across_files(rows):
    found, whole = rows
    for first in range(7):
        for count in range(1, 8 - first):
            assert torch.equal(found.read(first, count), whole[first : first + count])
    target = torch.zeros(7, 2)
    found.into(target)
    assert torch.equal(target, whole)


# ---- going on


def test_each_process_writes_its_rows_without_pickle(whole):
    state, _ = whole
    assert sorted(path.name for path in state.glob("step-*")) == ["step-00000002", "step-00000004"]
    for folder in state.glob("step-*"):
        files = {path.name for path in folder.iterdir()}
        named = {shard_name(0, 2), shard_name(1, 2), "state.safetensors"}
        assert files == {*named, "manifest.json"}
        assert set(json.loads((folder / "manifest.json").read_text())["sha256"]) == named
        sizes = [(folder / shard_name(rank, 2)).stat().st_size for rank in (0, 1)]
        assert max(sizes) < 1.2 * min(sizes)


def test_the_same_number_of_processes_goes_on_exactly(whole, halted, model, tmp_path):
    found = in_processes(2, lambda world: run(world, model, halted), tmp_path / "x")
    for one in found:
        assert one.keys() == whole[1].keys()
        assert all(torch.equal(one[name], whole[1][name]) for name in one)


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 3])
def test_another_number_of_processes_goes_on(processes, whole, halted, model, tmp_path):
    """But for the order in which floats are added."""
    found = in_processes(processes, lambda w: run(w, model, halted), tmp_path / "x")
    for one in found:
        error, name = distance(weights(whole[1]), weights(one))
        assert error < 1, name


@pytest.mark.long
def test_what_starts_over_is_not_what_goes_on(whole, model, tmp_path):
    """The control of both: two updates of four, and other moments."""
    state = tmp_path / "state"
    (found,) = in_processes(1, lambda w: run(w, model, state, updates=2), tmp_path / "x")
    error, _ = distance(weights(whole[1]), weights(found))
    assert error > 10


@pytest.mark.long
@pytest.mark.parametrize("name", [shard_name(1, 2), "state.safetensors"])
def test_a_damaged_file_is_refused_by_name(name, whole, model, tmp_path, capfd):
    state = Path(shutil.copytree(whole[0], tmp_path / "state"))
    path = state / "step-00000004" / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = in_processes(2, lambda world: run(world, model, state), tmp_path / "x")
    assert all(torch.equal(found[0][name], whole[1][name]) for name in found[0])
    assert f"checkpoint refused: {path}: sha256" in capfd.readouterr().err


# ---- training goes on meanwhile


def test_updates_go_on_while_a_checkpoint_is_written(model, tmp_path, monkeypatch):
    """And what is kept is the state as it was, whatever they did to it."""
    original, told = shards.save_tensors, tmp_path / "told"

    def slow(path, tensors):
        told.open("a").write("begin\n")
        time.sleep(4)
        original(path, tensors)
        told.open("a").write("end\n")

    def tell(trainer):
        update = trainer.update

        def updated(step):
            values = update(step)
            told.open("a").write(f"{step}\n")
            return values

        trainer.update = updated

    state = tmp_path / "state"
    in_processes(1, lambda w: run(w, model, state, updates=2), tmp_path / "x")
    wanted = rows_of(state / "step-00000002")
    shutil.rmtree(state)
    monkeypatch.setattr(shards, "save_tensors", slow)
    in_processes(1, lambda w: run(w, model, state, change=tell), tmp_path / "y")
    words = told.read_text().split()
    assert words.index("2") < words.index("end")  # the third update, before the first is written
    assert all(torch.equal(wanted[n], t) for n, t in rows_of(state / "step-00000002").items())
    later = rows_of(state / "step-00000004")  # control
    assert any(not torch.equal(wanted[name], tensor) for name, tensor in later.items())


def rows_of(folder):
    with safe_open(folder / shard_name(0, 1), "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_what_goes_wrong_while_it_is_written_ends_the_job(model, tmp_path, monkeypatch):
    def full(path, tensors):
        raise UserError(f"{path}: No space left on device: expected room")

    monkeypatch.setattr(shards, "save_tensors", full)

    def said(world):
        try:
            run(world, model, tmp_path / "state")
        except UserError as error:
            return {"said": torch.tensor(list(str(error).encode()))}
        return {"said": torch.tensor([0])}

    (found,) = in_processes(1, said, tmp_path / "x")
    assert b"No space left on device" in bytes(found["said"].tolist())


@pytest.mark.parametrize(("fused", "device"), [(True, "meta"), (False, "cpu")])
def test_the_number_of_steps_lies_where_a_fused_optimizer_reads_it(fused, device):
    """As `Optimizer.load_state_dict` has it; on a GPU its kernel reads the number, too."""
    p = torch.nn.Parameter(torch.zeros(2, device="meta"))
    optimizer = torch.optim.AdamW([p])
    optimizer.defaults["fused"] = fused
    shards.restore_rows({"optimizer.x/0/step": torch.tensor(3.0)}, {}, {"x": optimizer})
    assert optimizer.state[p]["step"].device.type == device
