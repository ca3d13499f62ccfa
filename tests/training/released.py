"""A job of a released model up to the training of its first phase, on a tiny random one."""

from pathlib import Path

from pdmd.config.experiment import Experiment, merge
from pdmd.config.yaml_files import read_yaml
from pdmd.models.source import fetch
from pdmd.models.tiny import write_tiny
from pdmd.stages.embed import embed_prompts

ROOT = Path(__file__).resolve().parents[2]
FAMILY = {"wan22t2v": "wan2.2-t2v-a14b", "qwenimage": "qwen-image"}


def parts_of(results, scenario, diff=None):
    """What the jobs of a tiny scenario read of the configuration, with a diff over it."""
    model = results / "models" / FAMILY[scenario]
    prompts = {name: str(ROOT / f"config/tiny/{name}.jsonl") for name in ("train", "evaluation")}
    own = {"model": {"source": str(model)}, "data": prompts}
    settings = merge(read_yaml(ROOT / "config/config.yaml"), read_yaml(ROOT / "config/tiny.yaml"))
    settings = merge(settings, {"results": str(results), "scenarios": [scenario]})
    settings["overrides"] = {
        "all": settings["overrides"]["all"],
        scenario: merge(merge(settings["overrides"][scenario], own), diff or {}),
    }
    return Experiment(ROOT, settings).parts(scenario)


def prepare(results, scenario):
    """Write the model, its manifest and the embeddings of prompts."""
    parts, family = parts_of(results, scenario), FAMILY[scenario]
    write_tiny(family, results / "models" / family)
    source = str(results / "models" / family)
    fetch(family, source, None, results / scenario / "base/manifest.json")
    embed_prompts(parts["config/embedding.json"])
