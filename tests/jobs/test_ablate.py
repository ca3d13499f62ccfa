"""An ablation is three lines; what is there, or equal, is not trained again."""

import csv
import os
from pathlib import Path

import pytest
import yaml

from pdmd.config.ablation import read_ablation
from pdmd.config.paths import Paths
from pdmd.errors import UserError
from pdmd.files.storage import read_json, write_json, write_text
from pdmd.jobs.ablate import ablate, command, cores, listed, places, plan, summary, write
from pdmd.jobs.command import read_arguments, settings_of
from pdmd.report.registry import READS

ROOT = Path(__file__).resolve().parents[2]
LINES = "scenario: mixture2d\nof: phased2\ngrid: {distill.fake_updates: [1, 2, 5]}\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the repository's configuration, where results would go."""
    for name in ("config", "Snakefile"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(text=LINES, name="fake_updates"):
    Path(f"{name}.yaml").write_text(text)
    return plan(read_ablation(Path(f"{name}.yaml")), settings_of("ablate", []))


def test_a_cell_that_changes_nothing_is_the_method_itself(here):
    found = planned()
    assert list(found.cells) == [f"fake-updates-fake-updates-{n}" for n in (1, 2, 5)]
    assert [name == cell for cell, name in found.cells.items()] == [True, True, False]
    assert found.cells["fake-updates-fake-updates-5"] == "phased2"
    assert [run.method for run in found.runs] == ["teacher", "dmd2", *found.cells.values()]
    runs = {run.method: run for run in found.runs}
    assert runs["fake-updates-fake-updates-1"].distill.fake_updates == 1
    assert runs["fake-updates-fake-updates-1"].student.boundaries == (2, 4)


def test_it_says_how_many_training_jobs_are_avoided(here):
    """Seeds of the mixture train together: two phases a cell."""
    found = planned()
    assert "3 cells, 6 training jobs, 2 of them avoided: 2 are another method's, 0" in summary(
        found
    )
    assert "4 to run" in summary(found)
    (run,) = [one for one in found.runs if one.method.endswith("-1")]
    write_text(Paths(run).phase(5, 1, "expert.safetensors"), "")
    assert "3 of them avoided: 2 are another method's, 1 are finished; 3 to run" in summary(found)


def test_the_other_methods_plan_the_same_jobs(here):
    """Their configs have the same digests with an ablation beside them: nothing is run again."""
    from pdmd.config.parts import resolved
    from pdmd.config.plan import read_workflow

    found = planned()
    plain = resolved(read_workflow(Path(), settings_of("ablate", [])))["mixture2d"]
    beside = resolved(found.experiment)["mixture2d"]
    assert plain.keys() < beside.keys()
    assert all(beside[name].digest == part.digest for name, part in plain.items())


def test_its_table_has_a_row_a_cell_with_its_value(here):
    found = planned()
    for number, run in enumerate(found.runs):
        for seed in run.seeds:
            scores = {"tv": 0.1 * number + 0.01 * seed, "inliers": 0.9, "modes_covered": 20}
            scores |= {"effective_modes": 15.0, "spread": 1.0, "energy": 0.1}
            write_json(Paths(run).seed(seed, "metrics.json"), scores)
    write(found)
    rows = list(csv.DictReader((found.folder / "fake-updates.csv").open()))
    assert [row["fake_updates"] for row in rows] == ["-", "5", "1", "2", "5"]
    assert float(rows[2]["tv_mean"]) == pytest.approx(0.2 + 0.03)
    assert {row["n"] for row in rows} == {"5"}
    for end in ("md", "tex", "png", "pdf"):
        assert (found.folder / f"fake-updates.{end}").stat().st_size
    record = read_json(found.folder / "fake-updates.json")
    assert len(record["made_from"]["fake-updates"]) == 5 * 5


def test_seeds_and_metrics_can_be_its_own(here):
    found = planned(LINES + "seeds: [7]\nmetrics: [tv]\n")
    assert {run.seeds for run in found.runs} == {(7,)}
    assert found.ablation.metrics == ("tv",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scenario": "nowhere"}, "nowhere"),
        ({"of": "nothing"}, "of: 'nothing': expected a method"),
        ({"grid": {}}, r"grid: {}: expected keys with lists of values"),
        ({"grid": {"distill.fake_updates": []}}, r"grid\.distill\.fake_updates"),
        ({"grid": {"distill.wrong": [1]}}, "wrong"),
        ({"grid": {"distill.fake_updates": [0]}}, "fake_updates"),
        ({"metrics": ["beauty"]}, "metrics: 'beauty': expected a metric"),
        ({"colour": "red"}, "colour: 'red'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(here, change, said):
    planned()  # the control
    text = yaml.safe_dump({**yaml.safe_load(LINES), **change})
    with pytest.raises(UserError, match=said) as raised:
        planned(text)
    assert "\n" not in str(raised.value)


def test_those_of_the_repository_can_be_planned(here):
    files = sorted((ROOT / "config" / "ablations").glob("*.yaml"))
    assert files
    for file in files:
        assert "cells" in summary(plan(read_ablation(file), settings_of("ablate", [])))


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("snakemake -c2 ablations", []),
        ("snakemake --profile slurm -c2 ablations", ["--profile", "slurm"]),
        ("snakemake ablations --profile=slurm", ["--profile", "slurm"]),
        ("snakemake -e local ablations -q rules", ["--executor", "local"]),
        ("snakemake -esubmitit ablations", ["--executor", "submitit"]),
        ("snakemake --exec=submitit ablations", ["--executor", "submitit"]),
        ("snakemake -e submitit -j 8 ablations", ["--executor", "submitit", "--jobs", "8"]),
        ("snakemake -j 8 ablations", []),
        ("snakemake --profile a --profile=b ablations", ["--profile", "a", "--profile", "b"]),
        ("snakemake ablations --config e=--profile", []),
    ],
)
def test_jobs_of_ablations_run_where_snakemakes_own_would(command, found):
    assert places(command.split()) == found


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("snakemake -c3 ablations", 3),
        ("snakemake ablations -j 3", 3),
        ("snakemake ablations -call", len(os.sched_getaffinity(0))),
        ("snakemake --profile slurm ablations", 2),
        ("snakemake -e submitit --jobs 50 ablations", 2),
    ],
)
def test_ablations_take_the_cores_that_snakemake_was_given(command, number):
    assert cores(command.split()) == number


def test_ablations_of_scenarios_that_are_asked_for_are_run(here):
    assert listed(ROOT, ["mixture2d"]) == [str(ROOT / "config/ablations/fake_updates.yaml")]
    assert listed(ROOT, ["emoji"]) == []


@pytest.mark.long
def test_snakemake_runs_them_on_its_own_settings(here, snakemake):
    """To a table and a figure; run again, they find everything there."""
    for name in ("rules", "pdmd", "envs", "workflow"):
        Path(name).symlink_to(ROOT / name)
    overlay = {"results": "results/few", "scenarios": ["mixture2d"], "validate": []}
    few = {"seeds": [1, 2], "distill": {"updates": 4, "batch": 16}, "evaluate": {"samples": 64}}
    Path("few.yaml").write_text(yaml.safe_dump(overlay | {"overrides": {"mixture2d": few}}))
    done = snakemake(here, "-c2", "ablations", "--configfile", "few.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.name for path in Path("results/few/ablations").iterdir()}
    assert {f"fake-updates.{end}" for end in ("csv", "md", "tex", "png", "pdf", "json")} <= names
    again = snakemake(here, "-c2", "ablations", "--configfile", "few.yaml")
    assert "0 to run" in again.stdout
    assert "Nothing to be done" in again.stdout + again.stderr


# ---- Snakemake's own arguments beside ours


@pytest.mark.parametrize(
    "arguments",
    [[], ["--config", "results=c"], ["--configfile", "a.yaml"], ["-n", "--set-threads", "fit=1"]],
)
def test_an_option_that_takes_a_list_takes_none_of_its_targets(here, arguments):
    found = planned()
    given = read_arguments("ablate", command(found, Path("all.yaml"), arguments))
    assert given.targets == [str(one) for run in found.runs for one in READS["metrics"](run)]
    assert given.configfile == [Path("all.yaml")]  # which holds those of the user's
    *before, _, _, _ = command(found, Path("all.yaml"), arguments)[: -len(given.targets)]
    if arguments[-1:] == ["results=c"]:  # control: with nothing between they are swallowed
        swallowed = read_arguments("ablate", [*before, *given.targets])
        assert not swallowed.targets


def test_its_plan_has_what_snakemake_is_given(here, monkeypatch):
    planned_with = []
    monkeypatch.setattr("pdmd.jobs.ablate.plan", lambda _, settings: planned_with.append(settings))
    monkeypatch.setattr("pdmd.jobs.ablate.summary", lambda _: "")
    Path("fake_updates.yaml").write_text(LINES)
    Path("a.yaml").write_text("results: a\nseed: 1\n")
    Path("b.yaml").write_text("results: b\n")
    for files, arguments in (
        ([], []),
        ([Path("a.yaml")], []),
        ([], ["--configfile=a.yaml"]),
        ([Path("a.yaml")], ["--configfile", "b.yaml"]),
        ([Path("a.yaml")], ["--configfile", "b.yaml", "--config", "results=c"]),
    ):
        ablate(Path("fake_updates.yaml"), settings_of("ablate", files), arguments, dry=True)
    assert [one["results"] for one in planned_with] == ["results", "a", "a", "b", "c"]
    assert [one.get("seed") for one in planned_with] == [None, 1, 1, 1, 1]


def test_a_target_of_the_users_is_refused(here):
    with pytest.raises(UserError, match="ablate: all: expected no target"):
        ablate(Path("x.yaml"), {}, ["all"], dry=True)
