import hashlib
import os
import signal

import pytest
import torch

from pdmd.errors import UserError
from pdmd.storage import (
    fingerprint,
    load_metadata,
    load_tensors,
    read_json,
    replacing,
    save_tensors,
    sha256,
    write_json,
    write_text,
)


class Died(Exception):
    pass


def die_while_writing(path):
    with replacing(path) as beside:
        beside.write_text("half of the n")
        raise Died


def test_a_writer_that_dies_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "table.csv"
    write_text(path, "old")
    with pytest.raises(Died):
        die_while_writing(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_dies_first_leaves_nothing(tmp_path):
    with pytest.raises(Died):
        die_while_writing(tmp_path / "table.csv")
    assert list(tmp_path.iterdir()) == []


def test_a_writer_killed_outright_leaves_the_old_file(tmp_path):
    """SIGKILL runs no `finally`: the temporary stays, and never has the file's name."""
    path = tmp_path / "table.csv"
    write_text(path, "old")
    child = os.fork()
    if child == 0:
        with replacing(path) as beside:
            beside.write_text("half of the n")
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"  # control: let live, it replaces


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "table.csv"
    write_text(path, "old")
    with replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_json_is_written_with_sorted_keys_in_folders_made_for_it(tmp_path):
    one, other = tmp_path / "a" / "b" / "one.json", tmp_path / "other.json"
    write_json(one, {"b": 1, "a": [1, 2]})
    write_json(other, {"a": [1, 2], "b": 1})
    assert one.read_bytes() == other.read_bytes()
    assert read_json(one) == {"a": [1, 2], "b": 1}


def test_tensors_and_metadata_come_back(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {"turned": torch.arange(6.0).view(2, 3).T, "labels": torch.tensor([3, 1])}
    save_tensors(path, tensors, {"seed": "4"})
    found = load_tensors(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert found["labels"].dtype == torch.int64
    assert load_metadata(path) == {"seed": "4"}
    assert list(tmp_path.iterdir()) == [path]


def test_equal_tensors_and_metadata_make_equal_bytes(tmp_path):
    """A digest or a comparison of two files of record must not depend on luck."""
    metadata = {"scenario": "digits", "method": "dmd2", "phase": "1", "seed": "4"}
    for number in range(8):
        save_tensors(tmp_path / str(number), {"a": torch.zeros(3), "b": torch.ones(2)}, metadata)
    assert len({sha256(path) for path in tmp_path.iterdir()}) == 1


def refusal(read, path):
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert "expected" in message
    return message


@pytest.mark.parametrize("kept", [0, 4, 30, -1])
def test_a_truncated_safetensors_file_is_refused_by_name(tmp_path, kept):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"x": torch.zeros(50)})
    load_tensors(path)  # control: whole
    path.write_bytes(path.read_bytes()[:kept])
    refusal(load_tensors, path)


@pytest.mark.parametrize("kept", [0, 10, -4])
def test_a_truncated_json_file_is_refused_by_name(tmp_path, kept):
    path = tmp_path / "x.json"
    write_json(path, {"accuracy": 0.5, "kid": 0.25})
    read_json(path)  # control: whole
    path.write_text(path.read_text()[:kept])
    refusal(read_json, path)


@pytest.mark.parametrize("read", [load_tensors, read_json])
def test_a_missing_file_is_refused_by_name(tmp_path, read):
    refusal(read, tmp_path / "nothing")


def test_sha256_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc" * 100_000)
    assert sha256(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()
    path.write_bytes(b"abc" * 99_999 + b"abd")
    assert sha256(path) != hashlib.sha256(b"abc" * 100_000).hexdigest()  # control: one byte


def test_a_fingerprint_does_not_depend_on_the_order_of_keys():
    one = {"a": {"x": 1, "y": [1, 2]}, "b": None}
    assert fingerprint(one) == fingerprint({"b": None, "a": {"y": [1, 2], "x": 1}})
    controls = [{"a": {"x": 1, "y": [2, 1]}, "b": None}, {"a": {"x": 2, "y": [1, 2]}, "b": None}]
    assert len({fingerprint(value) for value in (one, *controls)}) == 3


def test_files_are_as_open_as_the_umask_says(tmp_path):
    """A group shares its results; safetensors alone makes files of their owner only."""
    before = os.umask(0o027)
    try:
        save_tensors(tmp_path / "open.safetensors", {"x": torch.zeros(1)})
        write_text(tmp_path / "open.txt", "x")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
