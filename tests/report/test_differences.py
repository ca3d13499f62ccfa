"""Differences are of paired seeds, from DMD2 and from the untrained teacher on the same grid."""

import math

import pandas as pd
import pytest
from scipy import stats
from test_reading import scenario

from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.files.storage import read_json, write_json
from pdmd.report.differences import COLUMNS, better, differences_table, untrained
from pdmd.report.tables import write_tables

METHODS = ["teacher", "teacher4", "dmd2", "phased2"]
TV = {
    "teacher": [0.010, 0.012, 0.011, 0.013, 0.009],
    "teacher4": [0.30, 0.31, 0.29, 0.32, 0.30],
    "dmd2": [0.20, 0.22, 0.19, 0.21, 0.23],
    "phased2": [0.10, 0.12, 0.10, 0.11, 0.12],
}


def made(folder, values=TV, metric="tv", methods=METHODS):
    """Runs of a grid whose methods have these values of a metric, a value a seed."""
    seeds = list(range(1, len(next(iter(values.values()))) + 1))
    configs = scenario(folder, methods, seeds)
    for config in configs:
        for seed, value in zip(seeds, values[config["method"]], strict=True):
            path = Paths(read_run(config)).seed(seed, "metrics.json")
            write_json(path, read_json(path) | {metric: value})
    return configs


def table(configs):
    frame = differences_table([read_run(config) for config in configs])
    return frame.set_index(["method", "reference", "metric"])


def test_a_difference_is_scipys_paired_test(tmp_path):
    row = table(made(tmp_path)).loc["phased2", "dmd2", "tv"]
    test = stats.ttest_rel(TV["phased2"], TV["dmd2"])
    assert row["n"] == 5
    assert row["difference_mean"] == pytest.approx(-0.1)
    interval = test.confidence_interval(0.95)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(tuple(interval))
    assert row["p"] == pytest.approx(test.pvalue)
    unpaired = stats.ttest_ind(TV["phased2"], TV["dmd2"]).pvalue
    assert row["p"] != pytest.approx(unpaired, rel=0.01)  # control


def test_each_student_has_dmd2_and_the_untrained_teacher_on_its_grid(tmp_path):
    frame = differences_table([read_run(one) for one in made(tmp_path)])
    assert list(frame.columns) == COLUMNS
    assert set(zip(frame["method"], frame["reference"], strict=True)) == {
        ("dmd2", "teacher4"),
        ("phased2", "dmd2"),
        ("phased2", "teacher4"),
    }
    assert set(frame.loc[frame["reference"] == "dmd2", "beats"]) == {"-"}


def test_a_grid_is_known_by_its_values_and_not_by_a_name(tmp_path):
    configs = made(tmp_path)
    runs = [read_run(config) for config in configs]
    assert untrained(runs[-1], runs) == ["teacher4"]
    for other in ({"steps": 4, "shift": 3.0}, {"steps": 5, "shift": 1.0}):  # controls
        runs = [
            read_run(one | ({"teacher": other} if i == 1 else {})) for i, one in enumerate(configs)
        ]
        assert untrained(runs[-1], runs) == []
    levels = [1.0, 0.9, 0.6, 0.3, 0.0]
    for shift in (1.0, 3.0):  # which a grid of noise levels does not have
        own = {"teacher": {"steps": 4, "shift": shift, "grid": levels}}
        runs = [read_run(one | (own if i == 1 else {})) for i, one in enumerate(configs)]
        student = read_run(configs[-1] | {"student": configs[-1]["student"] | {"grid": levels}})
        assert untrained(student, runs) == ["teacher4"]
        assert untrained(runs[-1], runs) == []


def test_a_student_that_does_not_beat_what_it_started_from_says_so(tmp_path):
    worse = TV | {"dmd2": [0.40, 0.42, 0.39, 0.43, 0.41]}
    unsure = TV | {"dmd2": [0.28, 0.33, 0.30, 0.30, 0.31]}
    found = {
        name: table(made(tmp_path / name, values)).loc[("dmd2", "teacher4", "tv"), "beats"]
        for name, values in (("yes", TV), ("no", worse), ("undecided", unsure))
    }
    assert found == {name: name for name in found}


def test_higher_lower_and_nearer_are_told_apart():
    def seeds(name, *values):
        return [{name: value} for value in values]

    low, high = (0.1, 0.12, 0.11), (0.3, 0.35, 0.31)
    for name, verdict in (("tv", "yes"), ("coverage", "no"), ("seconds", "-"), ("spread", "-")):
        assert better(name, seeds(name, *low), seeds(name, *high), None) == verdict
    spread = [seeds("spread", *values) for values in (low, high)]
    near_high = seeds("spread", 0.32, 0.33, 0.34)
    assert better("spread", *spread, near_high) == "no"
    assert better("spread", *spread, seeds("spread", 0.1, 0.1, 0.1)) == "yes"


def test_two_seeds_decide_nothing(tmp_path):
    values = {name: column[:2] for name, column in TV.items()}
    frame = table(made(tmp_path, values))
    row = frame.loc["dmd2", "teacher4", "tv"]
    assert row["n"] == 2
    assert row["difference_mean"] == pytest.approx(-0.095)
    assert row[["difference_low", "difference_high", "p"]].isna().all()
    assert set(frame.xs("teacher4", level="reference")["beats"]) == {"undecided"}


def test_a_seed_without_a_value_is_no_pair(tmp_path):
    values = TV | {"dmd2": [None, *TV["dmd2"][1:]]}
    row = table(made(tmp_path, values)).loc["phased2", "dmd2", "tv"]
    test = stats.ttest_rel(TV["phased2"][1:], TV["dmd2"][1:])
    assert (row["n"], row["p"]) == (4, pytest.approx(test.pvalue))


def test_equal_seeds_are_p_1_and_a_constant_step_is_no_test(tmp_path):
    same = TV | {"phased2": TV["dmd2"]}
    assert table(made(tmp_path / "same", same)).loc[("phased2", "dmd2", "tv"), "p"] == 1
    step = TV | {"phased2": [value - 0.0625 for value in TV["dmd2"]]}
    row = table(made(tmp_path / "step", step)).loc["phased2", "dmd2", "tv"]
    assert row["difference_mean"] == pytest.approx(-0.0625)
    assert math.isnan(row["p"])


def test_the_table_is_written_with_its_twins(tmp_path):
    write_tables(made(tmp_path))
    folder = tmp_path / "grid" / "tables"
    found = pd.read_csv(folder / "differences.csv", na_values=[], keep_default_na=False)
    assert list(found.columns) == COLUMNS
    text = (folder / "differences.md").read_text()
    row = next(
        line
        for line in text.splitlines()
        if "phased2" in line and "| dmd2" in line and "tv" in line
    )
    assert "-0.100 [-0.109, -0.091]" in row
    assert "beats" in (folder / "differences.tex").read_text()


def test_without_references_there_are_no_rows(tmp_path):
    configs = made(tmp_path, methods=["teacher", "phased2"])
    assert differences_table([read_run(config) for config in configs]).empty
