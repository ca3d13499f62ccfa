"""How a phase trains: `distill`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pdmd.config.sections.limits import UPDATES
from pdmd.config.typed import key


@dataclass(frozen=True, kw_only=True)
class Fake:
    """What of the fake score is trained."""

    mode: Literal["full", "lora"] = key(
        "a `full` network of its own, or with `student.lora` an adapter (`lora`) of that rank on"
        " the shared base"
    )


@dataclass(frozen=True, kw_only=True)
class Average:
    """The average of generator weights that is kept as the expert."""

    law: Literal["power", "exponential", "live"] = key(
        "`power`: by the power of the update's number whose profile has this `width` (EDM2, arXiv"
        " 2312.02696), from which what training starts at is gone at any length; `exponential`: by"
        " `decay`, which leaves decay^updates of it; `live`: no average, the last weights"
    )
    width: float = key(
        "`power`: standard deviation of the profile, relative to the updates so far",
        above=0,
        most=0.28,
        absent=0.1,
    )
    decay: float = key("`exponential`: what each update leaves", least=0, below=1, absent=0.99)


@dataclass(frozen=True, kw_only=True)
class Balance:
    """What each sample weighs in the generator's gradient, by its noise level and prompt."""

    law: Literal["fixed", "adaptive"] = key(
        "`fixed`: all samples alike; `adaptive`: in each of ten bands of the raw re-noising time"
        " the gap, mean absolute teacher - fake velocity, is followed, and samples weigh"
        " sigmoid((1 - gap / median) / tau), 1 on average: those of bands where the gap is large"
        " weigh less (as in DMAD, arXiv 2610.02188). Until half of a phase's bands have a gap all"
        " weigh 1",
        absent="fixed",
    )
    by: Literal["band", "stratum"] = key(
        "`adaptive`: `band` alone, or each band of each `stratum` of prompts (emoji, moving)",
        absent="band",
    )
    decay: float = key(
        "`adaptive`: what each update leaves of a band's gap", least=0, below=1, absent=0.9
    )
    tau: float = key(
        "`adaptive`: how far a gap is from the median, relative to that, for its weight to change"
        " much",
        above=0,
        most=1000,
        absent=0.5,
    )


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """How the processes of a job share its networks."""

    shard: Literal["none", "full"] = key(
        "`full`: of a pretrained model each process holds some rows of every tensor, its gradient"
        " and moments (FSDP2), and reads no others; all gather a block when they call it. The"
        " numbers are those of `none` but for rounding, to which a fake of mode `full`, kept in"
        " float32, adds that it computes in `model.dtype`",
        absent="none",
    )
    context: int = key(
        "of a pretrained model, how many processes share the tokens of each sample (Ulysses,"
        " arXiv 2309.14509): activations of a part each, for exchanges in every block. It divides"
        " the processes, the tokens of a sample and the attention's heads",
        least=1,
        most=1024,
        absent=1,
    )


@dataclass(frozen=True, kw_only=True)
class Distill:
    """How a phase is trained."""

    updates: int = key("generator updates, see `budget`", least=1, most=UPDATES)
    budget: Literal["total", "expert", "forwards"] = key(
        "what `updates` counts: `total`: those of all phases, each having its share of the steps;"
        " `expert`: those of each phase; `forwards`: forward calls, as many as a student of one"
        " phase with these steps needs for that many updates, shared likewise"
    )
    batch: int = key("samples an update, for each seed", least=2, most=10_000_000)
    fake_updates: int = key(
        "updates of the fake score before each of the generator", least=1, most=UPDATES
    )
    generator_lr: float = key("of AdamW", above=0, most=1_000_000)
    fake_lr: float = key("of AdamW", above=0, most=1_000_000)
    decay: float = key("learning rates fall linearly to this share of their start", least=0, most=1)
    betas: tuple[float, float] = key("of AdamW", least=0, below=1)
    weight_decay: float = key("of AdamW", least=0, most=1_000_000)
    clip: float = key("largest gradient norm of a seed's network", above=0, most=1_000_000)
    average: Average = key("see `distill.average`")
    target: Literal["unbiased", "biased", "estimate"] = key(
        "of the fake score: `unbiased` (Eq. 13; Eq. 8 in the last phase), `biased`, or `estimate`:"
        " the student's own clean estimate, as in TDM (arXiv 2503.06674)"
    )
    gradient: Literal["literal", "normalised", "projected"] = key(
        "`literal`: w_{t|s} (T - F), Eq. 10; `normalised`: the x_0 residual over the student's"
        " distance from the teacher; `projected`: that without its part along the student's own"
        " residual against the fake, as in Projected DMD (arXiv 2609.35768, Eq. 4)"
    )
    rollout: Literal["fresh", "reuse"] = key(
        "what the fake score is fitted to: a `fresh` rollout each time, or the one that the"
        " generator's update is made with, noised afresh (`reuse`)"
    )
    normaliser: Literal["sample", "batch"] = key(
        "that distance: `sample` by sample, or the mean over a seed's `batch`"
    )
    region: Literal["row", "update"] = key(
        "with `model.boundary`: which of two experts re-noised samples are for: each by its own"
        " `row`, or one side an `update`, for all rows and processes, which changes no law (what"
        " sharded experts need)"
    )
    balance: Balance = key("see `distill.balance`", absent=Balance())
    fake: Fake = key("see `distill.fake`")
    microbatch: int | None = key(
        "samples of a process that pass through networks at a time, their gradients added up; all"
        " at once where it is absent. Not with `normaliser: batch`",
        least=1,
        most=10_000_000,
        absent=None,
    )
    checkpointing: bool = key(
        "whether activations inside of a transformer's blocks are made again in the backward pass,"
        " not kept: less memory, a forward pass more, the same numbers"
    )
    parallel: Parallel = key("see `distill.parallel`", absent=Parallel())
