"""A base in bfloat16 is trained on in float32: adapters, both of AdamW's moments, the average."""

import sys

import pytest
import torch
from configs import ROOT

sys.path.insert(0, str(ROOT / "tests" / "gpu"))
from full_size import trainer

from pdmd.models import adapters
from pdmd.models.adapters import MARK, SharedBase
from pdmd.models.families import FAMILIES, load_velocity
from pdmd.models.tiny import write_tiny

# What diffusers keeps in float32 of a Wan that is loaded in bfloat16.
ISLANDS = ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3")


def dtypes_after(updates):
    """Kind of tensor -> its dtypes, after updates on a tiny base in bfloat16."""
    made = trainer("tiny", "9x32x48", "cpu", torch.bfloat16, rank=8)
    for step in range(updates):
        made.update(step)
    network = made.roles.fake.shared.network
    found = {"base": {p.dtype for name, p in network.named_parameters() if MARK not in name}}
    for role, one in made.roles.states().items():
        found[role] = {p.dtype for p in one.parameters()}
    for name, optimizer in made.optimizers.items():
        moments = [state[key] for state in optimizer.state.values() for key in MOMENTS]
        assert moments
        found[f"moments of {name}"] = {moment.dtype for moment in moments}
    return found


MOMENTS = ("exp_avg", "exp_avg_sq")


def test_all_that_is_trained_on_a_base_in_bfloat16_is_float32():
    found = dtypes_after(2)
    assert found.pop("base") == {torch.bfloat16}
    assert found.keys() == {
        *("fake", "generator", "average", "moments of fake", "moments of generator")
    }
    assert {name: dtypes for name, dtypes in found.items() if dtypes != {torch.float32}} == {}


def test_without_the_cast_it_would_be_bfloat16(monkeypatch):
    """Control."""
    monkeypatch.setattr(adapters, "keep_in_float32", lambda p: None)
    found = dtypes_after(1)
    for name in ("fake", "generator", "average", "moments of fake", "moments of generator"):
        assert found[name] == {torch.bfloat16}, name


@pytest.mark.parametrize("name", ["wan2.1-t2v-1.3b", "qwen-image"])
def test_so_it_is_on_a_base_that_was_loaded(name, tmp_path):
    """With the islands that diffusers leaves in float32, of the released classes."""
    write_tiny(name, tmp_path / "model")
    network = load_velocity(tmp_path / "model", FAMILIES[name], torch.bfloat16)
    SharedBase(network, 4, 2).add("generator", 0, trainable=True)
    for key, p in network.named_parameters():
        island = any(one in key for one in ISLANDS)
        if MARK in key:
            assert p.dtype == torch.float32, key
        elif not island:
            assert p.dtype == torch.bfloat16, key
