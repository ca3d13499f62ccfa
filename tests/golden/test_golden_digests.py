"""Controls of the golden test: what its digests must notice, and what they must not."""

import json

import digests
import pytest
import torch
from safetensors.torch import save_file

TABLE = "method,n,seconds_mean,kid_mean\ndmd2,1,0.3,1.25\n"
SCORES = {"kid": 1.25, "last": {"loss": 0.5, "seconds": 0.1}, "peak_memory_mb": 846.7}
BASE, CURVE = "emoji/base/model.safetensors", "emoji/dmd2/seed1/frontier.csv"
METRICS, TABLES = "emoji/dmd2/seed1/metrics.json", "emoji/tables/runs.csv"


@pytest.fixture
def tensors():
    """Weights of several types and shapes, some without entries or axes."""
    return {
        "a": torch.linspace(-1, 1, 12).reshape(3, 4),
        "b": torch.arange(6).to(torch.bfloat16),
        "c": torch.tensor(3.0),
        "d": torch.zeros(0, 2, dtype=torch.uint8),
    }


@pytest.fixture
def results(tmp_path, tensors):
    """A small results folder."""
    for name in (BASE, CURVE, METRICS, TABLES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, tmp_path / BASE)
    (tmp_path / CURVE).write_text(TABLE)
    (tmp_path / METRICS).write_text(json.dumps(SCORES))
    (tmp_path / TABLES).write_text(TABLE)
    return tmp_path


@pytest.fixture
def kept(results):
    """What was recorded of it."""
    return digests.collect(results)


def test_every_file_is_in_its_group(kept):
    names = {group: list(files) for group, files in kept.items() if files}
    assert names == {"weights": [BASE], "curves": [CURVE], "scores": [METRICS], "tables": [TABLES]}
    assert kept["weights"][BASE]["squares"] == pytest.approx(68.727, abs=1e-3)


def flip(tensors):
    tensors["a"].view(torch.int32)[2, 1] ^= 1


def rename(tensors):
    tensors["e"] = tensors.pop("a")


def swap(tensors):
    tensors["a"], tensors["c"] = tensors["c"], tensors["a"]


def reshape(tensors):
    tensors["a"] = tensors["a"].reshape(4, 3)


def retype(tensors):
    tensors["d"] = tensors["d"].to(torch.int8)


@pytest.mark.parametrize("change", [flip, rename, swap, reshape, retype])
def test_a_changed_tensor_is_noticed(results, tensors, kept, change):
    change(tensors)
    save_file(tensors, results / BASE)
    found = digests.collect(results)
    assert digests.compare(kept, found, True) == [f"weights: changed, 1: {BASE}"]
    assert digests.compare(kept, found, False) == []


def test_order_and_metadata_of_tensors_do_not_matter(results, tensors, kept):
    backwards = dict(reversed(tensors.items()))
    save_file(backwards, results / BASE, metadata={"method": "base"})
    assert digests.collect(results) == kept


def test_norms_notice_what_another_processor_does_not_do(results, tensors, kept):
    save_file({**tensors, "a": tensors["a"] * 1.1}, results / BASE)
    assert digests.compare(kept, digests.collect(results), False) == [
        f"weights: changed, 1: {BASE}"
    ]


@pytest.mark.parametrize(("old", "new"), [("1.25", "1.26"), ("kid", "fid"), ("dmd2", "dmd")])
@pytest.mark.parametrize(("name", "group"), [(CURVE, "curves"), (TABLES, "tables")])
def test_a_changed_cell_is_noticed(results, kept, name, group, old, new):
    (results / name).write_text(TABLE.replace(old, new))
    lines = digests.compare(kept, digests.collect(results), True)
    assert lines == [f"{group}: changed, 1: {name}"]


@pytest.mark.parametrize(("old", "new"), [("1.25", "1.26"), ("kid", "fid"), ("0.5", "0.25")])
def test_a_changed_score_is_noticed(results, kept, old, new):
    (results / METRICS).write_text(json.dumps(SCORES).replace(old, new))
    lines = digests.compare(kept, digests.collect(results), True)
    assert lines == [f"scores: changed, 1: {METRICS}"]


@pytest.mark.parametrize(
    ("new", "same"),
    [("1.2500000000001", True), ("1.25e0", True), ("1.2501", False), ("nan", False)],
)
def test_the_last_digits_of_a_texts_numbers_may_differ(results, kept, new, same):
    """OpenCV's kernels differ between generations of one maker's processors."""
    (results / CURVE).write_text(TABLE.replace("1.25", new))
    (results / METRICS).write_text(json.dumps(SCORES).replace("1.25", new.replace("nan", '"a"')))
    lines = digests.compare(kept, digests.collect(results), True)
    wanted = [f"curves: changed, 1: {CURVE}", f"scores: changed, 1: {METRICS}"]
    assert lines == ([] if same else wanted)


def test_exchanged_numbers_are_noticed(results, kept):
    (results / CURVE).write_text(TABLE.replace("1,", "1.25,").replace("1.25\n", "1\n"))
    assert digests.compare(kept, digests.collect(results), True)


def test_times_and_memory_are_not_compared(results, kept):
    (results / TABLES).write_text(TABLE.replace("0.3", "0.4"))
    (results / METRICS).write_text(json.dumps(SCORES).replace("0.1", "0.2").replace("846", "900"))
    assert digests.collect(results) == kept


@pytest.mark.parametrize("exact", [True, False])
def test_lost_and_further_files_are_noticed(results, kept, exact):
    (results / BASE).rename(results / "emoji" / "base" / "snapshots.safetensors")
    further = BASE.replace("model", "snapshots")
    assert digests.compare(kept, digests.collect(results), exact) == [
        f"weights: missing, 1: {BASE}",
        f"weights: unexpected, 1: {further}",
    ]


def test_a_message_lists_a_few_names():
    wanted = {f"{number:02}": {"digest": ""} for number in range(12)}
    (line,) = digests.differences(wanted, {}, True)
    assert line == "missing, 12: 00, 01, 02, 03, 04, 05, 06, 07 and 4 more"


def test_digests_are_compared_only_under_the_recorded_conditions():
    here = digests.conditions()
    maker = here["cpu"].split()[0]
    assert digests.is_exact({**here, "cpu": f"{maker} another"})
    assert not digests.is_exact({**here, "cpu": "Another maker's"})
    for name in digests.EXACT:
        assert not digests.is_exact({**here, name: "another"})


def test_a_record_is_written_and_compared(results, monkeypatch, capsys):
    monkeypatch.setattr(digests, "RECORD", results / "digests.json")
    assert digests.main([str(results), "--record"]) == 0
    assert digests.main([str(results)]) == 0
    assert "4 files are as recorded, bit by bit" in capsys.readouterr().out
    (results / TABLES).write_text(TABLE.replace("1.25", "1.26"))
    assert digests.main([str(results)]) == 1
    assert f"tables: changed, 1: {TABLES}" in capsys.readouterr().out
