import pytest
import torch
from tiny import CHANNELS, noise, prompts, qwen, wan
from torch.utils.checkpoint import CheckpointError, checkpoint

from pdmd.models.adapters import SharedBase, checkpoint_activations, transformers_of
from pdmd.models.experts import Experts
from pdmd.roles import trained_parts

RANK = 4


def moved(adapter, seed=1):
    """An adapter that has left zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in adapter.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=generator))
    return adapter


def trained(network, seed=1):
    """A network with an adapter that has left zero."""
    return moved(SharedBase(network, RANK, RANK).add("generator", seed, trainable=True), seed)


def call(velocity, grad=False):
    x = noise(2, CHANNELS, 1, 4, 4)
    with torch.set_grad_enabled(grad):
        return velocity(x, torch.tensor([0.3, 0.9]), prompts(0, 1))


def experts():
    return Experts(wan(0), wan(1), 0.875)


MAKES = [qwen, wan, experts]


@pytest.mark.parametrize("make", MAKES)
def test_a_new_adapter_changes_nothing_and_a_trained_one_does(make):
    network = make()
    before = call(network)
    assert torch.equal(call(SharedBase(network, RANK, RANK).add("generator", 0)), before)
    assert not torch.allclose(call(trained(make())), before, atol=1e-4)


@pytest.mark.parametrize("make", MAKES)
def test_every_role_on_one_base_is_what_it_is_on_a_base_of_its_own(make):
    shared, plain = SharedBase(make(), RANK, RANK), call(make())
    roles = {name: moved(shared.add(name, 0), seed) for seed, name in enumerate(("a", "b", "c"))}
    alone = {name: call(trained(make(), seed)) for seed, name in enumerate(roles)}
    for name in ("a", "b", "c", "b", "a"):
        assert torch.equal(call(roles[name]), alone[name])
        assert torch.equal(call(shared.plain()), plain)  # the teacher, whatever was called before
    assert not torch.equal(alone["a"], alone["b"])  # control


@pytest.mark.parametrize("make", MAKES)
def test_switching_changes_nothing_that_is_trained(make):
    shared = SharedBase(make(), RANK, RANK)
    generator = shared.add("generator", 0, trainable=True)
    average = shared.add("average", 0)
    fake = shared.add("fake", 0, trainable=True)
    trainable = {"generator": True, "average": False, "fake": True}
    for velocity in (generator, average, shared.plain(), fake):
        call(velocity)
        for role in (generator, average, fake):
            assert {p.requires_grad for p in role.parameters()} == {trainable[role.name]}
    mine = {id(p) for role in (generator, fake) for p in role.parameters()}
    assert {id(p) for p in shared.network.parameters() if p.requires_grad} == mine


@pytest.mark.parametrize("make", MAKES)
def test_the_adapter_alone_is_trained_and_stored(make):
    adapter = trained(make())
    state = dict(adapter.state_dict())
    assert state.keys() == dict(adapter.named_parameters()).keys()
    assert all(name.endswith(".default.weight") and ".lora_" in name for name in state)
    again = SharedBase(make(), RANK, RANK).add("another name", 5)
    again.load_state_dict(state)
    assert torch.equal(call(again), call(adapter))
    halves = {name: tensor.half() for name, tensor in state.items()}
    with pytest.raises(RuntimeError, match=r"expected torch\.float32"):
        again.load_state_dict(halves)
    state.popitem()
    with pytest.raises(RuntimeError, match="expected its own tensors"):
        again.load_state_dict(state)


def test_an_adapter_is_a_function_of_its_seed():
    shared = SharedBase(qwen(), RANK, RANK)
    first, same, other = (shared.add(f"of {seed}-{i}", seed) for i, seed in enumerate((1, 1, 2)))
    name = next(name for name in first.state_dict() if "lora_A" in name)
    assert torch.equal(first.state_dict()[name], same.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_each_of_two_experts_is_a_part_with_an_optimiser_of_its_own():
    parts = trained_parts("fake", trained(experts()))
    assert [part.name for part in parts] == ["fake.high", "fake.low"]
    assert [part.name for part in trained_parts("fake", trained(wan()))] == ["fake"]
    whole = experts().requires_grad_(True)
    assert [part.name for part in trained_parts("fake", whole)] == ["fake.high", "fake.low"]
    assert trained_parts("fake", experts()) == []  # control: frozen


# ---- activation checkpointing


def gradients(make, function=None, checkpointing=True):
    """Of a generator whose teacher and fake, on the same base, are called before the backward."""
    shared = SharedBase(make(), RANK, RANK)
    generator = moved(shared.add("generator", 0, trainable=True))
    fake = moved(shared.add("fake", 0, trainable=True), 2)
    if checkpointing:
        checkpoint_activations(shared.network)
    if function is not None:
        for net in transformers_of(shared.network):
            net.enable_gradient_checkpointing(function)
    v = call(generator, grad=True)
    call(shared.plain())
    call(fake)
    v.square().mean().backward()
    return [p.grad for p in generator.parameters()], [p.grad for p in fake.parameters()]


def same(mine, wanted):
    """Whether gradients are equal; the last block's text branch has none."""
    pairs = list(zip(mine, wanted, strict=True))
    assert any(other is not None for _, other in pairs)
    return all(one is other or torch.equal(one, other) for one, other in pairs)


def standard(block, *inputs):
    """What diffusers does by itself: the backward pass runs under what was called last."""
    return checkpoint(block, *inputs, use_reentrant=False)


@pytest.mark.parametrize("make", MAKES)
def test_gradients_with_checkpointing_are_exactly_those_without(make):
    wanted, _ = gradients(make, checkpointing=False)
    mine, fakes = gradients(make)
    assert same(mine, wanted)
    assert all(grad is None for grad in fakes)
    try:  # control
        wrong, fakes = gradients(make, standard)
    except CheckpointError:
        return
    assert any(grad is not None for grad in fakes) or not same(wrong, wanted)


def test_checkpointing_can_be_switched_off():
    network = wan()
    checkpoint_activations(network)
    assert network.net.is_gradient_checkpointing
    checkpoint_activations(network, on=False)
    assert not network.net.is_gradient_checkpointing


def test_two_experts_have_an_adapter_each():
    names = trained(experts()).state_dict()
    assert {name.split(".")[0] for name in names} == {"high", "low"}
