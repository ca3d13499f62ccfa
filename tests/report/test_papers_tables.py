"""The paper's tables and figures: numbers where they belong, schemes as the code has them."""

import csv
import math
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from test_figures import fake_scenario

from pdmd.config.experiment import Experiment, merge
from pdmd.config.paper import Artefact, Made, Published, artefacts
from pdmd.config.yaml_files import read_yaml
from pdmd.errors import UserError
from pdmd.files.storage import read_json, write_json
from pdmd.report.paper import curves
from pdmd.report.paper.curves import grouped
from pdmd.report.paper.documents import latex, table_texts
from pdmd.report.paper.make import make_paper, planned, reads
from pdmd.report.paper.schemes import intervals, paths_of, rollouts
from pdmd.report.paper.scores import read_group, score_tables

REPOSITORY = Path(__file__).resolve().parents[2]
MADE = Made(
    scale="toy",
    scenario="mixture2d",
    parts=("", "science/mixture"),
    methods=("teacher", "dmd2", "phased2"),
    metrics=(("tv", "TV"), ("inliers", "inliers")),
)
TABLE = Artefact(
    id="table3",
    kind="scores",
    caption="A table, 50% of it.",
    columns=("cosine",),
    published=(
        Published(
            base="Wan", version="v3", rows={"teacher": (0.7,), "dmd2": (0.9,), "phased2": (0.8,)}
        ),
    ),
    made=(MADE,),
)
SCORES = {
    "teacher": [(0.0, 1.0), (0.02, 0.98), (0.01, 0.99)],
    "dmd2": [(0.4, 1.0), (0.42, 0.97), (0.41, 1.0)],
    "phased2": [(0.1, 0.9), (0.12, 0.91), (0.11, 0.92)],
}


@pytest.fixture
def runs(tmp_path):
    for method, seeds in SCORES.items():
        for seed, (tv, inliers) in enumerate(seeds, 1):
            path = tmp_path / "mixture2d" / method / f"seed{seed}" / "metrics.json"
            write_json(path, {"tv": tv, "inliers": inliers})
    return tmp_path


def values_of(results, artefact=TABLE):
    values, shares = score_tables(artefact, [read_group(results, artefact.made[0])])
    return values.set_index("method"), shares.set_index("method")


@pytest.mark.parametrize(("part", "there"), [("science/x", True), ("x", False)])
def test_a_part_of_the_science_has_others_beside_it(tmp_path, part, there):
    def run(folder, method, number):
        for seed in range(1, number + 1):
            path = tmp_path / folder / "mixture2d" / method / f"seed{seed}" / "metrics.json"
            write_json(path, {"tv": 0.1 * seed})

    run(part, "dmd2", 3)
    run("science/more", "dmd2", 2)  # its own part's come first
    run("science/more", "teacher", 3)
    run("science/more", "phased2", 2)  # of other seeds
    made = replace(MADE, parts=("", part), beside=("science/more",))
    group = read_group(tmp_path, made)
    assert list(group.scores) == (["teacher", "dmd2"] if there else ["dmd2"])
    assert len(group.scores["dmd2"]) == 3
    assert any("more" in str(path) for path in group.files) == there


def test_published_values_and_ours_stand_in_columns_of_their_own(runs):
    values, _ = values_of(runs)
    assert list(values.index) == ["teacher", "DMD2 (SGTS)", "Phased, 2 × 2"]
    assert list(values["published, Wan, v3: cosine"]) == [0.7, 0.9, 0.8]
    assert list(values["ours, mixture2d: n"]) == [3, 3, 3]
    assert values.loc["DMD2 (SGTS)", "ours, mixture2d: TV_mean"] == pytest.approx(0.41)
    low, high = (values.loc["DMD2 (SGTS)", f"ours, mixture2d: TV_{end}"] for end in ("low", "high"))
    assert low < 0.41 < high
    assert not [name for name in values.columns if name.startswith("published") and "_low" in name]


def test_the_share_of_the_gap_is_guarded(runs):
    """Of TV phased2 closes 3/4; the gap of inliers holds 0, and has no share."""
    _, shares = values_of(runs)
    assert list(shares.index) == ["Phased, 2 × 2"]
    assert shares.loc["Phased, 2 × 2", "published, Wan, v3: cosine"] == pytest.approx(0.5)
    assert shares.loc["Phased, 2 × 2", "ours, mixture2d: TV_mean"] == pytest.approx(0.75)
    assert not [name for name in shares.columns if "inliers" in name]


def test_one_seeds_score_changes_its_cell_alone(runs):
    before, _ = values_of(runs)
    write_json(runs / "mixture2d/phased2/seed2/metrics.json", {"tv": 0.3, "inliers": 0.91})
    after, _ = values_of(runs)
    changed = before.ne(after) & ~(before.isna() & after.isna())
    assert set(changed.index[changed.any(axis=1)]) == {"Phased, 2 × 2"}
    assert {name.rpartition("_")[0] for name in changed.columns[changed.any()]} == {
        "ours, mixture2d: TV"
    }


def test_a_record_gives_the_same_table_as_the_runs_that_it_is_of(runs, tmp_path_factory):
    rows = [
        {"method": method, "seed": seed, "tv": tv, "inliers": inliers}
        for method, seeds in SCORES.items()
        for seed, (tv, inliers) in enumerate(seeds, 1)
    ]
    docs = tmp_path_factory.mktemp("docs")
    folder = docs / "science/mixture/mixture2d"
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(folder / "scores.csv", index=False)
    pd.testing.assert_frame_equal(values_of(docs)[0], values_of(runs)[0])
    (folder / "scores.csv").write_text("method,seed\n")
    assert read_group(docs, MADE) is None
    (folder / "scores.csv").write_text("seed\n1\n")
    with pytest.raises(UserError, match=r"scores\.csv"):
        read_group(docs, MADE)


def test_of_several_parts_the_last_is_taken(runs):
    other = runs / "science/mixture/mixture2d/dmd2/seed1/metrics.json"
    assert read_group(runs, MADE).scores["dmd2"][1]["tv"] == 0.4
    write_json(other, {"tv": 0.5, "inliers": 0.9})
    assert read_group(runs, MADE).scores == {"dmd2": {1: {"tv": 0.5, "inliers": 0.9}}}


# ---- documents


def test_a_tables_files_say_the_same(runs):
    texts = table_texts(TABLE, *score_tables(TABLE, [read_group(runs, MADE)]))
    rows = list(csv.DictReader(texts["csv"].splitlines()))
    assert rows[2]["published, Wan, v3: cosine"] == "0.8"
    assert rows[2]["closed, ours, mixture2d: TV_mean"] == "0.75"
    for end in ("md", "tex"):
        assert texts[end].count("0.750") == 1
    assert texts["md"].startswith("**Table 3.** A table, 50% of it.")
    assert r"50\% of it" in texts["tex"]
    assert r"\multicolumn{3}{c}{ours, mixture2d}" in texts["tex"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX engine here")
def test_latex_compiles_whatever_a_cell_holds(tmp_path):
    """The control: what is not escaped does not."""
    frame = pd.DataFrame(
        {"method": ["a_b & c", "[x]", "*"], "ours, a|b: 50%": ["<1", "{", "2 × 2"], "n": [1, 2, 3]}
    )
    head = r"\documentclass{article}\usepackage{booktabs,caption,graphicx}\begin{document}"

    def compiles(table):
        (tmp_path / "t.tex").write_text(f"{head}\n{table}\n\\end{{document}}\n")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0

    assert compiles(latex([frame, frame], "A caption."))
    assert not compiles(latex([frame], "A caption.").replace(r"\&", "&"))


# ---- schemes


def run_of(scenario="mixture2d", **student):
    settings = read_yaml(REPOSITORY / "config" / "config.yaml")
    method = {"kind": "distill", "student": student}
    diff = {
        "scenarios": [scenario],
        "methods": {"tried": method},
        "overrides": {scenario: {"methods": ["tried"]}},
    }
    return Experiment(REPOSITORY, merge(settings, diff)).runs[scenario, "tried"]


def test_a_truncated_student_leaves_at_every_step_with_the_gradient_in_its_last_call():
    paths = paths_of(run_of())
    assert [path.exit for path in paths] == [1, 2, 3, 4]
    for path in paths:
        assert [call.gradient for call in path.calls] == [False] * (path.exit - 1) + [True]
        assert path.calls[-1].end == 0
        starts = [call.start for call in path.calls]
        assert starts == pytest.approx([1 - i / 4 for i in range(path.exit)])


def test_vanilla_holds_every_call_and_the_last_exit_is_one():
    (path,) = paths_of(run_of(backward="all"))
    assert [call.gradient for call in path.calls] == [True] * 4
    assert path.name == "phase 1, all"
    (path,) = paths_of(run_of(exits="last"))
    assert [call.gradient for call in path.calls] == [False, False, False, True]


def test_a_later_phase_starts_behind_frozen_experts_and_ends_at_its_own_level():
    paths = paths_of(run_of(boundaries=[2, 4]))
    assert [(path.phase, path.exit) for path in paths] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert [path.calls[-1].end for path in paths] == [0.5, 0.5, 0, 0]
    for path in paths[2:]:
        frozen = [call for call in path.calls if call.expert == 1]
        assert len(frozen) == 2
        assert not any(call.gradient for call in frozen)
        assert path.calls[2].start == 0.5
    assert not [call for path in paths[:2] for call in path.calls if call.expert == 2]  # control


def test_schemes_draw_a_row_an_exit_and_a_bar_a_phase():
    runs = [run_of(), run_of(boundaries=[2, 4]), run_of(boundaries=[1, 2, 3, 4])]
    axes = [ax for ax in rollouts(runs).axes if ax.get_title()]
    assert [len(ax.get_yticks()) for ax in axes] == [4, 4, 4]
    bars = [ax for ax in intervals(runs).axes if ax.get_title()]
    assert [len(ax.get_yticks()) for ax in bars] == [1, 2, 4]
    first = bars[1].lines[0]
    assert list(first.get_xdata()) == pytest.approx([0.52, 0.98])


def test_a_curve_has_a_line_a_group_and_the_rest_across():
    settings = read_yaml(REPOSITORY / "config" / "config.yaml")
    overlay = read_yaml(REPOSITORY / "config" / "science" / "renoise.yaml")
    runs = Experiment(REPOSITORY, merge(settings, overlay)).runs.values()
    distilled = [run for run in runs if run.kind == "distill"]
    lines, level = grouped(distilled, "student.renoise.at")
    assert set(lines) == {"at-gradient-literal", "at-gradient-normalised"}
    for members in lines.values():
        assert [value for value, _ in members] == [0.1, 0.2, 0.357, 0.5, 0.7, 0.882, 0.95]
    assert [run.method for run in level] == ["dmd", "dmd-normalised"]


def test_a_curve_is_labelled_as_the_registry_says(monkeypatch):
    settings = read_yaml(REPOSITORY / "config" / "config.yaml")
    overlay = read_yaml(REPOSITORY / "config" / "science" / "renoise.yaml")
    runs = list(Experiment(REPOSITORY, merge(settings, overlay)).runs.values())
    distilled = [run for run in runs if run.kind == "distill"]
    scores = {run.method: [{"tv": 0.1}, {"tv": 0.2}, {"tv": 0.3}] for run in distilled}
    monkeypatch.setattr(curves, "read_metrics", lambda *_: scores)
    labels = {"at-gradient-literal": "one level"}
    figure = curves.curve(distilled, "student.renoise.at", {"tv": "TV"}, "noise level", labels)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("noise level", "TV")
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"one level", "at-gradient-normalised"} < set(words)


# ---- the whole


@pytest.fixture
def finished(tmp_path):
    """A made-up mixture of three seeds below `results`, and the configs of its methods."""
    configs = fake_scenario(tmp_path, "mixture2d", [1, 2, 3], ["teacher", "dmd2", "phased2"])
    given = read_yaml(REPOSITORY / "config" / "config.yaml")["defaults"]
    for config in configs:
        config["student"] = {**given["student"], **config["student"], "shift": 1.0}
        config["model"], config["flow"] = {"kind": "mlp"}, "rectified"
        config["teacher"] = {"steps": 40, "guidance": 1.0, "shift": 1.0}
        config["distill"] = {"updates": 9, "batch": 8}
        write_json(tmp_path / f"mixture2d/{config['method']}/config/paper.0.json", config)
    return tmp_path, configs


def test_what_results_give_is_made_and_indexed(finished, monkeypatch):
    results, _ = finished
    monkeypatch.chdir(results)
    make_paper(artefacts(REPOSITORY), None, results, None, None)
    folder = results / "paper" / "toy"
    assert [path.name for path in (results / "paper").iterdir()] == ["toy"]
    names = {path.name for path in folder.iterdir()}
    for wanted in ("fig01.png", "fig06.pdf", "fig09.png", "table1.csv", "table3.md", "table3.tex"):
        assert wanted in names
    record = read_json(folder / "provenance.json")
    assert set(record["outputs_sha256"]) == names - {"provenance.json"}
    scores = [path for path in record["made_from"]["table3"] if path.endswith("metrics.json")]
    assert len(scores) == 3 * 3
    index = (folder / "index.md").read_text()
    for artefact in artefacts(REPOSITORY):
        line = next(one for one in index.splitlines() if one.startswith(f"| {artefact.name} "))
        assert (f"]({artefact.id}." in line) == any(name.startswith(artefact.id) for name in names)
    rows = list(csv.DictReader((folder / "table3.csv").read_text().splitlines()))
    assert math.isclose(
        float(rows[0]["ours, mixture2d: TV_mean"]),
        sum(read_json(results / f"mixture2d/teacher/seed{i}/metrics.json")["tv"] for i in (1, 2, 3))
        / 3,
        rel_tol=1e-5,
    )


def test_what_an_artefact_is_made_from_must_be_there(finished, monkeypatch):
    from pdmd.config.run import read_run

    results, configs = finished
    monkeypatch.chdir(results)
    listed, runs = artefacts(REPOSITORY), [read_run(config) for config in configs]
    plan = planned(listed, "toy", "", runs, results)
    needed = {path for one in plan for path in reads(*one)}
    assert len(needed) == 12  # samples of the first seed, scores of three
    for path in sorted(needed):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises((UserError, OSError)):
            make_paper(listed, "toy", results, results / "out", configs)
        path.write_bytes(content)
    make_paper(listed, "toy", results, results / "out", configs)  # the control


def test_of_a_workflow_that_was_planned_alone_the_configuration_is_shown(finished, monkeypatch):
    """A dry run leaves configs behind, and no result."""
    results, _ = finished
    monkeypatch.chdir(results)
    for path in results.glob("mixture2d/*/seed*"):
        shutil.rmtree(path)
    make_paper(artefacts(REPOSITORY), None, results, None, None)
    made = {path.stem for path in (results / "paper" / "toy").iterdir()}
    assert made == {"fig01", "fig09", "table1", "index", "main", "provenance"}


def test_nothing_of_the_paper_is_said_in_a_line(tmp_path):
    with pytest.raises(UserError, match="nothing of the paper: expected finished results"):
        make_paper(artefacts(REPOSITORY), None, tmp_path, None, None)
    with pytest.raises(UserError, match="nothing of the paper at scale tiny"):
        make_paper(artefacts(REPOSITORY), "tiny", tmp_path, None, None)
