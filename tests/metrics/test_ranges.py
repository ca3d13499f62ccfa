import subprocess
import sys

from pdmd import digits, emoji, moving, sprites, tables
from pdmd.catalogue import TABLES
from pdmd.metrics.ranges import KNOWN_MODES, RANGES, metric_range
from pdmd.plans import CLIP_RULES, PICTURE_RULES


def test_every_metric_of_a_table_and_of_a_validation_has_a_range():
    shown = {*tables.MODES, *tables.STYLES, *tables.DIVERSITY, *tables.VELOCITY, *tables.COST}
    shown |= {name for columns in tables.PICTURES.values() for name in columns}
    shown |= {name for columns in tables.CLIPS.values() for name in columns}
    shown |= {name for columns in tables.EQUAL.values() for name in columns}
    shown |= {name for rule in (*PICTURE_RULES, *CLIP_RULES) for name in rule.metrics}
    assert shown <= RANGES.keys()
    assert all(low < high for low, high in RANGES.values())
    assert set(KNOWN_MODES) <= set(TABLES)


def test_known_modes_are_those_that_the_scenarios_have():
    styles = len(sprites.STYLES)
    assert KNOWN_MODES["digits"]["modes_covered"] == digits.CLASSES * digits.STYLES
    assert KNOWN_MODES["emoji"]["modes_fine"] == styles
    objects = max(len(names) for names in emoji.CATEGORIES.values())
    assert KNOWN_MODES["emoji"]["modes_coarse"] == objects * styles
    motions = len(moving.DIRECTIONS) * len(moving.SPEEDS)
    assert KNOWN_MODES["moving"]["modes_free"] == motions


def test_the_modes_of_a_grid_are_its_means():
    data = {"kind": "grid", "per_side": 3}
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
