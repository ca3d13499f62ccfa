"""The previews stage: pictures from every snapshot of training, for those who watch it."""

from __future__ import annotations

from pdmd.config.experiment import Config
from pdmd.data.conditions import Prompts
from pdmd.data.sources import even_prompts
from pdmd.data.vae import family_codec
from pdmd.files import provenance
from pdmd.files.storage import save_tensors
from pdmd.models.base import VelocityField
from pdmd.models.build import load_snapshots
from pdmd.models.source import check_manifest
from pdmd.phases import Phase
from pdmd.stages.decode import as_bytes
from pdmd.stages.mixed import Rows
from pdmd.stages.outputs import PREVIEWED, preview_reads
from pdmd.stages.stage import Stage, prepare
from pdmd.training.world import ALONE, World


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
    for seed in seeds:
        pictures = {}
        for phase in stage.phases:
            path = stage.paths.phase(seed, phase.number, "snapshots.safetensors")
            for step, state in sorted(load_snapshots(path).items()):
                expert = stage.trained([state], str(path), f"snapshot{phase.number}")
                rows = _rows(stage, seed, phase, expert)
                index = even_prompts(stage.conditions.evaluation, count, 1)
                latents = rows(0, count, index)["x"].to(world.device)
                pictures[f"phase{phase.number}/{step}"] = as_bytes(codec.decode(latents))
        if world.leads:
            out = stage.paths.seed(seed, PREVIEWED[0])
            save_tensors(out, pictures)
            reads = preview_reads(stage.run, seed)
            provenance.record(out.with_name(PREVIEWED[-1]), config, [seed], reads, PREVIEWED)


def _rows(stage: Stage, seed: int, phase: Phase, expert: VelocityField) -> Rows:
    """Samples with a snapshot as one phase's expert, finished ones before, the base behind."""
    before = stage.experts([seed], stage.phases[: phase.number - 1])
    own = [expert] * (phase.last - phase.first)
    behind: list[VelocityField] = [stage.shared.plain()] * (len(phase.times) - 1 - phase.last)
    assert isinstance(stage.conditions, Prompts)
    velocities = [*before, *own, *behind]
    return Rows(stage, velocities, phase.times, "sample", seed, stage.space, stage.conditions)
