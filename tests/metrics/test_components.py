"""Shares of spread: effects that were put in come out, and nothing else."""

import numpy as np
import pytest

from pdmd.errors import UserError
from pdmd.metrics.components import components

FACTORS = ["method", "grid"]


def experiment(method=0.0, grid=0.0, both=0.0, seed=0.0, noise=0.0):
    """(3 methods, 2 grids, 5 seeds) of effects of the given sizes."""
    rng = np.random.default_rng(0)
    a, b = np.array([-1.0, 0.0, 1.0]), np.array([-1.0, 1.0])
    values = method * a[:, None, None] + grid * b[None, :, None]
    values = values + both * (a[:, None] * b)[..., None] + seed * rng.normal(size=5)
    return 7 + values + noise * rng.normal(size=(3, 2, 5))


@pytest.mark.parametrize("name", ["method", "grid", "both", "seed"])
def test_a_lone_effect_makes_all_of_the_spread(name):
    shares = components(experiment(**{name: 0.3}), FACTORS)
    wanted = "method x grid" if name == "both" else name
    assert shares[wanted] == pytest.approx(1)
    assert sum(shares.values()) == pytest.approx(1)
    mixed = components(experiment(**{name: 0.3}, noise=0.3), FACTORS)  # the control
    assert mixed[wanted] < 0.95


def test_effects_share_the_spread_by_their_squares():
    """Over the cells the method's effect has variance 2/3 and the grid's 1."""
    shares = components(experiment(method=3.0, grid=1.0), FACTORS)
    assert shares["method"] == pytest.approx(6 / 7)
    assert shares["grid"] == pytest.approx(1 / 7)
    assert shares["method x grid"] == pytest.approx(0, abs=1e-12)


def test_it_agrees_with_the_textbook_on_three_factors():
    """Against regression on effect-coded columns, which are orthogonal in a balanced experiment."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(2, 2, 2, 4))
    signs = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3, indexing="ij"), -1)
    centred, total = values - values.mean(), ((values - values.mean()) ** 2).sum()
    shares = components(values, ["a", "b", "c"])
    for name, axes in {"a": [0], "b x c": [1, 2], "a x b x c": [0, 1, 2]}.items():
        column = np.broadcast_to(signs[..., axes].prod(-1)[..., None], values.shape)
        slope = (column * centred).sum() / (column**2).sum()
        assert shares[name] == pytest.approx(slope**2 * (column**2).sum() / total)
    assert shares["a"] != pytest.approx(shares["b"])  # the control


def test_equal_values_have_no_shares_and_broken_ones_are_refused():
    assert components(np.ones((2, 2, 3)), FACTORS) == {}
    with pytest.raises(UserError, match="not finite"):
        components(np.full((2, 2, 3), np.nan), FACTORS)
    with pytest.raises(UserError, match="3 axes: expected factors"):
        components(np.ones((2, 2, 3)), ["grid"])
