import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pdmd.errors import UserError
from pdmd.files.storage import read_json, write_json, write_text
from pdmd.report.record import BEGIN, END, keep_record, with_headline
from pdmd.scenarios.kind import kinds

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs" / "record"


def test_readmes_table_is_the_recorded_one():
    text = (REPOSITORY / "README.md").read_text()
    assert with_headline(text, DOCS) == text


def test_a_changed_number_is_drift():
    """The control."""
    text = (REPOSITORY / "README.md").read_text()
    head, rest = text.split(BEGIN)
    table, tail = rest.split(END)
    digits = table.translate(str.maketrans("123456789", "234567891"))
    assert with_headline(head + BEGIN + digits + END + tail, DOCS) == text
    assert head + BEGIN + digits + END + tail != text


NUMBER = r"-?\d*\.\d+"
TRIPLE = re.compile(rf"({NUMBER}) \[({NUMBER}),\s({NUMBER})\]")


def recorded_triples():
    """Every mean, low and high in the recorded tables."""
    found = []
    for path in DOCS.rglob("*.csv"):
        frame = pd.read_csv(path)
        for name in [c.removesuffix("_mean") for c in frame.columns if c.endswith("_mean")]:
            columns = [f"{name}_{end}" for end in ("mean", "low", "high")]
            found += frame[columns].dropna().itertuples(index=False, name=None)
    return found


def is_recorded(texts, triples):
    """Whether some recorded triple rounds to these three numbers as written."""

    def rounds(text, value):
        return abs(float(text) - value) <= 0.5001 * 10 ** -len(text.split(".")[1])

    return any(all(map(rounds, texts, triple)) for triple in triples)


def test_every_interval_in_readmes_prose_is_a_recorded_one():
    prose = (REPOSITORY / "README.md").read_text().split(END)[1]
    written, triples = TRIPLE.findall(prose), recorded_triples()
    assert len(written) >= 8
    for texts in written:
        assert is_recorded(texts, triples), texts
    assert not is_recorded((".045", ".039", ".051"), triples)  # control: nearly one of them


def test_a_dirty_checkouts_results_are_no_record(tmp_path):
    folder = tmp_path / "results" / "toy1d" / "tables"
    config = {"data": {"kind": "toy1d"}}
    write_json(folder / "provenance.json", {"dirty": True, "config": config})
    with pytest.raises(UserError, match="dirty checkout"):
        keep_record(tmp_path / "results", tmp_path / "docs", tmp_path / "README.md")


def test_no_results_are_no_record(tmp_path):
    with pytest.raises(UserError, match="no tables"):
        keep_record(tmp_path, tmp_path / "docs", tmp_path / "README.md")


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
        write_json(path.parent / "phase1" / "metrics.json", {"updates": 3})
        scores |= {str(path): "1234", str(path.parent / "phase1" / "metrics.json"): "5678"}
    made = {**origin, "config": config, "inputs_sha256": scores}
    write_json(scenario / "tables" / "provenance.json", made)
    validation = folder / "science" / "emoji" / "metrics_validation"
    write_text(validation / "emoji.csv", "fid\n")
    write_json(validation / "emoji.json", origin)
    return folder


def test_what_was_not_run_again_stays_as_it_was_recorded(tmp_path):
    docs, readme = tmp_path / "docs", tmp_path / "README.md"
    shutil.copytree(DOCS, docs)
    shutil.copy(REPOSITORY / "README.md", readme)
    before = read_json(docs / "provenance.json")
    keep_record(finished(tmp_path / "results", "c0ffee"), docs, readme)
    after = read_json(docs / "provenance.json")
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"science/grids/emoji", "science/emoji/metrics_validation/emoji"}
    assert {after[name]["commit"] for name in changed} == {"c0ffee"}
    assert (docs / "science" / "emoji" / "metrics_validation" / "emoji.csv").read_text() == "fid\n"
    assert (docs / "science" / "grids" / "emoji" / "runs.csv").read_text() == "runs\n"
    assert readme.read_text() == (REPOSITORY / "README.md").read_text()


def test_every_seeds_scores_are_recorded(tmp_path):
    """Seed 10 has no coverage: its cell is empty; scores of phases are none of them."""
    docs, readme = tmp_path / "docs", tmp_path / "README.md"
    shutil.copy(REPOSITORY / "README.md", readme)
    shutil.copytree(DOCS / "mixture2d", docs / "mixture2d")
    keep_record(finished(tmp_path / "results", "c0ffee"), docs, readme)
    text = (docs / "science" / "grids" / "emoji" / "scores.csv").read_text()
    assert text == "method,seed,coverage\ndmd2,1,0.25\ndmd2,10,\nphased2,1,0.5\n"


@pytest.mark.parametrize(
    "damage", ["table gone", "scores gone", "second is dirty", "no README", "no markers"]
)
def test_a_record_is_renewed_whole_or_not_at_all(tmp_path, damage):
    docs, readme = tmp_path / "docs", tmp_path / "README.md"
    shutil.copytree(DOCS, docs)
    shutil.copy(REPOSITORY / "README.md", readme)
    results = finished(tmp_path / "results", "c0ffee")
    whole = {path: path.read_bytes() for path in docs.rglob("*") if path.is_file()}
    if damage == "table gone":
        (results / "science/grids/emoji/tables/runs.csv").unlink()
    elif damage == "scores gone":
        (results / "science/grids/emoji/dmd2/seed1/metrics.json").unlink()
    elif damage == "second is dirty":
        write_json(results / "science/emoji/metrics_validation/emoji.json", {"dirty": True})
    elif damage == "no README":
        readme.unlink()
    else:
        readme.write_text("no table")
    with pytest.raises(UserError, match="expected"):
        keep_record(results, docs, readme)
    assert {path: path.read_bytes() for path in docs.rglob("*") if path.is_file()} == whole


def test_a_table_that_is_no_longer_made_leaves_the_record(tmp_path):
    docs, readme = tmp_path / "docs", tmp_path / "README.md"
    shutil.copytree(DOCS, docs)
    shutil.copy(REPOSITORY / "README.md", readme)
    old = docs / "science" / "grids" / "emoji" / "old.csv"
    write_text(old, "old")
    write_text(docs / "science" / "emoji" / "metrics_validation" / "other.csv", "kept")
    keep_record(finished(tmp_path / "results", "c0ffee"), docs, readme)
    assert not old.exists()
    assert (docs / "science" / "emoji" / "metrics_validation" / "other.csv").exists()  # control
