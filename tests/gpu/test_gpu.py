"""What a GPU alone can confirm of released models; without one, that its code runs on the CPU."""

import json
import subprocess
import sys

import pytest
import torch
from configs import ROOT, accepted

sys.path.insert(0, str(ROOT / "tests" / "gpu"))
from full_size import measure, trainer, velocity

from pdmd.config.experiment import merge
from pdmd.config.yaml_files import read_yaml
from pdmd.errors import UserError
from pdmd.models.families import FAMILIES, load_velocity
from pdmd.models.tiny import write_tiny

MOST = 12  # updates after which every part has had two gradients
ON_GPU = {  # config/tiny.yaml, which the CPU's chain repeats bit by bit, on one GPU in bfloat16
    "overrides": {
        "all": {
            "hardware": {"processes": 1, "gpus": 1},
            "model": {"deterministic": False},  # attention in bfloat16 has no other backward pass
        }
    }
}
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_the_measurement_runs_on_the_cpu_at_a_tiny_size():
    found = measure("tiny", device="cpu", dtype=torch.float32, rank=8)
    assert len(found["seconds"]) == 3
    assert found["forwards"]["teacher"] == 6  # two calls for each of three generator updates
    assert sum(found["by_role"].values()) <= sum(found["seconds"])


@pytest.mark.parametrize(("name", "experts"), [("tiny", 1), ("tiny-experts", 2)])
def test_all_of_the_base_is_watched_and_a_tensor_of_it_that_moves_is_named(name, experts):
    made = trainer(name, "9x32x48", "cpu", torch.float32, rank=8)
    base = dict(made.watch.frozen)
    assert len(base) == experts * len(list(trained_net().parameters()))
    settle(made)  # without complaint while nothing else has moved

    made = trainer(name, "9x32x48", "cpu", torch.float32, rank=8)
    key = next(key for key in made.watch.frozen if key.endswith("proj_out.bias"))
    with torch.no_grad():
        made.watch.frozen[key].add_(1e-3)
    with pytest.raises(UserError, match=f"{key}: has moved: expected it to stay frozen"):
        settle(made)


def test_the_tiny_chain_on_a_gpu_may_use_what_attention_in_bfloat16_needs():
    tiny = read_yaml(ROOT / "config" / "tiny.yaml")
    runs = accepted(merge(tiny, ON_GPU)).runs.values()
    assert {(run.model.dtype, run.model.deterministic) for run in runs} == {("bfloat16", False)}
    assert {run.hardware.gpus for run in runs} == {1}
    runs = accepted(tiny).runs.values()  # control
    assert {run.model.deterministic for run in runs} == {True}


def test_phase_two_of_two_experts_trains_three_parts_and_an_update_calls_one_fake():
    made = trainer("tiny-experts", "9x32x48", "cpu", torch.float32, rank=8)
    names = {part.name for parts in made.parts.values() for part in parts}
    assert names == {"fake.high", "fake.low", "generator.low"}
    calls = []
    for side in ("high", "low"):
        expert = getattr(made.roles.fake.shared.network, side)
        expert.register_forward_hook(lambda *_, side=side: calls.append(side))
    seen = []
    for step in range(4):
        asked = scored(made, step)
        calls.clear()
        made._gradient(*asked)
        seen.append(tuple(sorted(set(calls))))
    assert set(seen) == {("high",), ("low",)}


def settle(made):
    """Updates until every part was looked at."""
    for step in range(MOST):
        made.update(step)
        if not made.watch.waiting:
            return
    raise AssertionError(f"waiting: {list(made.watch.waiting)}")


def trained_net():
    """The tiny transformer without adapters."""
    return velocity("tiny", "cpu", torch.float32)


def scored(made, step):
    """What an update's scores are asked for: conditions, re-noising times and a rollout."""
    stream = made._stream(step, "generator")
    begun = made._begin(stream)
    noised = made._noise(stream, begun.x.shape[1:])
    with torch.no_grad():
        rollout = made._rollout(begun)
    return begun.condition, noised, rollout, 1.0


@gpu
@pytest.mark.parametrize("name", FAMILIES)
def test_a_velocity_is_the_cpus(name, tmp_path):
    from tiny import prompts

    write_tiny(name, tmp_path / "model")
    network = load_velocity(tmp_path / "model", FAMILIES[name], torch.float32)
    family = FAMILIES[name]
    images = torch.randn(4, 20, 3, 4, 6) if family.image_channels else None
    index = [[0, 0], [1, 1]] if family.image_channels else [0, 1]
    given = prompts(*index, images=images, padded=512 if family.kind == "wan" else None)
    x = torch.randn(2, 16, 1 if family.kind == "qwen" else 3, 4, 6)
    t = torch.tensor([0.95, 0.3])
    with torch.no_grad():
        cpu = network(x, t, given)
        there = network.cuda()(x.cuda(), t.cuda(), given.to("cuda")).cpu()
    torch.testing.assert_close(there, cpu, rtol=1e-3, atol=1e-4)


@gpu
@pytest.mark.parametrize("name", ["tiny", "tiny-experts"])
def test_updates_in_bfloat16_move_every_adapter_and_nothing_else(name):
    """Watch raises otherwise; flash attention in bfloat16 needs `deterministic: false`."""
    torch.use_deterministic_algorithms(False)
    made = trainer(name, "17x64x64", "cuda", torch.bfloat16)
    assert made.watch.frozen
    settle(made)
    assert torch.cuda.max_memory_allocated() > 0


@gpu
@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["wan2.1-t2v-1.3b", "wan2.2-a14b-expert", "wan2.2-a14b --offload", "qwen-image"]
)
def test_three_updates_at_full_size_fit_one_gpu(name):
    """In a process of its own: the peak is of it alone."""
    command = [sys.executable, str(ROOT / "tests/gpu/full_size.py"), *name.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    print(found)
    assert found["peak_gib"] < 80


@gpu
@pytest.mark.long
def test_the_tiny_chain_runs_on_a_gpu(tmp_path):
    overlay = tmp_path / "gpu.yaml"
    overlay.write_text(json.dumps(ON_GPU))
    command = [sys.executable, "-m", "snakemake", "-c2", "--configfile", "config/tiny.yaml"]
    subprocess.run([*command, str(overlay)], check=True, cwd=ROOT)


@gpu
def test_features_are_the_cpus(tmp_path):
    """DINOv3's place has Lite0; RAFT-large and CLIP have random weights."""
    from clip.model import CLIP
    from torchvision.models.optical_flow import raft_large

    from pdmd.config.sections import Networks
    from pdmd.files.assets import fetch
    from pdmd.files.storage import save_pickled
    from pdmd.networks.small_clip import SIZES
    from pdmd.scenarios.dataless.metrics import features

    for name in ("lite0", "i3d"):
        fetch(name)
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False
    save_pickled(tmp_path / "clip.pt", CLIP(**SIZES).state_dict())
    save_pickled(tmp_path / "raft.pt", raft_large(weights=None).state_dict())
    wanted = Networks(flow=str(tmp_path / "raft.pt"), clip=str(tmp_path / "clip.pt"))
    clip = (255 * torch.rand(1, 3, 9, 128, 128)).byte()
    cpu, there = (
        features(clip, "a fox", wanted, tmp_path, torch.device(device))
        for device in ("cpu", "cuda")
    )
    assert cpu.keys() == there.keys()
    for name, one in cpu.items():
        torch.testing.assert_close(there[name], one, rtol=1e-2, atol=1e-3)
