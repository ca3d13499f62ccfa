"""What figures read from the results of a scenario."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pdmd.config.paths import Paths
from pdmd.config.sections import Run
from pdmd.files.storage import load_tensors
from pdmd.report.reading import read_frames, read_jsonl

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


# numbers of each record of a training log that figures show
LOGGED = ("step", "fake_loss", "fake_lag", "generator_gradient_norm", "sample_std")


def trained(runs: Sequence[Run]) -> list[Run]:
    """The methods that distil a student."""
    return [run for run in runs if run.kind == "distill"]


def samples_of(run: Run, seed: int) -> dict[str, Tensor]:
    """The samples of record of one seed."""
    return load_tensors(Paths(run).seed(seed, "samples.safetensors"))


def first_samples(run: Run) -> dict[str, Tensor]:
    """The samples of record of the first seed."""
    return samples_of(run, run.seeds[0])


def decoded_of(run: Run, seed: int) -> dict[str, Tensor]:
    """The samples of record of one seed as pictures or clips (N, 3, T, H, W)."""
    return load_tensors(Paths(run).seed(seed, "decoded.safetensors"))


def frontiers(run: Run, names: Sequence[str]) -> list[pd.DataFrame]:
    """Each seed's metrics over the training of the last phase, these among them."""
    paths = [Paths(run).seed(seed, "frontier.csv") for seed in run.seeds]
    frames = read_frames(paths, "step", names)
    return [frame.assign(step=frame["step"].astype(float)) for frame in frames]


def phase_logs(run: Run) -> list[pd.DataFrame]:
    """Each phase's training log: a row a seed and record.

    `update` counts generator updates from the first phase on; `relative_lag` is the part of the
    fake loss that the fake updates before one generator update take off, a mean over 5 records.
    """
    import pandas as pd

    paths, logs, done = Paths(run), [], 0
    for number in range(1, len(run.student.ends) + 1):
        files = [paths.phase(seed, number, "stats.jsonl") for seed in run.seeds]
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
