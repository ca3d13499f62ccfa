import pytest
import torch

from pdmd.data.bank import INDEX, read_bank, write_bank
from pdmd.errors import UserError
from pdmd.files.storage import load_metadata, load_tensors, read_json
from pdmd.models.base import Space
from pdmd.stages.bank import make_bank
from pdmd.stages.distill import distill_phase

CLASSED = Space((3,), classes=3)


@pytest.fixture
def latents():
    return torch.randn(10, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path, latents):
    """A bank of ten rows in shards of four."""
    write_bank(tmp_path / "bank", latents, torch.arange(10) % 3, 7, 4)
    return tmp_path / "bank"


def shards(folder):
    return sorted(folder.glob("shard-*"))


def test_a_bank_comes_back_whole_and_in_order(folder, latents):
    x, condition = read_bank(folder, CLASSED, 7)
    assert torch.equal(x, latents)
    assert torch.equal(condition, torch.arange(10) % 3)


def test_rows_lie_in_shards_that_say_seed_and_draw(folder):
    assert [len(load_tensors(path)["x"]) for path in shards(folder)] == [4, 4, 2]
    assert torch.cat([load_tensors(path)["draw"] for path in shards(folder)]).tolist() == [
        *range(10)
    ]
    assert all(load_metadata(path) == {"seed": "7"} for path in shards(folder))


def test_the_index_says_seed_rows_and_digests(folder):
    index = read_json(folder / INDEX)
    assert (index["seed"], index["rows"]) == (7, 10)
    assert [shard["rows"] for shard in index["shards"]] == [4, 4, 2]
    assert len({shard["sha256"] for shard in index["shards"]}) == 3


def test_a_bank_without_conditions_has_none(tmp_path, latents):
    write_bank(tmp_path, latents, None, 7, 100)
    x, condition = read_bank(tmp_path, Space((3,)), 7)
    assert torch.equal(x, latents)
    assert condition is None
    assert len(shards(tmp_path)) == 1


def test_writing_again_leaves_no_old_shard(folder, latents):
    write_bank(folder, latents[:3], None, 8, 4)
    assert len(shards(folder)) == 1
    assert torch.equal(read_bank(folder, Space((3,)), 8)[0], latents[:3])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def lose(path):
    path.unlink()


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, lose])
def test_a_damaged_shard_is_refused_by_name(folder, damage):
    read_bank(folder, CLASSED, 7)  # control: untouched
    path = shards(folder)[1]
    damage(path)
    with pytest.raises(UserError) as caught:
        read_bank(folder, CLASSED, 7)
    assert str(caught.value).startswith(f"{path}: ")
    assert "expected sha256" in str(caught.value)


def test_swapped_shards_are_refused(folder):
    first, second, _ = shards(folder)
    first_bytes = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(first_bytes)
    with pytest.raises(UserError, match=first.name):
        read_bank(folder, CLASSED, 7)


def test_a_bank_whose_writer_died_is_refused(tmp_path, latents, monkeypatch):
    """The index comes last, so that shards without one are no bank."""

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pdmd.data.bank.write_json", die)
        with pytest.raises(KeyboardInterrupt):
            write_bank(tmp_path, latents, None, 7, 4)
    assert len(shards(tmp_path)) == 3
    with pytest.raises(UserError, match=INDEX):
        read_bank(tmp_path, Space((3,)), 7)


def test_a_damaged_bank_stops_the_phase_that_reads_it(copied, tiny):

    config = tiny(copied)["phased2/config/distill.json"]
    path = copied / "mixture2d/phased2/seed2/phase2/bank/shard-00001.safetensors"
    flip_a_bit(path)
    with pytest.raises(UserError, match=str(path)):
        distill_phase(config, 2, [1, 2])


def test_a_bank_without_rows_is_refused(copied, tiny):
    config = tiny(copied, {"bank": {"rows": 0}})["phased2/config/bank.json"]
    with pytest.raises(UserError, match=r"bank\.rows: 0: expected above 0"):
        make_bank(config, 2, [1, 2])
