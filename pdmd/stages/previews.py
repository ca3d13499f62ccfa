"""The previews stage: pictures from every snapshot of training, for those who watch it."""

from __future__ import annotations

from pdmd.config.experiment import Config
from pdmd.data.conditions import Prompts
from pdmd.data.shards import Tensors
from pdmd.data.sources import even_prompts
from pdmd.data.vae import family_codec
from pdmd.files import provenance
from pdmd.files.storage import load_tensors, save_tensors
from pdmd.models.base import VelocityField
from pdmd.models.build import load_snapshots
from pdmd.models.source import check_manifest
from pdmd.phases import Phase
from pdmd.stages.decode import as_bytes
from pdmd.stages.mixed import Rows, by_parts
from pdmd.stages.outputs import PREVIEWED, preview_reads
from pdmd.stages.stage import Stage, prepare
from pdmd.training.loop import clear_state
from pdmd.training.world import ALONE, World

Snapshots = list[tuple[Phase, int, Tensors]]


def draw_previews(config: Config, seeds: list[int], world: World = ALONE) -> None:
    """Write previews.safetensors: `phase<k>/<update>` -> uint8 (N, 3, T, H, W), of equal noise.

    A snapshot of an early phase hands on to the base network, unguided, for the steps left.
    """
    prepare(config)
    stage = Stage(config, world)
    family, count = stage.family, stage.run.evaluate.previews
    assert family is not None
    assert count is not None
    codec = family_codec(check_manifest(stage.paths.base("manifest.json")), family, world.device)
    index = even_prompts(stage.conditions.evaluation, count, 1)
    for seed in seeds:
        snapshots = _snapshots(stage, seed)

        def make(first: int, end: int, seed: int = seed, of: Snapshots = snapshots) -> Tensors:
            phase, _, state = of[first]
            where = str(stage.paths.phase(seed, phase.number, "snapshots.safetensors"))
            expert = stage.trained([state], where, f"snapshot{phase.number}")
            latents = _rows(stage, seed, phase, expert)(0, count, index)["x"].to(world.device)
            return {"x": as_bytes(codec.decode(latents))}

        parts = by_parts(stage, "previews", seed, len(snapshots), make)
        if world.leads:
            out = stage.paths.seed(seed, PREVIEWED[0])
            names = [f"phase{phase.number}/{step}" for phase, step, _ in snapshots]
            pictures = [load_tensors(path)["x"] for path in parts]
            save_tensors(out, dict(zip(names, pictures, strict=True)))
            reads = preview_reads(stage.run, seed)
            provenance.record(out.with_name(PREVIEWED[-1]), config, [seed], reads, PREVIEWED)
            clear_state(parts[0].parent)


def _snapshots(stage: Stage, seed: int) -> Snapshots:
    """Phase, update and state of every snapshot."""
    found = []
    for phase in stage.phases:
        path = stage.paths.phase(seed, phase.number, "snapshots.safetensors")
        found += [(phase, *one) for one in sorted(load_snapshots(path).items())]
    return found


def _rows(stage: Stage, seed: int, phase: Phase, expert: VelocityField) -> Rows:
    """Samples with a snapshot as one phase's expert, finished ones before, the base behind."""
    before = stage.experts([seed], stage.phases[: phase.number - 1])
    own = [expert] * (phase.last - phase.first)
    behind: list[VelocityField] = [stage.shared.plain()] * (len(phase.times) - 1 - phase.last)
    assert isinstance(stage.conditions, Prompts)
    velocities = [*before, *own, *behind]
    return Rows(stage, velocities, phase.times, "sample", seed, stage.space, stage.conditions)
