"""The overlays of config/science, and the claims that their runs decide."""

from dataclasses import replace
from pathlib import Path

import pytest

from pdmd.config.claims import read_claims
from pdmd.config.experiment import Experiment, merge, read_yaml
from pdmd.metrics.intervals import FEWEST

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = sorted((REPOSITORY / "config" / "science").glob("*.yaml"))
CLAIMS = read_claims(REPOSITORY / "config" / "claims.yaml")


@pytest.fixture(scope="module")
def experiments():
    """Part -> what its overlay asks for."""
    found = {}
    for path in PARTS:
        settings = merge(read_yaml(REPOSITORY / "config" / "config.yaml"), read_yaml(path))
        found[f"science/{path.stem}"] = Experiment(REPOSITORY, settings)
    return found


def missing(claim, experiments):
    """What a claim needs that no overlay runs, or with fewer seeds than a test takes."""
    runs = [
        (part, method)
        for part, method in claim.needs
        if part not in experiments
        or claim.scenario not in experiments[part].scenarios
        or method not in experiments[part].method_names(claim.scenario)
        or len(experiments[part].seeds(claim.scenario)) < FEWEST
    ]
    return runs


def test_results_lie_where_claims_look(experiments):
    for part, experiment in experiments.items():
        assert experiment.settings["results"] == f"results/{part}"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_claim_is_decided_by_an_overlay(claim, experiments):
    assert missing(claim, experiments) == []


def test_a_claim_of_a_method_that_nothing_runs_is_found(experiments):
    """The control."""
    claim = CLAIMS[0]
    assert missing(replace(claim, method="phased3"), experiments) == [(claim.part, "phased3")]
    assert missing(replace(claim, scenario="toy1d"), experiments) == list(claim.needs)


def test_every_metric_is_one_that_its_scenario_scores(experiments):
    """`kvd_teacher` and the like stand in the scores of methods beside a teacher."""
    from pdmd.scenarios.kind import kind_of

    for claim in CLAIMS:
        experiment = experiments[claim.part]
        (run, *_) = experiment.runs_of(claim.scenario)
        columns = [names for names, _ in kind_of(run.data).metrics().values()]
        assert claim.metric in {name for names in columns for name in names}, claim.id


def test_make_science_runs_every_part():
    makefile = (REPOSITORY / "Makefile").read_text()
    (line,) = [line for line in makefile.splitlines() if line.startswith("SCIENCE ?=")]
    assert sorted(line.split("=", 1)[1].split()) == [path.stem for path in PARTS]
