"""A new kind of scenario touches its room, a YAML file, and nothing else."""

import pandas as pd
import pytest

from pdmd.scenarios.kind import kinds

ROOM = '''
"""Points on a ring, whose score is exact."""

import math
from dataclasses import dataclass

import torch

from pdmd.config.complaints import refusal
from pdmd.config.sections import Data
from pdmd.config.typed import key
from pdmd.scenarios.kind import Kind


@dataclass(frozen=True, kw_only=True)
class Ring(Data):
    points: int = key("how many", least=2, most=100)
    radius: float = key("of the ring", above=0, most=100)


def mixture(data):
    from pdmd.models.mixture import GaussianMixture

    angles = torch.arange(data.points) * 2 * math.pi / data.points
    means = data.radius * torch.stack([angles.cos(), angles.sin()], 1)
    return GaussianMixture(means, torch.full((len(means),), 1 / len(means)), 0.1)


def scorer(stage):
    from pdmd.metrics.modes import mixture_metrics
    from pdmd.streams import REFERENCE_SEED, Stream

    exact = mixture(stage.run.data)
    reference = exact.draw(Stream([REFERENCE_SEED], 0, "reference"), 500)
    return lambda x, _: mixture_metrics(x, exact, reference)


def check(data, where):
    if data.points % 2:
        raise refusal(where, "data.points", data.points, "an even number")


KIND = Kind(
    name="ring",
    model="mlp",
    data=Ring,
    check=check,
    evaluate=frozenset({"samples", "frontier_samples"}),
    tables=["modes", "equal_fidelity", "exits", "boundary", "runs"],
    figures={"frontier": ("frontier", "metrics")},
    metrics=lambda: {"modes": (["tv", "inliers"], "shares of points")},
    fidelity="inliers",
    equal=["tv"],
    mixture=mixture,
    scorer=scorer,
)
'''
FIGURES = "from pdmd.scenarios.mixture2d.figures import frontier\n"
SCENARIO = """
title: A ring
methods: [teacher, dmd2]
seeds: [1]
data: {kind: ring, points: 6, radius: 1.0}
model: {kind: mlp, width: 16, depth: 1}
teacher: {kind: exact, steps: 4}
fit: {updates: 8, batch: 32, lr: 1.0e-3, ema: 0.9, time: uniform}
distill: {updates: 8, batch: 16, fake_updates: 2}
bank: {rows: 32, shard_rows: 32}
save: {log_every: 4, checkpoint_every: 8, snapshots: 2}
evaluate: {samples: 200, frontier_samples: 100}
tables: {levels: [0.5]}
"""


@pytest.fixture
def ringed(checkout):
    """A checkout with one more room and one more YAML file."""
    room = checkout / "pdmd" / "scenarios" / "ring"
    room.mkdir()
    (room / "__init__.py").write_text("")
    (room / "kind.py").write_text(ROOM)
    (room / "figures.py").write_text(FIGURES)
    (checkout / "config" / "scenarios" / "ring.yaml").write_text(SCENARIO)
    return checkout


ASKED = ("-c1", "--config", "scenarios=[ring]", "validate=[]")


@pytest.mark.slow
@pytest.mark.long
def test_a_new_kind_runs_from_data_to_tables(ringed, snakemake):
    done = snakemake(ringed, *ASKED)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    results = ringed / "results" / "ring"
    modes = pd.read_csv(results / "tables" / "modes.csv")
    assert modes["method"].tolist() == ["teacher", "dmd2"]
    assert modes["inliers_mean"].between(0, 1).all()
    for name in ("figures/frontier.png", "figures/frontier.pdf", "tables/boundary.csv"):
        assert (results / name).stat().st_size > 0


def test_its_own_check_is_one_line(ringed, snakemake):
    path = ringed / "config" / "scenarios" / "ring.yaml"
    path.write_text(SCENARIO.replace("points: 6", "points: 7"))
    done = snakemake(ringed, "-n", *ASKED)
    assert done.returncode == 1
    assert "data.points: 7: expected an even number" in done.stderr
    path.write_text(SCENARIO.replace("points: 6", "points: many"))
    assert "data.points: 'many'" in snakemake(ringed, "-n", *ASKED).stderr


def test_without_its_room_there_is_no_such_kind(ringed, snakemake):
    """The control."""
    (ringed / "pdmd" / "scenarios" / "ring" / "kind.py").unlink()
    done = snakemake(ringed, "-n", *ASKED)
    assert done.returncode == 1
    assert "ring.yaml: data." in done.stderr


def test_rooms_are_found_by_their_names():
    assert set(kinds()) == {"toy1d", "mixture2d", "digits", "emoji", "moving", "prompts", "folder"}
    assert all(name == kind.name for name, kind in kinds().items())
