"""The features stage: what frozen networks see in samples of record, once for all scores."""

from __future__ import annotations

from pdmd.config.experiment import Config
from pdmd.files import provenance
from pdmd.files.storage import save_tensors
from pdmd.stages.decode import load_decoded
from pdmd.stages.outputs import DECODED, FEATURED, feature_reads
from pdmd.stages.scoring import sample_features
from pdmd.stages.stage import Stage, prepare
from pdmd.training.world import ALONE, World


def extract_features(config: Config, seeds: list[int], world: World = ALONE) -> None:
    """Write features.safetensors beside each seed's samples."""
    prepare(config)
    stage = Stage(config, world)
    for seed in seeds:
        path = stage.paths.seed(seed, DECODED[0])
        pictures, _ = load_decoded(path, stage.space, stage.run.evaluate.samples)
        features = sample_features(stage, pictures)
        if not world.leads:
            continue
        save_tensors(path.with_name(FEATURED[0]), features)
        inputs = feature_reads(stage.run, seed)
        provenance.record(path.with_name(FEATURED[-1]), config, [seed], inputs, FEATURED)
