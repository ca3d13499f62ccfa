"""Fit the networks that everything starts from, or take one that was fitted before."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from pdmd import provenance
from pdmd.catalogue import LATENT, PROMPTED
from pdmd.config import Config
from pdmd.distributed import ALONE, World
from pdmd.errors import UserError
from pdmd.fit import FitRecipe, FitTrainer, heldout_loss
from pdmd.models.base import VelocityField
from pdmd.models.factory import build, load_state, unstacker, warm_start
from pdmd.outputs import BASE, PROVENANCE, data_reads, fit_reads
from pdmd.paths import Paths
from pdmd.stages import BASE_SEED, Stage, holding, prepare, write_phase
from pdmd.storage import load_tensors, read_json, save_tensors, sha256, write_json, write_text
from pdmd.training import Finished, train, write_runs

RECIPE = ("data", "model", "fit")  # what a kept network must have been fitted by
HELDOUT_ROWS = 1000  # of each split, for the losses of a fitted network


def fit_base(config: Config, world: World = ALONE) -> None:
    """Fit the network that students and fake scores start from; the fitted teacher.

    With `fit.kept` it is one that was fitted before, by the same recipe, and is kept.
    """
    prepare(config)
    if config["fit"].get("kept"):
        if world.leads:
            use_kept(config)
        return
    stage = Stage(config, world)
    label, state = f"{config['scenario']} base", stage.paths.state("base", [BASE_SEED])
    path = stage.paths.base("model.safetensors")
    metadata = {"scenario": config["scenario"], "phase": "base"}
    folders = {BASE_SEED: path.parent}
    with holding(state, world):
        finished, trainer = _fit(stage, [BASE_SEED], label, state)
        if not world.leads:
            return
        extra = _heldout_losses(stage, trainer.average.to("cpu"))
        average, unstack = trainer.average, unstacker(trainer.average)
        write_runs(finished, average, unstack, folders, metadata, path.name, extra)
        inputs = fit_reads(config)
        provenance.record(path.with_name(PROVENANCE), config, [BASE_SEED], inputs, BASE)


def use_kept(config: Config) -> None:
    """Take the base network from the file that `fit.kept` names, after a look at its digest.

    Raises:
        UserError: it is not there, differs from the digest in the .json beside it, or was fitted by
            another recipe than the config has.
    """
    stage, source = Stage(config), Path(config["fit"]["kept"])
    if not source.exists():
        raise UserError(f"fit.kept: {source}: expected the weights of a fitted network")
    recipe = read_json(source.with_suffix(".json"))
    if sha256(source) != recipe["sha256"]:
        raise UserError(f"{source}: sha256 {sha256(source)}: expected {recipe['sha256']}")
    for name in RECIPE:
        asked = {k: v for k, v in config[name].items() if k != "kept"}
        if asked != recipe["recipe"][name]:
            raise UserError(f"{source}: {name}: {asked}: expected {recipe['recipe'][name]}")
    network = build(config["model"], stage.data.space, 1, BASE_SEED)
    load_state(network, [load_tensors(source)], str(source))
    path = stage.paths.base("model.safetensors")
    metadata = {"scenario": config["scenario"], "phase": "base", "kept": source.name}
    write_json(path.with_name("metrics.json"), {**recipe, **_heldout_losses(stage, network)})
    write_text(path.with_name("stats.jsonl"), json.dumps(recipe["last"]) + "\n")
    state = network.state_dict()
    last = {f"{recipe['updates']}/{name}": tensor for name, tensor in state.items()}
    save_tensors(path.with_name("snapshots.safetensors"), last, metadata)
    save_tensors(path, state, metadata)
    inputs = fit_reads(config)
    provenance.record(path.with_name(PROVENANCE), config, [BASE_SEED], inputs, BASE)


def keep(config: Config, path: Path) -> None:
    """Keep a fitted base network for `fit.kept`, with its recipe and digest beside it."""
    paths = Paths(config)
    metrics = read_json(paths.base("metrics.json"))
    made = read_json(paths.base("provenance.json"))
    save_tensors(path, load_tensors(paths.base("model.safetensors")))
    recipe = {name: config[name] for name in (*RECIPE, "flow")}
    recipe["fit"] = {k: v for k, v in recipe["fit"].items() if k != "kept"}
    known = ("updates", "seconds", "train_loss", "heldout_loss", "last")
    values = {name: metrics[name] for name in known if name in metrics}
    origin = {name: made[name] for name in ("commit", "packages")}
    write_json(
        path.with_suffix(".json"), {"sha256": sha256(path), **values, **origin, "recipe": recipe}
    )


def _heldout_losses(stage: Stage, field: VelocityField) -> dict[str, float]:
    """Flow-matching losses on pictures trained on and on pictures never seen."""
    kind = stage.config["data"]["kind"]
    if kind not in LATENT or stage.config["data"].get("image"):
        return {}
    losses = {}
    for name in ("train", "heldout"):
        part = load_tensors(stage.paths.data(f"{name}.safetensors"))
        some = torch.randperm(len(part["latents"]), generator=torch.Generator().manual_seed(0))
        some = some[:HELDOUT_ROWS]
        labels = part["prompts"][some, 0] if kind in PROMPTED else part["labels"][some]
        x_0 = part["latents"][some]
        losses[f"{name}_loss"] = heldout_loss(stage.flow, field, x_0, labels, 8)
    return losses


def fit_runs(config: Config, seeds: list[int], world: World = ALONE) -> None:
    """Fit one velocity for each seed: the three curves of the 1D toy."""
    prepare(config)
    stage = Stage(config, world)
    label = f"{config['scenario']} {config['method']}"
    state = stage.paths.state("phase1", seeds)
    with holding(state, world):
        finished, trainer = _fit(stage, seeds, label, state)
        if world.leads:
            write_phase(stage, finished, trainer.average, seeds, 1, data_reads(config))


def _fit_inputs(stage: Stage) -> list[Path]:
    """Every file that decides a fit's weights."""
    start = stage.config["fit"].get("start_from")
    return [*data_reads(stage.config), *([Path(start)] if start else [])]


def _fit(stage: Stage, seeds: list[int], label: str, state: Path) -> tuple[Finished, FitTrainer]:
    recipe, world = FitRecipe(**stage.config["fit"]), stage.world
    model = build(stage.config["model"], stage.data.space, len(seeds), seeds[0])
    if recipe.start_from is not None:
        warm_start(model, load_tensors(Path(recipe.start_from)), recipe.start_from)
    model = model.to(world.device)
    trainer = FitTrainer(stage.flow, recipe, model, stage.data, seeds, stage.exact(), world)
    digest = stage.digest(_fit_inputs(stage), seeds=seeds)
    return train(trainer, recipe.updates, stage.save(), state, digest, label, world), trainer
