"""A plan of processes that share tokens is what such processes allocate and calculate."""

import pytest
import torch
from configs import ROOT
from rehearsed import TEXT, real_trainer, seen, tiny_config
from test_world import in_processes

from pdmd import cli
from pdmd.config.experiment import merge
from pdmd.planning import knobs
from pdmd.planning.plan import Hardware, Planner

SIZE = "33x96x128"  # 432 tokens, more than a prompt has
TWO = Hardware(2)


def config_of(context):
    """Two processes; each has two samples, and all their tokens or half of them."""
    diff = {
        "data": {"sizes": [SIZE], "shares": [1.0]},
        "evaluate": {"size": SIZE},
        "distill": {
            **{"fake_updates": 1, "microbatch": 2, "batch": 4 // context},
            "parallel": {"context": context},
        },
        "hardware": {"processes": 2},
    }
    return tiny_config("wan21t2v", diff)


def real(context, folder):
    """Bytes and operations of the third update of two processes, as the first has them."""

    def work(world):
        trainer, weights = real_trainer(config_of(context), 1, world.sharing_tokens(context))
        trainer.update(0)
        trainer.update(1)
        size, flops = seen(trainer, weights, 2)
        return {"bytes": torch.tensor(size), **{k: torch.tensor(n) for k, n in flops.items()}}

    found = in_processes(2, work, folder)[0]
    size = int(found.pop("bytes"))
    return size, {name: int(count) for name, count in found.items()}


@pytest.mark.slow
def test_shared_tokens_are_planned_as_they_are(tmp_path):
    size, flops = real(2, tmp_path / "x")
    plan = Planner(config_of(2), TEXT).plan(TWO)
    assert plan.rows == 2
    assert plan.bytes == pytest.approx(size, rel=0.01)
    assert plan.phases[0].flops == pytest.approx(flops)
    # The control: with all its tokens a process has more, of as many samples.
    whole = Planner(config_of(1), TEXT).plan(TWO)
    assert whole.rows == 2
    assert whole.bytes > 1.2 * size
    assert whole.phases[0].flops["bfloat16"] > 1.5 * flops["bfloat16"]


@pytest.mark.slow
def test_sharing_tokens_is_tried_where_a_plan_does_not_fit():
    """By as many as divide heads (2) and tokens: not by four."""
    config = merge(config_of(1), {"distill": {"microbatch": 1}})
    tight = Planner(merge(config, {"distill": {"parallel": {"context": 2}}}), TEXT).plan(TWO)
    tried = knobs.nearest(Planner(config, TEXT), TWO, tight.bytes)
    assert [one.changes for one in tried if one.fits] == [("distill.parallel.context: 2",)]
    qwen = knobs.Setup(tiny_config("qwenimage", {"hardware": {"processes": 2}}), TWO)
    assert list(knobs._context(qwen)) == []


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        ("3", "--gpus: 3: expected a multiple of distill.parallel.context = 2"),
        ("12", "--gpus: 12: expected a number that distill.batch = 4 times distill.parallel"),
    ],
)
def test_gpus_that_make_no_groups_are_refused(gpus, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    own = tmp_path / "own.yaml"
    mine = "{hardware: {processes: 2}, distill: {parallel: {context: 2}}}"
    own.write_text(f"overrides: {{wan21t2v: {mine}}}\n")
    overlays = ["--configfile", "config/tiny.yaml", str(own)]
    assert cli.main(["plan", "wan21t2v", *overlays, "--gpus", gpus]) == 2
    assert said in capsys.readouterr().err
