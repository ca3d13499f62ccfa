"""SLURM for the tests of this folder: two throw-away clusters, each started on first use."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from cluster import BASIC, PACKAGES, Cluster, missing

HERE = Path(__file__).resolve().parent
FIXTURES = ("cluster", "accounted", "short_arrays")


def pytest_configure(config: pytest.Config) -> None:
    """Register this folder's markers."""
    config.addinivalue_line("markers", "slurm: runs a throw-away SLURM on this machine")
    config.addinivalue_line("markers", "slow_slurm: slow on SLURM; only with PDMD_SLOW_SLURM=1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder; leave the slow ones to PDMD_SLOW_SLURM=1."""
    skip = pytest.mark.skip(reason="slow on SLURM: set PDMD_SLOW_SLURM=1")
    for item in items:
        if not item.path.is_relative_to(HERE):
            continue
        item.add_marker(pytest.mark.slurm)
        if item.get_closest_marker("slow_slurm") and os.environ.get("PDMD_SLOW_SLURM") != "1":
            item.add_marker(skip)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """SLURM without accounting: no sacct, no munge."""
    yield from serve(Cluster(), BASIC)


@pytest.fixture(scope="session")
def accounted() -> Iterator[Cluster]:
    """SLURM with slurmdbd, MariaDB and munge: sacct answers, and QOS tiny is enforced."""
    yield from serve(Cluster(dbd=1, auth="munge"), tuple(PACKAGES))


@pytest.fixture(scope="module")
def short_arrays() -> Iterator[Cluster]:
    """SLURM that takes four tasks in an array, and no accounting."""
    yield from serve(Cluster(maxarray=4, nodes=1), BASIC)


@pytest.fixture(autouse=True)
def settled(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: no job left, and all nodes up."""
    used = [request.getfixturevalue(name) for name in FIXTURES if name in request.fixturenames]
    yield
    for own in used:
        own.settle()


def serve(own: Cluster, commands: tuple[str, ...]) -> Iterator[Cluster]:
    """A cluster, up; taken down at the end, also when the session fails or is terminated."""
    require(commands)
    former = signal.signal(signal.SIGTERM, leave)
    try:
        yield own.up()
    finally:
        own.down()
        signal.signal(signal.SIGTERM, former)


def require(commands: tuple[str, ...]) -> None:
    """Skip where SLURM cannot run; with PDMD_REQUIRE_SLURM=1 fail."""
    packages = missing(commands)
    lacks = f"SLURM is not installed: apt-get install {' '.join(packages)}" if packages else ""
    if os.geteuid() != 0:
        lacks = "the throw-away SLURM needs root"
    if lacks and os.environ.get("PDMD_REQUIRE_SLURM") == "1":
        pytest.fail(lacks, pytrace=False)
    if lacks:
        pytest.skip(lacks)


def leave(number: int, frame: FrameType | None) -> None:
    """End the session in order on SIGTERM, so that its clusters go down."""
    pytest.exit("terminated", returncode=128 + number)
