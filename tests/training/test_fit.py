"""The law of training times."""

import pytest
import torch

from pdmd.training.fit import draw_times


@pytest.mark.parametrize("law", ["uniform", "logit-normal"])
def test_times_lie_in_the_interval_and_rise_with_the_draw(law):
    u = torch.linspace(0.001, 0.999, 999)
    for start in (0.0, 0.5):
        t = draw_times(law, u, start)
        assert start < t.min() < t.max() < 1
        assert (t.diff() > 0).all()


def test_logit_normal_times_favour_the_middle():
    u = torch.linspace(0.0005, 0.9995, 1000)
    inside = {
        law: float(((draw_times(law, u, 0.0) - 0.5).abs() < 0.25).float().mean())
        for law in ("uniform", "logit-normal")
    }
    assert abs(inside["uniform"] - 0.5) < 0.01  # control
    assert inside["logit-normal"] > 0.6
