"""The files that each stage reads and writes: what rules declare.

Every stage ends with a record, named last, of what made its files and of their digests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pdmd.config.paths import Paths
from pdmd.config.sections import Networks, ReleasedData, Run
from pdmd.config.times import chooses, ranges
from pdmd.scenarios.kind import Kind, kind_of

PROVENANCE, EVALUATION = "provenance.json", "evaluation.json"

LATENTS = ("train.safetensors", "heldout.safetensors", "codec.safetensors", "codec.json")
ENCODED = (*LATENTS, PROVENANCE)
PICTURES = ("pictures.safetensors", "prompts.json", "pictures.json")
CONDITIONS = "evaluation.safetensors"  # what samples of record are drawn for
PROMPTED_LATENTS = (*LATENTS, CONDITIONS, PROVENANCE)
RENDERED = (*PICTURES, *PROMPTED_LATENTS)
EMBEDDED = ("prompts.safetensors", "embedding.json")
# Of released models: the manifest of their folder, the networks that look at samples, the store of
# prompts, pictures, what is kept.
MANIFEST = "manifest.json"
NETWORKS = "networks.json"
STORE = ("store.json", "prompts.json", "embedding.json")
IMAGES = "images.json"
EXPORT, EXPORT_RECORD = "export", "provenance.json"
PREVIEWED = ("previews.safetensors", "previews.json")
CLASSIFIER = ("classifier.safetensors", "classifier.json", "judging.json")
CLIP = ("small_clip.pt", "small_clip.json", PROVENANCE)
JUDGE = ("judge.safetensors", "judge.json", "judging.json")

# What scores of pictures and clips with prompts read of their data.
JUDGED = ("pictures.safetensors", "prompts.json", "judge.safetensors")

TRAINED = ("snapshots.safetensors", "metrics.json", "stats.jsonl")
BASE = ("model.safetensors", *TRAINED, PROVENANCE)
PHASE = ("expert.safetensors", *TRAINED, "config.json", PROVENANCE)

MEASURED = ("step_errors.json", "measuring_cost.json", "measuring.json")  # of the scenario
CHOSEN = ("grid.json", "choosing.json")  # of a method
RANGED = ("range.json", "ranging_cost.json", "ranging.json")  # of a method

SAMPLES = ("samples.safetensors", "config.json", PROVENANCE)
TRAJECTORIES = ("metrics.json", *SAMPLES)


DECODED = ("decoded.safetensors", "decoding.json")
FEATURED = ("features.safetensors", "features.json")
SCORED = ("metrics.json", EVALUATION)
STRATA = "strata.json"  # of kinds that table scores by stratum, beside them


def kind(run: Run) -> Kind:
    """What the kind of a run's data brings."""
    return kind_of(run.data)


def is_seen(run: Run) -> bool:
    """Whether a method's samples are decoded, and looked at by frozen networks."""
    brings = kind(run)
    return run.kind != "fit" and (brings.prompted is not None or brings.frozen is not None)


def is_released(run: Run) -> bool:
    """Whether the base network is a released model."""
    return isinstance(run.data, ReleasedData)


@dataclass(frozen=True)
class Diagnostic:
    """What is looked at in a trained sampler beside its samples of record.

    Attributes:
        files: that it writes for each seed, its record last; applies: to the runs that have it;
        reads: what it reads for a seed.
    """

    files: tuple[str, ...]
    applies: Callable[[Run], bool]
    reads: Callable[[Run, int], list[Path]]


def is_exact(run: Run) -> bool:
    """Whether the data have an exact velocity."""
    return kind(run).mixture is not None


def exchanges(run: Run) -> bool:
    """Whether samples are drawn with one of two experts exchanged."""
    return len(run.student.ends) == 2 and kind(run).prompted is not None


def diagnostics(run: Run) -> list[str]:
    """The diagnostics of a method."""
    looked_at = run.kind == "distill" and kind(run).frozen is None
    return [name for name, one in DIAGNOSTICS.items() if looked_at and one.applies(run)]


def known(run: Run) -> list[str]:
    """All that is written of each seed's samples, whatever the kind of method."""
    if run.kind == "fit":
        return list(TRAJECTORIES)
    files = [name for diagnostic in diagnostics(run) for name in DIAGNOSTICS[diagnostic].files]
    seen = (*DECODED, *FEATURED) if is_seen(run) else ()
    taken = (EXPORT,) if is_exported(run) else ()
    previews = PREVIEWED if is_previewed(run) else ()
    return [*seen, *scored(kind(run)), *files, *previews, *taken]


def scored(kind: Kind) -> tuple[str, ...]:
    """The files of a seed's scores."""
    return (SCORED[0], STRATA, SCORED[-1]) if kind.strata else SCORED


def is_exported(run: Run) -> bool:
    """Whether a method's adapters are written as other programs load them."""
    return is_released(run) and run.kind == "distill"


def is_previewed(run: Run) -> bool:
    """Whether pictures are drawn from each snapshot of training."""
    return is_exported(run) and run.evaluate.previews is not None


def data_reads(run: Run) -> list[Path]:
    """What training reads of a scenario's data."""
    held = kind(run).latent and not is_released(run)
    latents = [Paths(run).data("train.safetensors")] if held else []
    return latents + condition_reads(run)


def condition_reads(run: Run) -> list[Path]:
    """What sampling reads of a scenario's data: what samples are drawn for."""
    names = ["prompts.safetensors", CONDITIONS] if kind(run).prompted else []
    if is_released(run):
        names = [STORE[0], *([IMAGES] if getattr(run.data, "with_image", False) else [])]
    return [Paths(run).data(name) for name in names]


def base_file(run: Run) -> Path:
    """The network that students start from: its weights, or the manifest of a released model."""
    return Paths(run).base(MANIFEST if is_released(run) else "model.safetensors")


def render_reads(run: Run) -> list[Path]:
    """What pictures and clips are made from: a user's own files, where there are any."""
    return [Path(path) for path in kind(run).needs(run).values()]


def text_reads(run: Run) -> list[Path]:
    """What the embeddings of a released model's prompts are made from, and its pictures."""
    data = run.data
    assert isinstance(data, ReleasedData)
    return [base_file(run), Path(data.train), Path(data.evaluation)]


def bank_indices(run: Run, seed: int, number: int) -> list[Path]:
    """What says of a phase's banks which they are."""
    folder = Paths(run).bank(seed, number)
    if isinstance(run.data, ReleasedData):
        return [folder / f"{size}.json" for size in run.data.sizes]
    return [folder / "index.json"]


def measure_reads(run: Run) -> list[Path]:
    """What the teacher's errors are measured with: prompts as training has them, its network."""
    return [*data_reads(run), *([base_file(run)] if run.teacher.kind == "fitted" else [])]


def choice_reads(run: Run) -> list[Path]:
    """What a method's noise levels and phase ends are chosen from."""
    return [Paths(run).base(MEASURED[0])]


def grid_reads(run: Run) -> list[Path]:
    """The file of a method's noise levels and phase ends, where they are chosen."""
    return [Paths(run).method / CHOSEN[0]] if chooses(run) else []


def range_reads(run: Run) -> list[Path]:
    """What the re-noising ranges of a method's phases are measured with."""
    return [*measure_reads(run), *grid_reads(run)]


def chosen_reads(run: Run) -> list[Path]:
    """The files of all that is chosen of a student's phases."""
    return [*grid_reads(run), *ranged_reads(run)]


def ranged_reads(run: Run) -> list[Path]:
    """The file of the re-noising ranges of a method's phases, where they are chosen."""
    return [Paths(run).method / RANGED[0]] if ranges(run) else []


def measured_costs(run: Run) -> list[Path]:
    """What the measurements cost that a method's settings are chosen from."""
    steps = [Paths(run).base(MEASURED[1])] if chooses(run) else []
    return [*steps, *([Paths(run).method / RANGED[1]] if ranges(run) else [])]


def fit_reads(run: Run) -> list[Path]:
    """What a fit reads: data, held-out data for its losses, and weights to take or start from."""
    held = ["heldout.safetensors"] if kind(run).latent else []
    kept = kept_files(run.fit.kept) if run.fit.kept else []
    start = [Path(run.fit.start_from)] if run.fit.start_from else []
    return [*data_reads(run), *(Paths(run).data(name) for name in held), *kept, *start]


def judge_reads(run: Run) -> list[Path]:
    """What a judge is trained on, or taken from."""
    if run.classifier.kept:
        return kept_files(run.classifier.kept)
    return [Paths(run).data(name) for name in ("pictures.safetensors", "prompts.json")]


def kept_files(name: str) -> list[Path]:
    """Kept weights, and what is said of them beside."""
    return [Path(name), Path(name).with_suffix(".json")]


def expert_reads(run: Run, seed: int, phases: Iterable[int]) -> list[Path]:
    """The experts of some phases of a seed, with the network that adapters stand on."""
    paths = Paths(run)
    base = [] if run.student.lora is None else [base_file(run)]
    experts = [paths.phase(seed, number, "expert.safetensors") for number in phases]
    return [*base, *experts, *chosen_reads(run)]


def frozen_reads(run: Run, seed: int, number: int) -> list[Path]:
    """What a phase of a seed, and its bank, start from: data, base network, earlier experts."""
    paths = Paths(run)
    before = [paths.phase(seed, earlier, "expert.safetensors") for earlier in range(1, number)]
    return [*data_reads(run), base_file(run), *before, *chosen_reads(run)]


def training_reads(run: Run, seed: int, number: int) -> list[Path]:
    """What a phase of a seed is trained from, but for the bank."""
    reads = frozen_reads(run, seed, number)
    return [*reads, Paths(run).data("prompts.json")] if by_strata(run) else reads


def by_strata(run: Run) -> bool:
    """Whether samples weigh by the strata of their prompts."""
    return run.distill.balance.law == "adaptive" and run.distill.balance.by == "stratum"


def sampler_reads(run: Run, seed: int) -> list[Path]:
    """The weights behind one seed's samples."""
    if run.kind != "teacher":
        return expert_reads(run, seed, phases_of(run))
    return [*([base_file(run)] if run.teacher.kind == "fitted" else []), *grid_reads(run)]


def phases_of(run: Run) -> range:
    """Numbers of the phases that a student trains in."""
    return range(1, len(run.student.ends) + 1)


def score_reads(run: Run, seed: int) -> list[Path]:
    """What scoring reads for one seed of a method that has samples."""
    names = [DECODED[0], FEATURED[0]] if is_seen(run) else [SAMPLES[0]]
    samples = [Paths(run).seed(seed, name) for name in names]
    reads = [*samples, *condition_reads(run), *_judges(run), *_networks(run)]
    return list(dict.fromkeys([*reads, *_beside(run, seed)]))


def decode_reads(run: Run, seed: int) -> list[Path]:
    """What the pictures or clips of one seed's samples are made from."""
    samples = Paths(run).seed(seed, SAMPLES[0])
    return [samples, *condition_reads(run), *_codec(run)]


def feature_reads(run: Run, seed: int) -> list[Path]:
    """What the features of one seed's samples are made from."""
    pictures = Paths(run).seed(seed, DECODED[0])
    return [pictures, *condition_reads(run), *_judges(run), *_networks(run)]


def exit_reads(run: Run, seed: int) -> list[Path]:
    """What scores by exit step read."""
    return [*_scored_by(run), *expert_reads(run, seed, phases_of(run))]


def frontier_reads(run: Run, seed: int) -> list[Path]:
    """What scores over the last phase's training read."""
    before, last = phases_of(run)[:-1], phases_of(run)[-1]
    snapshots = Paths(run).phase(seed, last, "snapshots.safetensors")
    return [*_scored_by(run), *expert_reads(run, seed, before), snapshots]


def boundary_reads(run: Run, seed: int) -> list[Path]:
    """What distances at the phases' boundaries read."""
    return expert_reads(run, seed, phases_of(run))


def swap_reads(run: Run, seed: int) -> list[Path]:
    """What samples with one expert exchanged read."""
    paths, phases = Paths(run), phases_of(run)
    snapshots = [paths.phase(seed, number, "snapshots.safetensors") for number in phases]
    taught = [paths.base("model.safetensors")] if run.teacher.kind == "fitted" else []
    experts = [*expert_reads(run, seed, phases), *snapshots, *taught]
    return list(dict.fromkeys([*_scored_by(run), *experts]))


DIAGNOSTICS = {
    "frontier": Diagnostic(("frontier.csv", "frontier.json"), lambda run: True, frontier_reads),
    "exits": Diagnostic(("exits.csv", "exits.json"), lambda run: True, exit_reads),
    "boundary": Diagnostic(("boundary.json", "boundaries.json"), is_exact, boundary_reads),
    "swaps": Diagnostic(
        ("experts.safetensors", "experts.csv", "experts.json"), exchanges, swap_reads
    ),
}


def _scored_by(run: Run) -> list[Path]:
    return [*condition_reads(run), *_codec(run), *_judges(run)]


def _codec(run: Run) -> list[Path]:
    """What decodes latents that have prompts."""
    if is_released(run):
        return [base_file(run)]
    return [Paths(run).data("codec.safetensors")] if kind(run).prompted else []


def _judges(run: Run) -> list[Path]:
    """The data and the judge that score pictures and clips."""
    brings = kind(run)
    judged = () if brings.frozen or not brings.prompted else JUDGED
    names = [*brings.reads, *judged, *(["prompts.json"] if brings.frozen else [])]
    names += ["pictures.safetensors"] if brings.frozen and brings.prompted else []
    return [Paths(run).data(name) for name in names]


def _networks(run: Run) -> list[Path]:
    """The weights of networks that score pictures and clips of record."""
    if not is_seen(run):
        return []
    root = Paths(run).root
    wanted = run.evaluate.networks or Networks()
    named = [Path(name) for name in (wanted.features, wanted.flow, wanted.clip) if name]
    found = [Paths(run).base(NETWORKS)] if is_released(run) and wanted.fetched else []
    along = [root / "clip" / "small_clip.pt", root / "weights.json"]
    return [*along, *found, *filter(Path.is_file, named)]


def _beside(run: Run, seed: int) -> list[Path]:
    """The teacher's samples that a method's are compared with, and their features."""
    teacher = run.evaluate.beside
    if not is_seen(run) or teacher == run.method:
        return []
    folder = Paths(run).scenario / teacher / f"seed{seed}"
    names = ["features"] if kind(run).frozen else ["decoded", "features"]
    return [folder / f"{name}.safetensors" for name in names]


def preview_reads(run: Run, seed: int) -> list[Path]:
    """What pictures from snapshots of training are drawn from."""
    paths, phases = Paths(run), phases_of(run)
    snapshots = [paths.phase(seed, number, "snapshots.safetensors") for number in phases]
    return [*condition_reads(run), *expert_reads(run, seed, phases), *snapshots]


def export_reads(run: Run, seed: int) -> list[Path]:
    """What the adapters that a user takes home, and what is said of them, are made from."""
    paths = Paths(run)
    return [*expert_reads(run, seed, phases_of(run)), paths.seed(seed, "metrics.json")]
