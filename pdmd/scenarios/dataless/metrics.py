"""Scores of samples of released models: the paper's Tables 2 and 3, of frozen networks alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from pdmd.config.catalogue import LEAST
from pdmd.config.sections import Networks
from pdmd.metrics import checks, frozen
from pdmd.metrics.alignment import clip_features, score_of_features, text_features
from pdmd.metrics.checks import Scores
from pdmd.metrics.consistency import DIMENSIONS, FEWEST, steadiness
from pdmd.metrics.diversity import lpips_pairwise, vendi_score, within_prompt
from pdmd.metrics.fidelity import frechet_distance, kernel_distance
from pdmd.metrics.motion import dynamic_degree, mean_flow

FPS, EVERY = 8.0, 2  # VBench looks at 8 frames a second: every second one of 16
SEEN_SIDE = 256  # px of the picture that LPIPS sees: larger ones are made smaller, no other larger
REAL = "real_"
SUBSETS = 20  # of a kernel distance
LOGITS = 400  # of I3D, which FVD is of; behind them pooled features, which KVD is of


@torch.no_grad()
def features(
    pictures: Tensor, text: str, wanted: Networks, results: Path, device: torch.device
) -> dict[str, Tensor]:
    """What frozen networks see in one sample.

    Args:
        pictures: (1, 3, T, H, W) uint8, a picture has T = 1; text: its prompt; results: the folder
            of everything, where the small CLIP is that does for want of another.
    Returns:
        seen (1, D) and picture (1, 3, h, w) of the middle frame, clip_image and clip_text (1, E);
        of clips flow (1,) px a frame, dynamic (1,) 0 or 1, i3d (1, 400 + pooled) and,
        of three frames or more, steadiness (1, 4).
    """
    clip = pictures.float() / 127.5 - 1
    middle = clip[:, :, clip.shape[2] // 2]
    weights = wanted.clip_weights(str(results))
    found = {
        "seen": frozen.features(wanted.features, device)(middle.to(device)).cpu(),
        "picture": _smaller(middle),
        "clip_image": clip_features(weights, middle, device),
        "clip_text": text_features(weights, [text], device),
    }
    if clip.shape[2] == 1:
        return found
    return found | _motion(clip, wanted, str(results), device)


def _motion(
    clip: Tensor, wanted: Networks, results: str, device: torch.device
) -> dict[str, Tensor]:
    flow, seen = frozen.flow(wanted.flow, device), frozen.features(wanted.features, device)
    weights = wanted.clip_weights(results)

    def subject(frames: Tensor) -> Tensor:
        return torch.as_tensor(seen(frames.to(device)).cpu())

    def background(frames: Tensor) -> Tensor:
        return clip_features(weights, frames, device)

    # Smoothness guesses every second frame from those that are left: the flow of both is one.
    onwards, steady = flow(clip[:, :, ::EVERY]), {}
    if clip.shape[2] >= FEWEST:
        steady = {"steadiness": steadiness(clip, flow, subject, background, onwards)}
    return steady | {
        "flow": mean_flow(flow(clip)),
        "dynamic": dynamic_degree(onwards, FPS).float(),
        "i3d": torch.cat(frozen.i3d().to(device)(clip.to(device)), 1).cpu(),
    }


def _smaller(pictures: Tensor) -> Tensor:
    share = SEEN_SIDE / min(pictures.shape[-2:])
    if share >= 1:
        return pictures
    size = [round(share * side) for side in pictures.shape[-2:]]
    return functional.interpolate(pictures, size, mode="bilinear", antialias=True).clamp(-1, 1)


@torch.no_grad()
def scores(
    features: Mapping[str, Tensor], teacher: Mapping[str, Tensor] | None, condition: Tensor
) -> Scores:
    """Scores of samples from what frozen networks saw in them.

    Args:
        teacher: the same of the teacher's samples, None for its own; condition: (N,) prompts.
            A teacher's may have those of real data, too, under names that begin with `real_`.
    Returns:
        cosine_uncentred: mean pairwise cosine within a prompt (the paper's DINOv3 column, with that
            network); lpips, vendi: of the same. None where a prompt has fewer than 8 samples.
        flow, dynamic: the paper's OF and dynamic degree; and the dimensions of metrics/consistency:
            None of pictures.
        fid_teacher, kid_teacher, fvd_teacher, kvd_teacher: to the teacher's samples, of features
            `seen` and of I3D; not of its own. Without their ends: to real data, where there are.
        clip: 100 max(cosine, 0) of CLIP's, mean over samples.
    """
    names = ("cosine_uncentred", "lpips", "vendi", "flow", "dynamic", *DIMENSIONS)
    every: Scores = dict.fromkeys(names)
    seen = features["seen"]
    counts = torch.bincount(condition)
    if int(counts[counts > 0].min()) >= LEAST:
        centre = torch.zeros(seen.shape[1])
        every["cosine_uncentred"] = within_prompt(seen, condition, centre, "cosine_uncentred")
        every["vendi"] = vendi_score(seen, condition)
        pairwise = frozen.lpips().pairwise
        every["lpips"] = lpips_pairwise(pairwise, features["picture"], condition)
    for name in ("flow", "dynamic"):
        if name in features:
            every[name] = checks.mean(features[name])
    if "steadiness" in features:
        means = features["steadiness"].double().mean(0).tolist()
        every |= dict(zip(DIMENSIONS, means, strict=True))
    every["clip"] = score_of_features(features["clip_image"], features["clip_text"])
    known = features if teacher is None else teacher
    real = {name.removeprefix(REAL): one for name, one in known.items() if name.startswith(REAL)}
    every |= _distances(features, real, "") if real else {}
    return every | ({} if teacher is None else _distances(features, teacher, "_teacher"))


def _distances(features: Mapping[str, Tensor], others: Mapping[str, Tensor], end: str) -> Scores:
    """Frechet and kernel distances to others, under names that end alike."""
    found: Scores = {f"fvd{end}": None, f"kvd{end}": None}
    sets = {"fid": ("kid", "seen", slice(None), slice(None))}
    if "i3d" in features:
        sets["fvd"] = ("kvd", "i3d", slice(0, LOGITS), slice(LOGITS, None))
    for frechet, (kernel, name, first, second) in sets.items():
        own, theirs = features[name], others[name]
        fid, kid = f"{frechet}{end}", f"{kernel}{end}"
        found[fid] = frechet_distance(own[:, first], theirs[:, first], fid)
        half = min(len(own), len(theirs)) // 2
        found[kid] = kernel_distance(own[:, second], theirs[:, second], SUBSETS, half, 0, kid)
    return found
