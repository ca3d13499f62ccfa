"""A table or figure reads what it declares; the declaration is its edges and its record."""

import os
from pathlib import Path

import pytest
import test_figures
import test_reading
from opened import read_below

from pdmd.config.run import read_run
from pdmd.files.digests import RECORDS
from pdmd.files.storage import read_json
from pdmd.report import registry, tables
from pdmd.report.figures import draw_figures, style
from pdmd.report.registry import figures_from, tables_from
from pdmd.report.tables import make_table, write_tables
from pdmd.scenarios.kind import kind_of, kinds


def undeclared(read, declared):
    """Files that were read and not declared; records of digests lie beside them."""
    beside = {Path(path).with_name(name) for path in declared for name in RECORDS}
    return read - {Path(os.path.abspath(path)) for path in {*declared, *beside}}


def drawn(runs, folder):
    """Name -> (what drawing a figure read, what it declares)."""
    found = {}
    for name, declared in figures_from(runs).items():
        with read_below(folder) as read, style.paper():
            kind_of(runs[0].data).figure(name)(runs)
        found[name] = set(read), declared
    return found


@pytest.mark.parametrize("kind", ["toy1d", "mixture2d", "digits"])
def test_a_figure_reads_what_it_declares(tmp_path, kind):
    runs = [read_run(one) for one in test_figures.fake_scenario(tmp_path, kind, [1, 2])]
    for name, (read, declared) in drawn(runs, tmp_path).items():
        assert undeclared(read, declared) == set(), name
        assert read, name  # control: it was seen to read


def test_a_table_reads_what_it_declares(tmp_path):
    methods = ["teacher", "dmd2", "phased2"]
    runs = [read_run(one) for one in test_reading.scenario(tmp_path, methods, [1, 2, 3])]
    for name, declared in tables_from(runs).items():
        with read_below(tmp_path) as read:
            make_table(runs, name)
        assert set(map(Path, declared)) == read, name


def test_a_figure_that_reads_more_is_seen(tmp_path, monkeypatch):
    """The control."""
    runs = [read_run(one) for one in test_figures.fake_scenario(tmp_path, "digits", [1])]
    monkeypatch.setitem(registry.READS, "codec", lambda run: [])
    read, declared = drawn(runs, tmp_path)["samples"]
    assert {path.name for path in undeclared(read, declared)} == {"codec.safetensors"}


def test_the_record_traces_each_to_its_files(tmp_path):
    configs = test_reading.scenario(tmp_path, ["teacher", "dmd2", "phased2"], [1, 2])
    write_tables(configs)
    record = read_json(tmp_path / "grid" / "tables" / "provenance.json")
    assert record["made_from"].keys() == set(kinds()["mixture2d"].tables)
    assert all("frontier.csv" in path for path in record["made_from"]["equal_fidelity"])
    every = {path for paths in record["made_from"].values() for path in paths}
    assert every == record["inputs_sha256"].keys()


def test_figures_are_recorded_alike(tmp_path):
    configs = test_figures.fake_scenario(tmp_path, "digits", [1])
    draw_figures(configs)
    folder = Path(configs[0]["results"]) / configs[0]["scenario"] / "figures"
    record = read_json(folder / "provenance.json")
    assert record["made_from"].keys() == kinds()["digits"].figures.keys()


def test_every_table_is_made_and_every_name_is_known():
    assert tables.MAKE.keys() == registry.TABLES.keys()
    for kind in kinds().values():
        own = kind.metrics().keys()
        assert not own & registry.TABLES.keys()
        assert set(kind.tables) <= own | registry.TABLES.keys()
        assert {name for reads in kind.figures.values() for name in reads} <= registry.READS.keys()
