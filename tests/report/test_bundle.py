"""A bundle gives the same tables and figures elsewhere, and nothing but what was bundled."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
import yaml
from test_figures import fake_scenario

from pdmd.config.experiment import Experiment, merge
from pdmd.config.parts import write_parts
from pdmd.config.yaml_files import read_yaml
from pdmd.errors import UserError
from pdmd.files.digests import sha256
from pdmd.files.storage import read_json, write_json, write_text
from pdmd.report.bundle import MANIFEST, draw, redraw, started_with, write_bundle

METHODS = ["teacher", "dmd2", "phased2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory, repository):
    """A folder with the configuration and finished, drawn results, and their bundle."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(repository / "config", folder / "config")
    settings = merge(
        read_yaml(folder / "config/config.yaml"),
        {
            "results": "results/mine",
            "scenarios": ["mixture2d"],
            "overrides": {"mixture2d": {"methods": METHODS, "seeds": [1, 2, 3]}},
        },
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fake_scenario(Path("results/mine"), "mixture2d", [1, 2, 3], METHODS)
        for method in METHODS:
            fake_rest(Path("results/mine/mixture2d") / method)
        write_json(Path("results/mine/.state/settings.json"), settings)
        experiment = Experiment(Path(), settings)
        write_parts(experiment)
        draw(experiment, Path("results/mine"))
        write_bundle(Path("results/mine"), Path("mine.tar.gz"))
        write_bundle(Path("results/mine"), Path("tables.tar.gz"), figures=False)
    return folder


def fake_rest(method):
    """What tables read beside what figures do."""
    for seed in (1, 2, 3):
        folder = method / f"seed{seed}"
        if method.name == "teacher":
            continue
        phases = [1, 2] if method.name == "phased2" else [1]
        for number in phases:
            cost = {"updates": 5, "seconds": 1.0, "runs_trained_together": 1, "peak_memory_mb": 9.0}
            cost["forward_equivalents_by_role"] = {"fake": 3.0}
            write_json(folder / f"phase{number}/metrics.json", cost)
        ends = [{"phase": n, "t": 1 - n / len(phases), "energy": 0.1 * seed} for n in phases]
        write_json(folder / "boundary.json", ends)
        names = ["inliers", "modes_covered", "tv", "effective_modes", "spread"]
        rows = [",".join(["exit", *names])]
        rows += [",".join([str(one), *["0.5"] * 5]) for one in (1, 2, 3, 4, "all")]
        write_text(folder / "exits.csv", "\n".join(rows) + "\n")


@pytest.fixture
def elsewhere(made, tmp_path, monkeypatch):
    """A fresh clone: the configuration alone."""
    shutil.copytree(made / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    return made


def drawn(folder):
    every = [*folder.rglob("tables/*.csv"), *folder.rglob("*.png"), *folder.rglob("*.tex")]
    return {str(path.relative_to(folder)): sha256(path) for path in every}


def test_tables_and_figures_come_out_equal_in_a_fresh_clone(elsewhere):
    same, every = redraw(elsewhere / "mine.tar.gz")
    wanted = drawn(elsewhere / "results/mine")
    assert drawn(Path("results/mine")) == wanted
    assert len(wanted) > 20
    records = list(Path("results/mine").rglob("provenance.json"))
    assert every - same <= len(records)  # which say of what checkout they are
    assert not list(Path("results").rglob("expert.safetensors"))  # no weights
    assert started_with(Path("results/mine")).scenarios == ["mixture2d"]


def test_the_small_bundle_has_no_samples_and_gives_the_tables(elsewhere):
    whole, small = (elsewhere / name for name in ("mine.tar.gz", "tables.tar.gz"))
    assert small.stat().st_size < whole.stat().st_size
    redraw(small)
    assert drawn(Path("results/mine")) == drawn(elsewhere / "results/mine")
    assert not list(Path("results").rglob("samples.safetensors"))


def test_a_changed_score_changes_what_is_drawn(elsewhere):
    """The control."""
    redraw(elsewhere / "mine.tar.gz")
    path = Path("results/mine/mixture2d/dmd2/seed1/metrics.json")
    write_json(path, {**read_json(path), "tv": 0.9})
    draw(started_with(Path("results/mine")), Path("results/mine"))
    wanted = drawn(elsewhere / "results/mine")
    changed = {
        name for name, digest in drawn(Path("results/mine")).items() if digest != wanted[name]
    }
    assert "mixture2d/tables/modes.csv" in changed
    assert "mixture2d/figures/modes.png" in changed
    assert "mixture2d/tables/runs.csv" not in changed


def test_equal_results_give_equal_bytes(elsewhere, monkeypatch):
    before = sha256(elsewhere / "mine.tar.gz")
    monkeypatch.chdir(elsewhere)
    write_bundle(Path("results/mine"), Path("again.tar.gz"))
    assert sha256(Path("again.tar.gz")) == before


def test_results_that_are_there_stay(elsewhere):
    redraw(elsewhere / "tables.tar.gz")
    before = drawn(Path("results/mine"))
    with pytest.raises(UserError, match="it is there already"):
        redraw(elsewhere / "mine.tar.gz")
    assert drawn(Path("results/mine")) == before


def members(path):
    with tarfile.open(path) as archive:
        return [(one.name, archive.extractfile(one).read()) for one in archive]


def archived(path, listed, **of_each):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in listed:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for key, value in of_each.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(data))
    return path


def spoilt(content, how):
    """The members of a bundle with one fault."""
    listed = members(content)
    name, data = listed[5]
    manifest = json.loads(listed[0][1])
    if how == "a byte":
        listed[5] = name, bytes([data[0] ^ 1]) + data[1:]
    elif how == "a file less":
        del listed[5]
    elif how == "a file more":
        listed.append(("results/mine/more.json", b"{}"))
    elif how == "outside":
        listed.append(("results/mine/../../../more.json", b"{}"))
    elif how == "absolute":
        listed.append(("/tmp/more.json", b"{}"))
    elif how == "another results":
        listed[0] = MANIFEST, json.dumps({**manifest, "results": "../mine"}).encode()
    elif how == "no key":
        listed[0] = MANIFEST, json.dumps({"results": "results/mine"}).encode()
    elif how == "no manifest":
        del listed[0]
    return listed


FAULTS = ["a byte", "a file less", "a file more", "outside", "absolute", "another results"]
FAULTS += ["no key", "no manifest"]


@pytest.mark.parametrize("how", FAULTS)
def test_a_bundle_that_is_not_whole_is_refused_and_leaves_no_results(elsewhere, how):
    content = elsewhere / "tables.tar.gz"
    redraw(archived(Path("good.tar.gz"), members(content)))  # the control
    shutil.rmtree("results")
    path = archived(Path("bad.tar.gz"), spoilt(content, how))
    with pytest.raises(UserError, match=r"bad\.tar\.gz: ") as raised:
        redraw(path)
    assert "\n" not in str(raised.value)
    assert not Path("results/mine").exists()
    assert not Path("/tmp/more.json").exists()


def test_what_is_no_archive_is_refused(elsewhere):
    Path("text.tar.gz").write_text(yaml.safe_dump({"no": "archive"}))
    for name in ("text.tar.gz", "nowhere.tar.gz"):
        with pytest.raises(UserError, match=name):
            redraw(Path(name))
    with pytest.raises(UserError, match=r"settings\.json: missing"):
        write_bundle(Path("results/nowhere"), Path("x.tar.gz"))
