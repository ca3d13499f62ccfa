"""The teacher's measured errors, and the grids and phase ends that methods get of them."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from opened import read_below

from pdmd import cli
from pdmd.config.budget import calls_of
from pdmd.config.run import read_run
from pdmd.errors import UserError
from pdmd.files.digests import RECORDS
from pdmd.files.storage import read_json, write_json
from pdmd.flow import RECTIFIED
from pdmd.grids import best_grid, lattice, step_costs
from pdmd.phases import step_grid
from pdmd.report.figures import style
from pdmd.report.figures.steps import steps
from pdmd.report.reading import read_costs
from pdmd.report.registry import figure_names, figures_from
from pdmd.rollout import sample
from pdmd.stages import measure
from pdmd.stages.distill import distill_phase
from pdmd.stages.grid import choose_grid, plan_of, read_measured
from pdmd.stages.measure import Fine, measure_steps, step_errors
from pdmd.stages.stage import Stage
from pdmd.training.world import ALONE

METHODS = ["teacher4-auto", "dmd2-auto", "phased2-auto", "phased2"]
SMALL = {"levels": 12, "samples": 64, "substeps": 2}


def growing(x, t, condition):
    """A velocity whose trajectories are x e^t."""
    return x


def noise(rows=3, width=2):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0)).double()


def test_errors_are_those_of_a_known_solution():
    levels, x = lattice(6), noise()
    local, end = step_errors(Fine(RECTIFIED, growing, 40), levels, x, None, carried=True)
    t = torch.tensor(levels, dtype=torch.float64)
    true = (t - 1).exp()
    euler = true[:, None] * (1 + t[None, :] - t[:, None])
    square = ((euler - true[None, :]) ** 2).triu(1)
    size = x.square().mean(1)[:, None, None]
    assert torch.allclose(local, size * square, rtol=1e-3)
    carried = square * (-2 * t).exp()[None, :]  # a difference shrinks as e^t
    assert torch.allclose(end, size * carried, rtol=1e-3)
    assert not torch.allclose(end, local, atol=1e-3)  # control
    assert torch.equal(local, local.triu(1))


def test_coarse_solutions_have_other_errors():
    """The control: substeps matter to the numbers above."""
    levels, x = lattice(6), noise()
    fine, coarse = (
        step_errors(Fine(RECTIFIED, growing, n), levels, x, None, carried=False)[0] for n in (40, 1)
    )
    assert not torch.allclose(fine, coarse, rtol=1e-3)


def test_the_calls_are_as_many_as_is_said():
    rows = []

    def counted(x, t, condition):
        rows.append(len(x))
        return x

    for carried in (True, False):
        rows.clear()
        step_errors(Fine(RECTIFIED, counted, 3), lattice(7), noise(5), None, carried)
        assert sum(rows) == 5 * sum(calls_of(7, 3, carried).values())
    assert calls_of(24, 2, False) == {"trajectory": 92, "levels": 23, "carried": 0}
    assert calls_of(24, 2, True, 2)["carried"] == 2 * 8096  # guided


def test_parts_of_a_batch_change_nothing(monkeypatch):
    labels = torch.arange(5)

    def conditional(x, t, condition):
        return x * (1 + condition[:, None])

    fine = Fine(RECTIFIED, conditional, 2)
    whole = step_errors(fine, lattice(6), noise(5), labels, carried=True)
    monkeypatch.setattr(measure, "CHUNK", 6)
    for one, other in zip(
        whole, step_errors(fine, lattice(6), noise(5), labels, carried=True), strict=True
    ):
        assert torch.equal(one, other)
    mixed = step_errors(fine, lattice(6), noise(5), labels.flip(0), carried=True)  # control
    assert not torch.allclose(whole[1], mixed[1])


@pytest.fixture(scope="module")
def parts(tmp_path_factory, tiny):
    """The configs of a tiny mixture whose teacher has been measured, and grids chosen."""
    results = tmp_path_factory.mktemp("measured") / "results"
    made = tiny(results, {"methods": METHODS, "measure": SMALL})
    measure_steps(made["config/measure.json"])
    for name in METHODS[:3]:
        choose_grid(made[f"{name}/config/grid.json"])
    return made


def folder(parts):
    run = read_run(parts["config/measure.json"])
    return Path(run.results) / run.scenario


def test_a_measurement_is_the_same_each_time(parts, tiny, tmp_path):
    again = tiny(tmp_path / "again", {"methods": METHODS, "measure": SMALL})
    measure_steps(again["config/measure.json"])
    one, other = (read_json(folder(p) / "base/step_errors.json") for p in (parts, again))
    assert one == other
    moved = tiny(tmp_path / "moved", {"methods": METHODS, "measure": {**SMALL, "seed": 1}})
    measure_steps(moved["config/measure.json"])
    assert read_json(folder(moved) / "base/step_errors.json")["end"] != one["end"]  # control


def test_a_file_says_what_was_chosen_and_predicted(parts):
    value = read_json(folder(parts) / "phased2-auto/grid.json")
    assert value["times"][0] == 1
    assert value["times"][-1] == 0
    assert sum(value["predicted"]["steps"]) == pytest.approx(value["predicted"]["total"], rel=1e-4)
    assert value["predicted"]["total"] < value["of_shift"]["total"]
    assert value["of_shift"]["times"] == [1, 0.75, 0.5, 0.25, 0]
    assert len(value["predicted"]["phases"]) == 2
    assert value["error"] == "end"


@pytest.mark.parametrize("method", METHODS[:3])
def test_a_sampler_has_the_times_of_the_file(parts, method):
    run = read_run(parts[f"{method}/config/sample.json"])
    value = read_json(folder(parts) / method / "grid.json")
    plan = plan_of(run)
    assert (list(plan.times), list(plan.boundaries)) == (value["times"], value["boundaries"])
    given = plan_of(read_run(parts["phased2/config/sample.json"]))  # control
    assert given.times == step_grid(4, 1.0) != plan.times


def test_phases_of_a_student_run_on_the_chosen_grid(parts):
    stage = Stage(parts["phased2-auto/config/distill.json"])
    plan = plan_of(stage.run)
    first, last = stage.phases
    assert first.times == last.times == plan.times
    assert (first.last, last.last) == plan.boundaries
    assert first.shift == 1.0


def test_a_student_of_a_chosen_grid_trains(parts):
    from pdmd.stages.fit import fit_base

    fit_base(parts["config/base.json"])
    distill_phase(parts["phased2-auto/config/distill.json"], 1, [1, 2])
    record = read_json(folder(parts) / "phased2-auto/seed1/phase1/provenance.json")
    assert any(name.endswith("phased2-auto/grid.json") for name in record["inputs_sha256"])


def test_the_measured_grid_ends_nearer_to_the_fine_solution_than_shift_5(parts):
    """The prediction, a sum over steps, and what sampling does; shift 5 is the control."""
    measured = read_measured(folder(parts) / "base/step_errors.json")
    teacher = Stage(parts["teacher4-auto/config/sample.json"]).teacher(1)
    x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(5))
    fine = Fine(RECTIFIED, teacher, 200)(x, 1.0, 0.0, None)
    chosen = plan_of(read_run(parts["teacher4-auto/config/sample.json"])).times
    wrong, said = {}, {}
    for name, times in (("chosen", chosen), ("shift 5", step_grid(4, 5.0))):
        ends = sample(RECTIFIED, [teacher] * 4, times, x, None)
        wrong[name] = float((ends - fine).square().mean())
        said[name] = sum(step_costs(measured.levels, measured.errors, times))
    assert wrong["chosen"] < 0.6 * wrong["shift 5"]
    assert said["chosen"] < 0.6 * said["shift 5"]
    for name in wrong:
        assert said[name] == pytest.approx(wrong[name], rel=0.5)
    by_step = np.array(read_json(folder(parts) / "base/step_errors.json")["step"])
    assert best_grid(by_step, 4)[0] != best_grid(measured.errors, 4)[0]  # another criterion


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"times": [1, 0.5, 0]}, "times: .*: expected 5, from 1 to 0"),
        ({"times": [1, 0.5, 0.6, 0.2, 0]}, "times: .*: expected 5, from 1 to 0"),
        ({"times": "even"}, "expected what `pdmd grid` writes"),
        ({"boundaries": [4]}, "boundaries: .*: expected 2 rising to 4"),
        ({"boundaries": [3, 3]}, "boundaries: .*: expected 2 rising to 4"),
    ],
)
def test_a_damaged_choice_is_refused_in_one_line(parts, tmp_path, change, expected):
    value = read_json(folder(parts) / "phased2-auto/grid.json") | change
    path = tmp_path / "mixture2d/phased2-auto/grid.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(value))
    config = parts["phased2-auto/config/distill.json"] | {"results": str(tmp_path)}
    with pytest.raises(UserError, match=expected) as caught:
        plan_of(read_run(config))
    assert str(path) in str(caught.value)


def test_a_damaged_measurement_is_refused_in_one_line(parts, tmp_path):
    value = read_json(folder(parts) / "base/step_errors.json")
    path = tmp_path / "step_errors.json"
    for change in ({"levels": value["levels"][1:]}, {"end": [[float("nan")] * 12] * 12}):
        path.write_text(json.dumps(value | change))
        with pytest.raises(UserError, match="end: expected an error for each step"):
            read_measured(path)
    path.write_text(json.dumps(value))
    assert read_measured(path).kind == "end"  # control


def test_phases_without_room_in_the_chosen_levels_are_refused(parts):
    config = json.loads(json.dumps(parts["phased2-auto/config/grid.json"]))
    config["student"]["renoise"] = {"high": 0.3, "low": 0.29}
    with pytest.raises(UserError, match=r"student.boundaries: 'auto': expected phases with room"):
        choose_grid(config)


def test_the_figure_shows_each_grid_once_and_reads_what_it_declares(parts):
    runs = [read_run(parts[f"{name}/config/table.json"]) for name in METHODS]
    assert figure_names(runs)[-1] == "steps"
    with read_below(folder(parts)) as read, style.paper():
        drawn = steps(runs)
    declared = {Path(path).absolute() for path in figures_from(runs)["steps"]}
    assert read == declared | {path for path in read if path.name in RECORDS}
    assert {path.name for path in declared} == {"grid.json", "step_errors.json"}
    labels = [line.get_label() for line in drawn.axes[0].get_lines()]
    assert [label.rpartition(",")[0] for label in labels] == [
        "4 steps of shift 1",
        "4 steps chosen",
    ]
    assert "steps" not in figure_names(runs[-1:])  # control


def test_commands_measure_and_choose(parts, tmp_path):
    path = tmp_path / "grid.json"
    path.write_text(json.dumps(parts["dmd2-auto/config/grid.json"]))
    before = (folder(parts) / "dmd2-auto/grid.json").read_bytes()
    assert cli.main(["grid", "--config", str(path)]) == 0
    assert (folder(parts) / "dmd2-auto/grid.json").read_bytes() == before
    assert cli.main(["measure", "--config", str(path)]) != 0  # control: settings of another stage
    path.write_text(json.dumps(parts["config/measure.json"]))
    assert cli.main(["grid", "--config", str(path)]) != 0


def launched(config, processes, folder):
    """(exit status, stderr) of `pdmd launch ... -- measure`."""
    write_json(folder / "job.json", config)
    command = [sys.executable, "-m", "pdmd", "launch", "--processes", str(processes), "--"]
    command += ["measure", "--config", str(folder / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("samples", [64, 5])  # the latter have no equal shares
def test_several_processes_measure_the_same(parts, tmp_path, samples):
    config = copy.deepcopy(parts["config/measure.json"]) | {"results": str(tmp_path / "alone")}
    config["measure"]["samples"] = samples
    measure_steps(config)
    several = config | {"results": str(tmp_path / "several")}
    assert launched(several, 2, tmp_path) == (0, "")
    one, two = (read_json(tmp_path / name / BELOW) for name in ("alone", "several"))
    for kind in ("step", "end"):
        assert np.array(two[kind]) == pytest.approx(np.array(one[kind]), rel=1e-4, abs=1e-12)
    assert {**two, "step": 0, "end": 0} == {**one, "step": 0, "end": 0}
    assert read_json((tmp_path / "several" / BELOW).with_name(COST))["processes"] == 2
    config["measure"]["samples"] = samples - 1  # control: each sample counts
    measure_steps(config)
    fewer = np.array(read_json(tmp_path / "alone" / BELOW)["end"])
    assert fewer != pytest.approx(np.array(one["end"]), rel=1e-4)


BELOW, COST = "mixture2d/base/step_errors.json", "measuring_cost.json"


def test_more_processes_than_samples_are_refused(parts, tmp_path):
    config = copy.deepcopy(parts["config/measure.json"]) | {"results": str(tmp_path)}
    config["measure"]["samples"] = 1
    status, errors = launched(config, 2, tmp_path)
    assert status != 0
    assert "measure.samples: 1: expected at least one for each of 2 processes" in errors
    assert "Traceback" not in errors
    with pytest.raises(UserError, match="at least one for each of 3 processes"):
        measure_steps(config, replace(ALONE, size=3))
    measure_steps(config)  # control: one is enough for one


def test_the_cost_stands_in_the_table_of_costs_and_not_in_the_errors(parts):
    errors = read_json(folder(parts) / "base/step_errors.json")
    assert "seconds" not in errors  # which would not be the same each time
    cost = read_json(folder(parts) / "base" / COST)
    assert cost["forward_equivalents_by_role"] == errors["calls_a_sample"]
    runs = [read_run(parts[f"{name}/config/table.json"]) for name in METHODS[:1]]
    (row,) = read_costs(runs)["measure"]
    assert row["seconds"] == cost["seconds"] > 0
    assert row["forward_equivalents"] == sum(calls_of(12, 2, True).values())
    record = read_json(folder(parts) / "base/measuring.json")
    assert {COST, "step_errors.json"} == set(record["outputs_sha256"])
