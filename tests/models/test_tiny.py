"""Tiny random models lie in folders as the released ones do."""

import json

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from pdmd.errors import UserError
from pdmd.files.storage import load_tensors
from pdmd.models.families import FAMILIES, load_velocity
from pdmd.models.source import check_folder
from pdmd.models.tiny import write_tiny

NAMES = list(FAMILIES)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    for name in NAMES:
        write_tiny(name, folder / name)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_passes_every_check_and_computes_in_bfloat16(name, bases):
    family = FAMILIES[name]
    check_folder(bases / name, family)
    network = load_velocity(bases / name, family, torch.bfloat16)
    assert torch.bfloat16 in {p.dtype for p in network.parameters()}
    shards = sorted((bases / name / "transformer").glob("*.safetensors"))
    assert len(shards) > 1
    whole = shards[0].read_bytes()
    shards[0].unlink()  # control
    with pytest.raises(UserError, match="missing"):
        check_folder(bases / name, family)
    shards[0].write_bytes(whole)


@pytest.mark.parametrize("name", NAMES)
def test_its_pipeline_draws_from_text(name, bases):
    family = FAMILIES[name]
    pipeline = getattr(diffusers, family.pipeline).from_pretrained(bases / name)
    pipeline.set_progress_bar_config(disable=True)
    given = {"height": 32, "width": 48, "num_inference_steps": 2, "output_type": "np"}
    given |= {"num_frames": 5} if family.kind == "wan" else {}
    if family.image_channels:
        given["image"] = Image.new("RGB", (48, 32), "red")

    def draw(text):
        made = pipeline(prompt=text, generator=torch.Generator().manual_seed(0), **given)
        return made.images[0] if family.kind == "qwen" else made.frames[0][-1]

    fox, boat = draw("a fox"), draw("a boat on a lake")
    assert fox.shape == (32, 48, 3)
    assert np.isfinite(fox).all()
    assert fox.std() > 0.01
    assert np.abs(fox - boat).max() > 1e-3  # it reads the text


def test_its_weights_are_a_function_of_the_seed(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_tiny("wan2.1-t2v-1.3b", tmp_path / name, seed)
    a, b, c = (
        load_tensors(sorted((tmp_path / name / "transformer").glob("*.safetensors"))[0])
        for name in "abc"
    )
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)


def test_experts_and_boundary_are_those_of_the_family(bases):
    index = json.loads((bases / "wan2.2-i2v-a14b/model_index.json").read_text())
    assert index["boundary_ratio"] == 0.9
    config = json.loads((bases / "wan2.2-i2v-a14b/transformer_2/config.json").read_text())
    assert config["in_channels"] == 36


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    mine = tmp_path / "models"
    mine.mkdir()
    write_tiny("wan2.1-t2v-1.3b", mine)  # control: an empty one is taken
    assert (mine / "model_index.json").is_file()
    (mine / "mine.txt").write_text("kept")
    before = sorted(mine.rglob("*"))
    with pytest.raises(UserError, match="there already: expected a folder that is new, or empty"):
        write_tiny("qwen-image", mine)
    assert sorted(mine.rglob("*")) == before
    with pytest.raises(UserError, match="there already"):
        write_tiny("qwen-image", mine / "mine.txt")


def test_an_unknown_family_is_told(tmp_path):
    with pytest.raises(UserError, match="family: flux: expected one of qwen-image"):
        write_tiny("flux", tmp_path / "x")
