"""Score a method's samples, and its samplers over training (the fidelity-diversity frontier)."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pdmd import provenance
from pdmd.catalogue import LATENT, PROMPTED
from pdmd.config import Config
from pdmd.data import build_mixture, load_samples
from pdmd.draws import Stream
from pdmd.flow import renoise
from pdmd.metrics import checks
from pdmd.metrics.modes import energy_distance, mixture_metrics
from pdmd.models.factory import load_files, load_snapshots
from pdmd.models.mixture import GaussianMixture
from pdmd.outputs import EVALUATION, PROVENANCE, TRAJECTORIES, evaluation, exchanges, score_reads
from pdmd.rollout import exit_steps, sample, simulate_to_exit
from pdmd.score_checks import COMPARED_AT
from pdmd.scoring import FEATURES, full_scores, quick_scorer
from pdmd.stages import Stage, batches, draw_samples, prepare
from pdmd.storage import save_tensors, write_json, write_text
from pdmd.swaps import changes, swapped_samples

Score = Callable[[Tensor, Tensor | None], dict[str, float | None]]

REFERENCE_SEED = 10_000  # true samples that scores compare with; no run has this seed


def scorer(stage: Stage) -> Score:
    """(samples, conditions) -> metrics, for the scenario's kind of data."""
    config, paths = stage.config, stage.paths
    if config["data"]["kind"] in PROMPTED:
        return quick_scorer(stage)
    if config["data"]["kind"] != "digits":
        mixture = build_mixture(config["data"])
        reference = mixture.draw(Stream([REFERENCE_SEED], 0, "reference"), 4000)
        return lambda x, _: mixture_metrics(x, mixture, reference)
    from pdmd.digits import load_classifier, load_codec, load_split
    from pdmd.metrics.pictures import PictureMetrics

    codec = load_codec(paths.data("codec.safetensors"))
    train = load_split(paths.data("train.safetensors"))
    held = load_split(paths.data("heldout.safetensors"))
    score = PictureMetrics(
        held["pictures"],
        held["labels"],
        train["pictures"].mean(0),
        train["styles"],
        load_classifier(paths.data("classifier.safetensors")),
        config["evaluate"]["neighbours"],
    )

    def score_latents(x: Tensor, labels: Tensor | None) -> dict[str, float | None]:
        assert labels is not None
        return score(codec.decode(checks.samples("scores", x, what="latents")), labels)

    return score_latents


def evaluate_method(config: Config, seeds: list[int]) -> None:
    """Write metrics.json beside each seed's samples, and frontier.csv for a trained student."""
    prepare(config)
    stage = Stage(config)
    score = scorer(stage)
    for some in batches(config, seeds):
        _evaluate_together(stage, score, some)


def _evaluate_together(stage: Stage, score: Score, seeds: list[int]) -> None:
    config = stage.config
    distilled = config["kind"] == "distill"
    frontiers = _frontiers(stage, score, seeds) if distilled else {}
    exits = _exits(stage, score, seeds) if distilled else {}
    known = distilled and config["data"]["kind"] not in LATENT
    boundaries = _boundaries(stage, seeds) if known else {}
    for seed in seeds:
        samples = stage.paths.seed(seed, "samples.safetensors")
        tensors = load_samples(samples, stage.data.space, config["evaluate"]["samples"])
        path = stage.paths.seed(seed, "metrics.json")
        if config["data"]["kind"] in PROMPTED:
            scores, features = full_scores(stage, seed, tensors["x"], tensors["condition"])
            save_tensors(path.with_name(FEATURES), features)
        else:
            scores = score(tensors["x"], tensors.get("condition"))
        write_json(path, scores)
        if seed in frontiers:
            write_text(path.with_name("frontier.csv"), frontiers[seed])
            write_text(path.with_name("exits.csv"), exits[seed])
        if exchanges(config):
            _write_swaps(stage, seed)
        if seed in boundaries:
            write_json(path.with_name("boundary.json"), boundaries[seed])
        inputs = score_reads(config, seed)
        provenance.record(path.with_name(EVALUATION), config, [seed], inputs, evaluation(config))


def _write_swaps(stage: Stage, seed: int) -> None:
    """Write experts.safetensors and experts.csv: samples with one expert exchanged."""
    variants, condition = swapped_samples(stage, seed)
    path = stage.paths.seed(seed, "experts.safetensors")
    save_tensors(path, {**variants, "condition": condition})
    write_text(path.with_suffix(".csv"), _csv(changes(stage.config, variants)))


def _frontiers(stage: Stage, score: Score, seeds: list[int]) -> dict[int, str]:
    """CSV text for each seed: the metrics of every snapshot of the last phase."""
    config = stage.config
    rows = config["evaluate"]["frontier_samples"]
    last = stage.phases[-1]
    before = stage.experts(seeds, stage.phases[:-1])
    files = [stage.paths.phase(seed, last.number, "snapshots.safetensors") for seed in seeds]
    stored = [load_snapshots(path) for path in files]
    tables: dict[int, list[dict[str, Any]]] = {seed: [] for seed in seeds}
    for step in sorted(stored[0]):
        expert = stage.trained([one.get(step, {}) for one in stored], files)
        velocities = [*before, *[expert] * (last.last - last.first)]
        x, condition = draw_samples(stage, velocities, last.times, seeds, rows)
        for run, seed in enumerate(seeds):
            own = x[run :: len(seeds)]
            labels = None if condition is None else condition[run :: len(seeds)]
            tables[seed].append({"step": step, **score(own, labels)})
    return {seed: _csv(table) for seed, table in tables.items()}


def _boundaries(stage: Stage, seeds: list[int]) -> dict[int, list[dict[str, float]]]:
    """For each seed and phase: t_k and the energy distance of x_{t_k} to the mixture at t_k.

    This is what the unbiased target promises for every phase, not only for the last.
    """
    rows = stage.config["evaluate"]["frontier_samples"]
    mixture = build_mixture(stage.config["data"])
    velocities = stage.experts(seeds, stage.phases)
    found: dict[int, list[dict[str, float]]] = {seed: [] for seed in seeds}
    stream = Stream([REFERENCE_SEED], 0, "boundary")
    x_0, eps = mixture.draw(stream, rows), stream.normal(rows, stage.data.space.shape)
    for phase in stage.phases:
        times = phase.times[: phase.last + 1]
        x, _ = draw_samples(stage, velocities[: phase.last], times, seeds, rows)
        t = torch.full((rows,), phase.end)
        true = renoise(stage.flow, x_0, eps, torch.zeros_like(t), t)
        for run, seed in enumerate(seeds):
            energy = energy_distance(x[run :: len(seeds)], true)
            found[seed].append({"t": phase.end, "energy": energy})
    return found


@torch.no_grad()
def _exits(stage: Stage, score: Score, seeds: list[int]) -> dict[int, str]:
    """CSV text for each seed: what each exit step of the last phase gives, and their mixture.

    The truncated gradient (SGTS) matches the mixture over exits to the teacher; inference uses the
    last exit alone.
    """
    config, last = stage.config, stage.phases[-1]
    rows = config["evaluate"]["frontier_samples"]
    velocities = stage.experts(seeds, stage.phases)
    x, condition = draw_samples(stage, velocities[: last.first], last.times, seeds, rows)
    tables: dict[int, list[dict[str, Any]]] = {seed: [] for seed in seeds}
    steps = list(range(last.first, last.last))
    stratified = exit_steps(last, rows, len(seeds)).view(rows, -1)
    # Rows are in blocks of one class: spread the exits of the mixture over every block.
    mixed = stratified[torch.randperm(rows, generator=torch.Generator().manual_seed(0))].flatten()
    for name, exits in [*((str(i + 1), torch.full_like(mixed, i)) for i in steps), ("all", mixed)]:
        out = simulate_to_exit(
            stage.flow, velocities[-1], last, x, condition, exits, len(seeds)
        ).x_s
        for run, seed in enumerate(seeds):
            own = out[run :: len(seeds)]
            labels = None if condition is None else condition[run :: len(seeds)]
            tables[seed].append({"exit": name, **score(own, labels)})
    return {seed: _csv(table) for seed, table in tables.items()}


def _csv(table: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def evaluate_fit(config: Config, seeds: list[int]) -> None:
    """Compare fitted velocities with the exact field, and draw their Euler trajectories.

    Both start from the same noise at t = 1 and end at `fit.start`; the exact field's own
    trajectories from that noise are the reference.
    """
    prepare(config)
    stage = Stage(config)
    mixture = build_mixture(config["data"])
    spec, start = config["evaluate"], config["fit"].get("start", 0.0)
    for seed in seeds:
        path = stage.paths.phase(seed, 1, "expert.safetensors")
        field = load_files(config["model"], stage.data.space, [path])
        noise = Stream([seed], 0, "sample").normal(spec["samples"], stage.data.space.shape)
        times = torch.linspace(1, start, spec["steps"] + 1).tolist()
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
    found = [x]
    for pair in pairwise(times):
        found.append(sample(stage.flow, [field], pair, found[-1], None))
    return torch.stack(found)


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
    found = checks.samples("velocity_rmse", field(x_t, t, None), what="velocities")
    error = float((found - exact).square().mean().sqrt())
    return {"velocity_rmse": error, "relative_error": error / float(exact.square().mean().sqrt())}
