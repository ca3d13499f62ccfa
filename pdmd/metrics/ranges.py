"""What values a metric can have, and which of them are better; without torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pdmd.config.sections import Data

SHARE = (0.0, 1.0)
SIZE = (0.0, math.inf)  # distances, counts without a known end, costs
ANY = (-math.inf, math.inf)  # unbiased estimates of a distance may fall below 0

Range = tuple[float, float]
Direction = Literal["higher", "lower", "nearer"]  # the last: to the teacher's value

RANGES: dict[str, Range] = {
    **dict.fromkeys(("inliers", "coverage", "precision", "recall"), SHARE),
    **dict.fromkeys(("accuracy", "accuracy_fine", "accuracy_coarse"), SHARE),
    **dict.fromkeys(("tv", "tv_fine", "tv_coarse", "tv_free"), SHARE),
    **dict.fromkeys(("entropy", "entropy_fine", "entropy_coarse", "entropy_free"), SHARE),
    **dict.fromkeys(("dynamic", "control", "control_camera"), SHARE),
    **dict.fromkeys(("temporal_flicker", "motion_smoothness"), SHARE),
    **dict.fromkeys(("subject_consistency", "background_consistency"), SHARE),
    **dict.fromkeys(("cosine", "feature_cosine", "cosine_pixels", "cosine_uncentred"), (-1.0, 1.0)),
    **dict.fromkeys(("modes_covered", "effective_modes", "modes_fine", "modes_coarse"), SIZE),
    **dict.fromkeys(("modes_free", "density", "spread", "lpips"), SIZE),
    **dict.fromkeys(("fid", "fid_teacher", "fvd", "fvd_teacher"), SIZE),
    **dict.fromkeys(("flow", "speed", "speed_w1", "speed_w1_teacher"), SIZE),
    **dict.fromkeys(("velocity_rmse", "relative_error", "trajectory_rmse"), SIZE),
    **dict.fromkeys(("updates", "seconds", "forward_equivalents", "peak_memory_mb"), SIZE),
    **dict.fromkeys(("layout", "detail"), SIZE),
    **dict.fromkeys(("kid", "kid_teacher", "kvd", "kvd_teacher", "energy"), ANY),
    "vendi": (1.0, math.inf),
    "clip": (0.0, 100.0),
}

# What a few points on a mode raise as well as many good ones, and motion, of which there can be too
# much, are better near the teacher's. Costs, and changes by an exchanged expert, are not judged.
DIRECTIONS: dict[str, Direction] = {
    **dict.fromkeys(("inliers", "coverage", "precision", "recall", "clip"), "higher"),
    **dict.fromkeys(("accuracy", "accuracy_fine", "accuracy_coarse"), "higher"),
    **dict.fromkeys(("entropy", "entropy_fine", "entropy_coarse", "entropy_free"), "higher"),
    **dict.fromkeys(("control", "control_camera", "lpips", "vendi"), "higher"),
    **dict.fromkeys(("modes_covered", "effective_modes", "modes_fine", "modes_coarse"), "higher"),
    "modes_free": "higher",
    **dict.fromkeys(("tv", "tv_fine", "tv_coarse", "tv_free", "energy"), "lower"),
    **dict.fromkeys(("cosine", "feature_cosine", "cosine_pixels", "cosine_uncentred"), "lower"),
    **dict.fromkeys(("fid", "fid_teacher", "fvd", "fvd_teacher"), "lower"),
    **dict.fromkeys(("kid", "kid_teacher", "kvd", "kvd_teacher"), "lower"),
    **dict.fromkeys(("speed_w1", "speed_w1_teacher"), "lower"),
    **dict.fromkeys(("velocity_rmse", "relative_error", "trajectory_rmse"), "lower"),
    **dict.fromkeys(("density", "spread", "flow", "dynamic", "speed"), "nearer"),
    **dict.fromkeys(("temporal_flicker", "motion_smoothness"), "nearer"),  # a still clip has most
    **dict.fromkeys(("subject_consistency", "background_consistency"), "nearer"),
}


def metric_range(name: str, data: Data | None = None) -> Range:
    """The least and the greatest value of a metric; unbounded for an unknown name.

    Args:
        data: a config's `data`: its kind and size say how many modes are known.
    """
    low, high = RANGES.get(name, ANY)
    if data is None:
        return low, high
    from pdmd.scenarios.kind import kind_of

    return low, float(kind_of(data).known(data).get(name, high))


def ranges(names: Iterable[str], data: Data | None = None) -> dict[str, Range]:
    """The ranges of several metrics."""
    return {name: metric_range(name, data) for name in names}
