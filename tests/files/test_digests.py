"""Files that a stage wrote are read as it wrote them, or refused by name."""

import json

import pytest
import torch

from pdmd.errors import UserError
from pdmd.files import provenance
from pdmd.files.digests import RECORDS, check_recorded, result_sha256
from pdmd.files.storage import load_tensors, read_json, save_tensors, write_json


@pytest.fixture
def folder(tmp_path):
    """What a stage leaves: weights, scores, a table, and the record of them."""
    save_tensors(tmp_path / "weights.safetensors", {"w": torch.arange(6.0)})
    write_json(tmp_path / "scores.json", {"a": 1.5})
    (tmp_path / "table.csv").write_text("a,b\n1,2\n3,4\n")
    names = ["weights.safetensors", "scores.json", "table.csv", "provenance.json"]
    provenance.record(tmp_path / "provenance.json", {}, [1], [], names)
    return tmp_path


def readers(folder):
    return {
        "weights.safetensors": lambda: load_tensors(folder / "weights.safetensors"),
        "scores.json": lambda: read_json(folder / "scores.json"),
        "table.csv": lambda: check_recorded(folder / "table.csv"),
    }


def test_what_a_stage_wrote_is_read(folder):
    """The control of the refusals below."""
    for read in readers(folder).values():
        read()
    record = json.loads((folder / "provenance.json").read_text())
    assert record["outputs_sha256"].keys() == readers(folder).keys()


@pytest.mark.parametrize("name", ["weights.safetensors", "scores.json", "table.csv"])
@pytest.mark.parametrize("damage", ["flipped", "half", "longer"])
def test_a_changed_file_is_refused_by_name(folder, name, damage):
    path = folder / name
    whole = path.read_bytes()
    spoilt = {
        "flipped": whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:],
        "half": whole[: len(whole) // 2],
        "longer": whole + b"\n",
    }[damage]
    path.write_bytes(spoilt)
    with pytest.raises(UserError) as caught:
        readers(folder)[name]()
    line = str(caught.value)
    assert line.startswith(str(path))
    assert "provenance.json" in line
    assert "\n" not in line
    path.write_bytes(whole)
    readers(folder)[name]()  # control: as it was


def test_a_file_that_no_record_lists_is_read(folder):
    write_json(folder / "mine.json", {"b": 2})
    assert read_json(folder / "mine.json") == {"b": 2}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"outputs_sha256": 3}'])
def test_a_damaged_record_is_named(folder, text):
    (folder / "provenance.json").write_text(text)
    with pytest.raises(UserError, match=r"provenance\.json: .*expected a record"):
        read_json(folder / "scores.json")


def test_a_record_of_an_older_kind_lists_nothing(folder):
    write_json(folder / "provenance.json", {"commit": None})
    assert read_json(folder / "scores.json") == {"a": 1.5}


def test_a_digest_is_taken_again_when_the_file_changes(tmp_path):
    write_json(tmp_path / "x", 1)
    first = result_sha256(tmp_path / "x")
    write_json(tmp_path / "x", 2)  # in its place: within one tick of a clock dates tell nothing
    assert result_sha256(tmp_path / "x") != first


def test_every_record_that_stages_write_is_looked_for():
    from pdmd.stages import outputs

    stages = (outputs.ENCODED, outputs.PICTURES, outputs.EMBEDDED, outputs.CLASSIFIER)
    stages += (outputs.JUDGE, outputs.BASE, outputs.PHASE, outputs.SAMPLES, outputs.TRAJECTORIES)
    stages += (outputs.CLIP, outputs.DECODED, outputs.FEATURED, outputs.SCORED)
    stages += (outputs.STORE, outputs.PREVIEWED)
    stages += (outputs.MEASURED, outputs.CHOSEN, outputs.RANGED)
    stages += tuple(diagnostic.files for diagnostic in outputs.DIAGNOSTICS.values())
    assert {stage[-1] for stage in stages} == set(RECORDS)
