import math

import pytest

from pdmd.config.sections import Average
from pdmd.training.average import power_of, taken, weight_of_start


def weights(average, updates):
    """The share of the start, and of the weights after each update, in the average."""
    shares = [1.0]
    for step in range(updates):
        new = taken(average, step)
        shares = [share * (1 - new) for share in shares] + [new]
    return shares


@pytest.mark.parametrize("width", [0.05, 0.1, 0.2])
def test_a_power_average_has_the_width_it_is_named_by(width):
    updates = 4000
    shares = weights(Average(law="power", width=width), updates)
    assert sum(shares) == pytest.approx(1)
    at = [step / updates for step in range(updates + 1)]
    mean = sum(share * t for share, t in zip(shares, at, strict=True))
    square = sum(share * t**2 for share, t in zip(shares, at, strict=True))
    assert math.sqrt(square - mean**2) == pytest.approx(width, rel=0.01)


def test_exponents_are_those_of_edm2():
    """Relative widths .05 and .10 are exponents 16.97 and 6.94, as its sec. 3 says."""
    assert power_of(0.05) == pytest.approx(16.97, abs=0.01)
    assert power_of(0.10) == pytest.approx(6.94, abs=0.01)


@pytest.mark.parametrize("updates", [1, 2, 10, 75, 300])
def test_nothing_of_the_start_lasts_however_short_a_phase_is(updates):
    for average in (Average(law="power"), Average(law="live")):
        assert weight_of_start(average, updates) == weights(average, updates)[0] == 0
    kept = Average(law="exponential", decay=0.99)  # control
    assert weight_of_start(kept, updates) == pytest.approx(weights(kept, updates)[0])
    assert weight_of_start(kept, 75) == pytest.approx(0.47, abs=0.01)


def test_live_weights_are_the_last():
    assert weights(Average(law="live"), 5) == [0, 0, 0, 0, 0, 1]
