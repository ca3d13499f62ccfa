"""One thread, and the fixtures that several test files share."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

from pdmd.config.experiment import Experiment, merge, read_yaml
from pdmd.flow import FLOWS, Flow
from pdmd.stages import fit as fitting
from pdmd.stages.bank import make_bank
from pdmd.stages.distill import distill_phase

torch.set_num_threads(1)
# The first backward pass of a process starts what threads it will have: among fake tensors some, so
# that no process that is forked from it can have a backward pass.
torch.ones(1, requires_grad=True).sum().backward()
# A shell's background job ignores Ctrl-C, and would have all that the tests start ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Groups of tests that take longest start first, where tests run side by side.
FIRST = (
    *("workflow/test_released.py", "slurm", "workflow/test_minute.py", "golden/test_golden.py"),
    *("training/test_loop.py", "training/test_parallel.py"),
)


class GroupScheduling(LoadScopeScheduling):
    """Tests of a file run in one process, and so do all that share a SLURM."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """What a test shares its process with: its file below tests/, or "slurm"."""
    path = nodeid.split("::")[0].removeprefix("tests/")
    return "slurm" if path.startswith("slurm/") else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    """How tests are shared out among processes."""
    return GroupScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest groups first."""
    order = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(group_of(item.nodeid), len(FIRST)))


@pytest.fixture(params=sorted(FLOWS))
def flow(request: pytest.FixtureRequest) -> Flow:
    """Each noise schedule in turn."""
    return FLOWS[request.param]


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator, so that a statistical test always sees the same draws."""
    return torch.Generator().manual_seed(0)


PLANS = {"-n", "--dry-run", "--detailed-summary", "--lint"}  # Snakemake's, that start no job
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
        "dmd2-last-exit",
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
    fitting.fit_base(parts["config/base.json"])
    distill_phase(parts["phased2/config/distill.json"], 1, [1, 2])
    make_bank(parts["phased2/config/bank.json"], 2, [1, 2])
    return results


@pytest.fixture
def copied(chain: Path, tmp_path: Path) -> Path:
    """A copy of the tiny chain's results that a test may change."""
    return Path(shutil.copytree(chain, tmp_path / "results"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the workflow is made of, with no results."""
    folder = tmp_path / "checkout"
    for name in ("rules", "pdmd", "config", "envs", "workflow"):
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=leave)
    shutil.copy(REPOSITORY / "Snakefile", folder)
    return folder


@pytest.fixture(scope="session")
def snakemake() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Snakemake in a copy of the repository: (folder, *arguments) -> the finished process."""

    def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(folder / ".cache"),
        }
        command = [sys.executable, "-m", "snakemake", *arguments]
        if (folder / "pdmd").is_dir() and not PLANS & set(arguments):
            command = [sys.executable, "-m", "pdmd", "warm", "--", *command]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    return run
