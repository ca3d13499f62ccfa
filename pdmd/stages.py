"""The stages of the chain that train or sample: read a resolved config, write files of record."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdmd import provenance
from pdmd.bank import INDEX, read_bank, write_bank
from pdmd.catalogue import LATENT, TRANSFORMERS
from pdmd.checkpoint import alone
from pdmd.config import Config
from pdmd.data import Data, build_data, build_mixture, even_prompts
from pdmd.digests import result_sha256
from pdmd.distill import BankStarts, NoiseStarts, PhaseTrainer, Recipe, Roles, Starts
from pdmd.distributed import ALONE, World
from pdmd.draws import Stream
from pdmd.errors import UserError
from pdmd.flow import FLOWS
from pdmd.models.base import Condition, Guided, VelocityField, VelocityNetwork
from pdmd.models.factory import Where, load_stacked, load_state, unstacker
from pdmd.outputs import PHASE, PROVENANCE, SAMPLES, data_reads, frozen_reads, sampler_reads
from pdmd.paths import Paths
from pdmd.phases import Phase, split_phases, step_grid
from pdmd.rollout import sample
from pdmd.stop import finish
from pdmd.storage import (
    fingerprint,
    load_tensors,
    save_tensors,
    write_json,
)
from pdmd.training import Finished, Save, clear_state, train, write_runs
from pdmd.work import job_label

BASE_SEED = 0
CHUNK = 2**18  # numbers of x that a network sees at a time when it samples


@contextmanager
def holding(state: Path, world: World) -> Iterator[None]:
    """Hold a job's state folder, for all its processes, and drop it after success."""
    if not world.leads:
        world.barrier()
        yield
        finish()
        return
    with alone(state):
        world.barrier()
        yield
        finish()
        clear_state(state)


def prepare(config: Config) -> None:
    """Set what makes a job fast and repeatable on its machine."""
    torch.set_num_threads(config["threads"])
    torch.set_flush_denormal(True)
    # Not `use_deterministic_algorithms`: that imports the compiler, 1.5 s in every job.
    torch.set_deterministic_debug_mode("error")


class Stage:
    """What every stage looks up in a config.

    Attributes:
        flow, data, paths: of the scenario; world: the processes of the job.
    """

    def __init__(self, config: Config, world: World = ALONE):
        self.config, self.paths, self.world = config, Paths(config), world
        self.flow = FLOWS[config["flow"]]
        latents = self.paths.data("train.safetensors")
        self.data: Data = build_data(config["data"], latents, world.device)

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The phases of the student's step grid."""
        names = ("steps", "boundaries", "shift", "interval", "margin")
        switch = self.config["model"].get("boundary", 0.0)
        values = {name: self.config["student"][name] for name in names}
        return split_phases(**values, switch=switch)

    def phase(self, number: int, least: int = 1) -> Phase:
        """One phase by its number. Raises UserError for one that the method does not have."""
        if not least <= number <= len(self.phases):
            raise UserError(f"--phase: {number}: expected {least} to {len(self.phases)}")
        return self.phases[number - 1]

    def exact(self) -> VelocityField | None:
        """The exact velocity, where the data have one."""
        spec = self.config["data"]
        return None if spec["kind"] in LATENT else build_mixture(spec).to(self.world.device)

    def network(self, runs: int, trainable: bool = False) -> VelocityNetwork:
        """The base network, copied for each run."""
        path = self.paths.base("model.safetensors")
        states = [load_tensors(path)] * runs
        network = load_stacked(self.config["model"], self.data.space, states, str(path), trainable)
        return network.to(self.world.device)

    def expert(self, runs: int, trainable: bool = False) -> VelocityNetwork:
        """The base network as an expert starts from it: all of it, or with a new LoRA adapter."""
        lora = self.config["student"]["lora"]
        network = self.network(runs, trainable)
        if lora is None:
            return network
        from pdmd.models.lora import add_lora

        add_lora(network, lora["rank"], lora["alpha"], BASE_SEED)
        return network if trainable else network.requires_grad_(False)

    def teacher(self, runs: int) -> Guided:
        """The guided teacher."""
        spec = self.config["teacher"]
        exact = self.exact()
        if spec["kind"] == "exact" and exact is not None:
            return Guided(exact, spec["guidance"], None)
        network = self.network(runs)
        return Guided(network, spec["guidance"], network.null)

    def experts(self, seeds: list[int], phases: tuple[Phase, ...]) -> list[VelocityField]:
        """The trained velocity of every step of the given phases."""
        found: list[VelocityField] = []
        for phase in phases:
            files = [self.paths.phase(seed, phase.number, "expert.safetensors") for seed in seeds]
            states = [load_tensors(path) for path in files]
            found += [self.trained(states, files)] * (phase.last - phase.first)
        return found

    def trained(self, states: list[dict[str, Tensor]], where: Where) -> VelocityNetwork:
        """A frozen expert of given weights, one state for each run."""
        if self.config["student"]["lora"] is None:
            network = load_stacked(self.config["model"], self.data.space, states, where)
            return network.to(self.world.device)
        network = self.expert(len(states))
        load_state(network, states, where)
        return network

    def save(self) -> Save:
        """How often runs write."""
        return Save(**self.config["save"])

    def digest(self, inputs: list[Path], **extra: Any) -> str:
        """What a checkpoint must agree with: the config and the digests of the inputs."""
        files = {str(path): result_sha256(path) for path in inputs}
        return fingerprint({"config": self.config, "inputs": files, **extra})


def make_bank(config: Config, phase_number: int, seeds: list[int]) -> None:
    """Run the frozen experts of the phases before `phase_number` once, for every seed."""
    prepare(config)
    stage, rows = Stage(config), config["bank"]["rows"]
    if not rows:
        raise UserError("bank.rows: 0: expected above 0 for a bank; the experts run online")
    before = stage.phases[: stage.phase(phase_number, least=2).number - 1]
    experts = stage.experts(seeds, before)
    x, condition = _from_noise(stage, experts, before[0].times, Stream(seeds, 0, "bank"), rows)
    for run, seed in enumerate(seeds):
        labels = None if condition is None else condition[run :: len(seeds)]
        own = x[run :: len(seeds)]
        write_bank(
            stage.paths.bank(seed, phase_number), own, labels, seed, config["bank"]["shard_rows"]
        )


@torch.no_grad()
def _from_noise(
    stage: Stage,
    velocities: list[VelocityField],
    times: tuple[float, ...],
    stream: Stream,
    rows: int,
    condition: Condition = None,
) -> tuple[Tensor, Condition]:
    """Draw noise (and conditions, unless given) and take len(velocities) steps."""
    shape = stage.data.space.shape
    noise = stream.normal(rows, shape)
    chunk = max(1, CHUNK // math.prod(shape))
    if condition is None:
        condition = stage.data.prompts(stream, rows)
    runs = len(noise) // rows
    parts = []
    for start in range(0, rows, chunk):
        some = slice(start * runs, min(start + chunk, rows) * runs)
        labels = None if condition is None else condition[some]
        parts.append(sample(stage.flow, velocities, times, noise[some], labels))
    return torch.cat(parts), condition


def distill_phase(
    config: Config, phase_number: int, seeds: list[int], world: World = ALONE
) -> None:
    """Train the expert of one phase, for every seed of the job."""
    prepare(config)
    stage = Stage(config, world)
    phase = stage.phase(phase_number)
    recipe = phase_recipe(config, phase)
    inputs = phase_inputs(config, phase_number, seeds)
    runs = len(seeds)
    roles = Roles(
        stage.teacher(runs),
        stage.network(runs, trainable=True),
        stage.expert(runs, trainable=True),
        stage.expert(runs),
    )
    starts = _starts(stage, phase, seeds)
    streams = [seed * 1000 + phase_number for seed in seeds]
    trainer = PhaseTrainer(stage.flow, phase, recipe, roles, starts, streams, world)
    label = job_label(config, phase_number, seeds)
    state = stage.paths.state(f"phase{phase_number}", seeds)
    digest = stage.digest(inputs, seeds=seeds, phase=phase_number)
    with holding(state, world):
        finished = train(trainer, recipe.updates, stage.save(), state, digest, label, world)
        if world.leads:
            write_phase(stage, finished, roles.average, seeds, phase_number, inputs)


def phase_recipe(config: Config, phase: Phase) -> Recipe:
    """A phase's hyper-parameters: its share of the updates is its share of the steps."""
    values = dict(config["distill"])
    student = config["student"]
    total, steps = values["updates"], student["steps"]
    values["updates"] = max(1, total * phase.last // steps - total * phase.first // steps)
    values["betas"] = tuple(values["betas"])
    values |= {"backward": student["backward"], "exits": student["exits"]}
    names = {field.name for field in dataclasses.fields(Recipe)}
    return Recipe(**{name: value for name, value in values.items() if name in names})


def phase_inputs(config: Config, number: int, seeds: list[int]) -> list[Path]:
    """Every file that decides a phase's weights; of a bank its index."""
    found = [path for seed in seeds for path in frozen_reads(config, seed, number)]
    if number > 1 and config["bank"]["used"]:
        found += [Paths(config).bank(seed, number) / INDEX for seed in seeds]
    return list(dict.fromkeys(found))


def _starts(stage: Stage, phase: Phase, seeds: list[int]) -> Starts:
    """Where the phase's rollouts start: noise, the bank, or the frozen experts online."""
    if phase.number > 1 and stage.config["bank"]["used"]:
        banks, rows = [], None  # as many as the first seed's
        for seed in seeds:
            path = stage.paths.bank(seed, phase.number)
            banks.append(read_bank(path, stage.data.space, seed, rows))
            rows = len(banks[0][0])
        device = stage.world.device
        x = torch.stack([x for x, _ in banks], 1).to(device)
        labels = [condition.to(device) for _, condition in banks if condition is not None]
        return BankStarts(x, torch.stack(labels, 1) if labels else None)
    experts = stage.experts(seeds, stage.phases[: phase.number - 1])
    shape = stage.data.space.shape
    return NoiseStarts(stage.flow, experts, phase.times, shape, stage.data.prompts)


def write_phase(
    stage: Stage,
    finished: Finished,
    kept: VelocityNetwork,
    seeds: list[int],
    number: int,
    inputs: list[Path],
) -> None:
    """Write a finished phase of every seed, with its config and provenance."""
    config = stage.config
    metadata = {name: str(config[name]) for name in ("scenario", "method")} | {"phase": str(number)}
    folders = {seed: stage.paths.phase(seed, number, "expert.safetensors").parent for seed in seeds}
    for folder in folders.values():
        write_json(folder / "config.json", config)
    write_runs(finished, kept, unstacker(kept), folders, metadata)
    for seed, folder in folders.items():
        provenance.record(folder / PROVENANCE, config, [seed], inputs, PHASE)


def sample_method(config: Config, seeds: list[int]) -> None:
    """Draw every seed's samples of record; equal seeds see equal noise in every method."""
    prepare(config)
    stage = Stage(config)
    for some in batches(config, seeds):
        _sample_together(stage, some)


def batches(config: Config, seeds: list[int]) -> list[list[int]]:
    """The seeds that share one network: all of them, but of transformers one at a time."""
    return [[seed] for seed in seeds] if config["model"]["kind"] in TRANSFORMERS else [seeds]


def _sample_together(stage: Stage, seeds: list[int]) -> None:
    config, rows = stage.config, stage.config["evaluate"]["samples"]
    velocities, times = trained_sampler(stage, seeds)
    x, condition = draw_samples(stage, velocities, times, seeds, rows)
    for run, seed in enumerate(seeds):
        tensors = {"x": x[run :: len(seeds)]}
        if condition is not None:
            tensors["condition"] = condition[run :: len(seeds)]
        path = stage.paths.seed(seed, "samples.safetensors")
        metadata = {"scenario": config["scenario"], "method": config["method"], "seed": str(seed)}
        save_tensors(path, tensors, metadata)
        own = [*data_reads(config), *sampler_reads(config, seed)]
        write_json(path.with_name("config.json"), config)
        provenance.record(path.with_name(PROVENANCE), config, [seed], own, SAMPLES)


def draw_samples(
    stage: Stage,
    velocities: list[VelocityField],
    times: tuple[float, ...],
    seeds: list[int],
    rows: int,
) -> tuple[Tensor, Condition]:
    """Evaluation samples (rows * runs, ...) from noise that depends on the seed alone."""
    condition = even_prompts(stage.data, rows, len(seeds))
    return _from_noise(stage, velocities, times, Stream(seeds, 0, "sample"), rows, condition)


def trained_sampler(
    stage: Stage, seeds: list[int]
) -> tuple[list[VelocityField], tuple[float, ...]]:
    """The velocity of every step and the step grid of a method's final sampler."""
    if stage.config["kind"] == "teacher":
        spec = stage.config["teacher"]
        return [stage.teacher(len(seeds))] * spec["steps"], step_grid(spec["steps"], spec["shift"])
    return stage.experts(seeds, stage.phases), stage.phases[0].times
