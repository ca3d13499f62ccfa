"""The small CLIP, trained or kept: a kept one is the trained one, and no other is taken."""

import json
from pathlib import Path

import pytest
import torch

from pdmd.config.yaml_files import read_yaml
from pdmd.errors import UserError
from pdmd.files.storage import read_json
from pdmd.networks.small_clip import EMBEDDING, known_tokens
from pdmd.stages.clip import keep_clip, make_clip

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small CLIP of two updates, and where it is kept."""
    folder = tmp_path_factory.mktemp("clip")
    make_clip(2, folder / "small_clip.pt", None)
    keep_clip(folder / "small_clip.pt", folder / "kept.safetensors")
    return folder / "small_clip.pt", folder / "kept.safetensors"


def test_a_kept_clip_is_the_trained_one_in_a_tenth_of_the_room(trained, tmp_path):
    source, kept = trained
    make_clip(2, tmp_path / "small_clip.pt", kept)
    one, other = (
        torch.load(path, weights_only=True) for path in (source, tmp_path / "small_clip.pt")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert kept.stat().st_size < source.stat().st_size / 10
    scores = [
        path.with_suffix(".json").read_text() for path in (source, tmp_path / "small_clip.pt")
    ]
    assert scores[0] == scores[1]
    record = read_json(tmp_path / "provenance.json")
    assert list(record["inputs_sha256"]) == [str(kept)]


def test_words_that_no_prompt_has_are_zero_and_others_are_not(trained):
    rows = torch.load(trained[0], weights_only=True)[EMBEDDING]
    known = known_tokens()
    assert rows[known].abs().sum(1).min() > 0
    assert int((rows.abs().sum(1) > 0).sum()) == len(known)


def test_another_file_or_number_of_updates_is_refused(trained, tmp_path):
    _, kept = trained
    output = tmp_path / "small_clip.pt"
    with pytest.raises(
        UserError, match=r"clip\.updates: 3: expected 2 by kept\.json, or clip\.kept"
    ):
        make_clip(3, output, kept)
    with pytest.raises(UserError, match="expected the weights of a small CLIP"):
        make_clip(2, output, tmp_path / "nowhere.safetensors")
    spoilt = tmp_path / "kept.safetensors"
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    spoilt.write_bytes(content)
    spoilt.with_suffix(".json").write_bytes(kept.with_suffix(".json").read_bytes())
    with pytest.raises(UserError, match=r"kept\.safetensors: sha256"):
        make_clip(2, output, spoilt)
    said = json.loads(kept.with_suffix(".json").read_text())
    del said["scores"]
    spoilt.with_suffix(".json").write_text(json.dumps(said))
    with pytest.raises(UserError, match=r"kept\.json"):
        make_clip(2, output, spoilt)
    assert not output.exists()


def test_weights_that_half_precision_does_not_hold_are_not_kept(trained, tmp_path):
    source, _ = trained
    state = torch.load(source, weights_only=True)
    state["visual.proj"] += 1e-5
    for name in ("small_clip.json", "provenance.json"):
        (tmp_path / name).write_bytes(source.with_name(name).read_bytes())
    torch.save(state, tmp_path / "small_clip.pt")
    with pytest.raises(
        UserError, match=r"visual\.proj: expected weights that half precision holds"
    ):
        keep_clip(tmp_path / "small_clip.pt", tmp_path / "kept.safetensors")


def test_the_repositorys_own_is_what_its_configuration_asks_for(tmp_path):
    asked = read_yaml(ROOT / "config/config.yaml")["clip"]
    make_clip(asked["updates"], tmp_path / "small_clip.pt", ROOT / asked["kept"])
    assert read_json(tmp_path / "small_clip.json")["heldout_r5"] > 0.7
