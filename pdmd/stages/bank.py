"""The bank stage: intermediate latents of the frozen earlier phases, made once."""

from __future__ import annotations

from pdmd.config.experiment import Config
from pdmd.data.bank import write_bank
from pdmd.errors import UserError
from pdmd.stages.mixed import make_banks
from pdmd.stages.sample import from_noise
from pdmd.stages.stage import Stage, prepare
from pdmd.training.world import ALONE, World


def make_bank(config: Config, phase_number: int, seeds: list[int], world: World = ALONE) -> None:
    """Run the frozen experts of the phases before `phase_number` once, for every seed."""
    prepare(config)
    stage = Stage(config, world)
    rows, shard_rows = stage.run.bank.rows, stage.run.bank.shard_rows
    if not rows:
        raise UserError("bank.rows: 0: expected above 0 for a bank; the experts run online")
    if stage.family is not None:
        for seed in seeds:
            make_banks(stage, stage.phase(phase_number, least=2), seed)
        return
    before = stage.phases[: stage.phase(phase_number, least=2).number - 1]
    experts = stage.experts(seeds, before)
    x, condition = from_noise(stage, experts, before[0].times, "bank", seeds, rows)
    if not world.leads:
        return
    for run, seed in enumerate(seeds):
        labels = None if condition is None else condition[run :: len(seeds)]
        latents = x[run :: len(seeds)]
        write_bank(stage.paths.bank(seed, phase_number), latents, labels, seed, shard_rows)
