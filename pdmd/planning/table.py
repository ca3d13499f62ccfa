"""A plan as people and programs read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pdmd.planning.exchanges import KINDS
from pdmd.planning.gpus import FRAGMENTED, GIB, LINKED, UTILISATION, Gpu, usable
from pdmd.planning.knobs import Tried
from pdmd.planning.live import GATHERED
from pdmd.planning.plan import PhasePlan, Plan

PARTS = {  # of memory: what they are called
    "base": "base weights",
    "fake": "fake score",
    "generator": "generator",
    "average": "average",
    "gradients": "gradients",
    "optimizer": "optimiser",
    "batch": "conditions, batch",
    "activations": "activations, peak",
    GATHERED: "gathered blocks",
}
LABEL, COLUMN, ACROSS = 24, 11, 5  # letters; phases side by side: 79 letters in all


def as_json(plan: Plan, name: str, gpu: Gpu, gib: float, tried: Sequence[Tried]) -> dict[str, Any]:
    """The plan as plain values: bytes, operations, seconds."""
    low, high = plan.hours(gpu)
    return {
        "computed": True,
        "scenario": plan.scenario,
        "method": plan.method,
        "gpu": {"name": name, "gib": gib, "usable_bytes": usable(gib), "source": gpu.source},
        "peak_flops_a_second": dict(gpu.peak),
        "utilisation": list(UTILISATION),
        "link": {"bytes_a_second": gpu.link(plan.hardware.gpus), "shares": list(LINKED)},
        "gpus": plan.hardware.gpus,
        "sharded": plan.hardware.sharded,
        "size": plan.size,
        "rows_a_gpu": plan.rows,
        "bytes": plan.bytes,
        "fits": plan.bytes <= usable(gib),
        "hours": [low, high],
        "phases": [_phase_json(phase, gpu, plan.hardware.gpus) for phase in plan.phases],
        "tried": [vars(one) for one in tried],
    }


def _phase_json(phase: PhasePlan, gpu: Gpu, gpus: int) -> dict[str, Any]:
    return {
        "phase": phase.number,
        "updates": phase.updates,
        "memory": dict(phase.memory),
        "bytes": phase.bytes,
        "moment": phase.moment,
        "flops_an_update": dict(phase.flops),
        "forwards_a_sample": phase.forwards,
        "minutes_an_update": list(phase.minutes(gpu)),
        "received_bytes_an_update": dict(phase.received),
        "exchange_minutes_an_update": list(phase.exchanges(gpu, gpus)),
    }


def as_text(plan: Plan, name: str, gpu: Gpu, gib: float, tried: Sequence[Tried]) -> str:
    """The plan as a table of at most 80 columns."""
    hardware, room = plan.hardware, usable(gib)
    shared = "sharded over them (computed, not run)" if hardware.sharded else "all on each"
    lines = [
        f"{plan.scenario} {plan.method}: {hardware.gpus} x {name} of {gib:g} GiB, {shared}",
        f"{plan.size}, {plan.rows} samples of an update a GPU; computed on fake tensors",
    ]
    for start in range(0, len(plan.phases), ACROSS):
        lines += ["", *_columns(plan.phases[start : start + ACROSS], gpu, hardware.gpus, room)]
    low, high = plan.hours(gpu)
    shares = " to ".join(f"{share:g}" for share in UTILISATION)
    lines += [
        "",
        f"{_span(low, high)} hours in all, at {shares} of {gpu.peak['bfloat16'] / 1e12:g} TFLOP/s"
        f" in bfloat16",
        f"and {gpu.peak['float32'] / 1e12:g} in float32 ({gpu.source}).",
        *_links(plan, gpu),
        f"Of {gib:g} GiB tensors can have {room / GIB:.1f}: 1 of context and"
        f" {FRAGMENTED:.0%} of fragments are assumed.",
        *_tried(tried, plan.bytes <= room),
    ]
    return "\n".join(lines)


def _columns(phases: Sequence[PhasePlan], gpu: Gpu, gpus: int, room: float) -> list[str]:
    def row(label: str, cells: Sequence[str]) -> str:
        return (label.ljust(LABEL) + "".join(cell.rjust(COLUMN) for cell in cells)).rstrip()

    unit = "GiB" if max(phase.bytes for phase in phases) > GIB / 10 else "MiB"

    def gib(size: float) -> str:
        scaled = size / GIB if unit == "GiB" else size * 1024 / GIB
        return f"{scaled:.1f}" if scaled >= 0.1 else f"{scaled:.1g}"

    present = [part for part in PARTS if any(phase.memory.get(part) for phase in phases)]
    other = {part for phase in phases for part in phase.memory} - PARTS.keys()
    flops = sorted({name for phase in phases for name in phase.flops})
    moments = [phase.moment.split(": ") for phase in phases]
    return [
        row(f"{unit} a GPU", [f"phase {phase.number}" for phase in phases]),
        *(row(PARTS[p], [gib(phase.memory.get(p, 0.0)) for phase in phases]) for p in present),
        *(row(p, [gib(phase.memory.get(p, 0.0)) for phase in phases]) for p in sorted(other)),
        row("all", [gib(phase.bytes) for phase in phases]),
        row("  when it is most", [of.split()[0] for of, _ in moments]),
        row("", [at for _, at in moments]),
        row("fits", ["yes" if phase.bytes <= room else "NO" for phase in phases]),
        row("updates", [str(phase.updates) for phase in phases]),
        row("calls a sample", [f"{phase.forwards:g}" for phase in phases]),
        *(
            row(f"PFLOP {name}", [f"{phase.flops.get(name, 0.0) / 1e15:.3g}" for phase in phases])
            for name in flops
        ),
        row("minutes an update", [_span(*phase.minutes(gpu)) for phase in phases]),
        *_exchanges(row, phases, gpu, gpus),
    ]


def _exchanges(
    row: Callable[[str, Sequence[str]], str], phases: Sequence[PhasePlan], gpu: Gpu, gpus: int
) -> list[str]:
    """What GPUs send each other, of one nothing."""
    kinds = [kind for kind in KINDS if any(phase.received.get(kind) for phase in phases)]
    if not kinds:
        return []
    sent = [[_short(phase.received.get(kind, 0.0) / 1e9) for phase in phases] for kind in kinds]
    return [
        *(row(f"GB of {kind}", cells) for kind, cells in zip(kinds, sent, strict=True)),
        row("  minutes of these", [_span(*phase.exchanges(gpu, gpus)) for phase in phases]),
    ]


def _links(plan: Plan, gpu: Gpu) -> list[str]:
    """How exchanges are timed, where there are some."""
    if not any(sum(phase.received.values()) for phase in plan.phases):
        return []
    speed = gpu.link(plan.hardware.gpus) / 1e9
    shares = " to ".join(f"{share:g}" for share in LINKED)
    return [
        f"What GPUs send each other, at {shares} of {speed:g} GB/s, is not in these hours:",
        "it adds nothing where it overlaps with calculations, all of it where it does not.",
    ]


def _span(low: float, high: float) -> str:
    """Two numbers with two digits each."""
    return "<0.01" if high < 0.01 else f"{_short(low)}-{_short(high)}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _tried(tried: Sequence[Tried], fits: bool) -> list[str]:
    if fits:
        return []
    lines = ["", "It does not fit. Planned again with:"]
    for one in tried:
        lines.append(f"  {one.bytes / GIB:6.1f} GiB {'fits' if one.fits else '    '}  ")
        lines[-1] += one.changes[0]
        lines += [f"{'':19}{change}" for change in one.changes[1:]]
    return lines if any(one.fits for one in tried) else [*lines, "Nothing of this makes it fit."]
