"""Which jobs there are, and what each reads and writes."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from pdmd.config.experiment import Experiment, merge, read_yaml
from pdmd.config.parts import resolved
from pdmd.jobs.graph import Graph
from pdmd.jobs.lanes import NOTHING, either
from pdmd.stages.outputs import DIAGNOSTICS, PHASE, frozen_reads


@pytest.fixture
def graph(repository):
    """The graph of the default experiment, with a diff."""

    def make(diff=None):
        settings = merge(read_yaml(repository / "config" / "config.yaml"), diff or {})
        experiment = Experiment(repository, settings)
        return Graph(experiment, resolved(experiment, repository))

    return make


def lane(graph, scenario):
    return next(one for one in graph.lanes if scenario in one.scenarios)


def test_single_seeds_of_all_scenarios_share_rules_and_arrays(graph):
    found = graph()
    one = lane(found, "emoji")
    assert one is lane(found, "moving")
    assert one.name("distill") == "distill"
    assert one.folders("phase1") == ["results/{scenario}/{method}/seed{group}/phase1"]
    assert one.numbers(SimpleNamespace(group="3")) == [3]


def test_seeds_that_train_together_have_a_rule_named_by_their_scenario(graph):
    together = lane(graph(), "mixture2d")
    assert together.name("distill") == "distill_mixture2d"
    seeds = list(together.seeds)
    assert len(seeds) > 1
    assert together.numbers(None) == seeds
    files = together.files(PHASE, "phase{phase}")
    assert len(files) == len(seeds) * len(PHASE)
    alone = graph({"overrides": {"mixture2d": {"seeds": [4]}}})  # control
    assert lane(alone, "mixture2d") is lane(alone, "emoji")


def test_diagnostics_are_of_the_methods_that_have_them(graph):
    found = graph()
    scenarios, methods = lane(found, "emoji").diagnosed("swaps")
    assert "phased2" in methods.split("|")
    assert "dmd2" not in methods.split("|")
    assert set(scenarios.split("|")) == {"emoji", "moving"}
    assert "boundary" in lane(found, "mixture2d").diagnostics
    assert "boundary" not in lane(found, "emoji").diagnostics
    assert lane(found, "toy1d").diagnostics == []
    assert either([]) == NOTHING


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_a_diagnostic_reads_no_other_ones_files(graph, name):
    runs = graph().experiment.runs
    for run in runs.values():
        if run.kind == "distill" and DIAGNOSTICS[name].applies(run):
            reads = {path.name for path in DIAGNOSTICS[name].reads(run, 1)}
            written = {file for one in DIAGNOSTICS.values() for file in one.files}
            assert not reads & written
            assert "metrics.json" not in reads


def test_a_later_phase_reads_the_bank_of_each_seed(graph):
    together = lane(graph(), "mixture2d")
    banks = together.banks(WildcardsLike(scenario="mixture2d", method="phased2", phase="2"))
    assert banks == [f"results/mixture2d/phased2/seed{seed}/phase2/bank" for seed in together.seeds]
    first = WildcardsLike(scenario="mixture2d", method="phased2", phase="1")
    assert together.banks(first) == []  # control


def test_jobs_that_measure_and_choose_are_of_the_methods_that_need_them(graph):
    methods = ["teacher", "teacher-again", "phased2", "phased2-auto"]
    found = graph({"overrides": {"emoji": {"methods": methods}}})
    assert (found.measured, found.choosing) == ("emoji", "phased2-auto")
    where = WildcardsLike(scenario="emoji", method="phased2-auto", phase="2", group="1")
    assert found.chosen_from(where) == ["results/emoji/base/step_errors.json"]
    wanted = "results/emoji/phased2-auto/grid.json"
    assert wanted in lane(found, "emoji").reads(frozen_reads)(where)
    assert "results/emoji/figures/steps.png" in found.figures("emoji")
    assert wanted in found.figure_inputs("emoji")
    assert (graph().measured, graph().choosing) == (NOTHING, NOTHING)  # control
    assert "results/emoji/figures/steps.png" not in graph().figures("emoji")


def test_scores_by_stratum_are_of_the_kinds_whose_prompts_have_strata(graph):
    found = graph()
    by_stage = {stage: (only, files) for stage, only, files in lane(found, "emoji").scored}
    assert by_stage["score_strata"][0] == "emoji|moving"
    assert "strata.json" in by_stage["score_strata"][1]
    assert "results/emoji/teacher/seed1/strata.json" in found.table_inputs("emoji")
    assert "results/emoji/teacher/seed1/strata.json" in found.scores("emoji")
    ((stage, _, files),) = lane(found, "mixture2d").scored  # control
    assert (stage, "strata.json" in files) == ("score", False)
    assert "results/mixture2d/tables/strata.csv" not in found.tables("mixture2d")


def test_jobs_that_choose_ranges_are_of_the_methods_that_need_them(graph):
    methods = ["teacher", "teacher-again", "phased2", "phased2-range"]
    found = graph({"overrides": {"emoji": {"methods": methods}}})
    assert (found.ranged, found.ranging) == ("emoji", "phased2-range")
    assert (found.measured, found.choosing) == (NOTHING, NOTHING)
    where = WildcardsLike(scenario="emoji", method="phased2-range", phase="2", group="1")
    reads = {Path(path).name for path in found.ranged_by(where)}
    assert {"train.safetensors", "model.safetensors"} <= reads
    wanted = "results/emoji/phased2-range/range.json"
    assert wanted in lane(found, "emoji").reads(frozen_reads)(where)
    assert "results/emoji/figures/overlap.png" in found.figures("emoji")
    assert wanted in found.figure_inputs("emoji")
    assert "results/emoji/phased2-range/ranging_cost.json" in found.table_inputs("emoji")
    assert (graph().ranged, graph().ranging) == (NOTHING, NOTHING)  # control
    assert "results/emoji/figures/overlap.png" not in graph().figures("emoji")


class WildcardsLike(dict):
    """A mapping whose keys are attributes, too, as Snakemake's wildcards."""

    __getattr__ = dict.__getitem__
