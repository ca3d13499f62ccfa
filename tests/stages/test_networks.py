"""Networks that score are found before anything is trained, in a folder or in the hub's cache."""

import json
import os
import subprocess
import sys

import pytest
from configs import ROOT, accepted

from pdmd.config.sections import Networks
from pdmd.errors import UserError
from pdmd.stages.networks import find_networks
from pdmd.stages.outputs import feature_reads

NAME, COMMIT = "facebook/dinov3-tiny", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "intermediate_size": 32}
    config = DINOv3ViTConfig(**sizes, num_hidden_layers=1, num_attention_heads=2)
    path = tmp_path_factory.mktemp("dino")
    DINOv3ViTModel(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def hub(folder, tmp_path_factory):
    """The hub's cache after a download: blobs, and a snapshot of links to them."""
    cache = tmp_path_factory.mktemp("hub")
    repository = cache / f"models--{NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    for made in (repository / "blobs", repository / "refs", snapshot):
        made.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = repository / "blobs" / f"{number:064x}"
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    return cache


def find(hub, output, *options):
    command = [sys.executable, "-m", "pdmd", "find-networks", "--output", str(output), *options]
    alone = {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **alone}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )


def test_a_name_of_the_hub_is_found_with_its_commit(hub, tmp_path):
    output = tmp_path / "networks.json"
    done = find(hub, output, "--features", NAME)
    assert done.returncode == 0, done.stderr
    assert json.loads(output.read_text()) == {"features": {"name": NAME, "commit": COMMIT}}


def test_one_that_is_not_there_is_one_line_that_names_what_comes_along(hub, tmp_path):
    output = tmp_path / "networks.json"
    done = find(hub, output, "--features", "facebook/dinov3-other")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "evaluate.networks.features: 'facebook/dinov3-other': " in line
    assert "lite0 comes along in its place" in line
    assert not output.exists()


def test_a_folder_is_found_and_a_damaged_one_is_not(folder, tmp_path):
    find_networks(Networks(features=str(folder)), tmp_path / "one.json")
    assert json.loads((tmp_path / "one.json").read_text())["features"]["commit"] is None
    (tmp_path / "model").mkdir()
    for file in folder.iterdir():
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes()[:-8])
    with pytest.raises(UserError, match="lite0 comes along"):
        find_networks(Networks(features=str(tmp_path / "model")), tmp_path / "two.json")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Networks(flow="no_such_weights"), "opencv comes along in its place"),
        (Networks(clip="no_such_clip"), "small comes along in its place"),
    ],
)
def test_so_are_flow_and_clip(wanted, said, tmp_path):
    with pytest.raises(UserError, match=said):
        find_networks(wanted, tmp_path / "networks.json")


def test_looking_waits_for_them_where_some_do_not_come_along():
    name = "base/networks.json"
    for networks, waits in (({}, True), ({"features": "lite0", "clip": "small"}, False)):
        diff = {
            "scenarios": ["wan22t2i"],
            "overrides": {"wan22t2i": {"evaluate": {"networks": networks}}},
        }
        for run in accepted(diff).runs.values():
            assert any(str(path).endswith(name) for path in feature_reads(run, 1)) == waits
