"""DINOv3 through transformers, on a tiny network in the hub's layout."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from pdmd.errors import UserError
from pdmd.networks.dino import load_dino


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import DINOv3ViTConfig, DINOv3ViTImageProcessor, DINOv3ViTModel

    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_register_tokens=2,
    )
    path = tmp_path_factory.mktemp("dino")
    DINOv3ViTModel(config).save_pretrained(path)
    DINOv3ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


@pytest.fixture
def pictures(generator):
    return torch.rand(5, 3, 48, 48, generator=generator) * 2 - 1


def test_features_are_those_of_transformers_own_processor_and_model(folder, pictures):
    from transformers import DINOv3ViTImageProcessor, DINOv3ViTModel

    processor = DINOv3ViTImageProcessor.from_pretrained(folder)
    model = DINOv3ViTModel.from_pretrained(folder).eval()
    inputs = processor((pictures + 1) / 2, do_rescale=False, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).pooler_output
    found = load_dino(str(folder))(pictures)
    assert found.shape == (5, 16)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(load_dino(str(folder))(-pictures), expected, atol=1e-3)  # control


@pytest.mark.parametrize("broken", ["nowhere", "another kind"])
def test_other_networks_are_refused_in_one_line(tmp_path, broken):
    if broken == "another kind":
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r"features: '.*': .*expected lite0, or a folder") as caught:
        load_dino(str(tmp_path if broken == "another kind" else tmp_path / "nowhere"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["no weights", "half", "a tensor gone", "NaN", "[]"])
def test_a_damaged_network_is_refused_in_one_line(folder, tmp_path, damage):
    """transformers makes up the weights that are missing, and warns."""
    path = tmp_path / "dino"
    shutil.copytree(folder, path)
    weights = path / "model.safetensors"
    tensors = load_file(weights)
    name = "norm.weight"
    if damage == "no weights":
        weights.unlink()
    elif damage == "half":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    elif damage == "[]":
        (path / "config.json").write_text("[]")
    else:
        kept = {n: t for n, t in tensors.items() if n != name}
        broken = {} if damage == "a tensor gone" else {name: tensors[name] * float("nan")}
        save_file(kept | broken, weights, {"format": "pt"})
    with pytest.raises(UserError, match=r"features: '.*': .*expected lite0, or a folder") as caught:
        load_dino(str(path))
    assert "\n" not in str(caught.value)
    load_dino(str(folder))  # control
