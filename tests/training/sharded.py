"""One update after another on tiny released models, in processes that share networks or do not."""

import contextlib
import dataclasses
from pathlib import Path

import torch

from pdmd.config.sections import Average, Fake
from pdmd.distill import PhaseTrainer, Recipe
from pdmd.flow import RECTIFIED
from pdmd.models.adapters import SharedBase, checkpoint_activations, idle_tensors
from pdmd.models.base import Guided, Prompted, VelocityNetwork
from pdmd.models.families import FAMILIES, load_velocity
from pdmd.models.rows import gathered, whole
from pdmd.models.speed import compile_blocks
from pdmd.phases import split_phases
from pdmd.roles import Roles
from pdmd.starts import NoiseStarts
from pdmd.training.context import share_tokens
from pdmd.training.parallel import materialise, mesh_of, shard

ROWS, WIDTH = 8, 32  # of text
RECIPE = {
    "updates": 20,
    "batch": 6,
    "fake_updates": 1,
    "generator_lr": 2e-3,
    "fake_lr": 2e-3,
    "decay": 1.0,
    "betas": (0.0, 0.999),
    "weight_decay": 0.01,
    "clip": 0.05,  # which cuts: the norm counts
    "average": Average(law="power"),
    "budget": "expert",
    "rollout": "fresh",
    "target": "unbiased",
    "gradient": "normalised",
    "normaliser": "sample",
    "region": "update",
    "fake": Fake(mode="lora"),
    "microbatch": 1,
    "checkpointing": True,
    "backward": "exit",
    "exits": "update",
}
SHAPES = {"qwen-image": (16, 1, 4, 6)}


def prompts_of(family):
    """What draws some of five prompts for a share of a batch, and the one of nothing."""
    generator = torch.Generator().manual_seed(3)
    text = torch.randn(5, ROWS, WIDTH, generator=generator)
    shape = (5, family.image_channels, *SHAPES.get(family.name, (16, 2, 4, 6))[1:])
    images = torch.randn(shape, generator=generator) if family.image_channels else None
    lengths = torch.tensor([8, 5, 3, 8, 2])
    text = text * (torch.arange(ROWS) < lengths[:, None])[..., None]
    every = Prompted(text, lengths, images)

    def prompts(stream, batch):
        return every[stream.integers(batch, 4)]

    return prompts, every[4:]


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained: a phase of a family, with a fake of one mode."""

    family: str
    phase: int = 1
    fake: str = "lora"
    recipe: tuple = ()  # of keys and values that differ
    dtype: torch.dtype = torch.float32
    compiled: bool = False
    context: int = 1

    @property
    def name(self):
        more = "".join(f"-{key}" for key, _ in self.recipe)
        return f"{self.family}-phase{self.phase}-{self.fake}{more}{'-compiled' * self.compiled}"


def make(case, folder, world, mesh=None, checkpoint=checkpoint_activations):
    """The trainer of a case; with a mesh its networks are sharded over that."""
    family = dataclasses.replace(FAMILIES[case.family])
    object.__setattr__(family, "name", case.family)
    recipe = Recipe(**{**RECIPE, "fake": Fake(mode=case.fake), **dict(case.recipe)})
    if family.experts == 1 and recipe.region == "update":
        recipe = dataclasses.replace(recipe, region="row")
    phases = split_phases(4, (2, 4), 5.0, "nested", 0.001, switch=family.boundary or 0.0)
    phase = phases[case.phase - 1]
    both = ("high", "low")
    called = tuple({*phase.called, *phase.scored}) if case.phase == 1 else both

    def load(trainable=False):
        dtype = torch.float32 if trainable else case.dtype
        empty = mesh is not None
        network = load_velocity(folder, family, dtype, family.boundary, called, empty)
        if case.compiled:
            compile_blocks(network, "aot_eager")
        return network.requires_grad_(trainable)

    shared = SharedBase(load(), 4, 2)
    prompts, null = prompts_of(family)
    guided = Guided(
        shared.plain(),
        3.0,
        null,
        low=2.0,
        boundary=family.boundary or 0.0,
        rescale=family.rescale,
        apart=True,
    )
    fake = load(True) if case.fake == "full" else shared.add("fake", 0, True, phase.scored)
    generator = shared.add("generator", 0, True, phase.called)
    average = shared.add("average", 0, False, phase.called)
    before = [shared.add("phase1", 5)] * 2 if case.phase == 2 else []
    networks = [shared.network, *([fake] if isinstance(fake, VelocityNetwork) else [])]
    if recipe.checkpointing:
        for network in networks:
            checkpoint(network)
    if case.context > 1:
        share_tokens(networks, world)
    if mesh is not None:
        names = both if family.experts == 2 else ("",)
        folders = {name: folder / of for name, of in zip(names, family.transformers, strict=True)}
        for network in networks:
            shard(network, mesh, case.dtype if network is fake else None)
            materialise(network, folders, world.device)
    roles = Roles(guided, fake, generator, average)
    trained = {id(p) for role in roles.states().values() for p in role.parameters()}
    frozen = {k: p for k, p in shared.network.named_parameters() if id(p) not in trained}
    idle = sorted({name for network in networks for name in idle_tensors(network)})
    roles = dataclasses.replace(roles, frozen=frozen, idle=idle)
    shape = SHAPES.get(case.family, (16, 2, 4, 6))
    starts = NoiseStarts(RECTIFIED, before, phase.times, shape, prompts)
    return PhaseTrainer(RECTIFIED, phase, recipe, roles, starts, [1], world)


def contents(trainer):
    """Weights and moments of all roles and their last gradients, whole."""
    found = {}
    for role, state in trainer.states.items():
        found |= {f"{role}/{k}": t for k, t in gathered(state.state_dict()).items()}
    for role, parts in trainer.parts.items():
        for part in parts:
            for name, p in zip(part.names, part.parameters, strict=True):
                if p.grad is not None:
                    found[f"gradient/{role}/{name}"] = whole(p.grad)
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def train(case, folder, world, sharded, updates=3, change=None, **options):
    """What so many updates leave, and what they logged.

    Args:
        change: (trainer) -> None, done before the first.
    """
    world = world.sharing_tokens(case.context)
    with mesh_of(world) if sharded else contextlib.nullcontext() as mesh:
        trainer = make(case, Path(folder), world, mesh, **options)
        if change is not None:
            change(trainer)
        logged = [trainer.update(step) for step in range(updates)]
        found = contents(trainer)
    for step, record in enumerate(logged):
        found |= {f"log/{step}/{name}": value for name, value in record.items()}
    return found
