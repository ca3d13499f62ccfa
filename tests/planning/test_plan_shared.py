"""A plan of processes that share tokens, or networks, is what these allocate and calculate."""

import pytest
import torch
from configs import ROOT, accepted, own
from rehearsed import TEXT, real_trainer, seen, tiny_config
from test_world import in_processes

from pdmd import cli
from pdmd.config.experiment import merge
from pdmd.config.run import read_run
from pdmd.planning import knobs, rehearsal
from pdmd.planning import plan as plan_module
from pdmd.planning.exchanges import exchanged, received
from pdmd.planning.plan import Hardware, Planner
from pdmd.training.parallel import mesh_of

SIZES = {"wan21t2v": "33x96x128", "qwenimage": "1x288x384"}  # 432 tokens, more than a prompt has
TWO = Hardware(2)


def released(scenario, **diff):
    """A method as it is released, on eight GPUs or, where five share tokens, ten."""
    five = {"hardware": {"processes": 10, "gpus": 10}} if diff else {}
    return accepted(own(scenario, **diff, **five)).configs[scenario, "phased2"]


def config_of(context, scenario="wan21t2v"):
    """Two processes; each has two samples, and all their tokens or half of them."""
    size = SIZES[scenario]
    diff = {
        "data": {"sizes": [size], "shares": [1.0]},
        "evaluate": {"size": size},
        "distill": {
            **{"fake_updates": 1, "microbatch": 2, "batch": 4 // context},
            "parallel": {"context": context},
        },
        "hardware": {"processes": 2},
    }
    return tiny_config(scenario, diff)


def real(config, folder, phase=1):
    """Bytes, operations and exchanges of the third update of two processes, as the first has them.

    Returns:
        bytes; precision -> operations; kind -> bytes that it receives.
    """
    parallel = read_run(config).distill.parallel

    def work(world):
        world = world.sharing_tokens(parallel.context)
        with mesh_of(world) as mesh:
            shared = mesh if parallel.shard == "full" else None
            trainer, weights = real_trainer(config, phase, world, shared)
            trainer.update(0)
            trainer.update(1)
            size, *counts = seen(trainer, weights, 2)
        numbers = {f"{at}/{k}": n for at, one in enumerate(counts) for k, n in one.items()}
        return {k: torch.tensor(n) for k, n in {"bytes": size, **numbers}.items()}

    found = {name: int(number) for name, number in in_processes(2, work, folder)[0].items()}
    flops, sent = ({k[2:]: n for k, n in found.items() if k.startswith(at)} for at in ("0/", "1/"))
    return found["bytes"], flops, received(sent, 2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SIZES)
def test_shared_tokens_are_planned_as_they_are(scenario, tmp_path):
    size, flops, sent = real(config_of(2, scenario), tmp_path / "x")
    plan = Planner(config_of(2, scenario), TEXT).plan(TWO)
    assert plan.rows == 2
    assert plan.bytes == pytest.approx(size, rel=0.02)
    assert plan.phases[0].flops == pytest.approx(flops)
    assert plan.phases[0].received == pytest.approx(sent, rel=0.001)
    assert sent["tokens"] > sent["gradients"] > 0
    # The control: with all its tokens a process has more, of as many samples.
    whole = Planner(config_of(1, scenario), TEXT).plan(TWO)
    assert whole.rows == 2
    assert whole.bytes > 1.2 * size
    assert whole.phases[0].flops["bfloat16"] > 1.5 * flops["bfloat16"]


DEEP = {"num_attention_heads": 4, "num_layers": 5}  # so that weights count
SHARED = {"hardware": {"processes": 2}, "distill": {"batch": 8, "parallel": {"shard": "full"}}}
FULL = {"distill": {"fake": {"mode": "full"}, "fake_lr": 1.0e-4}}
BOTH = {"model": {"offload": "none"}, "distill": {"parallel": {"context": 2}}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "diff", "phase"),
    [("wan21t2v", FULL, 1), ("wan22t2v", BOTH, 2), ("qwenimage", {}, 1)],
)
def test_networks_that_are_shared_out_are_planned_as_they_are(
    scenario, diff, phase, tmp_path, monkeypatch
):
    """Counted at three and four blocks, and run with five; a full fake computes in bfloat16."""
    of = rehearsal.architecture_of
    wan = {} if scenario == "qwenimage" else {"attention_head_dim": 24, "ffn_dim": 384}
    for module in (rehearsal, plan_module):
        monkeypatch.setattr(module, "architecture_of", lambda *of_run: of(*of_run) | DEEP | wan)
    config = tiny_config(scenario, merge(SHARED, diff))
    size, flops, sent = real(config, tmp_path / "x", phase)
    planner = Planner(config, TEXT)
    made = planner.plan(Hardware(2, True)).phases[phase - 1]
    assert made.bytes == pytest.approx(size, rel=0.02)
    assert made.flops == pytest.approx(flops)
    # What lies outside the blocks is not gathered again where the expert of a call was called last.
    assert made.received == pytest.approx(sent, rel=0.05)
    assert sent["weights"] > sent["gradients"] > 0
    # The control: nothing shared out.
    assert planner.plan(Hardware(2)).phases[phase - 1].bytes > 1.15 * size


@pytest.mark.slow
def test_sharing_tokens_is_tried_where_a_plan_does_not_fit():
    """By as many as divide heads (2) and tokens: not by four."""
    config = merge(config_of(1), {"distill": {"microbatch": 1}})
    tight = Planner(merge(config, {"distill": {"parallel": {"context": 2}}}), TEXT).plan(TWO)
    tried = knobs.nearest(Planner(config, TEXT), TWO, tight.bytes)
    assert [one.changes for one in tried if one.fits] == [("distill.parallel.context: 2",)]
    compiled = knobs.Setup(merge(config, {"model": {"compile": True}}), TWO)
    assert list(knobs._context(compiled)) == []


def test_what_is_named_may_be_configured():
    """With sharded experts none waits; processes that leave a phase together, which 64 do not."""
    setup = knobs.Setup(released("wan22t2v"), Hardware(8))
    (shared,) = knobs._shard(setup)
    assert shared.changes == ("distill.parallel.shard: full, model.offload: none",)
    waits = setup.changed("model.offload: idle", {"model": {"offload": "idle"}})
    (after,) = knobs._shard(waits)
    assert after.changes == ("distill.parallel.shard: full",)
    assert after.run.model.offload == "none"
    more = list(knobs._gpus(setup))
    assert [one.hardware.gpus for one in more] == [16, 32, 64]
    assert [knobs._allowed(one) for one in more] == [True, True, False]
    fives = knobs.Setup(released("wan22t2v", distill={"parallel": {"context": 5}}), Hardware(10))
    assert list(knobs._gpus(fives)) == []  # no whole groups


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


def test_an_exchange_of_which_nothing_is_known_is_named():
    """A plan that left one out would say too little."""
    with pytest.raises(NotImplementedError, match="_c10d_functional::broadcast: expected one of"):
        exchanged(torch.ops._c10d_functional.broadcast.default, (torch.ones(1), 0, "0"), None)
    waits = torch.ops._c10d_functional.wait_tensor.default
    assert exchanged(waits, (torch.ones(1),), None) is None
    assert exchanged(torch.ops.aten.add.Tensor, (torch.ones(1), 1), None) is None
    assert received({"gradients": 8.0, "tokens": 8.0}, 1, 1) == {"gradients": 0.0, "tokens": 0.0}
    assert received({"gradients": 8.0, "tokens": 8.0}, 8, 2) == {"gradients": 7.0, "tokens": 4.0}
