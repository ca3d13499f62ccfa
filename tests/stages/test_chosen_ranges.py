"""Re-noising ranges that are chosen by how far the untrained student ends from its teacher."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from opened import read_below

from pdmd import cli
from pdmd.config.run import read_run
from pdmd.errors import UserError
from pdmd.files.digests import RECORDS
from pdmd.files.storage import read_json, write_json
from pdmd.flow import RECTIFIED
from pdmd.grids import lattice
from pdmd.phases import split_phases
from pdmd.report.figures import style
from pdmd.report.figures.overlap import overlap
from pdmd.report.registry import figure_names, figures_from
from pdmd.rollout import exit_steps, late_exit_steps, simulate_to_exit
from pdmd.stages.distill import distill_phase
from pdmd.stages.fit import fit_base
from pdmd.stages.grid import choose_grid, plan_of, ranges_of
from pdmd.stages.measure import Fine, measure_steps
from pdmd.stages.ranges import choose_ranges, exit_gaps, exit_shares
from pdmd.stages.stage import Stage
from pdmd.streams import Stream

METHODS = ["teacher", "dmd2-range", "phased2-range", "phased2-auto", "phased2"]
RANGED = METHODS[1:3]
SMALL = {"levels": 12, "samples": 64, "substeps": 2}


def growing(x, t, condition):
    """A velocity whose trajectories are x e^t."""
    return x


def phases_of(boundaries=(2, 4)):
    return split_phases(4, boundaries, 1.0, "nested", 0.02)


def noise(rows=5):
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(0)).double()


def test_distances_are_those_of_a_known_solution():
    x, phases = noise(), phases_of()
    gaps = exit_gaps(Fine(RECTIFIED, growing, 40), lattice(6), phases, x, None)
    size = x.norm(dim=1)
    for phase in phases:
        for i in range(phase.first, phase.last):
            student = 0.75**i * (1 - (phase.times[i] - phase.end))  # even Euler steps, and the exit
            true = torch.tensor(phase.end - 1).exp()
            assert gaps[:, i] == pytest.approx(size * float(abs(student - true)), rel=1e-3)
    coarse = exit_gaps(Fine(RECTIFIED, growing, 1), (1.0, 0.0), phases, x, None)  # control
    assert coarse != pytest.approx(gaps, rel=1e-3)


def test_the_untrained_student_leaves_where_training_does():
    """As the rollout has it that training runs, whose frozen experts are the teacher's steps."""

    def bent(x, t, condition):
        return x.sin() * (1 + t[:, None])

    x, (first, last) = noise(), phases_of()
    gaps = exit_gaps(Fine(RECTIFIED, bent, 30), lattice(9), (first, last), x, None)
    before = simulate_to_exit(RECTIFIED, bent, first, x, None, torch.full((5,), 1)).x_s
    true = Fine(RECTIFIED, bent, 2000)(x, 1.0, 0.0, None)
    for i in (2, 3):
        left = simulate_to_exit(RECTIFIED, bent, last, before, None, torch.full((5,), i)).x_s
        assert gaps[:, i] == pytest.approx((left - true).norm(dim=1), rel=1e-3)
    assert gaps[:, 2] != pytest.approx(gaps[:, 3], rel=1e-3)  # control


def test_the_calls_are_as_many_as_is_said():
    rows = []

    def counted(x, t, condition):
        rows.append(len(x))
        return x

    exit_gaps(Fine(RECTIFIED, counted, 3), lattice(7), phases_of(), noise(), None)
    assert sum(rows) == 5 * (2 * 3 * 6 + 4)  # the phases' ends are levels
    rows.clear()
    exit_gaps(Fine(RECTIFIED, counted, 3), lattice(8), phases_of(), noise(), None)  # control
    assert sum(rows) == 5 * (2 * 3 * (7 + 1) + 4)  # .5 is none of its levels


@pytest.mark.parametrize("exits", ["stratified", "update", "last", "late"])
def test_exits_count_as_often_as_they_are_trained(parts, exits):
    student = read_run(parts["phased2-range/config/range.json"]).student
    (phase,), rows = phases_of((4,)), 12_000
    shares = exit_shares(replace(student, exits=exits), phase)
    drawn = {
        "stratified": exit_steps(phase, rows, 1),
        "update": torch.randint(4, (rows,), generator=torch.Generator().manual_seed(0)),
        "last": torch.full((rows,), 3),
        "late": late_exit_steps(phase, rows, 1, Stream([1], 0, "exits")),
    }
    counts = {name: one.bincount(minlength=4) / rows for name, one in drawn.items()}
    assert shares == pytest.approx(counts[exits].double(), abs=0.02)
    others = [one for one in counts.values() if (one - counts[exits]).abs().max() > 0.02]
    assert len(others) >= 2  # control
    assert exit_shares(replace(student, backward="all"), phase).tolist() == [0, 0, 0, 1]


@pytest.fixture(scope="module")
def parts(tmp_path_factory, tiny):
    """The configs of a tiny mixture whose methods' ranges have been chosen."""
    results = tmp_path_factory.mktemp("ranged") / "results"
    made = tiny(results, {"methods": METHODS, "measure": SMALL})
    for name in RANGED:
        choose_ranges(made[f"{name}/config/range.json"])
    return made


def folder(parts):
    run = read_run(parts["config/base.json"])
    return Path(run.results) / run.scenario


def variant(config, method, results=None, **student):
    """The config of another method, that has other keys of `student`."""
    made = {**config, "method": method, "student": {**config["student"], **student}}
    return made | ({} if results is None else {"results": str(results)})


def chosen(parts, method):
    return read_json(folder(parts) / method / "range.json")


def test_a_file_says_what_was_chosen_and_by_what(parts):
    for method in RANGED:
        value = chosen(parts, method)
        assert value["overlap"] == [0.05, 0.95]
        assert [one["range"] for one in value["phases"]] == value["ranges"]
        for phase in value["phases"]:
            (low, high), (least, most) = phase["range"], phase["within"]
            assert least <= low < high <= most
            assert [low, high] == pytest.approx(
                [max(least, phase["wished"][0]), min(most, phase["wished"][1])], abs=1e-4
            )
            curve = phase["curve"]["overlap"]
            assert curve == sorted(curve)
            inside = [
                one for t, one in zip(phase["curve"]["t"], curve, strict=True) if low <= t <= high
            ]
            assert 0.04 < min(inside) < max(inside) < 0.96
    one, two = chosen(parts, "dmd2-range"), chosen(parts, "phased2-range")
    assert one["ranges"][0] != two["ranges"][1]  # control: fewer steps may be left at


def test_a_measurement_is_the_same_each_time(parts, tiny, tmp_path):
    again = tiny(tmp_path / "again", {"methods": METHODS, "measure": SMALL})
    choose_ranges(again["dmd2-range/config/range.json"])
    assert chosen(again, "dmd2-range") == chosen(parts, "dmd2-range")
    moved = tiny(tmp_path / "moved", {"methods": METHODS, "measure": {**SMALL, "seed": 1}})
    choose_ranges(moved["dmd2-range/config/range.json"])
    assert chosen(moved, "dmd2-range") != chosen(parts, "dmd2-range")  # control


def test_phases_re_noise_in_the_chosen_ranges(parts):
    stage = Stage(parts["phased2-range/config/distill.json"])
    ends = torch.tensor([0.0, 1.0])
    for phase, (low, high) in zip(
        stage.phases, chosen(parts, "phased2-range")["ranges"], strict=True
    ):
        assert phase.renoise_times(ends).tolist() == pytest.approx([low, high], abs=1e-6)
    given = Stage(parts["phased2/config/distill.json"]).phases  # control
    assert [(one.low, one.high) for one in given] == [(0.52, 0.98), (0.02, 0.98)]


def test_what_is_configured_bounds_what_is_chosen(parts, tmp_path):
    config = parts["dmd2-range/config/range.json"]
    bounded = variant(
        config, "bounded", tmp_path, renoise={"range": "auto", "low": 0.3, "high": 0.6}
    )
    choose_ranges(bounded)
    assert chosen(of_config(bounded), "bounded")["ranges"] == [[0.3, 0.6]]
    (low, high) = chosen(parts, "dmd2-range")["ranges"][0]  # control
    assert low < 0.3 < 0.6 < high


def of_config(config):
    return {"config/base.json": config}


def test_disjoint_phases_keep_to_their_own_intervals(parts, tmp_path):
    config = variant(
        parts["phased2-range/config/range.json"], "apart", tmp_path, interval="disjoint"
    )
    choose_ranges(config)
    first, last = chosen(of_config(config), "apart")["ranges"]
    assert 0.5 < first[0] < first[1] <= 0.98
    assert 0.02 <= last[0] < last[1] == 0.5
    assert chosen(parts, "phased2-range")["ranges"][1][1] > 0.5  # control: nested


def test_ranges_are_of_the_chosen_steps_where_both_are_chosen(parts, tmp_path):
    config = parts["phased2-range/config/range.json"]
    both = variant(config, "both", tmp_path, grid="auto", boundaries="auto", phases=2)
    with pytest.raises(UserError, match=r"both/grid\.json"):
        choose_ranges(both)
    measure_steps(parts["config/measure.json"] | {"results": str(tmp_path)})
    choose_grid(
        parts["phased2-auto/config/grid.json"] | {"method": "both", "results": str(tmp_path)}
    )
    choose_ranges(both)
    plan = plan_of(read_run(both))
    ends = [plan.times[end] for end in plan.boundaries]
    assert [one["end"] for one in chosen(of_config(both), "both")["phases"]] == ends
    record = read_json(tmp_path / "mixture2d/both/ranging.json")
    assert any(name.endswith("both/grid.json") for name in record["inputs_sha256"])
    assert ends != [0.5, 0]  # control


def test_a_fitted_teacher_is_measured_too(parts, tmp_path):
    config = variant(parts["dmd2-range/config/range.json"], "fitted", tmp_path)
    config["teacher"] = {**config["teacher"], "kind": "fitted"}
    fit_base(parts["config/base.json"] | {"results": str(tmp_path)})
    choose_ranges(config)
    found = chosen(of_config(config), "fitted")["ranges"]
    assert found != chosen(parts, "dmd2-range")["ranges"]
    record = read_json(tmp_path / "mixture2d/fitted/ranging.json")
    assert any(name.endswith("base/model.safetensors") for name in record["inputs_sha256"])


def test_a_student_of_a_chosen_range_trains(parts):
    fit_base(parts["config/base.json"])
    distill_phase(parts["phased2-range/config/distill.json"], 1, [1, 2])
    record = read_json(folder(parts) / "phased2-range/seed1/phase1/provenance.json")
    assert any(name.endswith("phased2-range/range.json") for name in record["inputs_sha256"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ([[0.1, 0.9]], "ranges: .*: expected a rising pair in 0 to 1 for each of 2 phases"),
        ([[0.6, 0.9], [0.9, 0.1]], "expected a rising pair"),
        ([[0.6, 0.9], [0.1, 1.1]], "expected a rising pair"),
        ([[0.6, 0.9], [0.1, float("nan")]], "expected a rising pair"),
        ([[0.6, 0.9], 0.1], "expected what `pdmd range` writes"),
    ],
)
def test_a_damaged_choice_is_refused_in_one_line(parts, tmp_path, change, expected):
    path = tmp_path / "mixture2d/phased2-range/range.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"ranges": change}))
    config = parts["phased2-range/config/distill.json"] | {"results": str(tmp_path)}
    with pytest.raises(UserError, match=expected) as caught:
        ranges_of(read_run(config))
    assert str(path) in str(caught.value)
    path.write_text(json.dumps({"ranges": [[0.6, 0.9], [0.1, 0.9]]}))  # control
    assert ranges_of(read_run(config)) == ((0.6, 0.9), (0.1, 0.9))


def test_the_figure_shows_each_phase_and_reads_what_it_declares(parts):
    names = ["teacher", *RANGED, "phased2"]
    runs = [read_run(parts[f"{name}/config/table.json"]) for name in names]
    assert figure_names(runs)[-1] == "overlap"
    with read_below(folder(parts)) as read, style.paper():
        drawn = overlap(runs)
    declared = {Path(path).absolute() for path in figures_from(runs)["overlap"]}
    assert read == declared | {path for path in read if path.name in RECORDS}
    labels = [one.get_label() for one in drawn.axes[0].get_lines() if one.get_linewidth() > 1]
    assert [label.partition(": ")[0] for label in labels] == [
        "DMD2, chosen range, phase 1",
        "Phased, 2 × 2, chosen ranges, phase 1",
        "Phased, 2 × 2, chosen ranges, phase 2",
    ]
    assert "overlap" not in figure_names([runs[0], runs[-1]])  # control


def test_several_processes_choose_the_same(parts, tmp_path):
    config = parts["phased2-range/config/range.json"] | {"results": str(tmp_path)}
    write_json(tmp_path / "job.json", config)
    command = [sys.executable, "-m", "pdmd", "launch", "--processes", "2", "--", "range"]
    command += ["--config", str(tmp_path / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    two, one = chosen(of_config(config), "phased2-range"), chosen(parts, "phased2-range")
    assert two["ranges"] == [pytest.approx(pair, abs=1e-5) for pair in one["ranges"]]
    cost = read_json(tmp_path / "mixture2d/phased2-range/ranging_cost.json")
    assert cost["processes"] == 2
    alone = read_json(folder(parts) / "phased2-range/ranging_cost.json")  # control
    assert alone["processes"] == 1


def test_commands_choose_ranges(parts, tmp_path):
    path = tmp_path / "range.json"
    path.write_text(json.dumps(parts["dmd2-range/config/range.json"]))
    before = (folder(parts) / "dmd2-range/range.json").read_bytes()
    assert cli.main(["range", "--config", str(path)]) == 0
    assert (folder(parts) / "dmd2-range/range.json").read_bytes() == before
    assert cli.main(["grid", "--config", str(path)]) != 0  # control: settings of another stage
