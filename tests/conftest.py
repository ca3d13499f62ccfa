"""One thread, and the fixtures that several test files share."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pdmd import stages
from pdmd.config import Experiment, merge, read_yaml
from pdmd.flow import FLOWS, Flow

torch.set_num_threads(1)


@pytest.fixture(params=sorted(FLOWS))
def flow(request: pytest.FixtureRequest) -> Flow:
    """Each noise schedule in turn."""
    return FLOWS[request.param]


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator, so that a statistical test always sees the same draws."""
    return torch.Generator().manual_seed(0)


REPOSITORY = Path(__file__).resolve().parent.parent
TINY = {
    "methods": [
        "base",
        "dmd1",
        "dmd",
        "dmd2",
        "phased2",
        "phased2-online",
        "phased2-biased",
        "dmd2-one-exit",
    ],
    "seeds": [1, 2],
    "model": {"width": 16, "depth": 2},
    "fit": {"updates": 40, "batch": 64},
    "distill": {"updates": 40, "batch": 32, "fake_updates": 2},
    "bank": {"rows": 300, "shard_rows": 128},
    "save": {"log_every": 5, "checkpoint_every": 10, "snapshots": 2},
    "evaluate": {"samples": 200, "frontier_samples": 100},
}

Resolve = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def tiny() -> Resolve:
    """(results, diff) -> the resolved configs of a tiny 2D mixture."""

    def resolve(results: Path, diff: dict[str, Any] | None = None) -> dict[str, Any]:
        settings = read_yaml(REPOSITORY / "config" / "config.yaml")
        wanted = {"all": TINY, "mixture2d": diff or {}}
        own = {"results": str(results), "scenarios": ["mixture2d"], "overrides": wanted}
        return Experiment(REPOSITORY, merge(settings, own)).parts("mixture2d")

    return resolve


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, tiny: Resolve) -> Path:
    """Results of a tiny mixture up to the second phase of phased2: base, first phase, bank."""
    results = tmp_path_factory.mktemp("chain") / "results"
    parts = tiny(results)
    stages.fit_base(parts["config/base.json"])
    stages.distill_phase(parts["phased2/config/distill.json"], 1, [1, 2])
    stages.make_bank(parts["phased2/config/bank.json"], 2, [1, 2])
    return results


@pytest.fixture
def copied(chain: Path, tmp_path: Path) -> Path:
    """A copy of the tiny chain's results that a test may change."""
    return Path(shutil.copytree(chain, tmp_path / "results"))
