"""The plan of a method: what each phase takes of a GPU, and how long an update is.

An update of the real trainer runs on fake tensors at two depths; what a transformer of all its
blocks takes follows along the line through both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from pdmd.config.budget import forwards, phase_updates, rollout_calls
from pdmd.config.experiment import Config
from pdmd.config.run import read_run
from pdmd.config.sections import ReleasedData, Run, tokens_of
from pdmd.models.source import DEPTH, architecture_of
from pdmd.phases import Phase
from pdmd.planning.exchanges import received
from pdmd.planning.fake_update import FAKE, OPTIMIZER, ROLLOUT, Counted, count_update
from pdmd.planning.gpus import LINKED, UTILISATION, Gpu, seconds
from pdmd.planning.live import Segment
from pdmd.planning.rehearsal import (
    AWAY,
    TEXT_ROWS,
    largest_first,
    local_rows,
    shares_of,
)
from pdmd.stages.grid import ranges_of, student_phases

DEPTHS = (2, 3)  # blocks: the first is unlike the others, nothing before it is trained
SHARDED_DEPTHS = (3, 4)  # the next block is gathered while one computes, or gives gradients
Of = Callable[[Segment], Counter[str]]
FLOPS: Of = attrgetter("flops")
EXCHANGED: Of = attrgetter("exchanged")


@dataclass(frozen=True)
class Hardware:
    """What a plan is for.

    Attributes:
        gpus: that share a batch; sharded: whether weights, gradients and moments are shared out,
            too (FSDP2).
    """

    gpus: int
    sharded: bool = False


@dataclass(frozen=True)
class PhasePlan:
    """One phase of a plan, of one GPU.

    Attributes:
        number, updates: of the phase; memory: part -> bytes, at the moment when most lives;
        moment: which that is; flops: precision -> operations of an update; received: kind -> bytes
        that other GPUs send it in an update; forwards: calls of a network a sample and update, a
        backward pass being two.
    """

    number: int
    updates: int
    memory: Mapping[str, float]
    moment: str
    flops: Mapping[str, float]
    received: Mapping[str, float]
    forwards: float

    @property
    def bytes(self) -> float:
        """All parts together."""
        return sum(self.memory.values())

    def minutes(self, gpu: Gpu) -> tuple[float, float]:
        """An update's time, at the higher and the lower share of a GPU's peak."""
        low, high = (seconds(self.flops, gpu, share) / 60 for share in UTILISATION[::-1])
        return low, high

    def exchanges(self, gpu: Gpu, gpus: int) -> tuple[float, float]:
        """Minutes of an update's exchanges, at the higher and the lower share of a link's speed.

        What overlaps with calculations costs none of it.
        """
        total = sum(self.received.values()) / gpu.link(gpus) / 60
        return total / LINKED[1], total / LINKED[0]


@dataclass(frozen=True)
class Plan:
    """What a method takes.

    Attributes:
        rows: samples of an update that a GPU has; size: the largest, which memory is of.
    """

    scenario: str
    method: str
    hardware: Hardware
    rows: int
    size: str
    depth: int
    phases: tuple[PhasePlan, ...]

    @property
    def bytes(self) -> float:
        """Of the phase that takes most."""
        return max(phase.bytes for phase in self.phases)

    def hours(self, gpu: Gpu) -> tuple[float, float]:
        """Of all updates of all phases."""
        each = [(phase.updates, phase.minutes(gpu)) for phase in self.phases]
        low, high = (sum(count * time[end] for count, time in each) / 60 for end in (0, 1))
        return low, high


@dataclass
class Planner:
    """Plans of one method; what was counted once is not counted again.

    Attributes:
        text_rows: token rows of a prompt; depths: that are counted at.
    """

    config: Config
    text_rows: int = TEXT_ROWS
    depths: tuple[int, int] = DEPTHS
    counted: dict[tuple[object, ...], Counted] = field(default_factory=dict)

    def of(self, config: Config) -> Planner:
        """A planner of another configuration; of this one itself."""
        if config == self.config:
            return self
        return Planner(config, self.text_rows, self.depths)

    def plan(self, hardware: Hardware) -> Plan:
        """The plan of the method on some hardware."""
        run = read_run(self.config)
        depth = int(architecture_of(run.model, run.results)[DEPTH])
        sizes = largest_first(data_of(run))
        rows = local_rows(run, hardware.gpus)
        phases = student_phases(run, ranges_of(run))
        made = tuple(self._phase(run, phase, hardware, sizes, rows, depth) for phase in phases)
        return Plan(run.scenario, run.method, hardware, rows, sizes[0], depth, made)

    def _phase(
        self, run: Run, phase: Phase, hardware: Hardware, sizes: list[str], rows: int, depth: int
    ) -> PhasePlan:
        few, several = _rehearsed(run, rows)
        key, depths = _alike(run, phase), self._depths(hardware)

        def count(size: str, at: int) -> Counted:
            return self._count(phase.number, size, hardware, at, few, several, key)

        low, high = (count(sizes[0], at) for at in depths)
        memory, moment = _memory(low, high, depths, depth, rows / few)
        flops, sent = dict[str, float](), dict[str, float]()
        grown = Grown(low, high, depths, depth)
        expected = rollout_calls(run.student, phase.first, phase.last)
        for size in sizes:
            other = low if size == sizes[0] else count(size, depths[0])
            share = shares_of(data_of(run))[tokens_of(size)] / sum(data_of(run).shares)
            for total, of in ((flops, FLOPS), (sent, EXCHANGED)):
                for name, number in _total(of, other, grown, run, rows, expected).items():
                    total[name] = total.get(name, 0.0) + share * number
        sent = received(sent, hardware.gpus, run.distill.parallel.context)
        updates = phase_updates(run, phase.number)
        calls = forwards(run, phase.first, phase.last)
        return PhasePlan(phase.number, updates, memory, moment, flops, sent, calls)

    def _depths(self, hardware: Hardware) -> tuple[int, int]:
        return SHARDED_DEPTHS if hardware.sharded else self.depths

    def _largest(self, size: str) -> bool:
        return size == largest_first(data_of(read_run(self.config)))[0]

    def _count(
        self,
        number: int,
        size: str,
        hardware: Hardware,
        depth: int,
        rows: int,
        several: bool,
        alike: tuple[object, ...],
    ) -> Counted:
        """Of phases that are alike one stands for all."""
        same = alike if depth > self._depths(hardware)[0] or self._largest(size) else alike[2:4]
        gpus = hardware.gpus if hardware.sharded else hardware.gpus > 1
        key = (size, gpus, hardware.sharded, depth, rows, several, same)
        if key not in self.counted:
            wanted = (self.config, number, size, hardware.gpus, depth, rows, several)
            self.counted[key] = count_update(*wanted, self.text_rows, hardware.sharded)
        return self.counted[key]


def data_of(run: Run) -> ReleasedData:
    """The data section of a released model."""
    assert isinstance(run.data, ReleasedData)
    return run.data


def _rehearsed(run: Run, rows: int) -> tuple[int, bool]:
    """Samples that are rehearsed with: one microbatch; and whether it is one of several."""
    at_once = min(rows, run.distill.microbatch or rows)
    return at_once, at_once < rows


def _alike(run: Run, phase: Phase) -> tuple[object, ...]:
    """What two phases share that take the same of a GPU and, by call, of its time."""
    steps = phase.last - phase.first if run.student.backward == "all" else 1
    online = phase.first if not run.bank.rows else 0
    whole = phase.number == 1 and bool(phase.switch)  # one expert alone may be loaded
    return phase.called, phase.scored, steps, online, whole


def _line(low: float, high: float, depths: tuple[int, int], depth: int) -> float:
    """The value at a depth of what is a linear function of it."""
    return low + (high - low) / (depths[1] - depths[0]) * (depth - depths[0])


def _memory(
    low: Counted,
    high: Counted,
    depths: tuple[int, int],
    depth: int,
    batch: float,
) -> tuple[dict[str, float], str]:
    """Part -> bytes at the moment when most lives, and that moment.

    Args:
        batch: the update's samples in units of those that were rehearsed with.
    """
    best: tuple[float, str, dict[str, float]] = (-1.0, "", {})
    for name, segment in low.segments.items():
        if not name:
            continue
        parts = _parts(segment, high.segments[name], depths, depth)
        parts["batch"] = parts.get("batch", 0.0) * batch
        parts.pop(AWAY, None)
        if sum(parts.values()) > best[0]:
            best = sum(parts.values()), name, parts
    return best[2], best[1]


def _parts(low: Segment, high: Segment, depths: tuple[int, int], depth: int) -> dict[str, float]:
    names = low.peak.keys() | high.peak.keys()
    return {name: max(0.0, _line(low.peak[name], high.peak[name], depths, depth)) for name in names}


@dataclass(frozen=True)
class Grown:
    """What was counted at two depths of the largest size, and the depth that is asked for."""

    low: Counted
    high: Counted
    depths: tuple[int, int]
    depth: int

    def times(self, of: Of, segment: str) -> dict[str, float]:
        """Kind -> how many times what a segment has at the first depth."""
        first, second = (of(one.segments[segment]) for one in (self.low, self.high))
        return {
            kind: _line(count, second[kind], self.depths, self.depth) / count
            for kind, count in first.items()
        }


def _total(
    of: Of, other: Counted, grown: Grown, run: Run, rows: int, expected: float
) -> dict[str, float]:
    """Kind -> operations, or bytes that are exchanged, of an update.

    Args:
        of: which; other: counted at the size that is asked for, and the first depth; rows: of the
            update; expected: calls of a rollout in the mean.
    """
    total = dict[str, float]()
    for name, segment in other.segments.items():
        scale = 1.0 if name.endswith(OPTIMIZER) else rows / other.rows  # once, or for each sample
        if name.startswith(FAKE) and not (
            run.distill.rollout == "reuse" and name == f"{FAKE}: {ROLLOUT}"
        ):
            scale *= run.distill.fake_updates
        if name.endswith(ROLLOUT) and other.calls.get(name):
            scale *= expected * other.rows / other.calls[name]
        times = grown.times(of, name)
        for kind, count in of(segment).items():
            total[kind] = total.get(kind, 0.0) + scale * count * times[kind]
    return total
