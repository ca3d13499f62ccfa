import hashlib
import os
import signal

import pytest
import torch

from pdmd.errors import UserError
from pdmd.files.storage import (
    SHOWN,
    fingerprint,
    load_metadata,
    load_tensors,
    read_json,
    reading,
    replacing,
    save_pickled,
    save_tensors,
    sha256,
    shown,
    write_json,
    write_text,
    writing,
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


@pytest.mark.parametrize("read", [load_tensors, load_metadata, read_json, sha256])
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


# ---- one line for what a disk or a parser says


@pytest.mark.parametrize(
    ("kind", "keys", "text", "words"),
    [
        (dict, (), "[]", "[]: expected a mapping"),
        (list, (), "{}", "{}: expected a list"),
        (dict, ("a", "b"), '{"a": 1}', "no key 'b': expected a, b"),
        (dict, ("a",), "null", "null: expected a mapping"),
        (None, (), "[" * 100_000, "expected a readable JSON file"),
    ],
)
def test_json_of_something_else_is_refused(tmp_path, kind, keys, text, words):
    path = tmp_path / "x.json"
    path.write_text(text)
    assert words in refusal(lambda path: read_json(path, kind, keys), path)
    write_json(path, {"a": 1, "b": 2} if kind is not list else [])
    read_json(path, kind, keys)  # control


@pytest.mark.parametrize("metadata", ["", "[]", "3", '{"a": 3}'])
def test_metadata_of_something_else_are_refused(tmp_path, metadata):
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"pdmd": metadata})
    refusal(load_metadata, path)
    save_file({"x": torch.zeros(1)}, path)
    assert load_metadata(path) == {}  # control: none are none


def test_a_file_that_cannot_be_opened_says_why(tmp_path):
    """Of any such file safetensors says that it is not there."""
    assert "Is a directory" in refusal(load_tensors, tmp_path)


def test_reading_names_the_file_whatever_a_parser_raises(tmp_path):
    def parse(error):
        with reading(tmp_path / "x", "a fox"):
            raise error

    errors = [KeyError("kind"), RecursionError(), AssertionError("x" * 999), OSError(2, "None")]
    for error in errors:
        with pytest.raises(UserError) as caught:
            parse(error)
        assert str(caught.value).startswith(f"{tmp_path / 'x'}: {shown(error)}: expected a fox")
        assert 0 < len(shown(error)) <= SHOWN
    for own in (UserError("y: expected z"), KeyboardInterrupt("x")):  # control
        with pytest.raises(type(own), match=str(own)):
            parse(own)


def test_writing_names_its_own_file_alone(tmp_path):
    path = tmp_path / "a" / "x"

    def write(error):
        with writing(path):
            raise error

    for where in (None, str(path), str(path.with_name(".x.7"))):
        with pytest.raises(UserError, match=f"^{path}: No space"):
            write(OSError(28, "No space", where))
    with pytest.raises(UserError, match=f"^{path.parent}: Not a directory"):
        write(NotADirectoryError(20, "Not a directory", str(path.parent)))
    with pytest.raises(FileNotFoundError):  # control: a font, say
        write(FileNotFoundError(2, "No such file", "/nowhere/else"))


def test_what_torch_saves_is_whole_and_equal_for_equal_values(tmp_path):
    state = {"x": torch.arange(4.0)}
    for name in ("one.pt", "other.pt"):
        save_pickled(tmp_path / name, state)
    assert torch.equal(torch.load(tmp_path / "one.pt")["x"], state["x"])
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "other.pt").read_bytes()
    torch.save(state, tmp_path / "control.pt")
    torch.save(state, tmp_path / "control2.pt")
    assert (tmp_path / "control.pt").read_bytes() != (tmp_path / "control2.pt").read_bytes()


def test_text_is_utf8_in_every_locale(tmp_path):
    write_json(tmp_path / "x.json", {"name": "fox"})
    write_text(tmp_path / "x.txt", "Ünïcode → 狐")
    assert (tmp_path / "x.txt").read_bytes().decode("utf-8") == "Ünïcode → 狐"
    (tmp_path / "y.json").write_bytes('"狐"'.encode())
    assert read_json(tmp_path / "y.json") == "狐"
