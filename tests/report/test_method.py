"""README's picture of the method is what the code draws of its own phases."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pdmd.config.experiment import Experiment, merge
from pdmd.config.yaml_files import read_yaml
from pdmd.report.paper import method
from pdmd.report.paper.method import METHODS, SCENARIO, main, sampling, training

ROOT = Path(__file__).resolve().parents[2]
TITLES = [("one", ""), ("two", "")]


@pytest.fixture(scope="module")
def runs():
    one = {"scenarios": [SCENARIO], "validate": []}
    found = Experiment(ROOT, merge(read_yaml(ROOT / "config/config.yaml"), one)).runs
    return [found[SCENARIO, name] for name in METHODS]


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"), dtype=float)


def test_the_kept_picture_is_what_the_code_draws(tmp_path):
    main(tmp_path / "method.png", ROOT)
    kept, drawn = pixels(ROOT / "docs/method.png"), pixels(tmp_path / "method.png")
    assert kept.shape == drawn.shape, "`make picture` draws it anew"
    assert abs(kept - drawn).mean() < 0.05, "`make picture` draws it anew"


def test_control_another_grid_is_another_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(method, "SCENARIO", "wan21t2v")
    main(tmp_path / "method.png", ROOT)
    assert abs(pixels(ROOT / "docs/method.png") - pixels(tmp_path / "method.png")).mean() > 0.05


def test_it_is_wide_enough_for_twice_the_pixels_of_a_page():
    assert Image.open(ROOT / "docs/method.png").width == 1600


def test_rows_are_the_exits_and_ends_of_each_phase(runs):
    dmd2, phased = runs
    (one,) = training(dmd2, TITLES[:1], ("k",))
    assert [calls[-1].end for calls in one.rows.values()] == [0, 0, 0, 0]
    first, second = training(phased, TITLES, ("b", "r"))
    assert [calls[-1].end for calls in first.rows.values()] == pytest.approx([0.75, 0.75])
    assert [[call.expert for call in calls] for calls in second.rows.values()] == [
        [1, 1, 2],
        [1, 1, 2, 2],
    ]
    for block in (one, first, second):
        for calls in block.rows.values():
            assert [call.gradient for call in calls] == [False] * (len(calls) - 1) + [True]


def test_sampling_takes_every_step_of_both_experts(runs):
    (calls,) = sampling(runs[1]).rows.values()
    assert [call.expert for call in calls] == [1, 1, 2, 2]
    assert [call.start for call in calls] == pytest.approx([1, 0.9, 0.75, 0.5])


def test_control_one_phase_is_not_drawn_as_two(runs):
    with pytest.raises(ValueError, match="argument"):
        training(runs[0], TITLES, ("b", "r"))
