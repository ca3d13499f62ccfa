"""Scorers of pictures and clips with prompts, put together from a scenario's files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdmd import provenance
from pdmd.contents import load_finite
from pdmd.data import load_samples
from pdmd.judge import load_judge
from pdmd.metrics import checks
from pdmd.metrics.checks import Scores
from pdmd.metrics.prompted import EmojiMetrics, MovingMetrics, Reference
from pdmd.moving import DIRECTIONS, speeds_of
from pdmd.paths import Paths
from pdmd.prompted import decoded, load_pictures, to_unit
from pdmd.prompts import Prompt, read_prompts
from pdmd.stages import Stage

VALIDATED = 3  # objects on whose clips metrics are validated: I3D is slow
FRAME = 128  # px of a frame that I3D sees
FEATURES, REAL = "features.safetensors", "real_"  # their file; the prefix of held-out data's
SHARED = {"features", "ends", "i3d"}  # features of held-out data that cost much
Metrics = EmojiMetrics | MovingMetrics
Score = Callable[[Tensor, Tensor | None], Scores]


def quick_scorer(stage: Stage) -> Score:
    """(latents, conditions) -> the quick scores, those of training's path."""
    metrics = _stage_metrics(stage)

    def score(x: Tensor, condition: Tensor | None) -> Scores:
        assert condition is not None
        return metrics(_pictures(stage, x), condition)

    return score


def full_scores(
    stage: Stage, seed: int, x: Tensor, condition: Tensor
) -> tuple[Scores, dict[str, Tensor]]:
    """All scores of a seed's samples, and the features that comparisons with them need.

    Samples that are compared with a teacher's read the features of those, and of held-out data,
    from the teacher's evaluation: I3D alone would be a third of the work.
    """
    config, metrics = stage.config, _stage_metrics(stage)
    spec, beside = config["evaluate"], config["evaluate"]["beside"]
    kind, root = config["data"]["kind"], stage.paths.root
    found = networks(kind, metrics.prompts, root, spec.get("networks", {}))
    metrics = replace(metrics, networks=found)
    if config["method"] != beside:
        metrics = _beside(stage, metrics, beside, seed)
    own = Reference(_pictures(stage, x))
    with checks.telling(f"{config['method']}, seed {seed}"):
        scores, shared = metrics.full(own, condition), {}
    if config["kind"] == "teacher":
        held = metrics.real.features
        shared = {f"{REAL}{name}": held[name] for name in SHARED & held.keys()}
    return scores, own.features | shared


def _stage_metrics(stage: Stage) -> Metrics:
    config, spec = stage.config, stage.config["evaluate"]
    kind, data = config["data"]["kind"], stage.paths.data("")
    return _metrics(data, kind, spec["neighbours"], spec.get("video_samples", 0))


def _beside(stage: Stage, metrics: Metrics, teacher_method: str, seed: int) -> Metrics:
    """Metrics that compare with a teacher's samples of a seed, too."""
    path = stage.paths.scenario / teacher_method / f"seed{seed}" / "samples.safetensors"
    found = load_samples(path, stage.data.space)
    features = load_finite(path.with_name(FEATURES))
    own = {name: value for name, value in features.items() if not name.startswith(REAL)}
    with checks.telling(str(path)):
        teacher = Reference(_pictures(stage, found["x"]), own, f"{teacher_method}'s")
    for name in features.keys() - own.keys():
        metrics.real.features.setdefault(name.removeprefix(REAL), features[name])
    if isinstance(metrics, MovingMetrics):
        return replace(metrics, teacher=teacher, conditions=found["condition"])
    return replace(metrics, teacher=teacher)


def _pictures(stage: Stage, latents: Tensor) -> Tensor:
    """Latents -> pictures (N, 3, H, W) or clips (N, 3, T, H, W).

    Raises:
        UserError: a latent is not finite: a decoder's clamp would hide what is infinite.
    """
    x = decoded(stage.config, checks.samples("scores", latents, what="latents"))
    return x[:, :, 0] if stage.config["data"]["kind"] == "emoji" else x


@cache
def _metrics(data: Path, kind: str, neighbours: int, fvd_clips: int) -> Metrics:
    """A scenario's metrics without networks; held-out features are made once a process."""
    prompts, judge = read_prompts(data / "prompts.json"), load_judge(data / "judge.safetensors")
    tensors = load_pictures(data / "pictures.safetensors", kind, len(prompts))
    x = to_unit(tensors["heldout"])
    labels = {
        name.removeprefix("heldout_"): values
        for name, values in tensors.items()
        if name.startswith("heldout_")
    }
    held = Reference(x[:, :, 0] if kind == "emoji" else x, what="held-out")
    if kind == "emoji":
        return EmojiMetrics(prompts, judge, held, labels, neighbours)
    return MovingMetrics(prompts, judge, held, labels, neighbours, fvd_clips=fvd_clips)


def _clip_features(root: Path) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The small CLIP's features of pictures, and those of the categories' texts."""
    from clip import tokenize

    from pdmd.emoji import CATEGORIES
    from pdmd.metrics.alignment import load_clip
    from pdmd.networks.small_clip import CONTEXT, UNSEEN, prepare
    from pdmd.prompts import with_article

    model = load_clip(str(root / "clip" / "small_clip.pt"))
    size = model.visual.input_resolution
    texts = [UNSEEN.format(a=with_article(name)) for name in CATEGORIES]
    with torch.no_grad():
        return lambda x: model.encode_image(prepare(x, size)), model.encode_text(
            tokenize(texts, CONTEXT)
        )


@cache
def _lite0() -> Any:
    from pdmd.networks.lite0 import load_lite0

    return load_lite0()


@cache
def _lpips() -> Any:
    from pdmd.networks.lpips import load_lpips

    return load_lpips()


@cache
def _features(name: str) -> Any:
    """Lite0, which a package holds, or DINOv3 by name or from a folder."""
    if name == "lite0":
        return _lite0()
    from pdmd.networks.dino import load_dino

    return load_dino(name)


@cache
def _flow(name: str) -> Any:
    """OpenCV's optical flow, or RAFT by the name or file of its weights."""
    from pdmd.metrics.motion import opencv_flow, raft_flow

    return opencv_flow if name == "opencv" else raft_flow(name, "large")


@cache
def _i3d() -> Any:
    from pdmd.networks.i3d import load_i3d

    return load_i3d(FRAME)


def networks(
    kind: str, prompts: Sequence[Prompt], root: Path, wanted: Mapping[str, str]
) -> dict[str, Any]:
    """Name -> network, as the metrics want them; each is loaded once a process.

    Args:
        wanted: what to use in the place of Lite0 (`features`), OpenCV (`flow`), the small CLIP.
    """
    from pdmd.metrics.alignment import clip_score
    from pdmd.metrics.diversity import lpips_pairwise

    path = wanted.get("clip", str(root / "clip" / "small_clip.pt"))
    texts = [prompt.text for prompt in prompts]
    pairwise = _lpips().pairwise
    found = {
        "features": _features(wanted.get("features", "lite0")),
        "lpips": lambda x, condition: lpips_pairwise(pairwise, x, condition),
        "clip": lambda x, condition: clip_score(path, x, [texts[i] for i in condition.tolist()]),
    }
    if kind == "moving":
        found["flow"] = _flow(wanted.get("flow", "opencv"))
        found["i3d"] = lambda clips: torch.cat(_i3d()(clips), 1)
    return found


def validate_metrics(config: dict[str, Any], path: Path) -> None:
    """Write the table of what each metric does on real data with known damage, three files."""
    from pdmd.plans import clip_plan, picture_plan
    from pdmd.tables import write_table
    from pdmd.validation import validate

    paths, kind = Paths(config), config["data"]["kind"]
    torch.set_num_threads(config["threads"])
    tensors = load_pictures(paths.data("pictures.safetensors"), kind)
    x = to_unit(tensors["heldout"])
    if kind == "emoji":
        subject, place = tensors["heldout_object"] // 4, tensors["heldout_object"] % 4
        mode = place * 4 + tensors["heldout_style"]
        plan = picture_plan(_lite0(), _lpips().pairwise, _clip_features(paths.root))
        table = validate(x[:, :, 0], subject, mode, plan)
    else:
        subject = tensors["heldout_object"]
        rows = ((subject >= 0) & (subject < VALIDATED)).nonzero().flatten()
        known = list(DIRECTIONS.values()), speeds_of(x.shape[-1])
        plan = clip_plan(_i3d(), *known)
        mode = tensors["heldout_direction"] * len(known[1]) + tensors["heldout_speed"]
        table = validate(x[rows], subject[rows], mode[rows], plan)
    caption = f"{config['scenario']}: metrics on real data with known damage."
    write_table(table, path, caption)
    sources = [paths.data("pictures.safetensors"), paths.root / "clip" / "small_clip.pt"]
    written = [f"{path.name}.{end}" for end in ("csv", "md", "tex")]
    provenance.record(path.with_suffix(".json"), config, [], sources, written)
