"""Diagnostics of trained samplers: over training, by exit step, at phase boundaries, with experts
exchanged. Each is a stage of its own, with its own files."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pdmd.config.experiment import Config
from pdmd.data.sources import build_mixture
from pdmd.files import provenance
from pdmd.files.storage import save_tensors, write_json, write_text
from pdmd.flow import renoise
from pdmd.metrics.modes import energy_distance
from pdmd.models.build import load_snapshots
from pdmd.rollout import exit_steps, simulate_to_exit
from pdmd.stages.outputs import (
    DIAGNOSTICS,
)
from pdmd.stages.sample import draw_samples
from pdmd.stages.score import scorer
from pdmd.stages.stage import Stage, batches, prepare
from pdmd.stages.swaps import changes, swapped_samples
from pdmd.streams import REFERENCE_SEED, Stream


def diagnose(config: Config, name: str, seeds: list[int]) -> None:
    """Write one diagnostic of every seed.

    Args:
        name: of outputs.DIAGNOSTICS.
    """
    prepare(config)
    stage = Stage(config)
    make = {"frontier": frontiers, "exits": exit_scores, "boundary": boundaries, "swaps": swaps}
    declared = DIAGNOSTICS[name]
    for together in batches(stage.run, seeds):
        for seed, write in make[name](stage, together).items():
            folder = stage.paths.seed(seed, "")
            write(folder)
            record = folder / declared.files[-1]
            reads = declared.reads(stage.run, seed)
            provenance.record(record, config, [seed], reads, declared.files)


Write = Callable[[Path], None]  # into a seed's folder


def swaps(stage: Stage, seeds: list[int]) -> dict[int, Write]:
    """Samples with one expert exchanged: experts.safetensors and experts.csv."""

    def writer(seed: int) -> Write:
        variants, condition = swapped_samples(stage, seed)

        def write(folder: Path) -> None:
            save_tensors(folder / "experts.safetensors", {**variants, "condition": condition})
            write_text(folder / "experts.csv", _csv(changes(stage.paths, variants)))

        return write

    return {seed: writer(seed) for seed in seeds}


def frontiers(stage: Stage, seeds: list[int]) -> dict[int, Write]:
    """frontier.csv: the metrics of every snapshot of the last phase."""
    score = scorer(stage)
    rows = stage.run.evaluate.frontier_samples or 0
    last = stage.phases[-1]
    before = stage.experts(seeds, stage.phases[:-1])
    files = [stage.paths.phase(seed, last.number, "snapshots.safetensors") for seed in seeds]
    stored = [load_snapshots(path) for path in files]
    tables: dict[int, list[dict[str, Any]]] = {seed: [] for seed in seeds}
    for step in sorted(stored[0]):
        expert = stage.trained([one.get(step, {}) for one in stored], files, "snapshot")
        velocities = [*before, *[expert] * (last.last - last.first)]
        x, index = draw_samples(stage, velocities, last.times, seeds, rows)
        for run, seed in enumerate(seeds):
            latents = x[run :: len(seeds)]
            labels = None if index is None else index[run :: len(seeds)]
            tables[seed].append({"step": step, **score(latents, labels)})
    return {seed: _table("frontier.csv", table) for seed, table in tables.items()}


def _table(name: str, rows: list[dict[str, Any]]) -> Write:
    return lambda folder: write_text(folder / name, _csv(rows))


def boundaries(stage: Stage, seeds: list[int]) -> dict[int, Write]:
    """boundary.json: for each phase t_k and the energy distance of x_{t_k} to the mixture at t_k.

    This is what the unbiased target promises for every phase, not only for the last.
    """
    rows = stage.run.evaluate.frontier_samples or 0
    mixture = build_mixture(stage.run.data)
    velocities = stage.experts(seeds, stage.phases)
    by_seed: dict[int, list[dict[str, float]]] = {seed: [] for seed in seeds}
    stream = Stream([REFERENCE_SEED], 0, "boundary")
    x_0, eps = mixture.draw(stream, rows), stream.normal(rows, stage.space.shape)
    for phase in stage.phases:
        times = phase.times[: phase.last + 1]
        x, _ = draw_samples(stage, velocities[: phase.last], times, seeds, rows)
        t = torch.full((rows,), phase.end)
        true = renoise(stage.flow, x_0, eps, torch.zeros_like(t), t)
        for run, seed in enumerate(seeds):
            energy = energy_distance(x[run :: len(seeds)], true)
            by_seed[seed].append({"t": phase.end, "energy": energy})
    return {seed: _json("boundary.json", energies) for seed, energies in by_seed.items()}


def _json(name: str, value: Any) -> Write:
    return lambda folder: write_json(folder / name, value)


@torch.no_grad()
def exit_scores(stage: Stage, seeds: list[int]) -> dict[int, Write]:
    """exits.csv: what each exit step of the last phase gives, and their mixture.

    The truncated gradient (SGTS) matches the mixture over exits to the teacher; inference uses the
    last exit alone.
    """
    last, score = stage.phases[-1], scorer(stage)
    rows = stage.run.evaluate.frontier_samples or 0
    velocities = stage.experts(seeds, stage.phases)
    x, index = draw_samples(stage, velocities[: last.first], last.times, seeds, rows)
    condition = stage.conditions.values(index)
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
            latents = out[run :: len(seeds)]
            labels = None if index is None else index[run :: len(seeds)]
            tables[seed].append({"exit": name, **score(latents, labels)})
    return {seed: _table("exits.csv", table) for seed, table in tables.items()}


def _csv(table: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()
