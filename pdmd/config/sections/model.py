"""The networks that are distilled: `model`, `teacher`, and how they are fitted and measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pdmd.config.sections.limits import PATH, SEED, UPDATES
from pdmd.config.typed import key

AUTO = "auto"  # in the place of a list: chosen from the teacher's measured errors


Attention = Literal[
    "native",
    "_native_cudnn",
    "_native_efficient",
    "_native_flash",
    "_native_math",
    "flash",
    "flash_hub",
    "_flash_3",
    "_flash_3_hub",
    "flex",
    "xformers",
]  # those of diffusers that have a backward pass


Grid = tuple[float, ...] | Literal["auto"] | None


Ends = tuple[int, ...] | Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network of a velocity."""

    kind: Literal["mlp", "conditional-mlp", "qwen", "wan", "pretrained"] = key(
        "`mlp` (x and t), `conditional-mlp` (residual, modulated by t and class), `qwen` or `wan`"
        " (diffusers' own transformers, one seed a job), `pretrained` (a released model)"
    )
    width: int = key("of the hidden layers; not `pretrained`", least=4, most=65_536, absent=0)
    depth: int = key("hidden layers, or blocks; not `pretrained`", least=1, most=1000, absent=0)
    waves: int = key("mlp: number of sine and cosine features of x", least=0, most=1000, absent=0)
    heads: int = key("qwen, wan: attention heads", least=1, most=1024, absent=1)
    feedforward: int | None = key(
        "wan: width of the MLPs; four times `width` where it is absent",
        least=1,
        most=1_000_000,
        absent=None,
    )
    text_length: int | None = key(
        "wan: token rows that text is padded to, 512 in the released models. Wan reads the padding,"
        " so a network keeps the length that it was trained with; a longer prompt is refused",
        least=1,
        most=4096,
        absent=None,
    )
    boundary: float | None = key(
        "wan: two experts, the high-noise one at and above this noise level; a phase whose steps"
        " are all above it re-noises above it (App. C.3). Of a pretrained model with two experts"
        " its own, of others none",
        above=0,
        below=1,
        absent=None,
    )
    family: str | None = key(
        "pretrained: `qwen-image`, `wan2.1-t2v-14b`, `wan2.1-t2v-1.3b`, `wan2.2-t2v-a14b` or"
        " `wan2.2-i2v-a14b`",
        absent=None,
        minLength=1,
    )
    source: str | None = key(
        "pretrained: a folder in diffusers' layout, or a name of the hub (`owner/name`)",
        absent=None,
        minLength=1,
        maxLength=PATH,
    )
    revision: str | None = key(
        "pretrained: of the hub's repository, a branch, tag or commit",
        absent=None,
        minLength=1,
        maxLength=PATH,
    )
    dtype: Literal["bfloat16", "float32"] = key(
        "pretrained: of the frozen base; adapters, averages and latents are float32",
        absent="bfloat16",
    )
    deterministic: bool = key(
        "pretrained: `false` allows GPU kernels that differ in the last bits from run to run, which"
        " attention in bfloat16 needs for its backward pass",
        absent=True,
    )
    offload: Literal["none", "idle"] = key(
        "pretrained, two experts: `idle` has the frozen weights of the one that is not called wait"
        " in main memory; results are the same",
        absent="none",
    )
    attention: Attention = key(
        "pretrained: what computes attention, by diffusers' names; others than `native` (PyTorch's"
        " own choice) and `_native_...` need their packages, and `_native_flash` takes no masks",
        absent="native",
    )
    compile: bool = key(
        "pretrained: `true` compiles blocks at their first calls, which takes minutes; results"
        " change by rounding",
        absent=False,
    )


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """What a student learns from."""

    kind: Literal["exact", "fitted"] = key(
        "`exact` (closed-form velocity) or `fitted` (the base network)"
    )
    steps: int = key("Euler steps of the teacher's own samples", least=1, most=100_000)
    grid: Grid = key(
        "noise levels of those steps, as `student.grid`",
        least=0,
        most=1,
        entries=(2, 1000),
        absent=None,
        null=True,
    )
    shift: float | None = key(
        "shift of those steps; null for `qwen-image`, whose pipeline makes it a function of the"
        " size, and stretches the grid to end at .02",
        least=1.0e-6,
        most=1_000_000,
    )
    guidance: float = key(
        "classifier-free guidance, in sampling and in distillation; 1 is off; it needs"
        " `fit.null_share`, or of a pretrained model `data.negative`",
        least=0,
        most=1000,
    )
    guidance_low: float | None = key(
        "the same of the low-noise one of two pretrained experts, where it differs",
        least=0,
        most=1000,
        absent=None,
    )


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Score matching on data: the base network, which students and fake scores start from and
    which is the teacher where that is `fitted`, and the curves of the 1D toy.

    AdamW, betas .9 and .99; 100 warm-up updates, then linearly to 0; gradient norm clipped at 1.
    """

    updates: int = key("of AdamW", least=1, most=UPDATES)
    batch: int = key("samples an update", least=2, most=10_000_000)
    lr: float = key("of AdamW", above=0, most=1_000_000)
    ema: float = key("decay of the average of weights that is kept", least=0, below=1)
    time: Literal["uniform", "logit-normal"] = key(
        "law of t: `uniform` or `logit-normal` (scale 1.2)"
    )
    weight_decay: float = key("of AdamW", least=0, most=1_000_000, absent=0.0)
    null_share: float = key(
        "share of conditions replaced by the null condition", least=0, most=0.9, absent=0.0
    )
    start: float = key(
        "s, the lower end of the interval; t is drawn in (s, 1); 0 for base networks and"
        " `target: flow`",
        least=0,
        below=1,
        absent=0.0,
    )
    target: Literal["flow", "unbiased", "biased", "teacher"] = key(
        "`flow` (Eq. 4), `unbiased` (Eq. 13 on x_s), `biased` (Eq. 4 with x_s as if it were clean),"
        " `teacher` (regression on the exact velocity)",
        absent="flow",
    )
    kept: str | None = key(
        "weights of this very fit, made before (`pdmd keep`), with their digest beside them; null"
        " fits; not with `start_from`",
        absent=None,
        null=True,
        minLength=1,
    )
    start_from: str | None = key(
        "weights of a smaller relative to start from: text-to-video for image-to-video, one expert"
        " for two",
        absent=None,
        null=True,
        minLength=1,
    )
    seed: int = key(
        "of a base network's first weights and of what it is fitted with; methods of kind `fit`"
        " have the scenario's `seeds`",
        least=0,
        most=SEED,
        absent=0,
    )


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How the teacher's errors of single Euler steps are measured, which `auto` grids and phase
    ends are chosen from; once a scenario, of its own teacher.
    """

    levels: int = key(
        "noise levels that steps run between, finer towards both ends", least=3, most=200
    )
    samples: int = key("trajectories, each with its noise and prompt", least=1, most=1_000_000)
    substeps: int = key(
        "midpoint steps of the fine solution from a level to the next", least=1, most=1000
    )
    error: Literal["step", "end"] = key(
        "`end`: of what the fine solution makes of a step's result at t = 0, `step`: of the result"
        " itself, which takes a hundredth of the calls"
    )
    seed: int = key("seed of noise and prompts", least=0, most=SEED)
