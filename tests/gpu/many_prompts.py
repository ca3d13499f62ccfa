"""Many prompts through a tiny encoder of Qwen-Image's class: seconds, memory, bytes, reading back.

python tests/gpu/many_prompts.py 100000                  # docs/real_models.md's figure; no GPU
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import torch

from pdmd.config.experiment import Experiment, merge
from pdmd.config.yaml_files import read_yaml
from pdmd.data.conditions import open_store
from pdmd.models.source import fetch
from pdmd.models.tiny import write_tiny
from pdmd.stages import embed
from pdmd.training.cost import peak_memory_mb

ROOT = Path(__file__).resolve().parents[2]
FAMILY, SCENARIO = "qwen-image", "qwenimage"
WORDS = ("red", "fox", "hill", "glass", "slow", "river", "seven", "lamps", "above", "paper")
LENGTH = (8, 30)  # words of a prompt
BATCH, READS = 64, 20  # prompts of a batch that is read back; how often


def config_of(folder, count):
    """The embedding job of `count` random prompts, and of a tiny model with its manifest."""
    chance = random.Random(0)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as lines:
        for number in range(count):
            words = chance.choices(WORDS, k=chance.randint(*LENGTH))
            lines.write(json.dumps({"prompt": f"{number} {' '.join(words)}"}) + "\n")
    write_tiny(FAMILY, folder / "model")
    wanted = {
        "results": str(folder / "results"),
        "scenarios": [SCENARIO],
        "overrides": {
            SCENARIO: {
                "model": {"source": str(folder / "model")},
                "data": {
                    "train": str(folder / "train.jsonl"),
                    "evaluation": str(ROOT / "config/tiny/evaluation.jsonl"),
                },
            }
        },
    }
    settings = merge(read_yaml(ROOT / "config/config.yaml"), wanted)
    fetch(FAMILY, str(folder / "model"), None, folder / f"results/{SCENARIO}/base/manifest.json")
    return Experiment(ROOT, settings).parts(SCENARIO)["config/embedding.json"]


def own_mb():
    """Memory of this process alone in MB now: mapped files come and go with a machine's load."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon:"))


def watched(hold):
    """Have memory noted behind each shard; returns the list that it goes to.

    Args:
        hold: the control: keep every shard's rows in memory, as one who writes at the end would.
    """
    noted, kept, make_shards = [], [], embed.make_shards

    def made(state, total, size, make, *rest):
        def watching(first, end):
            rows = make(first, end)
            noted.append(own_mb())
            if hold:
                kept.append({name: one.clone() for name, one in rows.items()})
            return rows

        return make_shards(state, total, size, watching, *rest)

    embed.make_shards = made
    return noted


def measure(count, hold=False):
    """Seconds, memory in MB behind each shard and the peak of all, bytes, ms to read a batch."""
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(Path(folder), count)
        noted, start = watched(hold), time.perf_counter()
        embed.embed_prompts(config)
        seconds = time.perf_counter() - start
        peak = peak_memory_mb()
        store = Path(folder) / f"results/{SCENARIO}/data/store"
        size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
        prompts, index = open_store(store)
        drawn = torch.Generator().manual_seed(0)
        start = time.perf_counter()
        for _ in range(READS):
            prompts.values(torch.randint(index["rows"], (BATCH,), generator=drawn))
        read = (time.perf_counter() - start) / READS
    found = {"prompts": count, "rows": index["rows"], "seconds": round(seconds, 1)}
    found |= {"shards_mb": [round(one) for one in noted], "peak_mb": round(peak)}
    return found | {"bytes": size, "batch_ms": round(1000 * read, 1)}


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("prompts", type=int)
    options.add_argument("--hold", action="store_true", help="the control: keep all rows in memory")
    given = options.parse_args()
    torch.set_num_threads(1)
    found = measure(given.prompts, given.hold)
    json.dump(found, sys.stdout)
    print()
