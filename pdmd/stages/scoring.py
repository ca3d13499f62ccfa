"""Scorers of pictures and clips with prompts, put together from a scenario's files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdmd.config.sections import Evaluate, Networks
from pdmd.config.typed import build
from pdmd.data.prompts import Prompt, read_prompts
from pdmd.files.contents import load_finite
from pdmd.metrics import checks
from pdmd.metrics.checks import Scores
from pdmd.metrics.prompted import PromptedMetrics, Reference, by_stratum, over_processes
from pdmd.networks.judge import load_judge
from pdmd.scenarios.kind import Prompted, kind_of, prompted, strata_of
from pdmd.stages.decode import decoded, load_decoded
from pdmd.stages.outputs import DECODED
from pdmd.stages.precompute import load_pictures, to_unit
from pdmd.stages.stage import Stage
from pdmd.training.world import ALONE, World

FEATURES, REAL = "features.safetensors", "real_"  # their file; the prefix of held-out data's
SHARED = {"features", "ends", "i3d"}  # features of held-out data that cost much
Score = Callable[[Tensor, Tensor | None], Scores]


def quick_scorer(stage: Stage) -> Score:
    """(latents, conditions) -> the quick scores, those of training's path."""
    metrics = _stage_metrics(stage)

    def score(x: Tensor, condition: Tensor | None) -> Scores:
        assert condition is not None
        pictures = decoded(stage.paths, x, stage.world)
        return metrics(_shown(stage, pictures), condition)

    return score


@torch.no_grad()
def sample_features(stage: Stage, pictures: Tensor) -> dict[str, Tensor]:
    """Features of a seed's pictures (N, 3, T, H, W), what scores are made from and cost much.

    A teacher's file has those of held-out data, too, under names that begin with REAL: every
    comparison reads them there, since I3D alone would be a third of the work of scoring.
    """
    run, metrics = stage.run, _with_networks(stage)
    samples = Reference(_shown(stage, pictures))
    with checks.telling(run.method):
        metrics.features(samples)
        if run.kind != "teacher":
            return samples.features
        metrics.features(metrics.real)
    held = metrics.real.features
    return samples.features | {f"{REAL}{name}": held[name] for name in SHARED & held.keys()}


def full_scores(
    stage: Stage, seed: int, pictures: Tensor, condition: Tensor
) -> tuple[Scores, dict[str, Scores]]:
    """All scores of a seed's pictures, from their features and those they are compared with.

    Beside them those of each stratum of prompts, where the kind has some.
    """
    run, metrics = stage.run, _with_networks(stage)
    beside = run.evaluate.beside
    features = load_finite(stage.paths.seed(seed, FEATURES))
    if run.method != beside:
        metrics = _beside(stage, metrics, beside, seed)
    samples = Reference(_shown(stage, pictures), _own(features, metrics))
    with checks.telling(f"{run.method}, seed {seed}"):
        scores = metrics.full(samples, condition)
        kind = kind_of(run.data)
        if not kind.strata:
            return scores, {}
        strata = strata_of(kind, metrics.prompts)
        return scores, by_stratum(metrics, samples, condition, strata, kind.strata)


def _with_networks(stage: Stage) -> PromptedMetrics:
    """A scenario's metrics with the frozen networks of full scores."""
    run, metrics = stage.run, _stage_metrics(stage)
    named, kind = run.evaluate.networks or Networks(), prompted(run.data.kind)
    return replace(
        metrics, networks=networks(kind, metrics.prompts, stage.paths.root, named, stage.world)
    )


def _own(features: dict[str, Tensor], metrics: PromptedMetrics) -> dict[str, Tensor]:
    """A file's features of samples; those of held-out data go where metrics look for them."""
    for name in features:
        if name.startswith(REAL):
            metrics.real.features.setdefault(name.removeprefix(REAL), features[name])
    return {name: value for name, value in features.items() if not name.startswith(REAL)}


def _stage_metrics(stage: Stage) -> PromptedMetrics:
    data, evaluate = stage.paths.data(""), stage.config["evaluate"]
    return _metrics(data, stage.run.data.kind, json.dumps(evaluate, sort_keys=True))


def _beside(
    stage: Stage, metrics: PromptedMetrics, teacher_method: str, seed: int
) -> PromptedMetrics:
    """PromptedMetrics that compare with a teacher's samples of a seed, too."""
    path = stage.paths.scenario / teacher_method / f"seed{seed}" / DECODED[0]
    pictures, condition = load_decoded(path, stage.space)
    features = load_finite(path.with_name(FEATURES))
    known = _own(features, metrics)
    with checks.telling(str(path)):
        teacher = Reference(_shown(stage, pictures), known, f"{teacher_method}'s")
    return replace(metrics, teacher=teacher, asked_of_teacher=condition)


def _shown(stage: Stage, x: Tensor) -> Tensor:
    """(N, 3, T, H, W) as metrics see it: pictures (N, 3, H, W), or clips."""
    return prompted(stage.run.data.kind).shown(x)


@cache
def _metrics(data: Path, name: str, evaluate: str) -> PromptedMetrics:
    """A scenario's metrics without networks; held-out features are made once a process."""
    kind = prompted(name)
    prompts, judge = read_prompts(data / "prompts.json"), load_judge(data / "judge.safetensors")
    tensors = load_pictures(data / "pictures.safetensors", name, len(prompts))
    held = Reference(kind.shown(to_unit(tensors["heldout"])), what="held-out")
    labels = {
        label.removeprefix("heldout_"): values
        for label, values in tensors.items()
        if label.startswith("heldout_")
    }
    metrics: PromptedMetrics = kind.metrics(
        prompts, judge, held, labels, evaluate=build(Evaluate, json.loads(evaluate))
    )
    return metrics


def networks(
    kind: Prompted,
    prompts: Sequence[Prompt],
    root: Path,
    wanted: Networks,
    world: World = ALONE,
) -> dict[str, Any]:
    """Name -> network, as the metrics want them; each loaded once a process.

    Args:
        wanted: what to use in the place of Lite0 (`features`), OpenCV (`flow`), the small CLIP;
        world: the processes that share out rows for features, and their devices.
    """
    from pdmd.metrics import frozen
    from pdmd.metrics.alignment import clip_cosines, clip_features
    from pdmd.metrics.diversity import lpips_pairwise

    path, device = wanted.clip_weights(str(root)), world.device
    texts = [prompt.text for prompt in prompts]
    every = {
        "features": over_processes(frozen.features(wanted.features, device), world),
        "lpips": lambda x, condition: lpips_pairwise(
            lambda rows: frozen.lpips(device).pairwise(rows.to(device)).cpu(), x, condition
        ),
        "clip": lambda x, condition: clip_cosines(
            path, x, [texts[i] for i in condition.tolist()], device
        ),
        "clip_image": lambda x: clip_features(path, x, device),
    }
    of_kind = kind.networks(wanted, device)
    return every | {
        name: over_processes(network, world) if name in SHARED else network
        for name, network in of_kind.items()
    }
