"""Pages say what is on record: no number of a result is typed by hand."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pdmd.config.claims import Claim, read_claims
from pdmd.errors import UserError
from pdmd.report.pages import BEGIN, END, Record, pages, rendered

REPOSITORY = Path(__file__).resolve().parents[2]
CLAIM = Claim(
    id="even",
    claim="More even.",
    place="Table 3",
    scale="toy",
    part="science/grid",
    scenario="mixture2d",
    metric="tv",
    method="phased2",
    against="dmd2",
    direction="less",
)
SCORES = {"dmd2": [0.4, 0.41, 0.42], "phased2": [0.1, 0.12, 0.11], "half": [0.2, 0.3, 0.25]}


@pytest.fixture
def record(tmp_path):
    folder = tmp_path / "science" / "grid" / "mixture2d"
    folder.mkdir(parents=True)
    rows = [(name, seed, tv) for name, tvs in SCORES.items() for seed, tv in enumerate(tvs, 1)]
    frame = pd.DataFrame(rows, columns=["method", "seed", "tv"])
    frame.to_csv(folder / "scores.csv", index=False)
    return Record(tmp_path, [CLAIM])


def text_of(template, record, tmp_path):
    path = tmp_path / "template.md"
    path.write_text(template)
    return rendered(path, record)


def real():
    return Record(
        REPOSITORY / "docs" / "record", read_claims(REPOSITORY / "config" / "claims.yaml")
    )


def test_correlations_are_over_means_of_methods_that_are_not_left_out(record, tmp_path):
    path = tmp_path / "science/grid/mixture2d/scores.csv"
    frame = pd.read_csv(path)
    frame["kid"], frame["fid"] = -frame["tv"], frame["tv"] ** 2
    outlier = {"method": "teacher", "seed": 1, "tv": 9, "kid": 9, "fid": 0}
    pd.concat([frame, pd.DataFrame([outlier])]).to_csv(path, index=False)
    parts, others = ["science/grid/mixture2d"], ["kid", "fid"]
    said = record.ranks(parts, "teacher", "tv", others)
    assert said == "`kid` -1.00, `fid` 1.00; 3 methods"
    assert record.ranks(parts, "nobody", "tv", others) != said  # control


def test_every_page_is_what_the_record_says(monkeypatch):
    """So is the ledger, in whose column of files the record has its own path."""
    monkeypatch.chdir(REPOSITORY)
    registry = read_claims(Path("config/claims.yaml"))
    found = pages(Path(), Record(Path("docs/record"), registry))
    names = {path.name for path in found}
    assert {"README.md", "results.md", "claims.csv", "claims.md", "table3.md"} <= names
    for path, text in found.items():
        assert path.read_text() == text, f"{path}: `pdmd record --pages` fills it anew"


def test_a_changed_number_is_drift(tmp_path):
    """The control: another digit in the record is another page."""
    shutil.copytree(REPOSITORY / "docs", tmp_path / "docs")
    shutil.copy(REPOSITORY / "README.md", tmp_path)
    path = next((tmp_path / "docs" / "record").glob("science/mixture/*/scores.csv"))
    frame = pd.read_csv(path)
    frame.loc[frame["method"] == "phased2", "tv"] += 0.1
    frame.to_csv(path, index=False)
    changed = pages(tmp_path, Record(tmp_path / "docs" / "record", real().registry))
    for page, text in changed.items():
        assert (tmp_path / page.relative_to(tmp_path)).read_text() != text


def test_no_interval_of_a_result_is_typed_into_readme():
    head, rest = (REPOSITORY / "README.md").read_text().split(BEGIN)
    made, tail = rest.split(END)
    interval = re.compile(r"\d*\.\d+ \[-?\d*\.\d+,\s-?\d*\.\d+\]")
    assert interval.search(made)  # control
    assert not interval.search(head + tail)


def test_numbers_are_those_of_the_seeds(record, tmp_path):
    where = "'science/grid/mixture2d', 'tv'"
    text = text_of("{{ table('science/grid/mixture2d', None, ['tv']) }}", record, tmp_path)
    assert "0.410 [0.385, 0.435]" in text
    difference = "{'phased2': 1, 'dmd2': -1}"
    text = text_of("{{ off(" + where + ", " + difference + ") }}", record, tmp_path)
    assert text == "-0.300 [-0.325, -0.275]\n"
    middle = "{'half': 1, 'phased2': -0.5, 'dmd2': -0.5}"
    text = text_of("{{ off(" + where + ", " + middle + ") }}", record, tmp_path)
    assert text.startswith("-0.010 [")


def test_a_claim_says_its_verdict_and_numbers(record, tmp_path):
    text = text_of("{{ lines('even') }}", record, tmp_path)
    assert text.startswith("- **holds**: More even. `tv` -0.300 [-0.325, -0.275], p = 0.00")
    assert "| **holds** |" in text_of("{{ claims('science/grid') }}", record, tmp_path)
    assert text_of("{{ count('holds') }}", record, tmp_path) == "1\n"


@pytest.mark.parametrize(
    "template",
    [
        "{{ table('science/grid/mixture2d', ['dmd3'], ['tv']) }}",
        "{{ table('science/grid/mixture2d', ['dmd2'], ['energy']) }}",
        "{{ table('science/other/mixture2d', None, ['tv']) }}",
        "{{ lines('odd') }}",
        "{{ nothing }}",
        "{{ open",
    ],
)
def test_what_is_not_on_record_is_refused_by_name(record, tmp_path, template):
    with pytest.raises(UserError, match="expected"):
        text_of(template, record, tmp_path)
