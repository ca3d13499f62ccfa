import math
import re

import pandas as pd
import pytest

from pdmd.metrics.intervals import mean_interval
from pdmd.paths import Paths
from pdmd.storage import write_json
from pdmd.tables import (
    crossing,
    interval_table,
    latex,
    markdown,
    readable,
    recovered_table,
    write_table,
)

VALUES = {
    "dmd2": [{"tv": 0.2, "kid": 1.5}, {"tv": 0.3, "kid": 1.25}, {"tv": 0.25, "kid": 1.0}],
    "phased2": [{"tv": 0.1}],
}


@pytest.fixture
def table():
    return interval_table(VALUES, ["tv", "kid"])


def test_the_columns_are_method_n_and_three_of_each_metric(table):
    metrics = [f"{name}_{part}" for name in ("tv", "kid") for part in ("mean", "low", "high")]
    assert list(table.columns) == ["method", "n", *metrics]
    assert list(table["method"]) == ["dmd2", "phased2"]
    assert list(table["n"]) == [3, 1]


def test_the_numbers_are_the_interval_of_the_seeds(table):
    row = table.iloc[0]
    assert (row.tv_mean, row.tv_low, row.tv_high) == mean_interval([0.2, 0.3, 0.25])
    assert row.tv_low < row.tv_mean < row.tv_high


def test_one_seed_has_no_interval_and_a_missing_metric_no_number(table):
    row = table.iloc[1]
    assert row.tv_mean == 0.1
    assert math.isnan(row.tv_low)
    assert math.isnan(row.tv_high)
    assert math.isnan(row.kid_mean)
    assert list(readable(table).iloc[1]) == ["phased2", "1", "0.100", "-"]


FRONTIER = pd.DataFrame({"step": [10.0, 40, 90], "inliers": [0.2, 0.6, 0.8], "tv": [0.5, 0.1, 0.3]})


@pytest.mark.parametrize(
    ("level", "step", "tv"),
    [(0.4, 25, 0.3), (0.6, 40, 0.1), (0.7, 65, 0.2), (0.8, 90, 0.3)],
)
def test_a_crossing_is_linear_between_snapshots(level, step, tv):
    found = crossing(FRONTIER, "inliers", level)
    assert (found["step"], found["tv"]) == pytest.approx((step, tv))
    assert found["inliers"] == pytest.approx(level)


def test_a_level_never_reached_has_no_crossing():
    assert crossing(FRONTIER, "inliers", 0.81) is None
    assert crossing(FRONTIER, "inliers", 0.80) is not None  # control


def test_a_level_always_above_has_no_crossing():
    assert crossing(FRONTIER, "inliers", 0.1) is None


def test_the_last_crossing_counts():
    falling = pd.DataFrame({"step": [1.0, 2, 3, 4], "inliers": [0.9, 0.2, 0.6, 0.8]})
    assert crossing(falling, "inliers", 0.7)["step"] == pytest.approx(3.5)  # not at 1.29


def test_inliers_that_a_collapse_loses_are_no_crossing():
    lost = pd.DataFrame({"step": [1.0, 2, 3], "inliers": [1.0, 0.5, 0.6], "density": [4, 2, 1.0]})
    assert crossing(lost, "inliers", 0.7) is None
    assert crossing(lost, "density", 1.5)["step"] == pytest.approx(2.5)  # control: density may fall


def numbers(text):
    return re.findall(r"-?\d+\.\d+", text)


@pytest.fixture
def written(table, tmp_path):
    write_table(table, tmp_path / "modes", "2D mixture: modes_covered at 95%.")
    return {path.suffix: path.read_text() for path in tmp_path.iterdir()}


def test_a_table_has_three_files(written):
    assert written.keys() == {".csv", ".md", ".tex"}


def test_the_twins_hold_the_same_numbers(written):
    body = written[".md"].split("\n", 1)[1]
    assert numbers(body) == numbers(written[".tex"].split(r"\midrule")[1])
    assert len(numbers(body)) == 7  # two intervals and one bare mean


def test_the_csv_holds_every_number_to_six_digits(written, table, tmp_path):
    again = pd.read_csv(tmp_path / "modes.csv")
    pd.testing.assert_frame_equal(again, table, rtol=1e-5)


def test_a_caption_is_escaped_for_latex_and_not_for_markdown(written):
    assert r"modes\_covered at 95\%" in written[".tex"]
    assert written[".md"].startswith("2D mixture: modes_covered at 95%.\n\n| method")


def test_markdown_columns_line_up(table):
    lines = markdown(readable(table)).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == re.sub(r"[^|]", "-", lines[1])


def test_latex_has_a_column_for_each_of_the_tables(table):
    text = latex(readable(table), "x")
    assert r"\begin{tabular}{lrrr}" in text
    rows = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert [row.count("&") for row in rows] == [3, 3]
    assert all(row.endswith(r"\\") for row in rows)


@pytest.mark.parametrize(
    ("triple", "cell"),
    [
        ((1234.5, 1200.1, 1300.9), "1234 [1200, 1301]"),
        ((12.34, 11.0, 14.0), "12.3 [11.0, 14.0]"),
        ((0.5, 0.5, 0.5), "0.500"),
    ],
)
def test_a_cell_has_as_many_digits_as_its_mean_needs(triple, cell):
    frame = pd.DataFrame([dict(zip(("x_mean", "x_low", "x_high"), triple, strict=True))])
    assert readable(frame)["x"][0] == cell


def test_a_share_of_the_gap_is_told_only_where_there_is_a_gap(tmp_path):
    seeds = [1, 2, 3]
    values = {
        "teacher": {"speed": [2.0, 2.1, 1.9], "flow": [1.0, 1.2, 0.8]},
        "dmd2": {"speed": [1.0, 1.1, 0.9], "flow": [0.8, 1.4, 0.8]},
        "phased2": {"speed": [1.5, 1.6, 1.4], "flow": [0.9, 1.3, 0.8]},
    }
    configs = []
    for method, own in values.items():
        configs.append(
            {"results": str(tmp_path), "scenario": "moving", "method": method, "seeds": seeds}
        )
        for i, seed in enumerate(seeds):
            path = Paths(configs[-1]).seed(seed, "metrics.json")
            write_json(path, {name: column[i] for name, column in own.items()})
    table = recovered_table(configs, ["speed", "flow"]).set_index("method")
    assert list(table.index) == ["gap", "phased2"]
    assert table.loc["gap", "speed_mean"] == pytest.approx(1)
    assert table.loc["phased2", "speed_mean"] == pytest.approx(0.5)
    assert table.loc["gap", "flow_low"] < 0 < table.loc["gap", "flow_high"]
    assert math.isnan(table.loc["phased2", "flow_mean"])
