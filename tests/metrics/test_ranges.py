import subprocess
import sys
from types import SimpleNamespace

from pdmd.metrics.expectations import CLIP_RULES, PICTURE_RULES
from pdmd.metrics.ranges import DIRECTIONS, RANGES, metric_range
from pdmd.report import tables
from pdmd.scenarios import sprites
from pdmd.scenarios.digits import pictures as digits
from pdmd.scenarios.emoji import pictures as emoji
from pdmd.scenarios.kind import kinds
from pdmd.scenarios.mixture2d.kind import Grid
from pdmd.scenarios.moving import clips as moving


def test_every_metric_of_a_table_and_of_a_validation_has_a_range():
    shown = {*tables.COST}
    for kind in kinds().values():
        shown |= {name for columns, _ in kind.metrics().values() for name in columns}
        shown |= {*kind.equal, *kind.recovered, *([kind.fidelity] if kind.fidelity else [])}
    shown |= {name for rule in (*PICTURE_RULES, *CLIP_RULES) for name in rule.metrics}
    assert shown <= RANGES.keys()
    assert all(low < high for low, high in RANGES.values())


def test_every_metric_of_a_table_is_better_higher_lower_or_nearer():
    shown = {
        name
        for kind in kinds().values()
        for columns, _ in kind.metrics().values()
        for name in columns
    }
    assert shown <= DIRECTIONS.keys() <= RANGES.keys()
    assert {DIRECTIONS[name] for name in ("tv", "fid", "kid", "cosine", "energy")} == {"lower"}
    assert {DIRECTIONS[name] for name in ("coverage", "lpips", "accuracy", "vendi")} == {"higher"}
    assert {DIRECTIONS[name] for name in ("spread", "density", "speed")} == {"nearer"}
    assert not DIRECTIONS.keys() & {*tables.COST, "layout", "detail"}  # control: not judged


def test_known_modes_are_those_that_the_scenarios_have():
    known = {name: kind.known(SimpleNamespace(per_side=5)) for name, kind in kinds().items()}
    styles = len(sprites.STYLES)
    assert known["digits"]["modes_covered"] == digits.CLASSES * digits.STYLES
    assert known["emoji"]["modes_fine"] == styles
    objects = max(len(names) for names in emoji.CATEGORIES.values())
    assert known["emoji"]["modes_coarse"] == objects * styles
    assert known["moving"]["modes_free"] == len(moving.DIRECTIONS) * len(moving.SPEEDS)


def test_the_modes_of_a_grid_are_its_means():
    data = Grid(kind="mixture2d", per_side=3, std=0.1, least_weight=0.0, seed=0)
    assert metric_range("modes_covered", data) == (0, 9)
    assert metric_range("effective_modes", data) == (0, 9)
    assert metric_range("effective_modes")[1] == float("inf")  # control: no scenario, no end
    assert metric_range("tv", data) == (0, 1)


def test_an_unbiased_distance_may_be_negative_and_a_frechet_distance_may_not():
    assert metric_range("energy")[0] < 0
    assert metric_range("fid") == (0, float("inf"))


def test_ranges_need_no_torch():
    code = "import sys, pdmd.metrics.ranges; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, check=True, capture_output=True).stdout.strip() == b"False"
