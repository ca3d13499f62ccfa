"""What makes a plan fit that does not: each setting is tried by planning again with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from pdmd.config.experiment import Config, merge
from pdmd.config.hardware_checks import SHARING, check_sharded
from pdmd.config.run import read_run
from pdmd.config.sections import Run, tokens_of
from pdmd.errors import UserError
from pdmd.models.families import FAMILIES
from pdmd.models.source import architecture_of
from pdmd.planning.plan import Hardware, Planner, data_of
from pdmd.planning.rehearsal import largest_first, local_rows

NODES = (16, 32, 64)  # GPUs
CONTEXTS = (2, 4, 8)  # of a node
OFFLOAD = "model.offload"


@dataclass(frozen=True)
class Setup:
    """A configuration on some hardware, and how it came about.

    Attributes:
        changes: in the words of the configuration or of the command, from the nearest.
    """

    config: Config
    hardware: Hardware
    changes: tuple[str, ...] = ()

    @property
    def run(self) -> Run:
        """The configuration as typed values."""
        return read_run(self.config)

    def changed(self, name: str, diff: Config | None = None, **hardware: object) -> Setup:
        """The same with one change more."""
        return Setup(
            merge(self.config, diff or {}),
            replace(self.hardware, **hardware),  # type: ignore[arg-type]
            (*self.changes, name),
        )


@dataclass(frozen=True)
class Tried:
    """A setup that was planned: what it takes, and whether that fits."""

    changes: tuple[str, ...]
    bytes: float
    fits: bool


Knob = Callable[[Setup], Iterator[Setup]]


def _checkpointing(setup: Setup) -> Iterator[Setup]:
    if not setup.run.distill.checkpointing:
        yield setup.changed("distill.checkpointing: true", {"distill": {"checkpointing": True}})


def _microbatch(setup: Setup) -> Iterator[Setup]:
    """From half of what there is down to one sample."""
    rows = local_rows(setup.run, setup.hardware.gpus)
    size = min(rows, setup.run.distill.microbatch or rows) // 2
    while size:
        yield setup.changed(f"distill.microbatch: {size}", {"distill": {"microbatch": size}})
        size //= 2


def _offload(setup: Setup) -> Iterator[Setup]:
    two = FAMILIES[str(setup.run.model.family)].experts == 2
    if two and setup.run.model.offload != "idle" and not setup.hardware.sharded:
        yield setup.changed(f"{OFFLOAD}: idle", {"model": {"offload": "idle"}})


def _shard(setup: Setup) -> Iterator[Setup]:
    if setup.hardware.gpus > 1 and not setup.hardware.sharded:
        yield _sharded(setup)


def _sharded(setup: Setup, gpus: int | None = None) -> Setup:
    """With weights shared out, of which no expert may wait in main memory."""
    idle = setup.run.model.offload == "idle"
    kept = tuple(name for name in setup.changes if not name.startswith(OFFLOAD))
    name = "distill.parallel.shard: full"
    if idle and kept == setup.changes:
        name += f", {OFFLOAD}: none"
    if gpus is not None:
        name = f"{gpus} GPUs, {name}"
    diff = {"model": {"offload": "none"}} if idle else {}
    hardware = {"gpus": gpus or setup.hardware.gpus, "sharded": True}
    return replace(setup, changes=kept).changed(name, diff, **hardware)


def _context(setup: Setup) -> Iterator[Setup]:
    """From two processes that share tokens to as many as attention's heads divide among."""
    run, gpus = setup.run, setup.hardware.gpus
    if run.model.compile or run.model.attention not in SHARING or run.distill.parallel.context > 1:
        return
    heads = int(architecture_of(run.model, run.results)["num_attention_heads"])
    whole = (heads, gpus, *map(tokens_of, data_of(run).sizes))
    for context in CONTEXTS:
        if all(count % context == 0 for count in whole):
            diff = {"distill": {"parallel": {"context": context}}}
            yield setup.changed(f"distill.parallel.context: {context}", diff)


def _fake(setup: Setup) -> Iterator[Setup]:
    if setup.run.distill.fake.mode == "full" and setup.run.student.lora is not None:
        diff = {"distill": {"fake": {"mode": "lora"}}}
        yield setup.changed("distill.fake.mode: lora", diff)


def _sizes(setup: Setup) -> Iterator[Setup]:
    """Without the sizes of most tokens, one number of tokens after another."""
    data = data_of(setup.run)
    for size in largest_first(data)[1:]:
        pairs = zip(data.sizes, data.shares, strict=True)
        kept = [(name, share) for name, share in pairs if tokens_of(name) <= tokens_of(size)]
        all_of_it = sum(share for _, share in kept)
        shares = [share / all_of_it for _, share in kept]
        diff = {"data": {"sizes": [name for name, _ in kept], "shares": shares}}
        yield setup.changed(f"data.sizes: {size} at most", diff)


def _gpus(setup: Setup) -> Iterator[Setup]:
    batch, context = setup.run.distill.batch, setup.run.distill.parallel.context
    for gpus in NODES:
        shares = gpus % context == 0 and batch % (gpus // context) == 0
        if gpus > setup.hardware.gpus and shares:
            yield _sharded(setup, gpus)


def _allowed(setup: Setup) -> bool:
    """Whether the configuration may be so."""
    if not setup.hardware.sharded:
        return True
    run = read_run(merge(setup.config, {"distill": {"parallel": {"shard": "full"}}}))
    steps = [last - first for first, last in pairwise((0, *run.student.ends))]
    try:
        check_sharded(run, steps, setup.hardware.gpus // run.distill.parallel.context, "plan")
    except UserError:
        return False
    return True


KNOBS: tuple[Knob, ...] = (
    *(_checkpointing, _microbatch, _offload, _shard, _context),
    *(_fake, _sizes, _gpus),
)


def nearest(planner: Planner, hardware: Hardware, room: float) -> list[Tried]:
    """What was tried until a plan fits, in this order: each setting alone, then one after another.

    Of a setting with several values the one that changes least and fits.

    Args:
        room: bytes that tensors can have.
    """
    tried: list[Tried] = []
    start = Setup(planner.config, hardware)

    def fits(setup: Setup) -> bool:
        made = planner.of(setup.config).plan(setup.hardware)
        tried.append(Tried(setup.changes, made.bytes, made.bytes <= room))
        return tried[-1].fits

    for knob in KNOBS:
        if _settle(list(filter(_allowed, knob(start))), fits):
            return tried
    for knob in KNOBS:
        values = list(filter(_allowed, knob(start)))
        for setup in values[-1:] if knob is not _gpus else values:
            if len(setup.changes) > 1 and fits(setup):
                return tried
            start = setup if knob is not _gpus else start
    return tried


def _settle(values: list[Setup], fits: Callable[[Setup], bool]) -> bool:
    """Whether a value fits: the last, which changes most, is tried first, as most may not."""
    if not values or not fits(values[-1]):
        return False
    any(fits(setup) for setup in values[:-1])  # the one that changes least and fits is the last
    return True
