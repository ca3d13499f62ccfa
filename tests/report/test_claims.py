"""A claim's verdict is computed from the scores of its methods, and from nothing else."""

import json
import math

import pandas as pd
import pytest
import yaml
from scipy import stats

from pdmd import cli
from pdmd.config.claims import Claim
from pdmd.errors import UserError
from pdmd.files.storage import read_json, write_json
from pdmd.metrics.intervals import Paired, paired
from pdmd.report.claims import claims_table, evidence, verdict, write_claims

BASE = {
    "claim": "Phased DMD covers modes more evenly than DMD2.",
    "place": "Table 3",
    "scale": "toy",
    "part": "",
    "scenario": "grid",
    "metric": "tv",
    "method": "phased2",
    "against": "dmd2",
    "direction": "less",
}
SCORES = {
    "teacher": {"tv": [0.01, 0.02, 0.01, 0.02, 0.01], "spread": [1.0, 1.0, 1.0, 1.0, 1.0]},
    "dmd2": {"tv": [0.20, 0.22, 0.19, 0.21, 0.23], "spread": [0.7, 0.71, 0.72, 0.7, 0.69]},
    "phased2": {"tv": [0.10, 0.12, 0.10, 0.11, 0.12], "spread": [1.1, 1.12, 1.11, 1.13, 1.1]},
    "dmd": {"tv": [0.21, 0.20, 0.20, 0.22, 0.21], "spread": [0.6, 0.8, 0.7, 0.65, 0.75]},
}
CLAIMS = [
    Claim(id="even", **BASE),
    Claim(id="odd", **BASE | {"direction": "greater"}),
    Claim(id="vanilla", **BASE | {"method": "dmd"}),
    Claim(id="near", **BASE | {"metric": "spread", "direction": "nearer"}),
    Claim(id="absent", **BASE | {"part": "science/mixture"}),
]


def path_of(folder, method, seed):
    return folder / "grid" / method / f"seed{seed}" / "metrics.json"


@pytest.fixture
def results(tmp_path):
    for method, metrics in SCORES.items():
        for seed in range(1, 6):
            scores = {name: column[seed - 1] for name, column in metrics.items()}
            write_json(path_of(tmp_path, method, seed), scores)
    return tmp_path


def decided(results, claims=CLAIMS):
    found = [evidence(claim, results) for claim in claims]
    return claims_table(claims, found).set_index("id")


def changes_of(claim, before, after):
    """The columns of a claim's row that differ."""
    return {name for name in before if before.loc[claim, name] != after.loc[claim, name]}


def test_verdicts_are_computed(results):
    table = decided(results)
    assert table["verdict"].to_dict() == {
        "even": "holds",
        "odd": "fails",
        "vanilla": "undecided",
        "near": "holds",
        "absent": "not run",
    }
    assert table["n"].tolist() == [5, 5, 5, 5, 0]


def test_the_test_is_scipys_and_corrected_for_those_that_were_made(results):
    table = decided(results)
    raw = stats.ttest_rel(SCORES["phased2"]["tv"], SCORES["dmd2"]["tv"]).pvalue
    assert table.loc["even", "p"] == pytest.approx(raw)
    assert table.loc["even", "effect_mean"] == pytest.approx(-0.1)
    rank = int((table["p"] < raw * 0.999).sum())  # "near" may come first
    assert table.loc["even", "p_holm"] == pytest.approx((4 - rank) * raw)
    assert table.loc["even", "p_holm"] != pytest.approx(raw)  # control: of four tests
    assert math.isnan(table.loc["absent", "p_holm"])


def test_nearer_is_the_distance_to_the_teacher_of_the_same_seed(results):
    row = decided(results).loc["near"]
    assert row["effect_mean"] == pytest.approx(0.112 - 0.296)
    swapped = Claim(id="near", **BASE | {"metric": "spread", "direction": "less"})
    assert decided(results, [swapped]).loc["near", "verdict"] == "fails"  # control


def test_a_slack_is_what_a_method_may_be_worse_by(results):
    """dmd is worse than dmd2 by .002 and differs by seed: as good but for .05, not better."""
    plain = BASE | {"method": "dmd", "direction": "less"}
    claims = [
        Claim(id="better", **plain),
        Claim(id="as-good", **plain, slack=0.05),
        Claim(id="swapped", **BASE | {"method": "dmd2", "against": "phased2"}, slack=0.05),
    ]
    table = decided(results, claims)
    assert table["verdict"].tolist() == ["undecided", "holds", "fails"]
    raw = stats.ttest_1samp(
        [a - b for a, b in zip(SCORES["dmd"]["tv"], SCORES["dmd2"]["tv"], strict=True)], 0.05
    ).pvalue
    assert table.loc["as-good", "p"] == pytest.approx(raw)
    assert table.loc["as-good", "effect_mean"] == table.loc["better", "effect_mean"]


def recorded(results, folder):
    """The same scores as a record has them: one file a scenario."""
    rows = [
        {"method": method, "seed": seed, **{name: column[seed - 1] for name, column in of.items()}}
        for method, of in SCORES.items()
        for seed in range(1, 6)
    ]
    path = folder / "grid" / "scores.csv"
    path.parent.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(path, index=False)
    return folder


def test_a_record_decides_as_the_runs_do(results, tmp_path):
    docs = recorded(results, tmp_path / "docs")
    runs, record = decided(results), decided(docs)
    numbers = ["n", "effect_mean", "effect_low", "effect_high", "p", "p_holm", "verdict"]
    pd.testing.assert_frame_equal(runs[numbers], record[numbers])
    assert record.loc["even", "files"] == str(docs / "grid" / "scores.csv")
    text = (docs / "grid" / "scores.csv").read_text()
    (docs / "grid" / "scores.csv").write_text(text.replace("0.22", "0.32"))
    assert decided(docs).loc["even", "effect_mean"] != runs.loc["even", "effect_mean"]  # control


def test_the_other_may_lie_in_another_part(results):
    """A part that has the method alone is compared with what was trained elsewhere."""
    (results / "more" / "grid").mkdir(parents=True)
    (results / "grid" / "phased2").rename(results / "more" / "grid" / "phased2")
    moved = BASE | {"part": "more", "against_part": ""}
    claims = [
        Claim(id="elsewhere", **moved),
        Claim(id="near", **moved | {"metric": "spread", "direction": "nearer"}),
        Claim(id="control", **BASE | {"part": "more"}),
    ]
    table = decided(results, claims)
    assert table["verdict"].tolist() == ["holds", "holds", "not run"]
    folders = [f"{results}/more/grid/phased2", f"{results}/grid/dmd2"]
    assert table.loc["elsewhere", "files"].split() == [
        f"{folder}/seed{{1,2,3,4,5}}/metrics.json" for folder in folders
    ]


def test_a_record_without_the_metric_is_refused(results, tmp_path):
    docs = recorded(results, tmp_path / "docs")
    with pytest.raises(UserError, match=r"scores\.csv.*expected a record of scores"):
        evidence(Claim(id="x", **BASE | {"metric": "energy"}), docs)


def test_one_seeds_score_changes_its_claims_and_nothing_else(results):
    before = decided(results)
    path = path_of(results, "dmd", 3)
    write_json(path, read_json(path) | {"tv": 0.05})
    after = decided(results)
    other = before.index != "vanilla"
    pd.testing.assert_frame_equal(before[other], after[other])
    assert changes_of("vanilla", before, after) == {
        "effect_mean",
        "effect_low",
        "effect_high",
        "p",
        "p_holm",
    }


def test_a_stronger_result_changes_others_in_the_corrected_column_alone(results):
    """Where one p falls below the others, they are the last of fewer tests."""
    weak = Claim(id="weak", **BASE | {"method": "dmd"})
    before = decided(results, [CLAIMS[0], weak])
    for seed, gap in enumerate((0.1, 0.10001, 0.1, 0.10001, 0.1), 1):
        path = path_of(results, "dmd", seed)
        write_json(path, read_json(path) | {"tv": SCORES["dmd2"]["tv"][seed - 1] - gap})
    after = decided(results, [CLAIMS[0], weak])
    assert changes_of("even", before, after) == {"p_holm"}
    assert after.loc["even", "p_holm"] == pytest.approx(after.loc["even", "p"])
    assert before.loc["even", "p_holm"] == pytest.approx(2 * before.loc["even", "p"])


def test_only_seeds_that_all_methods_have_count(results):
    path_of(results, "dmd2", 2).unlink()
    path_of(results, "teacher", 5).unlink()
    table = decided(results)
    assert table["n"].to_dict() == {"even": 4, "odd": 4, "vanilla": 4, "near": 3, "absent": 0}
    folder = f"{results}/grid"
    assert table.loc["even", "files"] == f"{folder}/{{phased2,dmd2}}/seed{{1,3,4,5}}/metrics.json"
    assert table.loc["near", "files"].startswith(f"{folder}/{{phased2,dmd2,teacher}}/seed{{1,3,4}}")
    assert table.loc["absent", "files"] == ""


def test_two_seeds_and_undefined_scores_decide_nothing(results):
    for seed in (1, 2, 3):
        path = path_of(results, "dmd2", seed)
        write_json(path, read_json(path) | {"tv": None})
    row = decided(results).loc["even"]
    assert (row["n"], row["verdict"]) == (2, "undecided")
    assert math.isnan(row["p_holm"])
    assert row["effect_mean"] == pytest.approx(-0.105)


def test_a_margin_is_the_smallest_difference_that_counts(results):
    small, large = (Claim(id="m", **BASE, margin=margin) for margin in (0.09, 0.11))
    assert decided(results, [small]).loc["m", "verdict"] == "holds"
    assert decided(results, [large]).loc["m", "verdict"] == "undecided"


def test_the_correction_decides_and_not_the_bare_p():
    test = Paired(3, -0.1, -0.19, -0.01, 0.03)
    assert verdict(CLAIMS[0], test, 0.03) == "holds"  # control: uncorrected
    assert verdict(CLAIMS[0], test, 0.06) == "undecided"


def test_a_step_that_is_the_same_in_every_seed_is_no_test_and_is_counted(results):
    for seed in range(1, 6):
        path = path_of(results, "dmd", seed)
        write_json(path, {"tv": SCORES["dmd2"]["tv"][seed - 1] - 0.0625, "spread": 1})
    assert math.isnan(paired([0.0625] * 5).p)
    table = decided(results, [CLAIMS[0], CLAIMS[2]])
    assert table.loc["vanilla", "verdict"] == "undecided"
    assert math.isnan(table.loc["vanilla", "p_holm"])
    assert table.loc["even", "p_holm"] == pytest.approx(2 * table.loc["even", "p"])


def test_a_damaged_file_is_named(results):
    path_of(results, "dmd2", 4).write_text("{")
    with pytest.raises(UserError, match=r"dmd2/seed4/metrics\.json"):
        decided(results)
    write_json(path_of(results, "dmd2", 4), {"spread": 1.0})
    with pytest.raises(UserError, match="tv: missing"):
        decided(results)


def test_the_command_writes_the_table_its_twins_and_its_record(results, tmp_path):
    listed = [{**BASE, "id": "even"}, {**BASE, "id": "absent", "part": "elsewhere"}]
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"claims": listed}))
    output = tmp_path / "out" / "claims"
    command = ["claims", "--claims", str(tmp_path / "claims.yaml"), "--results", str(results)]
    assert cli.main([*command, "--output", str(output)]) == 0
    csv = pd.read_csv(output.with_suffix(".csv"), keep_default_na=False)
    assert list(csv["verdict"]) == ["holds", "not run"]
    assert {"direction", "margin", "part", "p_holm", "files"} <= set(csv.columns)
    text = output.with_suffix(".md").read_text()
    assert "by Holm's method; tests: 1." in text
    assert "-0.100 [-0.109, -0.091]" in text
    assert "holds" in output.with_suffix(".tex").read_text()
    record = json.loads(output.with_suffix(".json").read_text())
    wanted = {
        str(path_of(results, name, seed)) for name in ("dmd2", "phased2") for seed in range(1, 6)
    }
    assert set(record["made_from"]["even"]) == wanted == set(record["inputs_sha256"])
    assert record["made_from"]["absent"] == []
    assert set(record["outputs_sha256"]) == {"claims.csv", "claims.md", "claims.tex"}


def test_a_rule_reads_what_it_declares_and_no_other_seed(results, tmp_path):
    there = {path_of(results, name, seed) for name in ("dmd2", "phased2") for seed in (1, 2, 3)}
    write_claims(CLAIMS[:1], results, tmp_path / "claims", there)
    record = read_json(tmp_path / "claims.json")
    assert set(record["inputs_sha256"]) == set(map(str, there))
    write_claims(CLAIMS[:1], results, tmp_path / "claims")  # control
    assert len(read_json(tmp_path / "claims.json")["inputs_sha256"]) == 10


def test_no_claims_are_one_line(tmp_path):
    with pytest.raises(UserError, match="no claim: expected"):
        write_claims([], tmp_path, tmp_path / "claims")
