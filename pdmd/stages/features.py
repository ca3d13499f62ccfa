"""The features stage: what frozen networks see in samples of record, once for all scores."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from pdmd.config.experiment import Config
from pdmd.config.sections import Networks
from pdmd.data.prompts import read_prompts
from pdmd.data.shards import join_shards
from pdmd.files import provenance
from pdmd.files.storage import save_tensors
from pdmd.scenarios.kind import kind_of
from pdmd.stages.decode import load_bytes, load_decoded
from pdmd.stages.mixed import by_parts
from pdmd.stages.outputs import DECODED, FEATURED, feature_reads
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
        if stage.family is not None:
            _of_released(stage, path, seed)
            continue
        pictures, _ = load_decoded(path, stage.space, stage.run.evaluate.samples)
        features = sample_features(stage, pictures)
        if not world.leads:
            continue
        save_tensors(path.with_name(FEATURED[0]), features)
        inputs = feature_reads(stage.run, seed)
        provenance.record(path.with_name(FEATURED[-1]), config, [seed], inputs, FEATURED)


def _of_released(stage: Stage, path: Path, seed: int) -> None:
    """Features of a released model's samples, one by one."""
    run, results = stage.run, stage.paths.root
    pictures, condition = load_bytes(path, stage.space, run.evaluate.samples)
    texts = read_prompts(stage.paths.data("prompts.json"))
    released, wanted = kind_of(run.data).released, run.evaluate.networks or Networks()
    assert released is not None
    see, device = released.features, stage.world.device

    def make(first: int, end: int) -> dict[str, Tensor]:
        text = texts[int(condition[first])].text
        return see(pictures[first:end], text, wanted, results, device)

    parts = by_parts(stage, "features", seed, len(pictures), make)
    if stage.world.leads:
        save_tensors(path.with_name(FEATURED[0]), join_shards(parts) | {"condition": condition})
        inputs = feature_reads(run, seed)
        provenance.record(path.with_name(FEATURED[-1]), stage.config, [seed], inputs, FEATURED)
        clear_state(parts[0].parent)
