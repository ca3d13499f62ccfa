import shutil

import pytest

from pdmd.errors import UserError
from pdmd.files.storage import read_json, sha256, write_json, write_text
from pdmd.report.record import keep_record
from pdmd.scenarios.kind import kinds


def test_a_dirty_checkouts_results_are_no_record(tmp_path):
    folder = tmp_path / "results" / "toy1d" / "tables"
    config = {"data": {"kind": "toy1d"}}
    write_json(folder / "provenance.json", {"dirty": True, "config": config})
    with pytest.raises(UserError, match="dirty checkout"):
        keep_record(tmp_path / "results", tmp_path / "docs")


def test_no_results_are_no_record(tmp_path):
    with pytest.raises(UserError, match="no tables"):
        keep_record(tmp_path, tmp_path / "docs")


def finished(folder, commit):
    """The tables of one small scenario, as a finished run leaves them."""
    origin = {"dirty": False, "commit": commit, "packages": {}, "python": "3.11"}
    scenario = folder / "science" / "grids" / "emoji"
    for name in kinds()["emoji"].tables:
        write_text(scenario / "tables" / f"{name}.csv", f"{name}\n")
    config = {"data": {"kind": "emoji"}}
    scores = {}
    for method, seed, value in (("dmd2", 1, 0.25), ("dmd2", 10, None), ("phased2", 1, 0.5)):
        path = scenario / method / f"seed{seed}" / "metrics.json"
        write_json(path, {"coverage": value})
        of_phase = path.parent / "phase1" / "metrics.json"
        write_json(of_phase, {"updates": 3})
        scores |= {str(one): sha256(one) for one in (path, of_phase)}
    made = {**origin, "config": config, "inputs_sha256": scores}
    write_json(scenario / "tables" / "provenance.json", made)
    validation = folder / "science" / "emoji" / "metrics_validation"
    write_text(validation / "emoji.csv", "fid\n")
    write_json(validation / "emoji.json", origin)
    return folder


@pytest.fixture
def docs(tmp_path):
    """A record of an older commit, with a part that is not run again."""
    folder = tmp_path / "docs"
    old = finished(tmp_path / "old", "0ld")
    shutil.copytree(old / "science" / "grids", old / "science" / "other")
    provenance = old / "science" / "other" / "emoji" / "tables" / "provenance.json"
    write_json(provenance, read_json(provenance) | {"inputs_sha256": {}})
    keep_record(old, folder)
    return folder


def test_what_was_not_run_again_stays_as_it_was_recorded(docs, tmp_path):
    before = read_json(docs / "provenance.json")
    keep_record(finished(tmp_path / "results", "c0ffee"), docs)
    after = read_json(docs / "provenance.json")
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"science/grids/emoji", "science/emoji/metrics_validation/emoji"}
    assert after["science/other/emoji"]["commit"] == "0ld"
    assert {after[name]["commit"] for name in changed} == {"c0ffee"}
    validation = docs / "science" / "emoji" / "metrics_validation"
    assert (validation / "emoji.csv").read_text() == "fid\n"
    assert (docs / "science" / "grids" / "emoji" / "runs.csv").read_text() == "runs\n"


def test_every_seeds_scores_are_recorded(docs):
    """Seed 10 has no coverage: its cell is empty; scores of phases are none of them."""
    text = (docs / "science" / "grids" / "emoji" / "scores.csv").read_text()
    assert text == "method,seed,coverage\ndmd2,1,0.25\ndmd2,10,\nphased2,1,0.5\n"


@pytest.mark.parametrize(
    "damage", ["table gone", "scores gone", "scores of another run", "second is dirty"]
)
def test_a_record_is_renewed_whole_or_not_at_all(docs, tmp_path, damage):
    results = finished(tmp_path / "results", "c0ffee")
    whole = {path: path.read_bytes() for path in docs.rglob("*") if path.is_file()}
    if damage == "table gone":
        (results / "science/grids/emoji/tables/runs.csv").unlink()
    elif damage == "scores gone":
        (results / "science/grids/emoji/dmd2/seed1/metrics.json").unlink()
    elif damage == "scores of another run":
        path = results / "science/grids/emoji/dmd2/seed1/metrics.json"
        write_json(path, {"coverage": 0.75})
    else:
        write_json(results / "science/emoji/metrics_validation/emoji.json", {"dirty": True})
    with pytest.raises(UserError, match="expected"):
        keep_record(results, docs)
    assert {path: path.read_bytes() for path in docs.rglob("*") if path.is_file()} == whole


def test_a_table_that_is_no_longer_made_leaves_the_record(docs, tmp_path):
    old = docs / "science" / "grids" / "emoji" / "old.csv"
    write_text(old, "old")
    validation = docs / "science" / "emoji" / "metrics_validation"
    write_text(validation / "other.csv", "kept")
    keep_record(finished(tmp_path / "results", "c0ffee"), docs)
    assert not old.exists()
    assert (validation / "other.csv").exists()  # control
