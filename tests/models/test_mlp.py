from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pdmd.models.base import Condition, Guided, take
from pdmd.models.mlp import ConditionalMLP, VelocityMLP

RUNS, ROWS, DIM, CLASSES = 3, 12, 4, 5
NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "plain": lambda runs: VelocityMLP(runs, DIM, 16, 2),
    "waves": lambda runs: VelocityMLP(runs, DIM, 16, 2, waves=3),
    "conditional": lambda runs: ConditionalMLP(runs, DIM, 16, 2, CLASSES),
}


@pytest.fixture(params=sorted(NETWORKS))
def build(request) -> Callable[[int], nn.Module]:
    return NETWORKS[request.param]


def stacked(build: Callable[[int], nn.Module]) -> nn.Module:
    """A network of RUNS runs with no parameter left at zero."""
    torch.manual_seed(0)
    net = build(RUNS)
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    return net


def slice_run(net: nn.Module, build: Callable[[int], nn.Module], run: int) -> nn.Module:
    """A network of one run with the parameters of `run`."""
    alone = build(1)
    alone.load_state_dict({k: w[run : run + 1] for k, w in net.state_dict().items()})
    return alone


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """x (RUNS * ROWS, DIM), t and a class for each row, all different from row to row."""
    draw = torch.Generator().manual_seed(1)
    count = RUNS * ROWS
    x, t = torch.randn(count, DIM, generator=draw), torch.rand(count, generator=draw)
    return x, t, torch.randint(CLASSES, (count,), generator=draw)


def test_a_run_of_a_stack_gives_what_it_gives_alone(build):
    net, (x, t, c) = stacked(build), inputs()
    together = net(x, t, c)
    assert together.shape == x.shape
    for run in range(RUNS):
        alone = slice_run(net, build, run)
        mine = slice(run, None, RUNS)
        torch.testing.assert_close(together[mine], alone(x[mine], t[mine], c[mine]))
    other = slice_run(net, build, 0)  # control: another run's parameters
    assert not torch.allclose(
        together[1::RUNS], other(x[1::RUNS], t[1::RUNS], c[1::RUNS]), rtol=0.1
    )


def test_a_run_gives_what_it_gives_alone_without_a_condition(build):
    net, (x, t, _) = stacked(build), inputs()
    together = net(x, t, None)
    for run in range(RUNS):
        mine = slice(run, None, RUNS)
        alone = slice_run(net, build, run)(x[mine], t[mine], None)
        torch.testing.assert_close(together[mine], alone)


def test_no_gradient_leaks_from_run_to_run(build):
    net, (x, t, c) = stacked(build), inputs()
    net(x, t, c)[1::RUNS].square().sum().backward()
    for name, p in net.named_parameters():
        reached = p.grad.flatten(1).abs().sum(1) > 0
        assert reached.tolist() == [False, True, False], name
    net.zero_grad()
    net(x, t, c).square().sum().backward()  # control: a loss of all runs reaches all
    assert all((p.grad.flatten(1).abs().sum(1) > 0).all() for p in net.parameters())


def test_a_run_s_gradient_is_what_it_is_alone(build):
    net, (x, t, c) = stacked(build), inputs()
    net(x, t, c).square().sum().backward()
    alone = slice_run(net, build, 2)
    alone(x[2::RUNS], t[2::RUNS], c[2::RUNS]).square().sum().backward()
    for p, q in zip(net.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p.grad[2:], q.grad, rtol=1e-4, atol=1e-4)


def test_every_parameter_has_the_runs_first(build):
    assert all(len(p) == RUNS for p in build(RUNS).parameters())


def test_a_network_s_rows_do_not_depend_on_the_rows_beside_them(build):
    net, (x, t, c) = stacked(build), inputs()
    some = slice(RUNS * 4, RUNS * 7)  # whole samples, so that runs stay in their places
    torch.testing.assert_close(net(x[some], t[some], c[some]), net(x, t, c)[some])
    shifted = slice(RUNS * 4 + 1, RUNS * 7 + 1)  # control: rows fall to other runs
    got = net(x[shifted], t[shifted], c[shifted])
    assert not torch.allclose(got, net(x, t, c)[shifted], rtol=0.1)


def test_the_velocity_depends_on_x_t_and_class():
    net, (x, t, c) = stacked(NETWORKS["conditional"]), inputs()
    v = net(x, t, c)
    for changed in ((x + 1, t, c), (x, t / 2, c), (x, t, (c + 1) % CLASSES)):
        assert not torch.allclose(net(*changed), v, rtol=1e-2)
    assert torch.equal(net(x, t, c), v)  # control: nothing changed


def test_no_condition_is_the_null_class():
    net, (x, t, c) = stacked(NETWORKS["conditional"]), inputs()
    null = torch.full_like(c, net.null)
    torch.testing.assert_close(net(x, t, None), net(x, t, null))
    assert not torch.allclose(net(x, t, None), net(x, t, c), rtol=1e-2)  # control


# Classifier-free guidance


class Counting(nn.Module):
    """A network that counts its calls and rows."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.rows = net, []

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.rows.append(len(x_t))
        return self.net(x_t, t, condition)


def test_guidance_is_null_plus_scale_times_the_difference():
    net, (x, t, c) = stacked(NETWORKS["conditional"]), inputs()
    given, free = net(x, t, c), net(x, t, torch.full_like(c, CLASSES))
    for scale in (0.0, 1.0, 2.5):
        got = Guided(net, scale, CLASSES)(x, t, c)
        torch.testing.assert_close(got, free + scale * (given - free), rtol=1e-4, atol=1e-5)
    swapped = given + 2.5 * (free - given)  # control
    assert not torch.allclose(got, swapped, rtol=0.1)


def test_guidance_of_scale_one_is_one_plain_call():
    net, (x, t, c) = Counting(stacked(NETWORKS["conditional"])), inputs()
    guided = Guided(net, 1, None)
    assert torch.equal(guided(x, t, c), net.net(x, t, c))
    assert (net.rows, guided.calls) == ([len(x)], 1)
    net.rows.clear()
    guided = Guided(net, 4.0, CLASSES)  # control: two branches, in one call of twice the rows
    guided(x, t, c)
    assert (net.rows, guided.calls) == ([2 * len(x)], 2)


def test_guidance_of_nothing_is_the_free_velocity():
    net, (x, t, _) = Counting(stacked(NETWORKS["conditional"])), inputs()
    torch.testing.assert_close(Guided(net, 4.0, CLASSES)(x, t, None), net.net(x, t, None))
    assert net.rows == [len(x)]


def test_guidance_needs_a_null_condition():
    net = VelocityMLP(1, DIM, 8, 1)
    with pytest.raises(ValueError, match=r"guidance: 4\.0: expected 1 .* null condition"):
        Guided(net, 4.0, net.null)
    assert Guided(net, 1.0, net.null).calls == 1  # control: scale 1 needs none


def test_taking_rows_of_no_condition_gives_none():
    assert take(None, slice(1, 3)) is None
    assert take(torch.arange(4), slice(1, 3)).tolist() == [1, 2]
