"""Which networks score, by the configuration."""

import pytest
import torch

from pdmd.config.sections import Networks
from pdmd.errors import UserError
from pdmd.files.assets import fetch
from pdmd.metrics.motion import opencv_flow
from pdmd.networks.dino import Dino
from pdmd.networks.lite0 import Lite0
from pdmd.scenarios.kind import prompted
from pdmd.stages import scoring
from pdmd.stages.stage import prepare


@pytest.fixture(scope="module", autouse=True)
def fetched():
    for name in ("lite0", "alexnet", "i3d"):
        fetch(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    path = tmp_path_factory.mktemp("dino")
    Dinov2Model(config).save_pretrained(path)
    return str(path)


def test_networks_of_packages_score_by_default(tmp_path):
    found = scoring.networks(prompted("moving"), [], tmp_path, Networks())
    assert isinstance(found["features"], Lite0)
    assert found["flow"] is opencv_flow


def test_a_named_network_takes_their_place(tmp_path, folder):
    found = scoring.networks(prompted("emoji"), [], tmp_path, Networks(features=folder))
    assert isinstance(found["features"], Dino)
    assert found["features"](torch.zeros(2, 3, 20, 20)).shape == (2, 16)
    assert "flow" not in found


@pytest.mark.parametrize("name", ["features", "flow"])
def test_a_network_that_is_not_there_is_named(tmp_path, name):
    with pytest.raises(UserError, match="nowhere"):
        scoring.networks(
            prompted("moving"), [], tmp_path, Networks(**{name: str(tmp_path / "nowhere")})
        )


def test_convolutions_of_a_gpu_are_of_whole_float32(monkeypatch):
    """On an H100 features are 2.8e-3 off a CPU's with TF32, and 1.8e-6 without."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    threads = torch.get_num_threads()
    prepare({"threads": threads})
    assert not torch.backends.cudnn.allow_tf32
