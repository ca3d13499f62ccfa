"""Rows of many files are one tensor; a killed job goes on behind its last shard."""

import pytest
import torch

from pdmd.data.shards import Shards, join_shards, keep_shards, make_shards, open_shards
from pdmd.errors import UserError

ROWS = torch.arange(23 * 3.0).view(23, 3)


def make(first, end):
    return {"x": ROWS[first:end].clone()}


def written(folder, rows=5):
    make_shards(folder / "state", len(ROWS), rows, make)
    keep_shards(folder / "state", folder / "kept", len(ROWS), {"seed": 1})
    return folder / "kept"


def opened(folder):
    index, shards = open_shards(folder, ["seed"])
    return index, Shards([one["x"] for one in shards])


@pytest.mark.parametrize("rows", [1, 5, 23, 40])
def test_any_rows_come_from_whatever_shards_hold_them(rows, tmp_path):
    index, x = opened(written(tmp_path, rows))
    assert (index["rows"], len(x), x.shape) == (23, 23, (23, 3))
    numbers = torch.tensor([[22, 0, 7], [7, 4, 5]])
    assert torch.equal(x[numbers], ROWS[numbers])
    with pytest.raises(IndexError):
        x[torch.tensor([23])]


def test_a_killed_job_goes_on_behind_its_last_shard(tmp_path):
    made = []

    def killed(first, end):
        if first >= 10:
            raise KeyboardInterrupt
        made.append(first)
        return make(first, end)

    with pytest.raises(KeyboardInterrupt):
        make_shards(tmp_path, len(ROWS), 5, killed)
    assert made == [0, 5]
    made.clear()
    paths = make_shards(tmp_path, len(ROWS), 5, lambda a, b: made.append(a) or make(a, b))
    assert made == [10, 15, 20]
    assert torch.equal(join_shards(paths)["x"], ROWS)


def test_processes_share_the_shards_out(tmp_path):
    for rank in (1, 0):
        paths = make_shards(tmp_path, len(ROWS), 5, make, rank, 2)
    assert torch.equal(join_shards(paths)["x"], ROWS)


def test_a_shard_that_is_gone_or_cut_is_told(tmp_path):
    folder = written(tmp_path)
    opened(folder)  # control
    shard = folder / "shard-00001.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=f"{len(whole) - 1} bytes: expected {len(whole)} by kept"):
        opened(folder)
    shard.unlink()
    with pytest.raises(UserError, match="None bytes: expected"):
        opened(folder)
