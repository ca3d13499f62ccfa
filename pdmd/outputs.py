"""The files that each stage writes, and that tables and figures read: what rules declare.

Every stage ends with a record, named last, of what made its files and of their digests.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pdmd.catalogue import LATENT, PROMPTED
from pdmd.paths import Paths

Config = dict[str, Any]

PROVENANCE, EVALUATION = "provenance.json", "evaluation.json"

LATENTS = ("train.safetensors", "heldout.safetensors", "codec.safetensors", "codec.json")
ENCODED = (*LATENTS, PROVENANCE)
PICTURES = ("pictures.safetensors", "prompts.json", "pictures.json")
RENDERED = (*PICTURES, *ENCODED)
EMBEDDED = ("prompts.safetensors", "embedding.json")
CLASSIFIER = ("classifier.safetensors", "classifier.json", "judging.json")
CLIP = ("small_clip.pt", "small_clip.json", PROVENANCE)
JUDGE = ("judge.safetensors", "judge.json", "judging.json")

TRAINED = ("snapshots.safetensors", "metrics.json", "stats.jsonl")
BASE = ("model.safetensors", *TRAINED, PROVENANCE)
PHASE = ("expert.safetensors", *TRAINED, "config.json", PROVENANCE)

SAMPLES = ("samples.safetensors", "config.json", PROVENANCE)
TRAJECTORIES = ("metrics.json", *SAMPLES)
EXPERTS = ("experts.safetensors", "experts.csv")


def evaluation(run: Config) -> tuple[str, ...]:
    """What scoring writes for each seed of a method that has samples.

    Args:
        run: resolved; of its kind `teacher` or `distill`.
    """
    kind, found = run["data"]["kind"], ["metrics.json"]
    if kind in PROMPTED:
        found.append("features.safetensors")
    if run["kind"] == "distill":
        found += ["frontier.csv", "exits.csv"]
        found += [] if kind in LATENT else ["boundary.json"]
        found += EXPERTS if exchanges(run) else ()
    return (*found, EVALUATION)


def scored(run: Config) -> tuple[str, ...]:
    """What is known of each seed's samples, whatever the kind of method."""
    return TRAJECTORIES if run["kind"] == "fit" else evaluation(run)


def exchanges(run: Config) -> bool:
    """Whether samples are drawn with one of two experts exchanged."""
    two = run["kind"] == "distill" and len(run["student"]["boundaries"]) == 2
    return two and run["data"]["kind"] in PROMPTED


def data_reads(run: Config) -> list[Path]:
    """What training and sampling read of a scenario's data."""
    kind, names = run["data"]["kind"], list[str]()
    names += ["train.safetensors"] if kind in LATENT else []
    names += ["prompts.safetensors"] if kind in PROMPTED else []
    return [Paths(run).data(name) for name in names]


def fit_reads(run: Config) -> list[Path]:
    """What a fit reads: data, held-out data for its losses, and weights to take or start from."""
    held = ["heldout.safetensors"] if run["data"]["kind"] in LATENT else []
    weights = [run["fit"][name] for name in ("kept", "start_from") if run["fit"].get(name)]
    kept = [Path(run["fit"]["kept"]).with_suffix(".json")] if run["fit"].get("kept") else []
    found = [*data_reads(run), *(Paths(run).data(name) for name in held)]
    return [*found, *map(Path, weights), *kept]


def expert_reads(run: Config, seed: int, phases: Iterable[int]) -> list[Path]:
    """The experts of some phases of a seed, with the network that adapters stand on."""
    paths = Paths(run)
    base = [] if run["student"]["lora"] is None else [paths.base("model.safetensors")]
    return base + [paths.phase(seed, number, "expert.safetensors") for number in phases]


def frozen_reads(run: Config, seed: int, number: int) -> list[Path]:
    """What a phase of a seed, and its bank, start from: data, base network, earlier experts."""
    paths = Paths(run)
    before = [paths.phase(seed, earlier, "expert.safetensors") for earlier in range(1, number)]
    return [*data_reads(run), paths.base("model.safetensors"), *before]


def sampler_reads(run: Config, seed: int) -> list[Path]:
    """The weights behind one seed's samples."""
    if run["kind"] != "teacher":
        return expert_reads(run, seed, phases_of(run))
    return [Paths(run).base("model.safetensors")] if run["teacher"]["kind"] == "fitted" else []


def phases_of(run: Config) -> range:
    """Numbers of the phases that a student trains in."""
    return range(1, len(run["student"]["boundaries"]) + 1)


def score_reads(run: Config, seed: int) -> list[Path]:
    """What scoring reads for one seed of a method that has samples."""
    paths = Paths(run)
    found = [paths.seed(seed, "samples.safetensors"), *data_reads(run), *_judges(run)]
    found += _beside(run, seed)
    if run["kind"] == "distill":
        found += expert_reads(run, seed, phases_of(run))
        every = phases_of(run) if exchanges(run) else phases_of(run)[-1:]
        found += [paths.phase(seed, number, "snapshots.safetensors") for number in every]
        taught = exchanges(run) and run["teacher"]["kind"] == "fitted"
        found += [paths.base("model.safetensors")] if taught else []
    return list(dict.fromkeys(found))


def _judges(run: Config) -> list[Path]:
    """The data and networks that score pictures and clips."""
    paths, kind = Paths(run), run["data"]["kind"]
    if kind == "digits":
        names = ("codec", "train", "heldout", "classifier")
        return [paths.data(f"{name}.safetensors") for name in names]
    if kind not in PROMPTED:
        return []
    names = ("codec.safetensors", "pictures.safetensors", "prompts.json", "judge.safetensors")
    networks = [paths.root / "clip" / "small_clip.pt", paths.root / "weights.json"]
    named = map(Path, run["evaluate"].get("networks", {}).values())
    return [*(paths.data(name) for name in names), *networks, *(p for p in named if p.is_file())]


def _beside(run: Config, seed: int) -> list[Path]:
    """The teacher's samples that a method's are compared with, and their features."""
    teacher = run["evaluate"]["beside"]
    if run["data"]["kind"] not in PROMPTED or teacher == run["method"]:
        return []
    folder = Paths(run).scenario / teacher / f"seed{seed}"
    return [folder / f"{name}.safetensors" for name in ("samples", "features")]


def table_reads(run: Config) -> list[Path]:
    """What a scenario's tables read of one method."""
    paths, kind = Paths(run), run["kind"]
    names = ["metrics.json"]
    if kind == "distill":
        names += [name for name in evaluation(run) if name.endswith(".csv")]
        names += ["boundary.json"] if "boundary.json" in evaluation(run) else []
    trained = {"distill": phases_of(run), "fit": [1], "teacher": []}[kind]
    return [path for seed in run["seeds"] for path in _of_seed(paths, seed, names, trained)]


def _of_seed(paths: Paths, seed: int, names: Iterable[str], phases: Iterable[int]) -> list[Path]:
    """Files of a seed, and what the training of each phase cost."""
    costs = [paths.phase(seed, number, "metrics.json") for number in phases]
    return [*(paths.seed(seed, name) for name in names), *costs]


def figure_reads(run: Config) -> list[Path]:
    """What a scenario's figures read of one method."""
    paths, seeds, kind = Paths(run), run["seeds"], run["data"]["kind"]
    found = [paths.seed(seed, "metrics.json") for seed in seeds]
    sampled = seeds if run["kind"] == "fit" or kind == "moving" else seeds[:1]
    found += [paths.seed(seed, "samples.safetensors") for seed in sampled]
    if run["kind"] == "fit":
        found += [paths.seed(seed, "config.json") for seed in seeds]
        found += [paths.phase(seed, 1, "expert.safetensors") for seed in seeds]
    if run["kind"] == "distill":
        found += [paths.seed(seed, "frontier.csv") for seed in seeds]
        found += [paths.phase(seed, p, "stats.jsonl") for seed in seeds for p in phases_of(run)]
    if exchanges(run):
        found.append(paths.seed(seeds[0], "experts.safetensors"))
    return found


def figure_data(run: Config) -> list[Path]:
    """What a scenario's figures read of its data."""
    kind, names = run["data"]["kind"], list[str]()
    if kind in PROMPTED:
        names = ["codec.safetensors", "prompts.json", "pictures.safetensors"]
    if kind == "digits":
        names = ["codec.safetensors", "heldout.safetensors"]
    return [Paths(run).data(name) for name in names]
