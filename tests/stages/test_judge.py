"""A kept judge is the trained one, and is taken of its own data and recipe alone."""

import copy

import pytest
from configs import ROOT
from test_precompute import parts_of

from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.config.yaml_files import read_yaml
from pdmd.errors import UserError
from pdmd.files.kept import said
from pdmd.files.storage import load_metadata, read_json, write_json
from pdmd.stages.judge import keep_judge, make_judge
from pdmd.stages.outputs import JUDGE
from pdmd.stages.precompute import render


@pytest.fixture(scope="module")
def trained(tmp_path_factory, repository):
    """The settings of a judge of two updates, its files, and where it is kept."""
    folder = tmp_path_factory.mktemp("judge")
    diff = {"classifier": {"updates": 2, "kept": None}}
    config = parts_of(repository, folder, "moving", diff)["config/classifier.json"]
    render(config)
    make_judge(config)
    keep_judge(config, folder / "kept.safetensors")
    return config, Paths(read_run(config)).data, folder / "kept.safetensors"


def asking(config, kept, **updates):
    asked = copy.deepcopy(config)
    asked["classifier"] |= {"kept": str(kept), **updates}
    return asked


def test_a_kept_judge_is_the_trained_one(trained):
    config, data, kept = trained
    before = [data(name).read_bytes() for name in JUDGE[:2]]
    for name in JUDGE:
        data(name).unlink()
    make_judge(asking(config, kept))
    assert [data(name).read_bytes() for name in JUDGE[:2]] == before
    inputs = read_json(data(JUDGE[-1]))["inputs_sha256"]
    assert {str(kept), str(kept.with_suffix(".json"))} <= set(map(str, inputs))


def test_another_recipe_is_told(trained):
    config, _, kept = trained
    with pytest.raises(UserError, match=r"kept\.safetensors: classifier\.updates: 3: expected 2"):
        make_judge(asking(config, kept, updates=3))
    other = asking(config, kept)
    other["data"]["seed"] = 5
    with pytest.raises(UserError, match=r"kept\.safetensors: data\.seed: 5: expected 0 by kept"):
        make_judge(other)
    other = asking(config, kept)
    other["data"]["codec"]["channels"] = 6  # control: judges see pictures, not latents
    make_judge(other)


def test_a_damaged_one_is_told(trained, tmp_path):
    config, _, kept = trained
    with pytest.raises(UserError, match=r"classifier\.kept: .*none\.safetensors: expected the"):
        make_judge(asking(config, tmp_path / "none.safetensors"))
    spoilt, beside = tmp_path / "kept.safetensors", kept.with_suffix(".json")
    spoilt.write_bytes(kept.read_bytes()[:-1] + b"x")
    spoilt.with_suffix(".json").write_bytes(beside.read_bytes())
    with pytest.raises(UserError, match=r"kept\.safetensors: sha256"):
        make_judge(asking(config, spoilt))
    spoilt.write_bytes(kept.read_bytes())
    for recipe in (None, {}, {"data": 3, "classifier": {}}):
        write_json(spoilt.with_suffix(".json"), {**read_json(beside), "recipe": recipe})
        with pytest.raises(UserError, match=r"kept\.json: .*expected what `pdmd keep-judge`"):
            make_judge(asking(config, spoilt))


@pytest.mark.parametrize("name", ["emoji", "moving"])
def test_the_repositorys_own_is_what_its_scenario_asks_for(name):
    scenario = read_yaml(ROOT / f"config/scenarios/{name}.yaml")
    kept = ROOT / scenario["classifier"]["kept"]
    recipe = said(kept, "classifier.kept", "a judge", ("recipe",))["recipe"]  # its digest, too
    assert recipe["classifier"]["updates"] == scenario["classifier"]["updates"]
    assert {k: v for k, v in scenario["data"].items() if k != "codec"} == recipe["data"]
    assert set(load_metadata(kept)) == {"object", "style" if name == "emoji" else "scene"}
