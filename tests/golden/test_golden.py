"""The whole workflow gives what it gave: every weight, sample, latent, score and table."""

import json
import shutil

import digests
import pytest
import yaml
from opened import read_below

from pdmd.config.run import read_run
from pdmd.files.digests import RECORDS
from pdmd.files.storage import load_tensors, read_json
from pdmd.report import registry
from pdmd.report.figures import style
from pdmd.report.tables import make_table
from pdmd.scenarios.kind import kind_of

pytestmark = [pytest.mark.slow, pytest.mark.long]

RECORD = json.loads(digests.RECORD.read_text())
EXACT = digests.is_exact(RECORD["under"])
HOW = "exact" if EXACT else "norms"
LEFT = ("results", "docs", "build", "dist")  # of a checkout, with what is hidden


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, repository, snakemake):
    """A copy of the repository in which the chain has run once."""
    folder = tmp_path_factory.mktemp("golden")
    for path in repository.iterdir():
        if path.name in LEFT or path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            leave = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, folder / path.name, symlinks=True, ignore=leave)
        else:
            shutil.copy(path, folder / path.name, follow_symlinks=False)
    done = snakemake(folder, "-c2", "--configfile", "tests/golden/chain.yaml")
    if done.returncode:
        pytest.fail((done.stdout + done.stderr)[-3000:], pytrace=False)
    return folder


@pytest.fixture(scope="module")
def found(checkout):
    """Digests of what it made."""
    return digests.collect(checkout / "results" / "golden")


@pytest.mark.parametrize("group", [pytest.param(one, id=f"{one}-{HOW}") for one in digests.GROUPS])
def test_results_are_as_recorded(found, group):
    lines = digests.differences(RECORD["groups"][group], found[group], EXACT)
    if lines:
        under = f"recorded under {RECORD['under']}, compared under {digests.conditions()}"
        pytest.fail("\n".join([*lines, under]), pytrace=False)
    if not EXACT and group not in digests.SCALED:
        pytest.skip(f"only names were compared: digests were recorded under {RECORD['under']}")


@pytest.mark.parametrize("scenario", yaml.safe_load(digests.CHAIN.read_text())["scenarios"])
def test_tables_and_figures_read_what_they_declare(checkout, monkeypatch, scenario):
    monkeypatch.chdir(checkout)
    results = checkout / "results" / "golden"
    parts = sorted((results / scenario).glob("*/config/table.*.json"))
    runs = [read_run(read_json(path)) for path in parts]
    made, drawn = registry.tables_from(runs), registry.figures_from(runs)
    seen = set()
    for name in (*made, *drawn):
        with read_below(results) as read, style.paper():
            if name in made:
                make_table(runs, name)
            else:
                kind_of(runs[0].data).figure(name)(runs)
        declared = {(checkout / path).resolve() for path in made.get(name) or drawn[name]}
        beside = {path.with_name(record) for path in declared for record in RECORDS}
        assert {path.resolve() for path in read} - declared - beside == set(), name
        seen |= read
    assert any(path.name == "metrics.json" for path in seen)  # control: reading is seen


def test_a_teachers_features_hold_those_of_real_clips(checkout):
    """Those that students are compared by, made once."""
    folder = checkout / "results/golden/moving"
    found = {
        m: load_tensors(folder / m / "seed1/features.safetensors") for m in ("teacher", "dmd2")
    }
    held = {name for name in found["teacher"] if name.startswith("real_")}
    assert held == {"real_ends", "real_i3d"}
    assert found["dmd2"].keys() == found["teacher"].keys() - held
