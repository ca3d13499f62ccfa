"""Tiny methods of released models, and what a real update of theirs allocates."""

import dataclasses

import torch
from configs import ROOT

from pdmd.config.experiment import Experiment, merge, read_yaml
from pdmd.distill import PhaseTrainer
from pdmd.planning.live import Live
from pdmd.planning.rehearsal import Rehearsal, weights_of
from pdmd.stages.distill import phase_recipe
from pdmd.training.world import ALONE

TEXT = 40  # token rows of a prompt


def tiny_config(scenario, diff=None, results="results/tiny"):
    """A method of config/tiny.yaml at its larger size alone."""
    settings = merge(read_yaml(ROOT / "config/config.yaml"), read_yaml(ROOT / "config/tiny.yaml"))
    size = "1x32x48" if scenario == "qwenimage" else "9x32x48"
    one = {"data": {"sizes": [size], "shares": [1.0]}, "evaluate": {"size": size}}
    mine = merge(one, diff or {})
    settings = merge(settings, {"results": results, "scenarios": [scenario]})
    settings = merge(settings, {"overrides": {scenario: mine}})
    return Experiment(ROOT, settings).configs[scenario, "phased2"]


def real_trainer(config, phase_number=1, world=ALONE, mesh=None):
    """The trainer of a phase with random weights, and all its weights by part.

    Args:
        mesh: of processes that share its networks out, None where each has its own.
    """
    stage = Rehearsal(config, config["data"]["sizes"][0], world, text_rows=TEXT)
    phase = stage.phase(phase_number)
    roles, recipe = stage.roles(phase, 1), phase_recipe(stage.run, phase)
    if recipe.checkpointing:
        stage.checkpoint_activations(roles)
    if world.context > 1:
        stage.share_tokens(roles)
    starts = stage.starts(phase)
    if mesh is not None:
        roles = dataclasses.replace(stage.shard(roles, mesh), frozen={})
    weights = weights_of(stage, roles)
    return PhaseTrainer(stage.flow, phase, recipe, roles, starts, [1], stage.world), weights


def held(trainer, weights):
    """Bytes of all that is there between two updates."""
    tensors = [t for part in weights.values() for t in part]
    tensors += [p.grad for p in tensors if p.grad is not None]
    states = [state for one in trainer.optimizers.values() for state in one.state.values()]
    tensors += [t for state in states for t in state.values()]
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


def allocated(trainer, weights, step):
    """Bytes at most in an update, as torch's own allocator tells its profiler of them."""
    before = held(trainer, weights)
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, profile_memory=True) as profile:
        trainer.update(step)
    events = [one for one in profile.profiler.kineto_results.events() if one.name() == "[memory]"]
    now = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return before + highest


def settled(config, phase_number=1):
    """Bytes at most in the third update: optimisers have their moments by then."""
    trainer, weights = real_trainer(config, phase_number)
    trainer.update(0)
    trainer.update(1)
    return allocated(trainer, weights, 2)


def seen(trainer, weights, step):
    """The same, as the counter of plans sees it, operations by precision, and exchanges by kind.

    Of several processes: what a thread of their exchanges frees no profiler is told of.
    """
    with Live() as live:
        for part, tensors in weights.items():
            live.adopt(tensors, part)
            live.adopt([p.grad for p in tensors if p.grad is not None], "gradients")
        states = [state for one in trainer.optimizers.values() for state in one.state.values()]
        live.adopt([t for state in states for t in state.values()], "optimizer")
        trainer.update(step)
    every = live.segments[""]
    return every.bytes, every.flops, every.exchanged
