"""Fitting base networks: a second teacher is another one, and can be made again."""

import copy
from pathlib import Path

from safetensors.torch import load_file

from pdmd.stages.fit import fit_base


def fitted(config, folder, seed):
    """The weights of a base network that a seed gives."""
    config = copy.deepcopy(config) | {"results": str(folder)}
    config["fit"]["seed"] = seed
    fit_base(config)
    return load_file(folder / "mixture2d" / "base" / "model.safetensors")


def test_another_seed_fits_another_teacher_and_the_same_the_same(tiny, tmp_path):
    config = tiny(tmp_path / "plan")["config/base.json"]
    one, again, other = (
        fitted(config, tmp_path / name, seed)
        for name, seed in (("one", 1), ("again", 1), ("other", 2))
    )
    assert all(one[name].equal(again[name]) for name in one)
    assert not all(one[name].equal(other[name]) for name in one)


def test_without_a_seed_it_is_that_of_0(tiny, tmp_path):
    config = tiny(tmp_path / "plan")["config/base.json"]
    assert "seed" not in config["fit"]
    fit_base(config | {"results": str(tmp_path / "silent")})
    silent = load_file(Path(tmp_path / "silent" / "mixture2d" / "base" / "model.safetensors"))
    zero = fitted(config, tmp_path / "zero", 0)
    assert all(silent[name].equal(zero[name]) for name in silent)
