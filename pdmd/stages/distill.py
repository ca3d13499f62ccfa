"""The distill stage: one phase of a student, for every seed of the job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pdmd.balance import Strata, number_strata
from pdmd.config.budget import updates_of
from pdmd.config.experiment import Config
from pdmd.config.hardware_checks import check_sharded
from pdmd.config.paths import Paths, job_label
from pdmd.config.run import read_run
from pdmd.config.sections import Run
from pdmd.data.bank import read_bank
from pdmd.data.prompts import read_prompts
from pdmd.distill import PhaseTrainer, Recipe
from pdmd.models.rows import gathered
from pdmd.phases import Phase
from pdmd.scenarios.kind import kind_of, strata_of
from pdmd.stages.mixed import mixed_starts
from pdmd.stages.outputs import bank_indices, by_strata, training_reads
from pdmd.stages.stage import Stage, holding, prepare, write_phase
from pdmd.starts import BankStarts, NoiseStarts, Starts
from pdmd.training.average import weight_of_start
from pdmd.training.loop import train
from pdmd.training.world import ALONE, World

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def distill_phase(
    config: Config, phase_number: int, seeds: list[int], world: World = ALONE
) -> None:
    """Train the expert of one phase, for every seed of the job."""
    prepare(config)
    context = read_run(config).distill.parallel.context
    stage = Stage(config, world.sharing_tokens(context))
    phase = stage.phase(phase_number)
    recipe = phase_recipe(stage.run, phase)
    if recipe.parallel.shard == "none":
        _train_phase(stage, phase, recipe, seeds)
        return
    from pdmd.training.parallel import mesh_of

    check_sharded(stage.run, [phase.last - phase.first], stage.world.shares, "distill")
    stage.sharded = True
    with mesh_of(world) as mesh:
        _train_phase(stage, phase, recipe, seeds, mesh)


def _train_phase(
    stage: Stage, phase: Phase, recipe: Recipe, seeds: list[int], mesh: DeviceMesh | None = None
) -> None:
    """The same of one phase.

    Args:
        mesh: of the processes that share tensors out, None where each has its own.
    """
    run, world, number = stage.run, stage.world, phase.number
    inputs = phase_inputs(run, number, seeds)
    roles = stage.roles(phase, len(seeds))
    if recipe.checkpointing:
        stage.checkpoint_activations(roles)
    if recipe.parallel.context > 1:
        stage.share_tokens(roles)
    starts = starts_of(stage, phase, seeds)
    if mesh is not None:
        roles = stage.shard(roles, mesh)
    streams = [seed * 1000 + number for seed in seeds]
    strata = training_strata(run) if by_strata(run) else None
    trainer = PhaseTrainer(stage.flow, phase, recipe, roles, starts, streams, world, strata)
    label = job_label(run, number, seeds)
    state = stage.paths.state(f"phase{number}", seeds)
    digest = stage.digest(inputs, seeds=seeds, phase=number)
    with holding(state, world):
        finished = train(trainer, recipe.updates, stage.save(), state, digest, label, world)
        weights = gathered(roles.average.state_dict())
        if world.leads:
            start = weight_of_start(recipe.average, recipe.updates)
            extra: dict[str, Any] = {"weight_of_start": start}
            extra |= {} if trainer.balancer is None else trainer.balancer.summary()
            write_phase(stage, finished, roles.average, seeds, number, inputs, extra, weights)


def phase_recipe(run: Run, phase: Phase) -> Recipe:
    """A phase's hyper-parameters, the updates being its own."""
    student = run.student
    values = {**vars(run.distill), "updates": updates_of(run, phase.first, phase.last)}
    return Recipe(**values, backward=student.backward, exits=student.exits)


def phase_inputs(run: Run, number: int, seeds: list[int]) -> list[Path]:
    """Every file that decides a phase's weights; of a bank its index."""
    paths = [path for seed in seeds for path in training_reads(run, seed, number)]
    if number > 1 and run.bank.used:
        paths += [path for seed in seeds for path in bank_indices(run, seed, number)]
    return list(dict.fromkeys(paths))


def training_strata(run: Run) -> Strata:
    """The stratum of each prompt of a scenario's store."""
    return number_strata(
        strata_of(kind_of(run.data), read_prompts(Paths(run).data("prompts.json")))
    )


def starts_of(stage: Stage, phase: Phase, seeds: list[int]) -> Starts:
    """Where the phase's rollouts start: noise, the bank, or the frozen experts online."""
    if stage.family is not None:
        return mixed_starts(stage, phase, seeds)
    if phase.number > 1 and stage.run.bank.used:
        banks, rows = [], None  # as many as the first seed's
        for seed in seeds:
            path = stage.paths.bank(seed, phase.number)
            banks.append(read_bank(path, stage.space, seed, rows))
            rows = len(banks[0][0])
        device = stage.world.device
        x = torch.stack([x for x, _ in banks], 1).to(device)
        labels = [condition.to(device) for _, condition in banks if condition is not None]
        index = torch.stack(labels, 1) if labels else None
        return BankStarts(x, index, stage.conditions.values)
    experts = stage.experts(seeds, stage.phases[: phase.number - 1])
    return NoiseStarts(stage.flow, experts, phase.times, stage.space.shape, stage.prompts)
