"""What a student is: its steps, its adapters, its re-noising, its bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pdmd.config.sections.limits import ROWS
from pdmd.config.sections.model import Ends, Grid
from pdmd.config.typed import derived, key


@dataclass(frozen=True, kw_only=True)
class Lora:
    """An adapter on the frozen base, stored alone."""

    rank: int = key("of the adapter", least=1, most=65_536)
    alpha: int = key("the adapter's output is times alpha / rank", least=1, most=1_000_000)


@dataclass(frozen=True, kw_only=True)
class Renoise:
    """The law of re-noising times of a phase: raw times are uniform over the phase's range, warped
    by a shift of their own; no atom lies at an end of the range.
    """

    shift: float | None = key(
        "warps raw times to noise levels; `student.shift` where it is absent",
        least=1.0e-6,
        most=1_000_000,
        absent=None,
        null=True,
    )
    low: float = key("least noise level that any phase re-noises to", least=0, below=1, absent=0.0)
    high: float = key("greatest such noise level", above=0, most=1, absent=1.0)
    range: Literal["auto"] | None = key(
        "`auto`: each phase's range, within these two, is where noised samples of the untrained"
        " student and of the teacher overlap in .05 to .95; not with `at`",
        absent=None,
    )
    at: float | None = key(
        "one noise level for all samples, in the place of a law (Fig. 11 of the paper)",
        above=0,
        below=1,
        absent=None,
        null=True,
    )


@dataclass(frozen=True, kw_only=True)
class Student:
    """Steps and phases."""

    steps: int = key("of the step grid", least=1, most=999)
    shift: float = key(
        "k of the step grid: evenly spaced raw times, t = k u / (1 + (k - 1) u), and of re-noising"
        " where `renoise.shift` is absent",
        least=1.0e-6,
        most=1_000_000,
    )
    grid: Grid = key(
        "noise levels in the place of those of `shift`: `[1, 0.9, 0.6, 0.3, 0]`, or `auto`: those"
        " whose steps have the least summed error by `measure`",
        least=0,
        most=1,
        entries=(2, 1000),
        absent=None,
        null=True,
    )
    boundaries: Ends = key(
        "for each phase the number of steps taken when it ends; `[4]` is one phase, `[2, 4]` two of"
        " two steps; `auto`: those whose largest summed error of a phase by `measure` is least",
        least=1,
        most=999,
        entries=(1, 999),
    )
    phases: int | None = key(
        "how many, with `boundaries: auto` alone", least=1, most=999, absent=None, null=True
    )
    interval: Literal["nested", "disjoint"] = key(
        "re-noising times of a phase: `nested` in (t_k, 1) or `disjoint` in (t_k, t_{k-1})"
    )
    margin: float = key(
        "the range of re-noising times begins this far above t_k and ends this far below 1",
        least=1.0e-6,
        most=0.1,
    )
    renoise: Renoise = key("see `student.renoise`", absent=Renoise())
    backward: Literal["exit", "all"] = key(
        "`exit`: gradient through the last network call only (SGTS inside a phase); `all`: through"
        " every step of the phase (vanilla)"
    )
    exits: Literal["stratified", "update", "last", "late"] = key(
        "`stratified`: each step of the phase is the exit of an equal share of the batch, and lots"
        " decide where it does not divide; `update`: one exit step drawn for each update; `last`:"
        " always the last; `late`: shares as the step's number. With `backward: all` there are no"
        " exits"
    )
    lora: Lora | None = key("null trains all of an expert, else an adapter, see `student.lora`")

    @property
    def ends(self) -> tuple[int, ...]:
        """The boundaries; with `auto`, which files of results say, an even split's."""
        if isinstance(self.boundaries, tuple):
            return self.boundaries
        count = self.phases or 1
        return tuple(self.steps * number // count for number in range(1, count + 1))


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Precomputed outputs of the frozen experts of earlier phases.

    Attributes:
        used: whether later phases start from them; phases after the first are told.
    """

    rows: int = key("a seed and phase; 0 runs the experts online", least=0, most=ROWS)
    shard_rows: int = key("rows in one safetensors shard", least=1, most=ROWS)
    used: bool = derived()
