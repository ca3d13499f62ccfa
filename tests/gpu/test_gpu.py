"""What a GPU alone can confirm of released models; without one, that its code runs on the CPU."""

import json
import subprocess
import sys

import pytest
import torch
from configs import ROOT

sys.path.insert(0, str(ROOT / "tests" / "gpu"))
from full_size import measure

from pdmd.models.families import FAMILIES, load_velocity
from pdmd.models.tiny import write_tiny

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_the_measurement_runs_on_the_cpu_at_a_tiny_size():
    found = measure("tiny", device="cpu", dtype=torch.float32, rank=8)
    assert len(found["seconds"]) == 3
    assert found["forwards"]["teacher"] == 6  # two calls for each of three generator updates
    assert sum(found["by_role"].values()) <= sum(found["seconds"])


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
def test_updates_in_bfloat16_move_every_adapter_and_nothing_else():
    """Watch raises otherwise; flash attention in bfloat16 needs `deterministic: false`."""
    torch.use_deterministic_algorithms(False)
    found = measure("tiny", size="17x64x64", device="cuda")
    assert found["peak_gib"] > 0


@gpu
@pytest.mark.long
@pytest.mark.parametrize("name", ["wan2.1-t2v-1.3b", "wan2.2-a14b-expert", "qwen-image"])
def test_three_updates_at_full_size_fit_one_gpu(name):
    """In a process of its own: the peak is of it alone."""
    command = [sys.executable, str(ROOT / "tests/gpu/full_size.py"), name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    print(found)
    assert found["peak_gib"] < 80


@gpu
@pytest.mark.long
def test_the_tiny_chain_runs_on_a_gpu(tmp_path):
    overlay = tmp_path / "gpu.yaml"
    overlay.write_text("overrides: {all: {hardware: {processes: 1, gpus: 1}}}\n")
    command = [sys.executable, "-m", "snakemake", "-c2", "--configfile", "config/tiny.yaml"]
    subprocess.run([*command, str(overlay)], check=True, cwd=ROOT)
