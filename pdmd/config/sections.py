"""Every section of the configuration: its keys, their types, ranges and meanings.

The `data` section of a kind stands in the kind's room. What a run starts from stands in
config/config.yaml alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pdmd.config.typed import derived, key

PATH = 300  # letters of a name or path
SIZE = "[0-9]{1,5}x[0-9]{1,5}x[0-9]{1,5}"  # frames, height and width in px
UPDATES, ROWS, SEED = 1_000_000_000, 1_000_000_000, 4_294_967_295  # at most


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a job that trains, or draws from what was trained, runs on.

    A training job's processes share out the batch, which must divide by all of them, and end in
    one process's weights but for rounding. A method's own hardware holds for its jobs, the
    scenario's for the base network. No change of `hardware` runs a finished job again.
    """

    nodes: int = key("nodes of a job", least=1, most=10_000)
    processes: int = key("processes on each node", least=1, most=1024)
    gpus: int = key(
        "GPUs a node: 0 computes on the CPU, else as many as `processes`, one each",
        least=0,
        most=1024,
    )


@dataclass(frozen=True, kw_only=True)
class Data:
    """The data of a scenario; each kind has further keys."""

    kind: str = key("of the room in `pdmd/scenarios/` that brings the data")


@dataclass(frozen=True, kw_only=True)
class Codec:
    """What takes pictures to latents and back."""

    kind: Literal["patches", "AutoencoderKLWan", "AutoencoderKLQwenImage"] = key(
        "principal components of patches, or the VAE of a real model"
    )
    patch: tuple[int, int, int] | None = key(
        "`patches`: frames, height and width of a patch", least=1, most=4096, absent=None
    )
    channels: int | None = key("`patches`: components kept", least=1, most=10_000, absent=None)
    whitening: float | None = key(
        "`patches`: the power of each component's standard deviation that is divided out",
        least=0,
        most=1,
        absent=None,
    )
    weights: str | None = key("VAEs: a local folder or hub name", absent=None, minLength=1)


@dataclass(frozen=True, kw_only=True)
class PromptedData(Data):
    """What data of pictures or clips with prompts have in common."""

    px: int = key("side of the pictures or clips", least=8, most=4096, multipleOf=4)
    heldout: int = key(
        "jittered pictures of each sprite, or clips of each kind, that are held out",
        least=8,
        most=1_000_000,
    )
    codec: Codec = key("latents, see `data.codec`")
    seed: int = key("seed of what is drawn at random", least=0, most=SEED)

    @property
    def with_image(self) -> bool:
        """Whether a sample has its first frame as a condition beside its prompt."""
        return False


Size = tuple[int, int, int]  # frames, height and width in px
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
class ReleasedData(Data):
    """What a released model is distilled with: prompts alone, of image-to-video with pictures."""

    train: str = key(
        "prompts to train on: a .jsonl, .csv or .txt file, or a folder of pictures with"
        " metadata.jsonl or a .txt beside each",
        minLength=1,
        maxLength=PATH,
    )
    column: str = key("of the prompts in `train`", absent="prompt", minLength=1, maxLength=PATH)
    evaluation: str = key(
        "prompts that samples of record are drawn for, such a file", minLength=1, maxLength=PATH
    )
    negative: str = key("the prompt that guidance leads away from; may be empty", maxLength=2000)
    image: bool = key(
        "`true` where the model is given a first frame: `train` and `evaluation` name pictures",
        absent=False,
    )
    sizes: tuple[str, ...] = key(
        "that students are trained at, `81x480x832` frames, height and width in px; each batch has"
        " one of them",
        entries=(1, 100),
        items={"type": "string", "pattern": SIZE},
    )
    shares: tuple[float, ...] = key(
        "of the batches, for each size; they sum to 1", above=0, most=1, entries=(1, 100)
    )
    shard_prompts: int = key(
        "prompts in one file of embeddings", least=1, most=1_000_000, absent=1024
    )

    @property
    def with_image(self) -> bool:
        """Whether a sample has its first frame as a condition beside its prompt."""
        return self.image


def parse_size(text: str) -> Size:
    """`81x480x832` -> frames, height and width."""
    frames, height, width = map(int, text.split("x"))
    return frames, height, width


def latent_size(size: Size) -> tuple[int, int, int]:
    """Frames, height and width of the latents of released models: 4 frames, 8 x 8 px each."""
    frames, height, width = size
    return (frames - 1) // 4 + 1, height // 8, width // 8


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


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Precomputed outputs of the frozen experts of earlier phases.

    Attributes:
        used: whether later phases start from them; phases after the first are told.
    """

    rows: int = key("a seed and phase; 0 runs the experts online", least=0, most=ROWS)
    shard_rows: int = key("rows in one safetensors shard", least=1, most=ROWS)
    used: bool = derived()


@dataclass(frozen=True, kw_only=True)
class Save:
    """How often a training job writes."""

    log_every: int = key("updates that one record of `stats.jsonl` averages", least=1, most=UPDATES)
    checkpoint_every: int = key("updates between checkpoints", least=1, most=UPDATES)
    snapshots: int = key(
        "snapshots of a phase beside that before training, the end included, dense early on, from"
        " which the frontier over training is drawn",
        least=1,
        most=10_000,
    )


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """What scores pictures and clips by what they show."""

    updates: int = key("of its training", least=1, most=UPDATES)
    kept: str | None = key(
        "emoji, moving: weights of this very judge, trained before (`pdmd keep-judge`), with their"
        " digest beside them; null trains it",
        absent=None,
        null=True,
        minLength=1,
    )


ALONG = {"features": "lite0", "flow": "opencv", "clip": "small"}  # networks of every machine


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Frozen networks in the place of those that come along."""

    features: str = key(
        "of cosine, Vendi score, FID and KID: `lite0`, or DINOv3 by its hub name (`owner/name`) or"
        " a local folder",
        absent="lite0",
        minLength=1,
    )
    flow: str = key(
        "moving: `opencv`, or RAFT's weights: a name of torchvision's (`C_T_V2`) or a file",
        absent="opencv",
        minLength=1,
    )
    clip: str | None = key(
        "weights of CLIP: a name (`ViT-B/32`) or a file; `small`, or absent: the small one that a"
        " rule trains",
        absent=None,
        minLength=1,
    )

    @property
    def fetched(self) -> dict[str, str]:
        """What does not come along with this package, by key."""
        every = {role: getattr(self, role) or along for role, along in ALONG.items()}
        return {role: name for role, name in every.items() if name != ALONG[role]}

    def clip_weights(self, results: str) -> str:
        """The name or file of CLIP's weights.

        Args:
            results: the folder of everything, where the small one is.
        """
        return f"{results}/clip/small_clip.pt" if self.clip in (None, "small") else str(self.clip)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Samples of record, and what they are compared with."""

    samples: int = key(
        "samples of record of a seed; emoji, moving: at least 8 for each of 20 and 120 prompts",
        least=2,
        most=100_000_000,
    )
    beside: str = key(
        "emoji, moving: the method, a teacher, whose samples a method's are compared with, drawn"
        " from noise of their own (`draw`), since distances between samples of equal noise are not"
        " those of two sets",
        minLength=1,
    )
    draw: int = key(
        "of a teacher: which of its independent draws the samples of record are; equal numbers see"
        " equal noise in every method, for pictures side by side",
        least=1,
        most=1000,
        absent=1,
    )
    frontier_samples: int | None = key(
        "samples for each snapshot; emoji, moving: as many as `samples`, since coverage depends on"
        " the number",
        least=2,
        most=100_000_000,
        absent=None,
    )
    video_samples: int | None = key(
        "moving: clips that go through I3D, at most `samples` and twice `data.heldout`",
        least=4,
        most=100_000_000,
        absent=None,
    )
    steps: int | None = key(
        "toy1d: Euler steps of a trajectory, one of which meets t = 0.5",
        least=1,
        most=1_000_000,
        absent=None,
    )
    neighbours: int | None = key(
        "k of coverage and density, less than the samples, and the held-out ones, of a prompt",
        least=1,
        most=1_000_000,
        absent=None,
    )
    networks: Networks | None = key("see `evaluate.networks`", absent=None)
    size: str | None = key(
        "pretrained: of samples, `81x480x832` frames, height and width; one of `data.sizes`",
        absent=None,
        pattern=SIZE,
    )
    previews: int | None = key(
        "pretrained: prompts that are drawn from every snapshot of training, for TensorBoard; null:"
        " none",
        least=1,
        most=64,
        absent=None,
        null=True,
    )


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What tables compare at."""

    levels: tuple[float, ...] = key(
        "fidelities at which `equal_fidelity` compares methods: inliers for `mixture2d`, density"
        " for `digits` and `emoji`, density of clips for `moving`; within what the metric can be",
        entries=(0, 100),
        uniqueItems=True,
    )


@dataclass(frozen=True, kw_only=True)
class Run:
    """One method of one scenario.

    A job reads a part of it: what it does not read is no attribute.

    Attributes:
        results: folder of everything; scenario, method: their names; label: how tables and figures
            call the method, where an overlay says so.
    """

    results: str = key("")
    scenario: str = key("")
    method: str = key("", pattern="[a-z0-9-]+", maxLength=60)
    label: str | None = derived(None)
    kind: Literal["teacher", "distill", "fit"] = key(
        "`teacher`, `distill`, or `fit` for `toy1d` (method only)"
    )
    title: str = key("the scenario's name in captions", minLength=1, maxLength=200)
    seeds: tuple[int, ...] = key(
        "one run for each; 95% intervals are over them, if three or more",
        least=0,
        most=SEED,
        entries=(1, 1000),
        uniqueItems=True,
    )
    together: bool = key(
        "`true`: all seeds train in one job, stacked in one network; `false`: a job for each"
    )
    threads: int = key(
        "CPU threads of a job; results are bit-identical only at equal thread counts",
        least=1,
        most=1024,
    )
    hardware: Hardware
    flow: Literal["rectified", "cosine"] = key(
        "noise schedule: `rectified` (alpha = 1 - t, sigma = t) or `cosine`, not where an exact"
        " velocity is used"
    )
    data: Data
    model: Model
    teacher: Teacher
    measure: Measure
    student: Student
    distill: Distill
    bank: Bank
    save: Save
    fit: Fit
    classifier: Classifier
    evaluate: Evaluate
    tables: Tables


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What a scenario has beside what its runs have."""

    methods: tuple[str, ...] = key(
        "the scenario's methods, in the order of its tables (scenario only)",
        entries=(1, 1000),
        uniqueItems=True,
    )


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The small CLIP that scores alignment."""

    updates: int = key("of its training", least=1, most=UPDATES)
    kept: str | None = key(
        "weights trained before with as many updates, `null` trains it", absent=None, null=True
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """config/config.yaml, overlays and command-line values merged."""

    results: str = key(
        "folder of everything that is made; `~` and variables such as `$SCRATCH` are replaced,"
        " blanks and quotes may stand in it",
        minLength=1,
    )
    scenarios: tuple[str, ...] = key(
        "scenarios to run, in order",
        entries=(1, 100),
        uniqueItems=True,
        items={"type": "string", "pattern": "[a-z0-9]+", "maxLength": 60},
    )
    clip: Clip = key("see `clip`")
    validate: tuple[str, ...] = key(
        "scenarios among those that run, of pictures or clips with prompts, on whose real data the"
        " metrics are tried",
        uniqueItems=True,
    )
    defaults: dict[str, Any] = key("what every run starts from")
    overrides: dict[str, Any] = key(
        "scenario name or `all` -> diff; meant for overlays",
        absent=None,
        additionalProperties={"type": "object"},
    )
    methods: dict[str, Any] = key(
        "methods of an overlay: name -> a diff as in `methods.yaml`, with a `label` and a `grid` or"
        " without",
        absent=None,
    )
