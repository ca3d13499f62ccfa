"""The features stage: what frozen networks see in samples of record, once for all scores."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pdmd.config.experiment import Config
from pdmd.config.sections import Networks
from pdmd.data.prompts import read_prompts
from pdmd.data.shards import join_shards
from pdmd.files import provenance
from pdmd.files.storage import save_tensors
from pdmd.scenarios.kind import Frozen, kind_of
from pdmd.stages.decode import as_bytes, load_bytes, load_decoded
from pdmd.stages.mixed import by_parts
from pdmd.stages.outputs import DECODED, FEATURED, feature_reads
from pdmd.stages.precompute import load_pictures
from pdmd.stages.score import REAL
from pdmd.stages.scoring import sample_features
from pdmd.stages.stage import Stage, prepare
from pdmd.training.loop import clear_state
from pdmd.training.world import ALONE, World


def extract_features(config: Config, seeds: list[int], world: World = ALONE) -> None:
    """Write features.safetensors beside each seed's samples."""
    prepare(config)
    stage = Stage(config, world)
    for seed in seeds:
        path = stage.paths.seed(seed, DECODED[0])
        frozen = kind_of(stage.run.data).frozen
        if frozen is not None:
            _by_frozen(stage, frozen, path, seed)
            continue
        pictures, _ = load_decoded(path, stage.space, stage.run.evaluate.samples)
        features = sample_features(stage, pictures)
        if not world.leads:
            continue
        save_tensors(path.with_name(FEATURED[0]), features)
        inputs = feature_reads(stage.run, seed)
        provenance.record(path.with_name(FEATURED[-1]), config, [seed], inputs, FEATURED)


def _by_frozen(stage: Stage, frozen: Frozen, path: Path, seed: int) -> None:
    """Features of a seed's samples, one by one."""
    run, results = stage.run, stage.paths.root
    load = load_decoded if stage.family is None else load_bytes
    pictures, condition = load(path, stage.space, run.evaluate.samples)
    texts = read_prompts(stage.paths.data("prompts.json"))
    wanted, device = run.evaluate.networks or Networks(), stage.world.device

    def make(first: int, end: int) -> dict[str, Tensor]:
        text, sample = texts[int(condition[first])].text, pictures[first:end]
        sample = as_bytes(sample) if sample.is_floating_point() else sample
        return frozen.features(sample, text, wanted, results, device)

    parts = by_parts(stage, "features", seed, len(pictures), make)
    if stage.world.leads:
        seen = join_shards(parts) | {"condition": condition}
        if run.kind == "teacher" and kind_of(run.data).prompted is not None:
            seen |= _of_real(stage, frozen)
        save_tensors(path.with_name(FEATURED[0]), seen)
        inputs = feature_reads(run, seed)
        provenance.record(path.with_name(FEATURED[-1]), stage.config, [seed], inputs, FEATURED)
        clear_state(parts[0].parent)


def _of_real(stage: Stage, frozen: Frozen) -> dict[str, Tensor]:
    """The same of held-out data, kept with the teacher's under names that begin with `real_`."""
    run, device = stage.run, stage.world.device
    source, texts = stage.paths.data("pictures.safetensors"), stage.paths.data("prompts.json")
    prompts = read_prompts(texts)
    pictures = load_pictures(source, run.data.kind, len(prompts))
    wanted, rows = run.evaluate.networks or Networks(), []
    for sample, number in zip(pictures["heldout"], pictures["heldout_prompts"][:, 0], strict=True):
        text = prompts[int(number)].text
        rows.append(frozen.features(sample[None], text, wanted, stage.paths.root, device))
    return {f"{REAL}{name}": torch.cat([row[name] for row in rows]) for name in rows[0]}
