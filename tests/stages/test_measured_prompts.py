"""Measurements of a small teacher that reads text, with guidance and without, for both choices."""

import pytest
from test_precompute import parts_of, prepare

from pdmd.config.budget import calls_of
from pdmd.files.storage import read_json
from pdmd.stages import fit as fitting
from pdmd.stages.grid import choose_grid
from pdmd.stages.measure import measure_steps
from pdmd.stages.ranges import choose_ranges

SMALL = {"levels": 6, "samples": 5, "substeps": 1}
METHODS = ["teacher", "dmd2-auto", "phased2-range"]


@pytest.fixture(scope="module")
def measured(repository, tmp_path_factory):
    """Guidance -> (step_errors.json, range.json) of one tiny network of clips."""
    folder = tmp_path_factory.mktemp("guided")
    found = {}
    for guidance in (1.0, 3.0):
        diff = {"methods": METHODS, "teacher": {"guidance": guidance}, "measure": SMALL}
        parts = parts_of(repository, folder, "moving", diff)
        if not found:
            prepare(parts)
            fitting.fit_base(parts["config/base.json"])
        measure_steps(parts["config/measure.json"])
        choose_grid(parts["dmd2-auto/config/grid.json"])
        choose_ranges(parts["phased2-range/config/range.json"])
        names = ("base/step_errors.json", "phased2-range/range.json", "dmd2-auto/grid.json")
        found[guidance] = [read_json(folder / "moving" / name) for name in names]
    return found


def test_a_guided_teacher_takes_two_calls_each(measured):
    for guidance, each in ((1.0, 1), (3.0, 2)):
        errors, ranges, _ = measured[guidance]
        assert errors["calls_a_sample"] == calls_of(6, 1, True, each)
        assert ranges["calls_a_sample"]["student"] == 4 * each
        assert errors["teacher"]["guidance"] == guidance


def test_what_is_measured_is_the_guided_velocity(measured):
    """Guidance adds a multiple of the difference of two velocities, and bends trajectories."""
    plain, guided = measured[1.0], measured[3.0]
    assert guided[0]["end"] != plain[0]["end"]
    assert guided[1]["ranges"] != plain[1]["ranges"]
    assert guided[2]["predicted"] != plain[2]["predicted"]


def test_a_guidance_of_one_is_none(measured, repository, tmp_path):
    """The control: what differs above is guidance, not chance."""
    diff = {"methods": METHODS, "teacher": {"guidance": 1.0}, "measure": SMALL}
    parts = parts_of(repository, tmp_path, "moving", diff)
    prepare(parts)
    fitting.fit_base(parts["config/base.json"])
    measure_steps(parts["config/measure.json"])
    assert read_json(tmp_path / "moving/base/step_errors.json") == measured[1.0][0]
