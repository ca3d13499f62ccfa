"""What of the paper shows the configuration alone."""

import shutil

import pytest

from pdmd.config.paper import SCALES, artefacts
from pdmd.report.paper.configured import configured, draw_schemes
from pdmd.report.paper.settings import settings_table


@pytest.fixture
def copy(repository, tmp_path):
    """A copy of the configuration."""
    shutil.copytree(repository / "config", tmp_path / "config")
    return tmp_path


def rows(root, scale):
    """Ours of Table 1, by base and method."""
    (artefact,) = [one for one in artefacts(root) if one.id == "table1"]
    runs = [run for one in configured(root, artefact, scale) for run in one.runs]
    table = settings_table(artefact, runs)
    return table[table.source == "ours"].set_index(["base", "method"])


@pytest.mark.parametrize("scale", SCALES)
def test_table_1_has_ours_at_every_scale(repository, scale):
    assert len(rows(repository, scale)) >= 4


def test_table_1_follows_the_part_that_is_named_last(copy):
    """A change there is a change of its rows; the control, one that it overrides, is none."""
    before = rows(copy, "small")
    scenario = copy / "config/scenarios/moving.yaml"
    part = copy / "config/science/moving.yaml"
    assert "updates: 300" in part.read_text()
    part.write_text(part.read_text().replace("updates: 300", "updates: 301"))
    after = rows(copy, "small")
    changed = (before != after).any(axis=1)
    assert set(before.index[changed]) == {one for one in before.index if one[0] == "moving (wan)"}
    assert set(after.updates[changed]) == {301}
    part.write_text(part.read_text().replace("updates: 301", "updates: 300"))
    scenario.write_text(scenario.read_text() + "\n# the control\n")
    assert (rows(copy, "small") == before).all(axis=None)


def test_the_schemes_are_drawn_at_every_scale(repository, tmp_path):
    chosen = [one for one in artefacts(repository) if one.id in ("fig09", "fig02")]
    draw_schemes(repository, chosen, tmp_path)
    drawn = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert drawn == sorted(f"{scale}/fig09.png" for scale in SCALES)
