"""How many updates each phase makes, and what an update costs in calls of the network."""

from __future__ import annotations

from pdmd.config.sections import Bank, Run, Student

BACKWARD = 2  # a backward pass in forward calls


def rollout_calls(student: Student, first: int, last: int) -> float:
    """Calls of a phase's own rollout: to the end, or to exits that are equally likely."""
    steps = last - first
    if student.backward == "all" or student.exits == "last":
        return float(steps)
    return (2 * steps + 1) / 3 if student.exits == "late" else (steps + 1) / 2


def _online(bank: Bank) -> bool:
    """Whether frozen experts run in each update; jobs of later phases are told."""
    return not (bank.used if hasattr(bank, "used") else bank.rows)


def forwards(run: Run, first: int, last: int) -> float:
    """Forward-equivalents a sample and update of a phase that takes steps first .. last - 1.

    A call is 1, a backward pass 2; a guided teacher calls twice. Frozen experts of earlier phases
    count where they run online.
    """
    student, distill = run.student, run.distill
    start = first if first and _online(run.bank) else 0
    rollout = start + rollout_calls(student, first, last)
    backward = BACKWARD * (last - first if student.backward == "all" else 1)
    teacher = 1 if run.teacher.guidance == 1 and run.teacher.guidance_low in (None, 1) else 2
    rollouts = 1 if distill.rollout == "reuse" else 1 + distill.fake_updates
    fake = distill.fake_updates * (1 + BACKWARD) + 1
    return rollouts * rollout + backward + teacher + fake


def phase_updates(run: Run, number: int) -> int:
    """The updates of a phase by its number; where its end is `auto`, of an even split."""
    first, last = [0, *run.student.ends][number - 1 : number + 1]
    return updates_of(run, first, last)


def updates_of(run: Run, first: int, last: int) -> int:
    """The updates of a phase that takes steps first .. last - 1."""
    distill, steps = run.distill, run.student.steps
    if distill.budget == "expert":
        return distill.updates
    if distill.budget == "total":
        return max(1, distill.updates * last // steps - distill.updates * first // steps)
    calls = distill.updates * forwards(run, 0, steps) * (last - first) / steps
    return max(1, round(calls / forwards(run, first, last)))


def calls_of(levels: int, substeps: int, carried: bool, each: int = 1) -> dict[str, int]:
    """Network calls that the measurement of a teacher's single steps takes for a sample.

    Args:
        each: calls of one velocity, two with guidance.
    """
    last, fine = levels - 1, 2 * substeps
    steps = sum(j * (last - j) for j in range(1, last)) if carried else 0
    counts = {"trajectory": last * fine, "levels": last, "carried": steps * fine}
    return {name: each * count for name, count in counts.items()}
