"""Fit the networks that everything starts from, or take one that was fitted before."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from pdmd.config.experiment import Config
from pdmd.config.paths import Paths, job_label
from pdmd.config.run import read_run
from pdmd.data.sources import latent_shape, load_latents
from pdmd.errors import UserError
from pdmd.files import provenance
from pdmd.files.kept import check_recipe, said, say
from pdmd.files.storage import (
    load_tensors,
    read_json,
    reading,
    save_tensors,
    shown,
    write_json,
    write_text,
)
from pdmd.models.base import VelocityField
from pdmd.models.build import build, load_state, unstacker, warm_start
from pdmd.scenarios.kind import kind_of
from pdmd.stages.outputs import BASE, PROVENANCE, data_reads, fit_reads
from pdmd.stages.stage import BASE_SEED, Stage, holding, prepare, write_phase
from pdmd.training.fit import FitTrainer, heldout_loss
from pdmd.training.loop import Finished, train, write_runs
from pdmd.training.world import ALONE, World

RECIPE = ("data", "model", "fit")  # what a kept network must have been fitted by
HELDOUT_ROWS = 1000  # of each split, for the losses of a fitted network


def fit_base(config: Config, world: World = ALONE) -> None:
    """Fit the network that students and fake scores start from; the fitted teacher.

    With `fit.kept` it is one that was fitted before, by the same recipe, and is kept.
    """
    prepare(config)
    if read_run(config).fit.kept:
        if world.leads:
            use_kept(config)
        return
    stage = Stage(config, world)
    seed = stage.run.fit.seed
    label, state = f"{config['scenario']} base", stage.paths.state("base", [seed])
    path = stage.paths.base("model.safetensors")
    metadata = {"scenario": config["scenario"], "phase": "base"}
    folders = {seed: path.parent}
    with holding(state, world):
        finished, trainer = _fit(stage, [seed], label, state)
        if not world.leads:
            return
        extra = _heldout_losses(stage, trainer.average.to("cpu"))
        kept, unstack = trainer.average.state_dict(), unstacker(trainer.average)
        write_runs(finished, kept, unstack, folders, metadata, path.name, extra)
        inputs = fit_reads(stage.run)
        provenance.record(path.with_name(PROVENANCE), config, [seed], inputs, BASE)


def use_kept(config: Config) -> None:
    """Take the base network from the file that `fit.kept` names, after a look at its digest.

    Raises:
        UserError: it is not there, differs from the digest in the .json beside it, or was fitted by
            another recipe than the config has.
    """
    stage = Stage(config)
    source = Path(str(stage.run.fit.kept))
    recipe = _kept_recipe(source)
    _check_recipe(source, config, recipe["recipe"])
    network = build(stage.run.model, stage.space, 1, BASE_SEED)
    load_state(network, [load_tensors(source)], str(source))
    path = stage.paths.base("model.safetensors")
    metadata = {"scenario": config["scenario"], "phase": "base", "kept": source.name}
    write_json(path.with_name("metrics.json"), {**recipe, **_heldout_losses(stage, network)})
    write_text(path.with_name("stats.jsonl"), json.dumps(recipe["last"]) + "\n")
    state = network.state_dict()
    last = {f"{recipe['updates']}/{name}": tensor for name, tensor in state.items()}
    save_tensors(path.with_name("snapshots.safetensors"), last, metadata)
    save_tensors(path, state, metadata)
    inputs = fit_reads(stage.run)
    provenance.record(path.with_name(PROVENANCE), config, [BASE_SEED], inputs, BASE)


def _check_recipe(source: Path, config: Config, recipe: Config) -> None:
    """Refuse a kept network that was fitted by another recipe, by the first key that differs."""
    if config["flow"] != recipe["flow"]:
        raise UserError(f"{source}: flow: {config['flow']}: expected {shown(recipe['flow'])}")
    asked, made = (
        {name: {**which[name], "kept": None} for name in RECIPE} for which in (config, recipe)
    )
    check_recipe(source, asked, made)


def _kept_recipe(source: Path) -> Config:
    """What is said of a kept network beside it, its digest compared. Raises UserError."""
    names, path = ("recipe", "updates", "last"), source.with_suffix(".json")
    recipe = said(source, "fit.kept", "the weights of a fitted network", names)
    _check_summary(path, recipe)
    with reading(path, "what `pdmd keep` writes"):
        str(recipe["recipe"]["flow"])
        for name in RECIPE:
            dict(recipe["recipe"][name])
    return recipe


def _check_summary(path: Path, values: Config) -> None:
    """Refuse what is no summary of a fit: updates, seconds, losses and the last record."""
    kinds: dict[str, tuple[type, ...]] = {"updates": (int,), "last": (dict,)}
    kinds |= dict.fromkeys(("seconds", "train_loss", "heldout_loss"), (int, float))
    for name, kind in kinds.items():
        if name in values and type(values[name]) not in kind:
            expected = "a record" if kind == (dict,) else "a number"
            raise UserError(f"{path}: {name}: {shown(values[name])}: expected {expected}")


def keep(config: Config, path: Path) -> None:
    """Keep a fitted base network for `fit.kept`, with its recipe and digest beside it.

    Raises:
        UserError: names the file of the base network's that is damaged.
    """
    paths = Paths(read_run(config))
    metrics = read_json(paths.base("metrics.json"), dict, ("updates", "last"))
    _check_summary(paths.base("metrics.json"), metrics)
    made = read_json(paths.base("provenance.json"), dict, ("commit", "packages"))
    save_tensors(path, Stage(config).network(1).state_dict())
    recipe = {name: config[name] for name in (*RECIPE, "flow")}
    recipe["fit"] = {k: v for k, v in recipe["fit"].items() if k != "kept"}
    known = ("updates", "seconds", "train_loss", "heldout_loss", "last")
    values = {name: metrics[name] for name in known if name in metrics}
    origin = {name: made[name] for name in ("commit", "packages")}
    say(path, {**values, **origin, "recipe": recipe})


def _heldout_losses(stage: Stage, field: VelocityField) -> dict[str, float]:
    """Flow-matching losses on pictures trained on and on pictures never seen."""
    kind = kind_of(stage.run.data)
    if not kind.latent or getattr(stage.run.data, "with_image", False):
        return {}
    losses, values = {}, Stage(stage.config).conditions.values  # on the CPU, as `field`
    column, space = "prompts" if kind.prompted else "labels", stage.space
    below = space.classes if space.prompts is None else space.prompts
    for name in ("train", "heldout"):
        path, shape = stage.paths.data(f"{name}.safetensors"), latent_shape(stage.run.data)
        part = load_latents(path, shape, column, below)
        rows = torch.randperm(len(part["latents"]), generator=torch.Generator().manual_seed(0))
        rows = rows[:HELDOUT_ROWS]
        labels = part[column][rows] if part[column].ndim == 1 else part[column][rows, 0]
        losses[f"{name}_loss"] = heldout_loss(
            stage.flow, field, part["latents"][rows], values(labels), 8
        )
    return losses


def fit_runs(config: Config, seeds: list[int], world: World = ALONE) -> None:
    """Fit one velocity for each seed: the three curves of the 1D toy."""
    prepare(config)
    stage = Stage(config, world)
    label = job_label(stage.run, None, seeds)
    state = stage.paths.state("phase1", seeds)
    with holding(state, world):
        finished, trainer = _fit(stage, seeds, label, state)
        if world.leads:
            write_phase(stage, finished, trainer.average, seeds, 1, fit_reads(stage.run))


def _fit_inputs(stage: Stage) -> list[Path]:
    """Every file that decides a fit's weights."""
    start = stage.run.fit.start_from
    return [*data_reads(stage.run), *([Path(start)] if start else [])]


def _fit(stage: Stage, seeds: list[int], label: str, state: Path) -> tuple[Finished, FitTrainer]:
    recipe, world = stage.run.fit, stage.world
    model = build(stage.run.model, stage.space, len(seeds), seeds[0])
    if recipe.start_from is not None:
        warm_start(model, load_tensors(Path(recipe.start_from)), recipe.start_from)
    model = model.to(world.device)
    trainer = FitTrainer(
        stage.flow, recipe, model, stage.data, seeds, stage.exact(), world, stage.conditions
    )
    digest = stage.digest(_fit_inputs(stage), seeds=seeds)
    return train(trainer, recipe.updates, stage.save(), state, digest, label, world), trainer
