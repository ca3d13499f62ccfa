"""What is validated, and what each metric should do under each damage.

The rules were written down before anything was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from pdmd.metrics import checks
from pdmd.metrics.alignment import score_of_features
from pdmd.metrics.consistency import DIMENSIONS
from pdmd.metrics.damages import (
    Samples,
    backwards,
    blur,
    collapse,
    half_speed,
    noise,
    one_mode,
    shuffled,
    still,
)
from pdmd.metrics.distances import centre_of
from pdmd.metrics.diversity import lpips_pairwise, mode_shares, vendi_score, within_prompt
from pdmd.metrics.fidelity import frechet_distance, kernel_distance, precision_recall
from pdmd.metrics.motion import (
    dynamic_degree,
    mean_flow,
    nearest_direction,
    nearest_speed,
    object_motion,
    opencv_flow,
    wasserstein,
)
from pdmd.metrics.pictures import coverage_and_density
from pdmd.metrics.validation import IDENTITY, Features, Metric, Plan, Rule

NEIGHBOURS = 5
CLASSES = 400  # of Kinetics, I3D's logits
SUBSETS = 20  # of a kernel distance

# ---- what should happen

DISTANCES = ("fid", "kid")
INSIDE = ("precision", "density")
WHOLE = ("recall", "coverage")
ALIKE = ("cosine", "cosine_uncentred", "cosine_pixels")  # up as diversity goes down
SPREAD = ("vendi", "lpips")  # down as diversity does

PICTURE_RULES = (
    Rule(
        IDENTITY,
        (*DISTANCES, *INSIDE, *WHOLE, *ALIKE, *SPREAD, "clip"),
        "stays",
        "nothing is damaged",
    ),
    Rule("blur", DISTANCES, "rises", "no real picture is blurred"),
    Rule("blur", (*INSIDE, *WHOLE), "falls", "features leave the real ones"),
    Rule("blur", ALIKE, "rises", "the detail that tells pictures apart is gone"),
    Rule("blur", (*SPREAD, "clip"), "falls", "the detail that tells pictures apart is gone"),
    Rule("noise", DISTANCES, "rises", "no real picture is noisy"),
    Rule("noise", (*INSIDE, *WHOLE), "falls", "features leave the real ones"),
    Rule("noise", ("cosine", "cosine_uncentred"), "rises", "the network sees one texture in all"),
    Rule("noise", ("cosine_pixels",), "falls", "each picture's noise is its own"),
    Rule("noise", SPREAD, "falls", "the network sees one texture in all"),
    Rule("noise", ("clip",), "falls", "objects are harder to make out"),
    *(
        rule
        for damage in ("one mode", "collapse")
        for rule in (
            Rule(damage, DISTANCES, "rises", "most of the real law is missing"),
            Rule(damage, (*INSIDE, "clip"), "stays", "each picture by itself is real and right"),
            Rule(damage, WHOLE, "falls", "most real pictures have no likeness"),
            Rule(damage, ALIKE, "rises", "pictures of a prompt are nearly equal"),
            Rule(damage, SPREAD, "falls", "pictures of a prompt are nearly equal"),
        )
    ),
)

VIDEO = ("fvd", "kvd")
CONSISTENT = ("subject_consistency", "background_consistency")
AMOUNT = ("flow", "dynamic", "speed")
CLIP_RULES = (
    Rule(IDENTITY, (*VIDEO, *AMOUNT, "speed_w1", "control", "entropy"), "stays", "no damage"),
    Rule("still", VIDEO, "rises", "no real clip stands still"),
    Rule("still", (*AMOUNT, "control", "entropy"), "falls", "nothing moves"),
    Rule("still", ("speed_w1",), "rises", "nothing moves"),
    Rule("half speed", VIDEO, "rises", "real clips are faster"),
    Rule("half speed", (*AMOUNT, "control"), "falls", "all move at half their speed"),
    Rule("half speed", ("speed_w1",), "rises", "all move at half their speed"),
    Rule("shuffled", VIDEO, "rises", "real clips move evenly"),
    Rule("shuffled", ("flow",), "rises", "objects leap"),
    Rule("shuffled", ("speed", "control"), "falls", "leaps cancel"),
    Rule("shuffled", ("speed_w1",), "rises", "leaps cancel"),
    Rule("reversed", (*VIDEO, *AMOUNT, "speed_w1", "entropy"), "stays", "motions are symmetric"),
    Rule("reversed", ("control",), "falls", "directions are the opposite ones"),
    Rule("noise", VIDEO, "rises", "no real clip is noisy"),
    Rule("noise", ("flow",), "rises", "noise passes for motion"),
    Rule("noise", ("speed", "speed_w1", "control", "entropy"), "stays", "objects move as before"),
    Rule("one mode", (*VIDEO, "speed_w1"), "rises", "one motion a prompt is left"),
    Rule("one mode", ("entropy",), "falls", "one motion a prompt is left"),
    Rule("one mode", ("control",), "stays", "each clip by itself is right"),
    Rule(IDENTITY, DIMENSIONS, "stays", "no damage"),
    Rule("still", DIMENSIONS, "rises", "no frame differs from another"),
    Rule("half speed", ("temporal_flicker", *CONSISTENT), "rises", "every second frame repeats"),
    Rule("half speed", ("motion_smoothness",), "falls", "every second frame stands still"),
    Rule("shuffled", DIMENSIONS, "falls", "objects leap"),
    Rule("reversed", DIMENSIONS, "stays", "neighbours are the same"),
    Rule("noise", DIMENSIONS, "falls", "each frame's noise is its own"),
    Rule("collapse", VIDEO, "rises", "a few clips a prompt are left"),
    Rule("collapse", ("entropy",), "falls", "a few clips a prompt are left"),
    Rule("collapse", ("control",), "stays", "each clip by itself is right"),
)


# ---- plans


def picture_plan(
    lite0: Features,
    lpips: Callable[[Tensor], Tensor] | None = None,
    clip: tuple[Features, Tensor] | None = None,
) -> Plan:
    """What is validated on pictures (N, 3, H, W).

    Args:
        lite0: -> (N, D); lpips: mean distance over all pairs.
        clip: features (N, D) of pictures, and (prompts, D) those of each prompt's text.
    """
    features: dict[str, Features] = {"lite0": lite0, "pixels": partial(torch.flatten, start_dim=1)}
    metrics: dict[str, Metric] = {
        "fid": lambda x, ref: frechet_distance(x.features["lite0"], ref.features["lite0"], "fid"),
        "kid": lambda x, ref: _kernel(x.features["lite0"], ref.features["lite0"], "kid"),
        "precision": lambda x, ref: _precision_recall(x, ref)[0],
        "recall": lambda x, ref: _precision_recall(x, ref)[1],
        "coverage": lambda x, ref: _coverage(x, ref)[0],
        "density": lambda x, ref: _coverage(x, ref)[1],
        "cosine": lambda x, ref: _cosine(x, ref, "lite0"),
        "cosine_uncentred": lambda x, ref: within_prompt(
            x.features["lite0"], x.prompt, torch.zeros(()), "cosine_uncentred"
        ),
        "cosine_pixels": lambda x, ref: _cosine(x, ref, "pixels"),
        "vendi": lambda x, ref: vendi_score(
            x.features["lite0"], x.prompt, centre_of(ref.features["lite0"])
        ),
    }
    if lpips is not None:
        features["pictures"] = lambda x: x
        metrics["lpips"] = lambda x, ref: lpips_pairwise(lpips, x.features["pictures"], x.prompt)
    if clip is not None:
        features["clip"], texts = clip
        metrics["clip"] = lambda x, ref: _clip(x, texts)
    return Plan(
        features,
        metrics,
        {"blur": blur, "noise": noise},
        {"one mode": one_mode, "collapse": collapse},
        PICTURE_RULES,
    )


def clip_plan(
    i3d: Callable[[Tensor], tuple[Tensor, Tensor]],
    directions: Sequence[tuple[float, float]],
    speeds: Sequence[float],
    steadiness: Features | None = None,
) -> Plan:
    """What is validated on clips of moving objects, (N, 3, T, H, W).

    Args:
        i3d: -> logits (N, CLASSES) and pooled features (N, D).
        directions, speeds: known motions, px a frame; a clip's mode is its direction's number times
            the number of speeds, plus its speed's number.
        steadiness: -> (N, 4), the dimensions of VBench.
    """
    features: dict[str, Features] = {
        "i3d": lambda clips: torch.cat(i3d(clips), 1),
        "motion": object_motion,
        "flow": _flow,
    }
    count = len(directions) * len(speeds)

    def motions(x: Samples) -> Tensor:
        motion = x.features["motion"]
        speed = nearest_speed(motion.norm(dim=1), speeds)
        known = nearest_direction(motion, directions) * len(speeds) + speed
        return known.where(speed >= 0, -1)

    metrics: dict[str, Metric] = {
        "fvd": lambda x, ref: frechet_distance(_logits(x), _logits(ref), "fvd"),
        "kvd": lambda x, ref: _kernel(_pooled(x), _pooled(ref), "kvd"),
        "flow": lambda x, ref: float(x.features["flow"][:, 0].mean()),
        "dynamic": lambda x, ref: float(x.features["flow"][:, 1].mean()),
        "speed": lambda x, ref: float(_speed(x).mean()),
        "speed_w1": lambda x, ref: wasserstein(_speed(x), _speed(ref), "speed_w1"),
        "control": lambda x, ref: float((motions(x) == x.mode).double().mean()),
        "entropy": lambda x, ref: _entropy(motions(x), x.prompt, count),
    }
    if steadiness is not None:
        features["steadiness"] = steadiness
        metrics |= {name: partial(_steady, column=i) for i, name in enumerate(DIMENSIONS)}
    transforms = {
        "still": still,
        "half speed": half_speed,
        "shuffled": shuffled,
        "reversed": backwards,
        "noise": noise,
    }
    selections = {"one mode": one_mode, "collapse": collapse}
    return Plan(features, metrics, transforms, selections, CLIP_RULES)


def _steady(x: Samples, _: Samples, column: int) -> float:
    return float(x.features["steadiness"][:, column].mean())


def _kernel(x: Tensor, reference: Tensor, metric: str) -> float:
    return kernel_distance(x, reference, SUBSETS, min(len(x), len(reference)) // 2, 0, metric)


def _precision_recall(x: Samples, reference: Samples) -> tuple[float, float]:
    return precision_recall(reference.features["lite0"], x.features["lite0"], NEIGHBOURS)


def _coverage(x: Samples, reference: Samples) -> tuple[float, float]:
    return coverage_and_density(x.features["lite0"], reference.features["lite0"], NEIGHBOURS)


def _cosine(x: Samples, reference: Samples, name: str) -> float:
    metric = "cosine_pixels" if name == "pixels" else "cosine"
    return within_prompt(x.features[name], x.prompt, centre_of(reference.features[name]), metric)


def _clip(x: Samples, texts: Tensor) -> float:
    checks.labels("clip", x.prompt, len(x.features["clip"]), len(texts))
    return score_of_features(x.features["clip"], texts[x.prompt])


def _flow(clips: Tensor) -> Tensor:
    """(N, 2): mean flow and whether the clip is dynamic."""
    flow = opencv_flow(clips)
    return torch.stack([mean_flow(flow), dynamic_degree(flow).float()], 1)


def _logits(x: Samples) -> Tensor:
    return x.features["i3d"][:, :CLASSES]


def _pooled(x: Samples) -> Tensor:
    return x.features["i3d"][:, CLASSES:]


def _speed(x: Samples) -> Tensor:
    return x.features["motion"].norm(dim=1)


def _entropy(motions: Tensor, prompt: Tensor, count: int) -> float:
    """Mean over prompts; clips that stand count for none."""
    entropies = [
        mode_shares(motions[(prompt == number) & (motions >= 0)], count).entropy
        for number in prompt.unique()
    ]
    return sum(entropies) / len(entropies)
