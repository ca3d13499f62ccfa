"""Noise levels and phase ends that are written down, or chosen from a measurement."""

import pytest
from configs import ROOT, accepted, own, refused

from pdmd.config.budget import phase_updates, updates_of
from pdmd.config.methods import spelt
from pdmd.config.parts import parts
from pdmd.config.times import chooses, phase_has_room, ranges, step_times
from pdmd.phases import split_phases, step_grid
from pdmd.stages.outputs import (
    DIAGNOSTICS,
    chosen_reads,
    condition_reads,
    expert_reads,
    frozen_reads,
    grid_reads,
    sampler_reads,
)

LEVELS = [1, 0.9, 0.6, 0.3, 0]


def student(**diff):
    """A 2D mixture whose students have other keys."""
    return own("mixture2d", methods=["teacher", "dmd2", "phased2"], student=diff)


def auto(*methods, **diff):
    return own("mixture2d", methods=["teacher", *methods], **diff)


def runs_of(diff):
    return {method: run for (_, method), run in accepted(diff).runs.items()}


def test_levels_that_are_written_down_are_the_students():
    run = runs_of(student(grid=LEVELS))["phased2"]
    assert step_times(run.student) == (1.0, 0.9, 0.6, 0.3, 0.0)
    assert not chooses(run)
    assert runs_of(student())["phased2"].student.grid is None
    even = step_times(runs_of(student())["phased2"].student)  # control
    assert even == pytest.approx(step_grid(4, 1.0))


@pytest.mark.parametrize(
    ("diff", "line"),
    [
        ({"grid": [1, 0.5, 0]}, "student.grid: [1, 0.5, 0]: expected 5 levels that fall from 1"),
        ({"grid": [1, 0.5, 0.6, 0.3, 0]}, "student.grid"),
        ({"grid": [1, 0.6, 0.6, 0.3, 0]}, "student.grid"),
        ({"grid": [0.99, 0.9, 0.6, 0.3, 0]}, "student.grid"),
        ({"grid": [1, 0.9, 0.6, 0.3, 0.02]}, "student.grid"),
        ({"grid": [1, 0.9, 0.6, -0.3, 0]}, "student.grid.3: -0.3: expected at least 0"),
        ({"grid": "even"}, "student.grid: 'even': expected a name that matches auto"),
        ({"grid": 4}, "student.grid: 4: expected a value of type array or string or null"),
        ({"boundaries": "even"}, "student.boundaries: 'even': expected a name that matches auto"),
        ({"boundaries": "auto"}, "student.phases: null: expected their number with boundaries"),
        ({"phases": 2}, "student.phases: 2: expected none without it"),
        ({"boundaries": "auto", "phases": 5}, "student.phases: 5: expected at most student.steps"),
        ({"grid": [1, 0.999, 0.99, 0.3, 0]}, "room for re-noising between phase 1's end"),
        ({"grid": "auto", "steps": 24, "boundaries": [24]}, "student.steps: 24: expected less"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(diff, line):
    methods = ["teacher", "dmd2"] if "boundaries" in diff or "phases" in diff else None
    settings = student(**diff)
    if methods:
        settings["overrides"]["mixture2d"]["methods"] = methods
    assert line in refused(settings)


def test_a_teachers_levels_are_checked_as_a_students():
    methods = {"levels": {"kind": "teacher", "teacher": {"steps": 4, "grid": [1, 0.5, 0]}}}
    line = refused({**auto("levels"), "methods": methods})
    assert "teacher.grid: [1, 0.5, 0]: expected 5 levels" in line
    methods["levels"]["teacher"]["grid"] = LEVELS  # control
    assert runs_of({**auto("levels"), "methods": methods})["levels"].teacher.grid == tuple(LEVELS)


def test_methods_of_another_teacher_than_the_measured_are_refused():
    methods = {
        "fitted": {"kind": "distill", "teacher": {"kind": "fitted"}, "student": {"grid": "auto"}}
    }
    line = refused({**auto("fitted"), "methods": methods})
    assert "mixture2d/fitted: teacher.kind: 'fitted': expected exact" in line
    del methods["fitted"]["student"]  # control
    accepted({**auto("fitted"), "methods": methods})


def test_the_number_of_phases_needs_no_file():
    experiment = accepted(auto("dmd2-auto", "phased2-auto"))
    assert experiment.phases("mixture2d", "phased2-auto") == 2
    assert experiment.phases("mixture2d", "dmd2-auto") == 1
    run = experiment.runs["mixture2d", "phased2-auto"]
    assert run.student.ends == (2, 4)
    assert phase_updates(run, 1) == updates_of(run, 0, 2)
    assert updates_of(run, 0, 3) + updates_of(run, 3, 4) == run.distill.updates
    assert updates_of(run, 0, 3) > phase_updates(run, 1)


def test_only_scenarios_that_choose_measure():
    chosen, plain = accepted(auto("phased2-auto")), accepted(auto("phased2"))
    names = set(parts(chosen, "mixture2d", ROOT)) - set(parts(plain, "mixture2d", ROOT))
    assert {"config/measure.json", "phased2-auto/config/grid.json"} <= names
    assert "config/measure.json" not in parts(plain, "mixture2d", ROOT)  # control


def test_what_is_measured_is_no_part_of_training():
    before, after = (
        parts(accepted(auto("phased2-auto", measure={"samples": n})), "mixture2d") for n in (5, 6)
    )
    assert {name for name in before if before[name] != after[name]} == {"config/measure.json"}


@pytest.mark.parametrize("method", ["dmd2-auto", "phased2-auto"])
def test_all_that_reads_the_choice_declares_it(method):
    run = runs_of(auto(method))[method]
    (path,) = grid_reads(run)
    assert str(path) == f"results/mixture2d/{method}/grid.json"
    for reads in (frozen_reads(run, 1, 1), expert_reads(run, 1, [1]), sampler_reads(run, 1)):
        assert path in reads
    for name, diagnostic in DIAGNOSTICS.items():
        if diagnostic.applies(run):
            assert path in diagnostic.reads(run, 1), name
    assert path not in condition_reads(run)  # control
    assert grid_reads(runs_of(auto("phased2"))["phased2"]) == []


def test_a_teacher_of_chosen_steps_declares_the_choice():
    run = runs_of(auto("teacher4-auto"))["teacher4-auto"]
    assert grid_reads(run)[0] in sampler_reads(run, 1)


def test_a_room_by_itself_is_the_room_of_the_phases():
    run = runs_of(student(interval="disjoint"))["phased2"].student
    for times in ((1.0, 0.9, 0.6, 0.3, 0.0), (1.0, 0.995, 0.99, 0.3, 0.0)):
        rooms = [phase_has_room(run, 0.0, times, *ends) for ends in ((0, 2), (2, 4))]
        if all(rooms):
            phases = split_phases(4, (2, 4), 1.0, "disjoint", run.margin, times=times)
            assert [one.end for one in phases] == [times[2], 0.0]
        else:
            with pytest.raises(ValueError, match="re-noising"):
                split_phases(4, (2, 4), 1.0, "disjoint", run.margin, times=times)
    assert not all(rooms)  # control: the second has none


def test_times_are_checked_by_the_phases_too():
    for times in ((1.0, 0.5, 0.0), (1.0, 0.9, 0.9, 0.3, 0.0), (0.9, 0.8, 0.6, 0.3, 0.0)):
        with pytest.raises(ValueError, match=r"times: .*: expected 5 that fall from 1 to 0"):
            split_phases(4, (2, 4), 1.0, "nested", 0.02, times=times)


def test_a_grid_of_methods_may_have_auto_among_its_values():
    assert spelt("auto") == "auto"
    methods = {"try": {"kind": "distill", "grid": {"student.grid": ["auto", LEVELS]}}}
    found = runs_of({**auto("try"), "methods": methods})
    assert {run.student.grid for name, run in found.items() if name != "teacher"} == {
        "auto",
        tuple(LEVELS),
    }


def test_no_scenario_of_the_repository_chooses_by_default():
    assert not any(map(chooses, accepted({}).runs.values()))
    assert not any(map(ranges, accepted({}).runs.values()))


@pytest.mark.parametrize(
    ("law", "line"),
    [
        ({"range": "wide"}, "student.renoise.range: 'wide': expected"),
        ({"range": [0.1, 0.9]}, "student.renoise.range: [0.1, 0.9]: expected"),
        (
            {"range": "auto", "at": 0.8},
            "student.renoise.range: 'auto': expected none beside student.renoise.at = 0.8",
        ),
        ({"range": "auto", "low": 0.5, "high": 0.4}, "student.margin: 0.02: expected room"),
    ],
)
def test_ranges_that_do_not_fit_are_refused_in_one_line(law, line):
    settings = student(renoise=law)
    settings["overrides"]["mixture2d"]["methods"] = ["teacher", "dmd2"]
    assert line in refused(settings)


def test_a_range_may_be_chosen_within_bounds_and_with_a_shift():
    law = {"range": "auto", "low": 0.1, "high": 0.9, "shift": 2.0}
    found = runs_of(student(renoise=law))
    assert ranges(found["dmd2"])
    assert not chooses(found["dmd2"])
    assert not ranges(found["teacher"])
    assert not ranges(runs_of(student(renoise={"low": 0.1}))["dmd2"])  # control


def test_methods_that_choose_ranges_alone_measure_no_single_steps():
    ranged = parts(accepted(auto("phased2-range")), "mixture2d")
    assert "phased2-range/config/range.json" in ranged
    assert "config/measure.json" not in ranged
    plain = parts(accepted(auto("phased2")), "mixture2d")  # control
    assert not any(name.endswith("range.json") for name in plain)


def test_the_kind_of_error_that_is_measured_is_no_part_of_a_range():
    def changed(**measure):
        before, after = (
            parts(accepted(auto("phased2-range", measure=one)), "mixture2d")
            for one in ({}, measure)
        )
        return {name for name in before if before[name] != after[name]}

    assert changed(error="step") == set()
    assert changed(samples=7) == {"phased2-range/config/range.json"}  # control


@pytest.mark.parametrize("method", ["dmd2-range", "phased2-range"])
def test_all_that_reads_the_chosen_range_declares_it(method):
    run = runs_of(auto(method))[method]
    (path,) = chosen_reads(run)
    assert str(path) == f"results/mixture2d/{method}/range.json"
    for reads in (frozen_reads(run, 1, 1), expert_reads(run, 1, [1]), sampler_reads(run, 1)):
        assert path in reads
    for name, diagnostic in DIAGNOSTICS.items():
        if diagnostic.applies(run):
            assert path in diagnostic.reads(run, 1), name
    assert chosen_reads(runs_of(auto("phased2"))["phased2"]) == []  # control
