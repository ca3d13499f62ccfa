"""What updates of the real trainer take on this machine, with random weights, beside the plan's."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pdmd.config.experiment import Config, merge
from pdmd.config.sections import tokens_of
from pdmd.distill import Begun, PhaseTrainer
from pdmd.planning.fake_update import ROLLOUT
from pdmd.planning.gpus import GPUS
from pdmd.planning.live import Live
from pdmd.planning.plan import Hardware, PhasePlan, Planner
from pdmd.planning.rehearsal import Rehearsal, weights_of
from pdmd.rollout import Rollout
from pdmd.stages.distill import phase_recipe
from pdmd.stages.stage import prepare
from pdmd.training.cost import Cost, peak_gpu_memory_mb
from pdmd.training.world import World

OPTIMIZER = "optimizer"
MATMUL = 1024  # side of the matrices whose product measures a CPU's speed


class Exclusive(Cost):
    """Seconds by role, each second in one of them: of blocks in one another the inner counts."""

    def __init__(self, device: torch.device):
        super().__init__(device)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def time(self, role: str) -> Iterator[None]:
        """Add the block's wall time to a role, but for that of blocks in it."""
        self._pass()
        self._open.append(role)
        try:
            yield
        finally:
            self._pass()
            self._open.pop()

    def _pass(self) -> None:
        self._wait()
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


class TimedTrainer(PhaseTrainer):
    """A phase's trainer that tells rollouts and optimisers apart, too."""

    def _rollout(self, begun: Begun, carried: bool = False) -> Rollout:
        with self.cost.time(ROLLOUT):
            return super()._rollout(begun, carried)

    def _descend(self, role: str, loss: Tensor, step: int) -> tuple[Tensor, Tensor]:
        with self.cost.time(OPTIMIZER):
            return super()._descend(role, loss, step)


def bench(
    config: Config,
    phase_number: int,
    size: str,
    device: str,
    rows: int,
    updates: int,
    warm: int,
    text_rows: int,
) -> dict[str, Any]:
    """Measure updates of one phase.

    Args:
        device: "cpu" or "cuda"; rows: samples of an update; updates, warm: that are measured, and
            before them.
    Returns:
        seconds an update, by role; bytes at most; tokens a second; the share of the peak; and
        `plan`, the same as it was planned.
    """
    prepare(config)
    config = merge(
        config,
        {
            "distill": {"batch": rows, "parallel": {"context": 1}},
            "data": {"sizes": [size], "shares": [1.0]},
            "model": {"offload": "none"},  # both of two experts are there
        },
    )
    planned = Planner(config, text_rows).plan(Hardware(1)).phases[phase_number - 1]
    place = torch.device(device)
    stage = Rehearsal(config, size, World(device=place), None, text_rows)
    stage.measured = True
    trainer, weights = _trainer(stage, phase_number)
    for step in range(warm):
        trainer.update(step)
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
    trainer.cost = Exclusive(place)
    each = [_timed(trainer, warm + step) for step in range(updates)]
    seconds = sorted(each)[len(each) // 2]
    by_role = {role: value / updates for role, value in trainer.cost.seconds.items()}
    peaks, source = _peaks(place)
    tokens = tokens_of(size) * rows
    return {
        "scenario": stage.run.scenario,
        "method": stage.run.method,
        "phase": phase_number,
        "size": size,
        "rows": rows,
        "attention": stage.run.model.attention,
        "compiled": stage.run.model.compile,
        "device": _name(place),
        "seconds": each,
        "seconds_by_role": by_role,
        "bytes": _bytes(trainer, weights, warm + updates),
        "tokens_a_second": tokens / seconds,
        "flops_a_second": sum(planned.flops.values()) / seconds,
        "utilisation": _ideal(planned, peaks) / seconds,
        "peak_flops_a_second": peaks,
        "peak_source": source,
        "plan": {
            "bytes": planned.bytes,
            "memory": dict(planned.memory),
            "flops_an_update": dict(planned.flops),
            "seconds_at_the_peak": _ideal(planned, peaks),
            "forwards_a_sample": planned.forwards,
        },
    }


def _trainer(stage: Rehearsal, number: int) -> tuple[PhaseTrainer, Mapping[str, list[Tensor]]]:
    phase = stage.phase(number)
    roles, recipe = stage.roles(phase, 1), phase_recipe(stage.run, phase)
    if recipe.checkpointing:
        stage.checkpoint_activations(roles)
    starts, weights = stage.starts(phase), weights_of(stage, roles)
    flow, world = stage.flow, stage.world
    return TimedTrainer(flow, phase, recipe, roles, starts, [1], world), weights


def _timed(trainer: PhaseTrainer, step: int) -> float:
    """Seconds of one update."""
    started = time.perf_counter()
    record = trainer.update(step)
    record["fake_loss"].cpu()  # until it is done
    return time.perf_counter() - started


def _bytes(trainer: PhaseTrainer, weights: Mapping[str, list[Tensor]], step: int) -> float:
    """Bytes of tensors at most: of a GPU as its allocator says, else counted in one update more."""
    if trainer.world.device.type == "cuda":
        return peak_gpu_memory_mb(trainer.world.device) * 1e6
    live = Live()
    for part, tensors in weights.items():
        live.adopt(tensors, part)
    states = [one for of in trainer.optimizers.values() for one in of.state.values()]
    live.adopt((t for state in states for t in state.values()), OPTIMIZER)
    every = [p for parameters in trainer.parameters.values() for p in parameters]
    live.adopt((p.grad for p in every if p.grad is not None), "gradients")
    with live:
        trainer.update(step)
    return max(segment.bytes for segment in live.segments.values())


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _peaks(device: torch.device) -> tuple[dict[str, float], str]:
    """Precision -> operations a second at most, and where that is from."""
    name = _name(device).lower()
    for key, gpu in GPUS.items():
        if key in name:
            return dict(gpu.peak), gpu.source
    kinds = (torch.bfloat16, torch.float32)
    measured = {str(kind).removeprefix("torch."): _matmul(device, kind) for kind in kinds}
    return measured, f"a product of two matrices of {MATMUL} x {MATMUL}, measured"


def _matmul(device: torch.device, kind: torch.dtype) -> float:
    """Operations a second of a product of matrices, the fastest of three."""
    left = torch.randn(MATMUL, MATMUL, device=device).to(kind)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        (left @ left).sum().item()
        times.append(time.perf_counter() - started)
    return 2 * MATMUL**3 / min(times)


def _ideal(planned: PhasePlan, peaks: Mapping[str, float]) -> float:
    """Seconds of an update at the peak of each precision."""
    return sum(count / peaks[name] for name, count in planned.flops.items())
