"""The registry of claims: read whole, or refused in one line."""

import subprocess
import sys

import pytest
import yaml
from configs import ROOT, accepted, one_line, own

from pdmd.config.claims import (
    FILE,
    Claim,
    belonging,
    check_planned,
    digest,
    part_of,
    read_claims,
)
from pdmd.errors import UserError
from pdmd.jobs.claimed import Claimed

CLAIM = {
    "id": "a-1",
    "claim": "Phased DMD covers more.",
    "place": "Table 3",
    "scale": "toy",
    "part": "",
    "scenario": "mixture2d",
    "metric": "tv",
    "method": "phased2",
    "against": "dmd2",
    "direction": "less",
}


def written(folder, *claims):
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump({"claims": list(claims)}))
    return path


def test_the_registry_is_read():
    claims = read_claims(ROOT / FILE)
    assert len({claim.id for claim in claims}) == len(claims) > 1


def test_a_claim_is_what_was_written(tmp_path):
    (claim,) = read_claims(written(tmp_path, CLAIM | {"margin": 0.5}))
    assert claim == Claim(**CLAIM, margin=0.5)
    (claim,) = read_claims(written(tmp_path, CLAIM))
    assert claim.margin == 0


@pytest.mark.parametrize(
    ("claims", "line"),
    [
        (
            [CLAIM | {"effect": 1}],
            "claims.0.effect: 1: expected a known key, one of against, against_part",
        ),
        ([CLAIM, CLAIM], "claims.1.id: 'a-1': expected an id that no other claim has"),
        ([CLAIM | {"id": "a b"}], "claims.0.id: 'a b': expected a name that matches"),
        ([CLAIM | {"metric": "beauty"}], "claims.0.metric: 'beauty': expected a metric"),
        ([CLAIM | {"against": "phased2"}], "claims.0.against: 'phased2': expected another method"),
        ([CLAIM | {"direction": "more"}], "claims.0.direction: 'more': expected one of greater, l"),
        ([CLAIM | {"scale": "huge"}], "claims.0.scale: 'huge': expected one of toy"),
        ([CLAIM | {"part": "../x"}], "claims.0.part: '../x': expected a name that matches"),
        ([CLAIM | {"margin": -1}], "claims.0.margin: -1: expected at least 0"),
        ([CLAIM | {"claim": ""}], "claims.0.claim: '': expected a text that is not empty"),
        ([{k: v for k, v in CLAIM.items() if k != "place"}], "expected the key place"),
        (["a sentence"], "claims.0: 'a sentence': expected a value of type object"),
    ],
)
def test_a_wrong_claim_is_one_line(tmp_path, claims, line):
    path = written(tmp_path, *claims)
    with pytest.raises(UserError) as caught:
        read_claims(path)
    assert str(path) in one_line(caught.value)
    assert line in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "claims: 3", "claims: [", "other: []"])
def test_what_is_no_registry_is_one_line(tmp_path, text):
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        read_claims(tmp_path / "claims.yaml")
    one_line(caught.value)


def test_a_claim_belongs_where_its_results_lie():
    claim, deep = Claim(**CLAIM), Claim(**CLAIM | {"part": "science/mixture"})
    methods = {"mixture2d": ["teacher", "dmd2", "phased2"]}
    assert belonging([claim, deep], "results", methods) == [claim]
    assert belonging([claim, deep], "results/science/mixture", methods) == [deep]
    assert belonging([claim, deep], "results/science", methods) == []
    assert belonging([claim, deep], "/elsewhere/results", methods) == []
    assert belonging([claim], "results", {"mixture2d": ["teacher", "dmd2"]}) == []
    assert belonging([claim], "results", {"digits": methods["mixture2d"]}) == []
    assert [part_of(name) for name in ("results", "results/a/b", "other")] == ["", "a/b", None]


def test_a_claim_of_nearness_needs_the_teacher():
    claim = Claim(**CLAIM | {"direction": "nearer"})
    assert belonging([claim], "results", {"mixture2d": ["dmd2", "phased2"]}) == []
    assert belonging([claim], "results", {"mixture2d": ["teacher", "dmd2", "phased2"]}) == [claim]


def test_a_workflow_decides_its_own_claims_from_all_their_scores():
    part = {"results": "results/science/mixture"}
    whole = Claimed(accepted(part))
    assert {"mixture-phased2-total", "mixture-vanilla-keeps"} <= set(whole.ids)
    assert "results/science/mixture/mixture2d/dmd/seed5/metrics.json" in whole.scores
    ends = ("csv", "md", "tex")
    assert whole.files == [f"results/science/mixture/claims.{end}" for end in ends]
    fewer = Claimed(accepted(part | own("mixture2d", methods=["teacher", "dmd2", "phased2"])))
    assert "mixture-vanilla-keeps" not in fewer.ids
    assert not any("/dmd/" in path for path in fewer.scores)
    apart = Claimed(accepted({"results": "results/minute"}))  # control
    assert (apart.ids, apart.scores, apart.files) == ([], [], [])


def test_other_claims_than_planned_are_refused(tmp_path):
    path = written(tmp_path, CLAIM, CLAIM | {"id": "a-2"})
    claims = read_claims(path)
    planned = digest(claims[:1])
    assert check_planned(claims, ["a-1"], planned, path) == claims[:1]
    with pytest.raises(UserError, match="planned with"):
        check_planned(claims, ["a-2"], planned, path)
    with pytest.raises(UserError, match="'a-3': expected the id of a claim"):
        check_planned(claims, ["a-3"], None, path)


def test_claims_are_read_without_torch():
    code = "import sys, pdmd.config.claims; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, check=True, capture_output=True).stdout.strip() == b"False"
