"""The trajectories stage: fitted velocities against the exact field."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pdmd.config.experiment import Config
from pdmd.config.score_checks import COMPARED_AT
from pdmd.data.sources import build_mixture
from pdmd.files import provenance
from pdmd.files.storage import save_tensors, write_json
from pdmd.flow import renoise
from pdmd.metrics import checks
from pdmd.models.build import load_files
from pdmd.models.mixture import GaussianMixture
from pdmd.rollout import sample
from pdmd.stages.outputs import (
    PROVENANCE,
    TRAJECTORIES,
)
from pdmd.stages.stage import Stage, prepare
from pdmd.streams import REFERENCE_SEED, Stream


def draw_trajectories(config: Config, seeds: list[int]) -> None:
    """Compare fitted velocities with the exact field, and draw their Euler trajectories.

    Both start from the same noise at t = 1 and end at `fit.start`; the exact field's own
    trajectories from that noise are the reference.
    """
    prepare(config)
    stage = Stage(config)
    mixture = build_mixture(stage.run.data)
    evaluate, start = stage.run.evaluate, stage.run.fit.start
    rows, steps = evaluate.samples, evaluate.steps or 1
    for seed in seeds:
        path = stage.paths.phase(seed, 1, "expert.safetensors")
        field = load_files(stage.run.model, stage.space, [path])
        noise = Stream([seed], 0, "sample").normal(rows, stage.space.shape)
        times = torch.linspace(1, start, steps + 1).tolist()
        trajectory, reference = (_trajectory(stage, f, times, noise) for f in (field, mixture))
        out = stage.paths.seed(seed, "samples.safetensors")
        tensors = {
            "x": trajectory[-1].clone(),
            "trajectory": trajectory,
            "times": torch.tensor(times),
        }
        save_tensors(out, tensors | {"reference": reference})
        metrics = velocity_errors(stage, field, mixture)
        at = min(range(len(times)), key=lambda i: abs(times[i] - COMPARED_AT))
        error = checks.samples("trajectory_rmse", trajectory[at]) - reference[at]
        metrics["trajectory_rmse"] = float(error.square().mean().sqrt())
        write_json(out.with_name("metrics.json"), metrics)
        write_json(out.with_name("config.json"), config)
        provenance.record(out.with_name(PROVENANCE), config, [seed], [path], TRAJECTORIES)


@torch.no_grad()
def _trajectory(stage: Stage, field: Any, times: list[float], x: Tensor) -> Tensor:
    """(steps + 1, N, D) Euler trajectory."""
    states = [x]
    for pair in pairwise(times):
        states.append(sample(stage.flow, [field], pair, states[-1], None))
    return torch.stack(states)


@torch.no_grad()
def velocity_errors(stage: Stage, field: Any, mixture: GaussianMixture) -> dict[str, float]:
    """Root mean squared error of a velocity against the exact field on x_t ~ p(x_t).

    Returns:
        velocity_rmse: t uniform in (.52, .98), the range all three curves share;
        relative: the same over the exact field's own root mean square.
    """
    stream, n = Stream([REFERENCE_SEED], 0, "velocity"), 20_000
    x_0 = mixture.draw(stream, n)
    t = 0.52 + 0.46 * stream.uniform(n)
    x_t = renoise(stage.flow, x_0, stream.normal(n, x_0.shape[1:]), torch.zeros_like(t), t)
    exact = mixture.velocity(x_t, t)
    fitted = checks.samples("velocity_rmse", field(x_t, t, None), what="velocities")
    error = float((fitted - exact).square().mean().sqrt())
    return {"velocity_rmse": error, "relative_error": error / float(exact.square().mean().sqrt())}
