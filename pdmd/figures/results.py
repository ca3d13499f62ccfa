"""What figures read from the results of a scenario."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pdmd.config import Config
from pdmd.paths import Paths
from pdmd.reading import read_frames, read_jsonl
from pdmd.storage import load_tensors

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


# numbers of each record of a training log that figures show
LOGGED = ("step", "fake_loss", "fake_lag", "generator_gradient_norm", "sample_std")


def trained(configs: Sequence[Config]) -> list[Config]:
    """The methods that distil a student."""
    return [config for config in configs if config["kind"] == "distill"]


def samples_of(config: Config, seed: int) -> dict[str, Tensor]:
    """The samples of record of one seed."""
    return load_tensors(Paths(config).seed(seed, "samples.safetensors"))


def first_samples(config: Config) -> dict[str, Tensor]:
    """The samples of record of the first seed."""
    return samples_of(config, config["seeds"][0])


def frontiers(config: Config, names: Sequence[str]) -> list[pd.DataFrame]:
    """Each seed's metrics over the training of the last phase, these among them."""
    paths = [Paths(config).seed(seed, "frontier.csv") for seed in config["seeds"]]
    frames = read_frames(paths, "step", names)
    return [frame.assign(step=frame["step"].astype(float)) for frame in frames]


def phase_logs(config: Config) -> list[pd.DataFrame]:
    """Each phase's training log: a row a seed and record.

    `update` counts generator updates from the first phase on; `relative_lag` is the part of the
    fake loss that the fake updates before one generator update take off, a mean over 5 records.
    """
    import pandas as pd

    paths, logs, done = Paths(config), [], 0
    for number in range(1, len(config["student"]["boundaries"]) + 1):
        files = [paths.phase(seed, number, "stats.jsonl") for seed in config["seeds"]]
        log = pd.concat([_read_log(path) for path in files])
        log["update"] = log["step"] + done
        done += int(log["step"].max())
        logs.append(log)
    return logs


def _read_log(path: Path) -> pd.DataFrame:
    import pandas as pd

    log = pd.DataFrame(read_jsonl(path, LOGGED))
    lag = log["fake_lag"] / log["fake_loss"]
    log["relative_lag"] = lag.rolling(5, min_periods=1, center=True).mean()
    return log
