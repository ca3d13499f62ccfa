"""The score stage: metrics of every seed's samples of record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pdmd.config.experiment import Config
from pdmd.data.sources import load_samples
from pdmd.files import provenance
from pdmd.files.contents import take
from pdmd.files.storage import load_tensors, write_json
from pdmd.scenarios.kind import Frozen, kind_of
from pdmd.stages.decode import load_decoded
from pdmd.stages.outputs import (
    DECODED,
    EVALUATION,
    FEATURED,
    SAMPLES,
    SCORED,
    STRATA,
    score_reads,
    scored,
)
from pdmd.stages.scoring import full_scores, quick_scorer
from pdmd.stages.stage import Stage, prepare

FEATURES, REAL = FEATURED[0], "real_"  # their file; what names of held-out data's begin with
Score = Callable[[Tensor, Tensor | None], dict[str, float | None]]


def scorer(stage: Stage) -> Score:
    """(samples, conditions) -> metrics, for the scenario's kind of data."""
    kind = kind_of(stage.run.data)
    return quick_scorer(stage) if kind.scorer is None else kind.scorer(stage)


def score_method(config: Config, seeds: list[int]) -> None:
    """Write metrics.json beside each seed's samples, and strata.json where prompts have strata."""
    prepare(config)
    stage = Stage(config)
    kind = kind_of(stage.run.data)
    score = None if kind.prompted or kind.frozen else scorer(stage)
    for seed in seeds:
        path, rows = stage.paths.seed(seed, SCORED[0]), stage.run.evaluate.samples
        if kind.frozen is not None:
            scores = _frozen_scores(stage, kind.frozen, seed)
        elif score is None:
            drawn = load_decoded(path.with_name(DECODED[0]), stage.space, rows)
            scores, strata = full_scores(stage, seed, *drawn)
            if kind.strata:
                write_json(path.with_name(STRATA), strata)
        else:
            tensors = load_samples(path.with_name(SAMPLES[0]), stage.space, rows)
            scores = score(tensors["x"], tensors.get("condition"))
        write_json(path, scores)
        inputs, files = score_reads(stage.run, seed), scored(kind)
        provenance.record(path.with_name(EVALUATION), config, [seed], inputs, files)


def _frozen_scores(stage: Stage, frozen: Frozen, seed: int) -> dict[str, float | None]:
    """Scores from what frozen networks saw, beside the teacher's."""
    run, beside = stage.run, stage.run.evaluate.beside
    own, condition = _seen(stage.paths.seed(seed, FEATURES))
    theirs = None
    if beside != run.method:
        theirs, _ = _seen(stage.paths.scenario / beside / f"seed{seed}" / FEATURES)
    return frozen.scores(own, theirs, condition)


def _seen(path: Path) -> tuple[dict[str, Tensor], Tensor]:
    """Features of samples, and the prompts (N,) that they were drawn for. Raises UserError."""
    tensors = load_tensors(path)
    condition = take(path, tensors, "condition", (None,), torch.int64, 0)
    features = {name: one for name, one in tensors.items() if name != "condition"}
    for name, one in features.items():
        rows = None if name.startswith(REAL) else len(condition)
        take(path, features, name, (rows, *one.shape[1:]))
    return features, condition
