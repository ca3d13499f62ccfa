import errno
import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch

from pdmd.errors import UserError
from pdmd.files.storage import fingerprint
from pdmd.training.checkpoint import (
    MANIFEST,
    STATE,
    Checkpoints,
    Refused,
    alone,
    broken_role,
    check_fit,
    restore_tensors,
    state_tensors,
)


@pytest.fixture
def checkpoints(tmp_path):
    """Two checkpoints, after 10 and 20 updates; the state holds its own step."""
    found = Checkpoints(tmp_path / "state", "this run")
    for step in (10, 20):
        found.save(step, {"net/weight": torch.full((4,), float(step))}, {"seconds": step / 10})
    return found


def step_of(found):
    """The step of what was loaded; the tensors must belong to it."""
    step, tensors, extra = found
    assert tensors["net/weight"].tolist() == [float(step)] * 4
    assert extra["seconds"] == step / 10
    return step


def test_an_untouched_checkpoint_loads(checkpoints, capsys):
    assert step_of(checkpoints.latest()) == 20
    assert capsys.readouterr().err == ""


def test_no_folder_is_no_checkpoint(tmp_path):
    assert Checkpoints(tmp_path / "none", "this run").latest() is None


def test_the_newest_two_are_kept(checkpoints):
    for step in (30, 40, 50):
        checkpoints.save(step, {"net/weight": torch.zeros(4)}, {})
    assert [path.name for path in checkpoints.listed()] == ["step-00000040", "step-00000050"]


def test_saving_a_step_again_replaces_it(checkpoints):
    checkpoints.save(20, {"net/weight": torch.full((4,), 20.0)}, {"seconds": 2.0, "again": True})
    assert len(checkpoints.listed()) == 2
    assert checkpoints.latest()[2]["again"]


def flip_a_bit(folder):
    path = folder / STATE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return path


def cut_short(folder):
    path = folder / STATE
    path.write_bytes(path.read_bytes()[:-3])
    return path


def lose_the_state(folder):
    (folder / STATE).unlink()
    return folder / STATE


def lose_the_manifest(folder):
    (folder / MANIFEST).unlink()
    return folder / MANIFEST


def tear_the_manifest(folder):
    path = folder / MANIFEST
    path.write_text(path.read_text()[:-20])
    return path


def change_the_digest(folder):
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["sha256"][STATE] = "0" * 64
    path.write_text(json.dumps(manifest))
    return path


def another_config(folder):
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["fingerprint"] = "another run"
    path.write_text(json.dumps(manifest))
    return path


DAMAGES = [
    flip_a_bit,
    cut_short,
    lose_the_state,
    lose_the_manifest,
    tear_the_manifest,
    change_the_digest,
    another_config,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_checkpoint_is_refused_by_name_and_the_one_before_is_used(
    checkpoints, damage, capsys
):
    newest = checkpoints.listed()[-1]
    path = damage(newest)
    assert step_of(checkpoints.latest()) == 10
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "refused" in lines[0]
    assert str(path) in lines[0]


def test_with_no_good_checkpoint_left_there_is_none(checkpoints, capsys):
    damaged = [flip_a_bit(folder) for folder in checkpoints.listed()]
    assert checkpoints.latest() is None
    errors = capsys.readouterr().err
    assert all(str(path) in errors for path in damaged)


def test_every_flipped_bit_of_the_state_is_noticed(checkpoints, capsys):
    path = checkpoints.listed()[-1] / STATE
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(
            whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]
        )
        assert step_of(checkpoints.latest()) == 10, f"bit {place % 8} of byte {place}"
    path.write_bytes(whole)
    assert step_of(checkpoints.latest()) == 20  # control: put back, it is good again


def test_a_flipped_bit_of_the_manifest_changes_nothing_that_is_used(checkpoints, capsys):
    path = checkpoints.listed()[-1] / MANIFEST
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert step_of(checkpoints.latest()) in (10, 20), f"byte {place}"


@pytest.mark.parametrize("value", ["gone", None, [], {}, "x", True])
@pytest.mark.parametrize("name", ["step", "identity", "sha256", "extra"])
def test_a_manifest_of_another_form_is_refused(checkpoints, capsys, name, value):
    """Its digest is right; what it says is not what is asked for."""
    path = checkpoints.listed()[-1] / MANIFEST
    manifest = json.loads(path.read_text())
    manifest.pop("check")
    if value == "gone":
        manifest.pop(name)
    else:
        manifest[name] = value
    path.write_text(json.dumps({**manifest, "check": fingerprint(manifest)}))
    found = checkpoints.latest()
    if (name, value) == ("extra", {}):  # control: of its form
        assert found[0] == 20
        return
    assert step_of(found) == 10
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path.parent) in line
    assert "expected" in line


def test_a_checkpoint_that_its_job_refuses_is_not_used(checkpoints, capsys):
    def accept(found):
        if found[0] == 20:
            raise Refused("log: expected a whole one")

    assert step_of(checkpoints.latest(accept)) == 10
    assert capsys.readouterr().err == "checkpoint refused: log: expected a whole one\n"
    assert checkpoints.good.name == "step-00000010"


@pytest.mark.parametrize("name", [STATE, MANIFEST])
def test_a_checkpoint_that_cannot_be_read_is_no_reason_to_begin_again(
    checkpoints, monkeypatch, name
):
    """A file system that fails for a moment would cost all the updates."""
    newest, opened = checkpoints.listed()[-1], Path.open

    def fail(path, *arguments, **options):
        if path == newest / name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return opened(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        with pytest.raises(UserError) as caught:
            checkpoints.latest()
    assert str(caught.value) == f"{newest / name}: Input/output error: expected a readable file"
    assert step_of(checkpoints.latest()) == 20  # control: readable again


def test_what_lies_where_a_checkpoint_goes_gives_way(checkpoints, tmp_path):
    folder = checkpoints.folder
    (folder / "step-00000030").write_text("a file")
    (folder / "step-00000040").symlink_to(tmp_path / "nowhere")
    (folder / f".step-00000030.{os.getpid()}").write_text("a file")
    checkpoints.save(30, {"net/weight": torch.full((4,), 30.0)}, {"seconds": 3.0})
    assert step_of(checkpoints.latest()) == 30
    assert [path.name for path in checkpoints.listed()] == ["step-00000020", "step-00000030"]


def test_weights_that_fit_are_told_from_others():
    module = torch.nn.Linear(3, 2)
    flat = state_tensors({"net": module}, {})
    check_fit(
        {**flat, "log/loss": torch.zeros(3), "optimizer.net/0/step": torch.zeros(())},
        {"net": module},
    )
    for other in (
        {"net": torch.nn.Linear(3, 3)},
        {"net": torch.nn.Linear(3, 2, bias=False)},
        {"x": module},
    ):
        with pytest.raises(Refused, match="expected"):
            check_fit(flat, other)


def test_another_configs_run_does_not_see_these_checkpoints(checkpoints, capsys):
    assert Checkpoints(checkpoints.folder, "another run").latest() is None
    assert capsys.readouterr().err.count("identity") == 2


def test_another_configs_checkpoints_never_displace_this_runs(checkpoints, capsys):
    """The foreign ones are at later steps; the new run must still be able to resume."""
    fresh = Checkpoints(checkpoints.folder, "changed config")
    fresh.save(5, {"net/weight": torch.full((4,), 5.0)}, {"seconds": 0.5})
    found = fresh.latest()
    assert found is not None
    assert step_of(found) == 5


def test_temporaries_never_count(checkpoints, capsys):
    """What a kill in the middle of a save leaves, in each state that it can be in."""
    newest = checkpoints.listed()[-1]
    half = newest.with_name(".step-00000030.123")
    half.mkdir()
    (half / f".{STATE}.123").write_bytes(b"half a fi")
    shutil.copytree(newest, newest.with_name(".step-00000040.123"))
    assert step_of(checkpoints.latest()) == 20
    shutil.copytree(newest, newest.with_name("step-00000040"))
    assert checkpoints.listed()[-1].name == "step-00000040"  # control: renamed, it counts


def test_a_save_that_dies_leaves_the_checkpoints_before(checkpoints, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    for moment in ("write_json", "sha256"):
        with monkeypatch.context() as patch:
            patch.setattr(f"pdmd.training.checkpoint.{moment}", die)
            with pytest.raises(KeyboardInterrupt):
                checkpoints.save(30, {"net/weight": torch.zeros(4)}, {})
        assert step_of(checkpoints.latest()) == 20
    checkpoints.save(30, {"net/weight": torch.full((4,), 30.0)}, {"seconds": 3.0})
    assert step_of(checkpoints.latest()) == 30  # control: let live, it counts


def trained(seed):
    """A small module with a buffer, and AdamW after three updates."""
    torch.manual_seed(seed)
    module = torch.nn.Sequential(
        torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 2)
    )
    optimizer = torch.optim.AdamW(module.parameters(), 1e-2, betas=(0.0, 0.9), fused=True)
    for _ in range(3):
        advance(module, optimizer)
    return module, optimizer


def advance(module, optimizer):
    optimizer.zero_grad()
    module(torch.linspace(-1, 1, 12).view(4, 3)).square().sum().backward()
    optimizer.step()


def test_restoring_inverts_flattening_through_a_file_exactly(tmp_path):
    module, optimizer = trained(0)
    checkpoints = Checkpoints(tmp_path, "x")
    checkpoints.save(3, state_tensors({"net": module}, {"net": optimizer}), {})
    other, its_optimizer = trained(1)
    before = state_tensors({"net": other}, {"net": its_optimizer})
    wanted = state_tensors({"net": module}, {"net": optimizer})
    assert not torch.equal(before["net/0.weight"], wanted["net/0.weight"])  # control
    _, tensors, _ = checkpoints.latest()
    restore_tensors(tensors, {"net": other}, {"net": its_optimizer})
    found = state_tensors({"net": other}, {"net": its_optimizer})
    assert found.keys() == wanted.keys()
    assert {"optimizer.net/0/step", "optimizer.net/0/exp_avg_sq"} <= found.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == tensor.dtype, name


def test_the_next_update_after_restoring_is_the_same(tmp_path):
    module, optimizer = trained(0)
    flat = {n: t.clone() for n, t in state_tensors({"net": module}, {"net": optimizer}).items()}
    advance(module, optimizer)
    other, its_optimizer = trained(1)
    restore_tensors(flat, {"net": other}, {"net": its_optimizer})
    advance(other, its_optimizer)
    assert all(
        torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True)
    )
    forgetful, fresh = trained(1)
    restore_tensors(flat, {"net": forgetful}, {})  # control: without the optimiser's state
    advance(forgetful, fresh)
    assert not torch.equal(forgetful[0].weight, module[0].weight)


def test_restored_optimiser_state_shares_no_memory_with_what_it_came_from():
    module, optimizer = trained(0)
    flat = {n: t.clone() for n, t in state_tensors({"net": module}, {"net": optimizer}).items()}
    kept = {name: tensor.clone() for name, tensor in flat.items()}
    restore_tensors(flat, {"net": module}, {"net": optimizer})
    advance(module, optimizer)
    assert all(torch.equal(flat[name], kept[name]) for name in kept)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_broken_role_is_found(value):
    modules = {"fake": torch.nn.Linear(2, 2), "generator": torch.nn.Linear(2, 2)}
    assert broken_role(modules) is None  # control: finite
    with torch.no_grad():
        modules["generator"].bias[1] = value
    assert broken_role(modules) == "generator"


# ---- one process at a time


def test_a_second_process_waits_for_the_first_to_drop_its_state(tmp_path):
    """The orphan of a killed driver may still train when its job is started again."""
    folder = tmp_path / "state"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with alone(folder):
            os.write(writer, b"x")
            time.sleep(0.5)
            (folder / "done").touch()
            shutil.rmtree(folder)
        os._exit(0)
    os.read(reader, 1)
    start = time.monotonic()
    with alone(folder):
        assert time.monotonic() - start > 0.3
        assert not (folder / "done").exists()
        assert (folder / "lock").exists()  # locked anew, not the file that was dropped
    os.waitpid(child, 0)


@pytest.mark.parametrize("put", ["folder", "dangling link"])
def test_what_lies_in_the_place_of_a_lock_gives_way(tmp_path, put):
    path = tmp_path / "state/lock"
    path.parent.mkdir()
    if put == "folder":
        (path / "inside").mkdir(parents=True)
    else:
        path.symlink_to(tmp_path / "no/where")
    with alone(tmp_path / "state"):
        assert path.is_file()


@pytest.mark.parametrize("name", ["state", "state/phase1"])
def test_a_file_in_the_place_of_a_state_folder_is_one_line(tmp_path, name):
    (tmp_path / "state").write_text("")
    with pytest.raises(UserError) as caught, alone(tmp_path / name):
        pass
    assert str(caught.value).startswith(f"{tmp_path / name}: no folder: expected")


def test_a_folder_that_is_dropped_while_it_is_entered_is_made_again(tmp_path, monkeypatch):
    """The process before drops it between our making of it and the opening of its lock."""
    opened = os.open

    def drop_first(path, *arguments):
        monkeypatch.setattr(os, "open", opened)
        shutil.rmtree(tmp_path / "state")
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", drop_first)
    with alone(tmp_path / "state"):
        assert (tmp_path / "state/lock").is_file()


def test_a_file_system_without_locks_is_one_line(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(UserError, match="expected a file system with locks"), alone(tmp_path):
        pass


def test_a_free_state_folder_is_entered_at_once(tmp_path, capsys):
    """The control."""
    for _ in range(2):
        with alone(tmp_path / "state"):
            pass
    assert capsys.readouterr().err == ""
