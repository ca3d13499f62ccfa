"""What every stage that trains or samples looks up in a config, and how it holds its state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pdmd.config.catalogue import PRETRAINED, TRANSFORMERS
from pdmd.config.experiment import Config
from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.config.sections import Lora, Run, Save
from pdmd.data.conditions import Conditions
from pdmd.data.sources import Data, build_conditions, build_data, build_mixture
from pdmd.errors import UserError
from pdmd.files import provenance
from pdmd.files.digests import result_sha256
from pdmd.files.storage import (
    fingerprint,
    load_tensors,
    write_json,
)
from pdmd.flow import FLOWS
from pdmd.models.base import Condition, Guided, Prompted, Space, VelocityField, VelocityNetwork
from pdmd.models.build import Where, load_stacked, load_state, unstacker
from pdmd.models.experts import Experts
from pdmd.models.families import FAMILIES, Family, load_velocity
from pdmd.models.offload import Turns, take_turns
from pdmd.models.source import check_manifest
from pdmd.models.speed import hasten
from pdmd.phases import Phase
from pdmd.roles import Role, Roles
from pdmd.scenarios.kind import kind_of
from pdmd.stages.grid import ranges_of, student_phases
from pdmd.stages.outputs import PHASE, PROVENANCE
from pdmd.streams import Stream
from pdmd.training.checkpoint import alone
from pdmd.training.loop import Finished, clear_state, write_runs
from pdmd.training.stop import finish
from pdmd.training.world import ALONE, World

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from pdmd.models.adapters import SharedBase

BASE_SEED = 0
BOTH: tuple[str, ...] = ("high", "low")  # experts


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
    torch.backends.cudnn.allow_tf32 = False  # else features of a GPU are 0.3% off a CPU's
    # Not `use_deterministic_algorithms`: that imports the compiler, 1.5 s in every job.
    deterministic = config.get("model", {}).get("deterministic", True)
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # That would fill all new memory with NaN first.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


class Stage:
    """What every stage looks up in a config.

    Attributes:
        config, run: as it is written, for records, and as typed values; flow, paths: of the
            scenario; world: the processes of the job;
        family: of a released model, None for others; turns: of its two experts, where one waits in
            main memory; called: of two experts those that the job calls, of a released model no
            others are loaded; sharded: whether processes hold some rows of each tensor of a
            released model, which then has no values before `shard`;
        conditions, space: what samples are drawn for, and live on.
    """

    def __init__(self, config: Config, world: World = ALONE):
        self.config, self.world = config, world
        self.run = run = read_run(config)
        self.paths, self.flow = Paths(run), FLOWS[run.flow]
        self.family = FAMILIES[str(run.model.family)] if run.model.kind == PRETRAINED else None
        self.called, self.sharded = BOTH, False
        self.turns: Turns | None = None
        self.conditions, self.space = self._conditions()

    def _conditions(self) -> tuple[Conditions, Space]:
        """What samples are drawn for, and live on."""
        run = self.run
        length = run.model.text_length if self.family is None else self.family.text_length
        size = run.evaluate.size if hasattr(run, "evaluate") else None
        folder = self.paths.scenario / "data"
        return build_conditions(run.data, folder, length, self.world.device, size)

    @cached_property
    def data(self) -> Data:
        """The training data, loaded where a stage trains."""
        latents = self.paths.data("train.safetensors" if self.family is None else "store.json")
        return build_data(self.run.data, latents, self.space, self.world.device)

    def prompts(self, stream: Stream, batch: int) -> Condition:
        """Conditions as often as the training data have them."""
        return self.conditions.values(self.data.prompts(stream, batch))

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The phases of the student's step grid."""
        return self.phases_within(ranges_of(self.run))

    def phases_within(self, ranges: Sequence[tuple[float, float]] | None) -> tuple[Phase, ...]:
        """The same with ranges of re-noising times; None: those that are configured."""
        return student_phases(self.run, ranges)

    def phase(self, number: int, least: int = 1) -> Phase:
        """One phase by its number. Raises UserError for one that the method does not have."""
        if not least <= number <= len(self.phases):
            raise UserError(f"--phase: {number}: expected {least} to {len(self.phases)}")
        return self.phases[number - 1]

    def exact(self) -> VelocityField | None:
        """The exact velocity, where the data have one."""
        spec = self.run.data
        return build_mixture(spec).to(self.world.device) if kind_of(spec).mixture else None

    def network(self, runs: int, trainable: bool = False) -> VelocityNetwork:
        """The base network, copied for each run; where it is trained, in float32."""
        if self.family is not None:
            return self._released(self.family, trainable)
        path = self.paths.base("model.safetensors")
        states = [load_tensors(path)] * runs
        network = load_stacked(self.run.model, self.space, states, str(path), trainable)
        return network.to(self.world.device)

    def _released(self, family: Family, trainable: bool) -> VelocityNetwork:
        """A released model, from the folder that its manifest names."""
        folder, model = check_manifest(self.paths.base("manifest.json")), self.run.model
        dtype = torch.float32 if trainable else getattr(torch, model.dtype)
        network = load_velocity(folder, family, dtype, model.boundary, self.called, self.sharded)
        hasten(network, model.attention, model.compile, self.run.scenario)
        if model.offload == "idle" and not trainable:
            self.turns = take_turns(network, self.world.device)
        if not self.sharded:
            network = network.to(self.world.device)
        return network.requires_grad_(trainable)

    @cached_property
    def shared(self) -> SharedBase:
        """The base network that all adapters of this job stand on."""
        from pdmd.models.adapters import SharedBase

        assert self.lora is not None
        return SharedBase(self.network(1), self.lora.rank, self.lora.alpha)

    @property
    def lora(self) -> Lora | None:
        """The adapters of experts; a teacher has no student."""
        return self.run.student.lora if hasattr(self.run, "student") else None

    @property
    def adapts(self) -> bool:
        """Whether experts are adapters on the shared base."""
        return self.lora is not None

    def roles(self, phase: Phase, runs: int) -> Roles:
        """Who is who at a phase's start; of two experts those alone are trained that it calls."""
        self.called = tuple({*phase.called, *phase.scored}) if phase.number == 1 else BOTH
        roles = Roles(
            self.teacher(runs),
            self._fake(runs, phase.scored),
            self._expert(runs, "generator", phase.called, trainable=True),
            self._expert(runs, "average", phase.called),
        )
        return replace(roles, frozen=self._frozen(roles), idle=self._idle(roles))

    def _expert(
        self, runs: int, name: str, experts: Sequence[str], trainable: bool = False
    ) -> Role:
        """An expert as it starts: the base network, or a new adapter on the shared one."""
        if self.adapts:
            return self.shared.add(name, BASE_SEED, trainable, experts)
        return self._whole(runs, experts, trainable)

    def _whole(self, runs: int, experts: Sequence[str], trainable: bool) -> VelocityNetwork:
        """A network of its own, of whose two experts some are trained."""
        network = self.network(runs, trainable)
        for side in BOTH:
            if isinstance(network, Experts) and side not in experts:
                getattr(network, side).requires_grad_(False)
        return network

    def _fake(self, runs: int, experts: Sequence[str]) -> Role:
        """The fake score as it starts: the base network, or a new adapter on the shared one."""
        if self.adapts and self.run.distill.fake.mode == "full":
            return self._whole(runs, experts, trainable=True)
        return self._expert(runs, "fake", experts, trainable=True)

    def _frozen(self, roles: Roles) -> Mapping[str, Tensor]:
        """The tensors that no update may change: the shared base's, or the teacher's."""
        if self.adapts and self.turns is not None:
            return self.turns
        field = self.shared.network if self.adapts else getattr(roles.teacher, "field", None)
        named = field.named_parameters() if isinstance(field, nn.Module) else ()
        ours = {id(p) for role in roles.states().values() for p in role.parameters()}
        return {name: p for name, p in named if id(p) not in ours}

    def _idle(self, roles: Roles) -> list[str]:
        """Parts of names of tensors that no velocity depends on."""
        if self.run.model.kind not in TRANSFORMERS:
            return []
        from pdmd.models.adapters import idle_tensors

        networks = [self.shared.network] if self.adapts else []
        networks += [one for one in roles.states().values() if isinstance(one, VelocityNetwork)]
        return sorted({name for network in networks for name in idle_tensors(network)})

    def checkpoint_activations(self, roles: Roles) -> None:
        """Keep no activations inside of blocks, in the shared base and in roles of their own."""
        from pdmd.models.adapters import checkpoint_activations

        for network in self._networks(roles):
            checkpoint_activations(network)

    def share_tokens(self, roles: Roles) -> None:
        """Have processes beside each other share the tokens of each sample, in all networks."""
        from pdmd.training.context import share_tokens

        share_tokens(self._networks(roles), self.world)

    def _networks(self, roles: Roles) -> list[VelocityNetwork]:
        """What is trained, or stood on: the shared base, and roles that are networks."""
        base = [self.shared.network] if self.adapts else []
        own = [one for one in (roles.fake, roles.generator) if isinstance(one, VelocityNetwork)]
        return [*base, *own]

    def shard(self, roles: Roles, mesh: DeviceMesh) -> Roles:
        """The same roles, their tensors spread over the processes, and their values read.

        All adapters are there by now: what is added later would belong to nobody.
        """
        from pdmd.training.parallel import shard

        computes = getattr(torch, self.run.model.dtype)
        for network in self._networks(roles):
            shard(network, mesh, computes if network is roles.fake else None)
            self._fill(network)
        return replace(roles, frozen=self._frozen(roles))

    def _fill(self, network: VelocityNetwork) -> None:
        """Read the values of a sharded network, each process those of its rows."""
        from pdmd.training.parallel import materialise

        assert self.family is not None
        folder = check_manifest(self.paths.base("manifest.json"))
        names = ("high", "low") if self.family.experts == 2 else ("",)
        folders = {
            name: folder / of for name, of in zip(names, self.family.transformers, strict=True)
        }
        materialise(network, folders, self.world.device)

    def teacher(self, runs: int) -> Guided:
        """The guided teacher."""
        spec = self.run.teacher
        exact = self.exact()
        if spec.kind == "exact" and exact is not None:
            return Guided(exact, spec.guidance, None)
        network = self.shared.plain() if self.adapts else self.network(runs)
        null = self.null(network.null)
        if self.family is None:
            return Guided(network, spec.guidance, null)
        return Guided(
            network,
            spec.guidance,
            null,
            low=spec.guidance_low,
            boundary=self.run.model.boundary or 0.0,
            rescale=self.family.rescale,
            apart=True,
        )

    def null(self, own: int | None) -> int | Prompted | None:
        """What stands for no condition: the network's own class, or the null prompt."""
        null = self.conditions.null
        return own if null is None else self.conditions.text(null)

    def experts(self, seeds: list[int], phases: tuple[Phase, ...]) -> list[VelocityField]:
        """The trained velocity of every step of the given phases."""
        velocities: list[VelocityField] = []
        for phase in phases:
            files = [self.paths.phase(seed, phase.number, "expert.safetensors") for seed in seeds]
            states = [load_tensors(path) for path in files]
            expert = self.trained(states, files, f"phase{phase.number}")
            velocities += [expert] * (phase.last - phase.first)
        return velocities

    def trained(self, states: list[dict[str, Tensor]], where: Where, name: str) -> Role:
        """A frozen expert of given weights, one state for each run.

        Args:
            name: of its adapter, if it is one; it takes the place of an earlier one of that name.
        """
        if not self.adapts:
            network = load_stacked(self.run.model, self.space, states, where)
            return network.to(self.world.device)
        experts = {key.partition(".")[0] for key in states[0]} & set(BOTH)
        adapter = self.shared.add(name, BASE_SEED, experts=experts or None)
        load_state(adapter, states, where)
        return adapter

    def save(self) -> Save:
        """How often runs write."""
        return self.run.save

    def digest(self, inputs: list[Path], **extra: Any) -> str:
        """What a checkpoint must agree with: the config and the digests of the inputs."""
        files = {str(path): result_sha256(path) for path in inputs}
        return fingerprint({"config": self.config, "inputs": files, **extra})


def write_phase(
    stage: Stage,
    finished: Finished,
    kept: Role,
    seeds: list[int],
    number: int,
    inputs: list[Path],
    extra: Mapping[str, Any] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a finished phase of every seed, with its config and provenance.

    Args:
        extra: further metrics, lists have one value a run; weights: the kept role's, where it does
            not hold them whole.
    """
    config = stage.config
    metadata = {name: str(config[name]) for name in ("scenario", "method")} | {"phase": str(number)}
    folders = {seed: stage.paths.phase(seed, number, "expert.safetensors").parent for seed in seeds}
    for folder in folders.values():
        write_json(folder / "config.json", config)
    weights = kept.state_dict() if weights is None else weights
    write_runs(finished, weights, unstacker(kept), folders, metadata, extra=extra)
    for seed, folder in folders.items():
        provenance.record(folder / PROVENANCE, config, [seed], inputs, PHASE)


def batches(run: Run, seeds: list[int]) -> list[list[int]]:
    """The seeds that share one network: all of them, but of transformers one at a time."""
    return [[seed] for seed in seeds] if run.model.kind in TRANSFORMERS else [seeds]
