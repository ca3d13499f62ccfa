"""Two experts that take turns on a device compute what both together compute, bit by bit."""

import sys

import pytest
import torch
from configs import ROOT, accepted, own, refused

sys.path.insert(0, str(ROOT / "tests" / "gpu"))
from full_size import trainer

from pdmd.errors import UserError
from pdmd.models.experts import Experts
from pdmd.models.offload import Turns, take_turns

CPU = torch.device("cpu")
UPDATES = 6


def trained(offload, region="update", spoil=None):
    """What training makes of every role, and the values that it logs."""
    torch.manual_seed(0)
    made = trainer("tiny-experts", "9x32x48", "cpu", torch.float32, rank=8, offload=offload)
    made.recipe = type(made.recipe)(**{**vars(made.recipe), "region": region})
    if spoil:
        spoil(made.roles.frozen)
    logged = [made.update(step) for step in range(UPDATES)]
    states = {role: one.state_dict() for role, one in made.roles.states().items()}
    return states, logged, made


@pytest.mark.parametrize("region", ["update", "row"])
def test_training_is_bit_equal_with_one_expert_at_a_time(region):
    plain, logged, _ = trained(False, region)
    turned, logged_too, made = trained(True, region)
    assert isinstance(made.roles.frozen, Turns)
    for role, state in plain.items():
        for name, tensor in state.items():
            assert torch.equal(turned[role][name], tensor), f"{role}: {name}"
    for one, other in zip(logged, logged_too, strict=True):
        assert all(torch.equal(other[name], value) for name, value in one.items())
    assert any(float(one["generator_gradient_norm"].max()) > 0 for one in logged)


def test_without_a_turn_on_the_way_back_gradients_are_others(monkeypatch):
    """Control: the generator's graph goes back when the other expert was last called."""

    def forward_alone(self, expert, side):
        expert.register_forward_pre_hook(lambda *_: self.bring(side))

    plain, _, _ = trained(False)
    monkeypatch.setattr(Turns, "_attend", forward_alone)
    try:
        turned, _, _ = trained(True)
    except RuntimeError:  # an empty weight met a block that is computed again
        return
    assert any(
        not torch.equal(turned["generator"][name], one) for name, one in plain["generator"].items()
    )


def test_the_expert_that_waits_has_nothing_on_the_device():
    _, _, made = trained(True)
    turns = made.roles.frozen
    waits = "low" if turns.side == "high" else "high"
    assert sum(place.tensor.numel() for place in turns.places[waits]) == 0
    assert sum(place.tensor.numel() for place in turns.places[turns.side]) > 0
    sizes = [len(one) for one in turns.waiting.values()]
    assert turns.room.numel() == max(sizes)


def test_all_tensors_of_both_are_watched():
    """Control of `nothing else moves`: what an update changes in the room is seen."""
    _, _, made = trained(True)
    network = made.roles.fake.shared.network
    bases = [name for name, _ in network.named_parameters() if ".lora_" not in name]
    assert len(made.roles.frozen) == len(bases)

    def spoil(turns):
        turns.waiting["low"].zero_()
        turns.side = None

    with pytest.raises(UserError, match=r"low\.net\..*: has moved: expected it to stay frozen"):
        trained(True, spoil=spoil)


def test_one_expert_takes_no_turns():
    assert take_turns(torch.nn.Linear(2, 2), CPU) is None
    from pdmd.models.experts import Absent

    assert take_turns(Experts(Absent(), Absent(), 0.9), CPU) is None


def test_the_key_is_for_two_experts():
    accepted(own("wan22t2v", model={"offload": "idle"}))
    said = refused(own("wan21t2v", model={"offload": "idle"}))
    assert "model.offload: 'idle': expected none for wan2.1-t2v-14b" in said
    assert "model.offload" in refused(own("emoji", model={"offload": "idle"}))
