"""One job's damaged files are that job's trouble alone."""

import os
import pickle
import random

import cloudpickle
import pytest

from snakemake_executor_plugin_submitit.runner import read_result

TRACEBACK = 'Traceback (most recent call last):\n  File "train.py", line 3\nJobFailed: status 3\n'
RESULTS = [
    ("success", {"restarts": 1, "host": "node-17"}),
    ("error", TRACEBACK),
    ("error", TRACEBACK * 40),  # one that needs a frame and a long string
]


def dumped(value):
    """As submitit writes it."""
    return cloudpickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def damages(data):
    """Every bit flipped, bytes replaced, dropped and doubled, truncations, and some at random."""
    head = min(len(data), 400)
    for place in range(head):
        others = [data[place] ^ (1 << bit) for bit in range(8)]
        for byte in {*others, 0, 255, *b".)(}]uastbcRiIpqrj\x80\x81\x93\x94\x95\x8a\x8b\x96\x97"}:
            yield data[:place] + bytes([byte]) + data[place + 1 :]
        yield data[:place]
        yield data[:place] + data[place + 1 :]
        yield data[:place] + data[place : place + 1] + data[place:]
    dice = random.Random(0)
    for _ in range(2000):
        broken = bytearray(data)
        for _ in range(dice.randint(1, 6)):
            broken[dice.randrange(len(data))] = dice.randrange(256)
        yield bytes(broken)
    yield from (bytes(len(data)), b"", data + data, data[::-1])


@pytest.mark.parametrize("result", RESULTS)
def test_a_result_damaged_in_any_way_is_none_or_still_a_result(tmp_path, result):
    path, data = tmp_path / "result", dumped(result)
    counts = {"none": 0, "read": 0}
    for broken in damages(data):
        path.write_bytes(broken)
        found = read_result(path)
        counts["none" if found is None else "read"] += 1
        if found is not None:
            assert found[0] == result[0], "a damage never turns an error into a success"
            assert isinstance(found[1], type(result[1]))
    assert counts["none"] > 1000
    assert counts["read"] > 100, "the control: a letter in a text may change"
    path.write_bytes(data)
    assert read_result(path) == result


def test_the_bit_that_blinded_the_driver(tmp_path):
    path, data = tmp_path / "result", bytearray(dumped(RESULTS[0]))
    for bit in range(8):
        data[12] ^= 1 << bit
        path.write_bytes(data)
        assert read_result(path) is None
        data[12] ^= 1 << bit


@pytest.mark.parametrize(
    "value",
    [
        ("done", {}),
        ("success",),
        ("success", {}, 3),
        ("success", None),
        ("error", {"a": 1}),
        (["success"], {}),
        "success",
        3,
        None,
        {"success": 1, "error": 2},
    ],
)
def test_a_result_of_another_shape_is_none(tmp_path, value):
    path = tmp_path / "result"
    path.write_bytes(dumped(value))
    assert read_result(path) is None


class Touch:
    """A pickle that leaves a file behind when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_reading_a_result_runs_no_code(tmp_path):
    path, mark = tmp_path / "result", tmp_path / "mark"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(("success", {"host": Touch(mark)}), protocol))
        assert read_result(path) is None
        assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists(), "the control: pickle itself would have run it"


def test_what_cannot_be_read_is_none(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with (tmp_path / "huge").open("wb") as handle:
        handle.truncate(1 << 40)
    (tmp_path / "under").write_text("")
    for name in ("none", "folder", "pipe", "loop", "huge", "under/result"):
        assert read_result(tmp_path / name) is None
