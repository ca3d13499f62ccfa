"""The score stage: metrics of every seed's samples of record."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pdmd.config.experiment import Config
from pdmd.data.sources import load_samples
from pdmd.files import provenance
from pdmd.files.storage import write_json
from pdmd.scenarios.kind import kind_of
from pdmd.stages.decode import load_decoded
from pdmd.stages.outputs import DECODED, EVALUATION, SAMPLES, SCORED, score_reads
from pdmd.stages.scoring import full_scores, quick_scorer
from pdmd.stages.stage import Stage, prepare

Score = Callable[[Tensor, Tensor | None], dict[str, float | None]]


def scorer(stage: Stage) -> Score:
    """(samples, conditions) -> metrics, for the scenario's kind of data."""
    kind = kind_of(stage.run.data)
    return quick_scorer(stage) if kind.scorer is None else kind.scorer(stage)


def score_method(config: Config, seeds: list[int]) -> None:
    """Write metrics.json beside each seed's samples."""
    prepare(config)
    stage = Stage(config)
    score = None if kind_of(stage.run.data).prompted else scorer(stage)
    for seed in seeds:
        path, rows = stage.paths.seed(seed, SCORED[0]), stage.run.evaluate.samples
        if score is None:
            drawn = load_decoded(path.with_name(DECODED[0]), stage.space, rows)
            scores = full_scores(stage, seed, *drawn)
        else:
            tensors = load_samples(path.with_name(SAMPLES[0]), stage.space, rows)
            scores = score(tensors["x"], tensors.get("condition"))
        write_json(path, scores)
        provenance.record(
            path.with_name(EVALUATION), config, [seed], score_reads(stage.run, seed), SCORED
        )
