from pathlib import Path

import pytest

from pdmd.errors import UserError
from pdmd.record import BEGIN, END, keep_record, with_headline
from pdmd.storage import write_json

REPOSITORY = Path(__file__).resolve().parent.parent
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


def test_a_dirty_checkouts_results_are_no_record(tmp_path):
    folder = tmp_path / "results" / "toy1d" / "tables"
    config = {"data": {"kind": "atoms"}}
    write_json(folder / "provenance.json", {"dirty": True, "config": config})
    with pytest.raises(UserError, match="dirty checkout"):
        keep_record(tmp_path / "results", tmp_path / "docs", tmp_path / "README.md")


def test_no_results_are_no_record(tmp_path):
    with pytest.raises(UserError, match="no tables"):
        keep_record(tmp_path, tmp_path / "docs", tmp_path / "README.md")
