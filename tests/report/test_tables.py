import math
import re
from types import SimpleNamespace

import pandas as pd
import pytest

from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.errors import UserError
from pdmd.files.storage import write_json
from pdmd.metrics.intervals import mean_interval
from pdmd.metrics.ranges import ranges
from pdmd.report import tables
from pdmd.report.tables import crossing, interval_table, recovered_table, stacked, strata_table
from pdmd.report.writing import cell, escaped, latex, markdown, readable, write_table
from pdmd.scenarios.kind import kinds
from pdmd.scenarios.mixture2d.kind import Grid

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


# ---- metrics that some seeds do not have


UNEVEN = {
    "dmd2": [{"tv": 0.2, "spread": 1.1}, {"tv": 0.3, "spread": None}, {"tv": 0.2, "spread": 1.3}],
    "dmd1": [{"tv": 0.5, "spread": math.nan}, {"tv": 0.6}, {"tv": math.nan, "spread": None}],
    "phased2": [{"tv": 0.1, "spread": 1.0}] * 3,
}


def test_seeds_without_a_metric_are_not_counted_and_the_table_says_so(tmp_path):
    table = interval_table(UNEVEN, ["tv", "spread"]).set_index("method")
    assert list(table["n"]) == [3, 3, 3]
    assert table.loc["dmd2", "spread_mean"] == pytest.approx(1.2)
    assert table["spread_n"].to_dict() == {"dmd2": 2, "dmd1": 0, "phased2": 3}
    assert table["tv_n"].to_dict() == {"dmd2": 3, "dmd1": 2, "phased2": 3}
    write_table(table.reset_index(), tmp_path / "modes", "2D.")
    body = (tmp_path / "modes.md").read_text()
    assert "1.200 (n=2)" in body
    assert "0.550 (n=2)" in body
    assert body.count("(n=") == 2
    assert "0.233 [0.090, 0.377]" in body  # control: three seeds have an interval
    assert "n says how many" in body.splitlines()[0]
    assert "(n=2)" in (tmp_path / "modes.tex").read_text()


def test_a_metric_that_all_seeds_or_none_have_needs_no_column_of_its_own():
    whole = {"dmd2": UNEVEN["phased2"], "dmd1": [{"tv": 0.1, "spread": None}] * 3}
    columns = list(interval_table(whole, ["spread"]).columns)
    assert columns == ["method", "n", "spread_mean", "spread_low", "spread_high"]


def test_tables_that_are_stacked_count_the_seeds_of_each_part():
    parts = [interval_table({name: seeds}, ["tv"]) for name, seeds in UNEVEN.items()]
    found = stacked(parts, [])
    assert list(found["tv_n"]) == [3, 2, 3]
    assert list(found.columns)[-1] == "tv_n"
    assert "tv_n" not in stacked(parts[:1], []).columns  # the control
    assert list(stacked([], ["method", "n"]).columns) == ["method", "n"]


def test_an_interval_stays_within_what_the_metric_can_be():
    values = {"dmd2": [{"modes_covered": 25.0}, {"modes_covered": 25.0}, {"modes_covered": 24.0}]}
    free = interval_table(values, ["modes_covered"]).iloc[0]
    assert free["modes_covered_high"] > 25
    data = Grid(kind="mixture2d", per_side=5, std=0.1, least_weight=0.0, seed=0)
    cut = interval_table(values, ["modes_covered"], ranges(["modes_covered"], data)).iloc[0]
    assert cut["modes_covered_high"] == 25
    assert cut["modes_covered_low"] == free["modes_covered_low"]


def test_snapshots_without_fidelity_are_left_out_of_a_crossing():
    gap = pd.DataFrame({"inliers": [0.2, math.nan, 0.6], "tv": [0.5, 9.0, 0.1]})
    assert crossing(gap, "inliers", 0.4)["tv"] == pytest.approx(0.3)
    assert crossing(gap.iloc[:2], "inliers", 0.4) is None


# ---- LaTeX


SIGNS = {
    "#": r"\#",
    "$": r"\$",
    "^": r"\textasciicircum{}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "~": r"\textasciitilde{}",
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
}


@pytest.mark.parametrize("sign", SIGNS)
def test_a_sign_that_latex_reads_is_escaped_in_captions_and_cells(sign):
    text = latex(pd.DataFrame({"method": [f"a{sign}b"], f"x{sign}y": ["1"]}), f"50{sign} of")
    assert rf"\caption{{50{SIGNS[sign]} of}}" in text
    assert f"a{SIGNS[sign]}b & 1" in text
    if sign != "_":  # which reads as a space in a column's name
        assert f"x{SIGNS[sign]}y" in text


def test_escapes_are_not_escaped_again_and_lines_are_joined():
    assert escaped(r"\{~}^") == r"\textbackslash{}\{\textasciitilde{}\}\textasciicircum{}"
    assert escaped("two\n\nlines") == "two lines"
    assert escaped("Phased, 2 × 2") == "Phased, 2 × 2"


def test_a_row_is_not_taken_for_an_option_of_the_one_before():
    rows = latex(pd.DataFrame({"a": ["[x]", "*", "y"]}), "").splitlines()
    assert rows[7:10] == [r"{}[x] \\", r"{}* \\", r"y \\"]


def test_a_bar_does_not_end_a_cell_of_markdown():
    lines = markdown(pd.DataFrame({"method": ["a|b", "c"]})).splitlines()
    assert lines[2] == r"| a\|b   |"


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


def recovered(tmp_path, monkeypatch, seeds):
    values = {
        "teacher": {"speed": [2.0, 2.1, 1.9], "flow": [1.0, 1.2, 0.8]},
        "dmd2": {"speed": [1.0, 1.1, 0.9], "flow": [0.8, 1.4, 0.8]},
        "phased2": {"speed": [1.5, 1.6, 1.4], "flow": [0.9, 1.3, 0.8]},
    }
    configs = []
    for method, own in values.items():
        configs.append(
            {"results": str(tmp_path), "scenario": "moving", "method": method, "seeds": seeds}
            | {"data": {"kind": "moving"}}
        )
        for i, seed in enumerate(seeds):
            path = Paths(read_run(configs[-1])).seed(seed, "metrics.json")
            write_json(path, {name: column[i] for name, column in own.items()})
    runs = [read_run(config) for config in configs]
    monkeypatch.setattr(tables, "kind_of", lambda _: SimpleNamespace(recovered=["speed", "flow"]))
    return recovered_table(runs).set_index("method")


def test_a_share_of_the_gap_is_told_only_where_there_is_a_gap(tmp_path, monkeypatch):
    table = recovered(tmp_path, monkeypatch, [1, 2, 3])
    assert list(table.index) == ["gap", "phased2"]
    assert table.loc["gap", "speed_mean"] == pytest.approx(1)
    assert table.loc["phased2", "speed_mean"] == pytest.approx(0.5)
    assert table.loc["gap", "flow_low"] < 0 < table.loc["gap", "flow_high"]
    assert math.isnan(table.loc["phased2", "flow_mean"])


@pytest.mark.parametrize("seeds", [[1], [1, 2]])
def test_a_share_of_the_gap_needs_an_interval_of_the_gap(tmp_path, monkeypatch, seeds):
    """Of fewer than three seeds nobody knows whether there is one; the control is above."""
    table = recovered(tmp_path, monkeypatch, seeds)
    assert table.loc["gap", "speed_mean"] == pytest.approx(1)
    assert math.isnan(table.loc["gap", "speed_low"])
    assert table.loc["phased2", ["speed_mean", "flow_mean"]].isna().all()


STRATA = {  # method -> stratum -> accuracy of three seeds
    "dmd2": {"fine": [0.8, 0.9, 0.85], "coarse": [0.5, 0.4, 0.45]},
    "phased2": {"fine": [0.8, 0.9, 0.85], "coarse": [0.7, 0.6, 0.65]},
}


def stratified(folder, strata=STRATA, seeds=(1, 2, 3), **changes):
    """Runs of emoji with made-up scores by stratum, and the file of the last seed."""
    names, runs = kinds()["emoji"].strata, []
    for method, own in strata.items():
        config = {"results": str(folder), "scenario": "emoji", "method": method}
        runs.append(read_run(config | {"seeds": list(seeds), "data": {"kind": "emoji"}}))
        for i, seed in enumerate(seeds):
            path = Paths(runs[-1]).seed(seed, "strata.json")
            scores = {
                name: {"samples": 64, **dict.fromkeys(names), "accuracy": values[i]}
                for name, values in own.items()
            }
            write_json(path, scores)
    write_json(path, {**scores, **changes})
    return runs, path


def test_a_stratum_is_a_row_of_each_method_with_its_interval_over_seeds(tmp_path):
    table = strata_table(stratified(tmp_path)[0])
    assert list(table.columns[:4]) == ["method", "stratum", "samples", "n"]
    assert sorted(table["stratum"]) == ["coarse"] * 2 + ["fine"] * 2
    assert list(table["samples"]) == [64] * 4
    row = table.set_index(["method", "stratum"]).loc["phased2", "coarse"]
    mean, low, high = mean_interval([0.7, 0.6, 0.65], (0, 1))
    assert (row.accuracy_mean, row.accuracy_low, row.accuracy_high) == (mean, low, high)
    few = strata_table(stratified(tmp_path / "few", seeds=(1, 2))[0])  # control: no interval of two
    assert few["accuracy_low"].isna().all()
    assert list(few["n"]) == [2] * 4


def test_exchanged_strata_are_another_table(tmp_path):
    """The control of which stratum has which scores."""
    swapped = {m: dict(zip(own, reversed(own.values()), strict=True)) for m, own in STRATA.items()}
    one = strata_table(stratified(tmp_path / "one")[0])
    other = strata_table(stratified(tmp_path / "other", swapped)[0])
    assert list(one["stratum"]) == list(other["stratum"])
    assert not one["accuracy_mean"].equals(other["accuracy_mean"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fine": {"samples": 64}}, "fine: .*expected samples and scores"),
        ({"fine": 3}, "fine: 3: expected samples and scores"),
        ({"third": dict.fromkeys([*kinds()["emoji"].strata, "samples"], 8)}, "third.*first seed"),
    ],
)
def test_scores_by_stratum_that_are_not_whole_are_named(tmp_path, changes, said):
    runs, path = stratified(tmp_path, **changes)
    with pytest.raises(UserError, match=f"{path}: .*{said}"):
        strata_table(runs)
    strata_table(stratified(tmp_path)[0])  # control


def test_a_p_is_short_and_one_that_there_is_not_is_a_dash():
    frame = pd.DataFrame({"metric": ["tv"] * 3, "p": [0.012345, math.nan, 1.0]})
    assert list(readable(frame)["p"]) == ["0.012", "-", "1"]
    assert list(readable(frame.rename(columns={"p": "x"}))["x"])[1] == "nan"  # control


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.00354, 0.00283, 0.00426), "0.0035 [0.0028, 0.0043]"),
        ((-0.02, -0.025, -0.014), "-0.020 [-0.025, -0.014]"),
        ((0.0, 0.0, 0.0), "0.000"),
        ((1e-9, -1e-9, 3e-9), "0.000000 [-0.000000, 0.000000]"),
        ((812.5, 812.4996, 812.5004), "812.5 [812.5, 812.5]"),
    ],
)
def test_a_cell_tells_the_ends_of_its_interval_apart(values, text):
    assert cell(*values) == text
