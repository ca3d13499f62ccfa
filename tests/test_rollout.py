import pytest
import torch
from torch import Tensor, nn

from pdmd.flow import Flow, predict_x0, step_to
from pdmd.models.base import Condition
from pdmd.models.mlp import VelocityMLP
from pdmd.objectives import full_like_time
from pdmd.phases import Phase, split_phases
from pdmd.rollout import approach, exit_steps, sample, simulate_to_end, simulate_to_exit
from pdmd.starts import NoiseStarts
from pdmd.streams import Stream

DOUBLE = torch.float64


class StepWise(nn.Module):
    """A velocity with its own parameter for each step of the grid; it remembers its calls."""

    def __init__(self, times: tuple[float, ...]):
        super().__init__()
        draw = torch.Generator().manual_seed(1)
        self.gain = nn.Parameter(torch.randn(len(times), generator=draw, dtype=DOUBLE))
        self.times = torch.tensor(times, dtype=DOUBLE)
        self.rows: list[int] = []
        self.with_graph: list[bool] = []

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.rows.append(len(x_t))
        self.with_graph.append(torch.is_grad_enabled())
        step = (self.times[None] - t[:, None]).abs().argmin(1)
        v = self.gain[step][:, None] * (x_t.sin() + 0.3)
        return v if condition is None else v + 0.1 * condition[:, None]

    def steps_with_gradient(self) -> list[int]:
        """Grid steps whose parameter the last backward pass reached."""
        return [] if self.gain.grad is None else self.gain.grad.nonzero().flatten().tolist()


def phases(*boundaries: int, steps: int = 4) -> tuple[Phase, ...]:
    return split_phases(steps, boundaries, 5.0, "nested", 0.02)


def rows(count: int = 8) -> tuple[Tensor, Tensor]:
    """x (count, 2) and a condition (count,)."""
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(count, 2, generator=draw, dtype=DOUBLE)
    return x, torch.arange(count, dtype=DOUBLE)


def by_hand(
    flow: Flow,
    v: StepWise,
    phase: Phase,
    x: Tensor,
    c: Tensor,
    exits: Tensor,
    cut: bool = True,
) -> tuple[Tensor, Tensor]:
    """(x_s, x0), one row after another: Euler steps before the exit, then one jump to t_k.

    The gradient is cut before the jump, or not.
    """
    ends, clean = [], []
    for i in range(len(x)):
        row, condition = x[i : i + 1], c[i : i + 1]
        for step in range(phase.first, int(exits[i])):
            t, s = (full_like_time(phase.times[j], row) for j in (step, step + 1))
            row = step_to(flow, row, v(row, t, condition), t, s)
        row = row.detach() if cut else row
        t = full_like_time(phase.times[int(exits[i])], row)
        velocity = v(row, t, condition)
        ends.append(step_to(flow, row, velocity, t, full_like_time(phase.end, row)))
        clean.append(predict_x0(flow, row, velocity, t))
    return torch.cat(ends), torch.cat(clean)


def test_leaving_at_the_last_step_is_the_whole_rollout(flow):
    x, c = rows()
    for phase in phases(2, 4):
        v = StepWise(phase.times)
        whole = simulate_to_end(flow, v, phase, x, c)
        last = simulate_to_exit(flow, v, phase, x, c, torch.full((8,), phase.last - 1))
        torch.testing.assert_close(last.x_s, whole.x_s)
        torch.testing.assert_close(last.x0, whole.x0)
        assert last.calls == whole.calls == 2
        first = simulate_to_exit(flow, v, phase, x, c, torch.full((8,), phase.first))  # control
        assert not torch.allclose(first.x_s, whole.x_s, rtol=1e-2)


def test_a_phase_of_one_step_has_nothing_to_truncate(flow):
    x, c = rows()
    for phase in phases(1, 2, 3, 4):
        v = StepWise(phase.times)
        exits = exit_steps(phase, 8, 1)
        assert exits.unique().tolist() == [phase.first]
        cut, whole = (
            simulate_to_exit(flow, v, phase, x, c, exits),
            simulate_to_end(flow, v, phase, x, c),
        )
        torch.testing.assert_close(cut.x_s, whole.x_s)
        assert cut.calls == whole.calls == 1
    (single,) = phases(4)  # control: one phase of four steps is truncated
    cut = simulate_to_exit(flow, v, single, x, c, exit_steps(single, 8, 1))
    assert not torch.allclose(cut.x_s, simulate_to_end(flow, v, single, x, c).x_s, rtol=1e-2)


@pytest.mark.parametrize("number", [0, 1])
def test_the_exit_step_jumps_to_the_end_of_the_phase(flow, number):
    phase, (x, c) = phases(2, 4)[number], rows()
    v = StepWise(phase.times)
    for step in range(phase.first, phase.last):
        exits = torch.full((8,), step)
        out = simulate_to_exit(flow, v, phase, x, c, exits)
        x_s, x0 = by_hand(flow, v, phase, x, c, exits)
        torch.testing.assert_close(out.x_s, x_s)
        torch.testing.assert_close(out.x0, x0)
    out = simulate_to_exit(flow, v, phase, x, c, torch.full((8,), phase.first))
    t, s = (full_like_time(phase.times[phase.first + i], x) for i in (0, 1))
    one_step = step_to(flow, x, v(x, t, c), t, s)  # control: the exit step only goes to the next t
    assert not torch.allclose(out.x_s, one_step, rtol=1e-2)


def test_the_last_phase_ends_in_its_clean_estimate_and_the_first_does_not(flow):
    x, c = rows()
    first, last = phases(2, 4)
    v = StepWise(first.times)
    out = simulate_to_exit(flow, v, last, x, c, exit_steps(last, 8, 1))
    torch.testing.assert_close(out.x_s, out.x0)
    out = simulate_to_exit(flow, v, first, x, c, exit_steps(first, 8, 1))  # control
    assert not torch.allclose(out.x_s, out.x0, rtol=1e-2)


@pytest.mark.parametrize("step", range(4))
def test_only_the_exit_call_carries_a_gradient(flow, step):
    (phase,), (x, c) = phases(4), rows()
    v = StepWise(phase.times)
    out = simulate_to_exit(flow, v, phase, x, c, torch.full((8,), step))
    assert not out.x0.requires_grad
    out.x_s.sum().backward()
    assert v.with_graph == [False] * step + [True]
    assert v.steps_with_gradient() == [step]


def test_every_call_of_the_vanilla_rollout_carries_a_gradient(flow):
    """The control of the test above: the same module sees all steps."""
    (phase,), (x, c) = phases(4), rows()
    v = StepWise(phase.times)
    out = simulate_to_end(flow, v, phase, x, c)
    assert not out.x0.requires_grad
    out.x_s.sum().backward()
    assert v.with_graph == [True] * 4
    assert v.steps_with_gradient() == [0, 1, 2, 3]


def test_the_gradient_is_that_of_the_jump_with_its_start_held_fixed(flow):
    (phase,), (x, c) = phases(4), rows()
    v, exits = StepWise(phase.times), exit_steps(phase, 8, 1)

    def gradient(x_s: Tensor) -> Tensor:
        return torch.autograd.grad(x_s.sum(), v.gain)[0]

    got = gradient(simulate_to_exit(flow, v, phase, x, c, exits).x_s)
    torch.testing.assert_close(got, gradient(by_hand(flow, v, phase, x, c, exits)[0]))
    assert (got[:4] != 0).all()
    uncut = gradient(by_hand(flow, v, phase, x, c, exits, cut=False)[0])  # control
    assert not torch.allclose(got, uncut, rtol=1e-2)


@pytest.mark.parametrize("batch", [8, 64])
def test_stratified_exits_have_equal_shares(batch):
    for phase in (*phases(4), *phases(2, 4), *phases(1, 4)):
        steps = phase.last - phase.first
        exits = exit_steps(phase, batch, 1)
        counts = exits.bincount(minlength=phase.last)[phase.first :]
        assert exits.tolist() == sorted(exits.tolist())
        assert (exits.min(), exits.max()) == (phase.first, phase.last - 1)
        assert counts.sum() == batch
        assert counts.max() - counts.min() <= (1 if batch % steps else 0)
    drawn = torch.randint(4, (batch,), generator=torch.Generator().manual_seed(0))  # control
    assert drawn.bincount(minlength=4).unique().numel() > 1


def shares_of(phase: Phase, batch: int, updates: int, lots: bool = True) -> Tensor:
    """The share of rows that left at each step, over many updates."""
    found = [
        exit_steps(phase, batch, 1, Stream([7], update, "fake0") if lots else None)
        for update in range(updates)
    ]
    return torch.cat(found).bincount(minlength=phase.last)[phase.first :] / (batch * updates)


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 6, 8])
def test_every_step_is_the_exit_equally_often_whatever_the_batch(batch):
    updates = 3000
    for boundaries in ((1, 4), (2, 4), (3, 4), (4,)):
        phase = phases(*boundaries)[-1]
        steps = phase.last - phase.first
        rest = batch % steps  # rows of an update that are drawn, so many of `steps` to each
        noise = (rest / steps * (1 - rest / steps) / updates) ** 0.5 / batch
        assert (shares_of(phase, batch, updates) - 1 / steps).abs().max() < 4 * noise + 1e-6
    even = shares_of(phases(4)[0], batch, 10, lots=False)  # control: the same steps always
    assert (float((even - 1 / 4).abs().max()) > 0.03) == (batch % 4 != 0)


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 6, 7, 8, 192])
def test_lots_give_a_step_one_row_more_at_most(batch):
    (phase,) = phases(4)
    for update in range(50):
        exits = exit_steps(phase, batch, 2, Stream([7, 8], update, "fake0")).view(batch, 2)
        for run in range(2):
            counts = exits[:, run].bincount(minlength=4)
            assert counts.max() - counts.min() == (batch % 4 > 0)
            assert torch.equal(exits[:, run], exits[:, run].sort().values)
        alone = exit_steps(phase, batch, 1, Stream([8], update, "fake0"))
        assert torch.equal(exits[:, 1], alone)  # a run leaves where it would alone
    drawn = {tuple(exit_steps(phase, batch, 1, Stream([7], i, "x")).tolist()) for i in range(50)}
    assert len(drawn) == {0: 1, 1: 4, 2: 6, 3: 4}[batch % 4]  # every lot there is


def test_lots_move_no_other_draw():
    stream, other = Stream([7], 3, "fake0"), Stream([7], 3, "fake0")
    exit_steps(phases(4)[0], 6, 1, stream)
    assert torch.equal(stream.normal(6, (2,)), other.normal(6, (2,)))
    other.order(4)  # control: drawn from the stream itself, they do
    assert not torch.equal(stream.normal(6, (2,)), other.normal(6, (2,)))


def test_a_batch_that_divides_by_the_steps_draws_no_lots():
    (phase,) = phases(4)
    for batch in (4, 8, 192):
        assert torch.equal(
            exit_steps(phase, batch, 3, Stream([1, 2, 3], 5, "x")), exit_steps(phase, batch, 3)
        )
    assert exit_steps(phase, 8, 1).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_exits_and_conditions_are_independent():
    """Rows ascend in their exits; conditions are drawn row by row, so they do not."""
    (phase,), classes, updates, batch = phases(4), 3, 2000, 6
    found = torch.zeros(4, classes)
    blocks = torch.zeros(4, classes)
    for update in range(updates):
        stream = Stream([7], update, "fake0")
        label = stream.integers(batch, classes)  # as every source of prompts draws them
        exits = exit_steps(phase, batch, 1, stream)
        found.index_put_((exits, label), torch.ones(batch), accumulate=True)
        even = torch.arange(batch) * classes // batch
        blocks.index_put_((exits, even), torch.ones(batch), accumulate=True)
    wanted = updates * batch / (4 * classes)
    assert (found - wanted).abs().max() < 4 * wanted**0.5
    assert (blocks - wanted).abs().max() > 20 * wanted**0.5  # control: conditions in blocks


def test_runs_that_draw_other_lots_leave_where_they_leave_alone(flow):
    exits = exit_steps(phases(4)[0], 6, 2, Stream([7, 9], 1, "fake0"))
    assert not torch.equal(exits[0::2], exits[1::2])
    ends, alone = stacked(exits, flow)
    for run in range(2):
        torch.testing.assert_close(ends[run::2], alone[run])


def test_each_run_has_the_exits_it_has_alone():
    (phase,) = phases(4)
    together, alone = exit_steps(phase, 8, 3), exit_steps(phase, 8, 1)
    assert all(torch.equal(together[run::3], alone) for run in range(3))
    assert not torch.equal(alone.repeat(3)[0::3], alone)  # control: run after run


def test_rows_in_any_order_leave_where_they_leave_in_order(flow):
    (phase,), (x, c) = phases(4), rows()
    v, exits = StepWise(phase.times), exit_steps(phase, 8, 1)
    order = torch.tensor([5, 0, 7, 2, 1, 6, 3, 4])
    ordered = simulate_to_exit(flow, v, phase, x, c, exits)
    mixed = simulate_to_exit(flow, v, phase, x[order], c[order], exits[order])
    torch.testing.assert_close(mixed.x_s, ordered.x_s[order])
    torch.testing.assert_close(mixed.x0, ordered.x0[order])
    x_s, x0 = by_hand(flow, v, phase, x, c, exits)
    torch.testing.assert_close(ordered.x_s, x_s)
    torch.testing.assert_close(ordered.x0, x0)
    assert not torch.allclose(mixed.x_s, ordered.x_s, rtol=1e-2)  # control: order does matter


def test_a_rollout_leaves_its_start_alone(flow):
    (phase,), (x, c) = phases(4), rows()
    before, v = x.clone(), StepWise(phase.times)
    simulate_to_exit(flow, v, phase, x, c, torch.full((8,), 3))
    assert torch.equal(x, before)
    moved = x.clone()  # control: an in-place step is seen by the same comparison
    moved[1:] += 1
    assert not torch.equal(moved, before)


def test_calls_count_the_rows_that_the_network_saw(flow):
    (phase,), (x, c) = phases(4), rows()
    v = StepWise(phase.times)
    in_order = simulate_to_exit(flow, v, phase, x, c, exit_steps(phase, 8, 1))
    assert v.rows == [6, 4, 2, 8]
    assert in_order.calls == sum(v.rows) / 8 == 2.5
    v.rows.clear()
    backwards = simulate_to_exit(flow, v, phase, x, c, exit_steps(phase, 8, 1).flip(0))  # control
    assert backwards.calls == sum(v.rows) / 8 == 4
    v.rows.clear()
    whole = simulate_to_end(flow, v, phase, x, c)
    assert whole.calls == sum(v.rows) / 8 == 4
    assert simulate_to_exit(flow, v, phase, x, c, torch.zeros(8, dtype=torch.int64)).calls == 1


def test_experts_one_after_another_are_one_rollout(flow):
    first, second = phases(2, 4)
    (whole,), (x, c) = phases(4), rows()
    v = StepWise(whole.times)
    handed_on = simulate_to_end(flow, v, first, x, c).x_s
    torch.testing.assert_close(
        simulate_to_end(flow, v, second, handed_on, c).x_s,
        simulate_to_end(flow, v, whole, x, c).x_s,
    )
    torch.testing.assert_close(
        sample(flow, [v] * 4, whole.times, x, c), simulate_to_end(flow, v, whole, x, c).x_s
    )
    early = simulate_to_exit(flow, v, first, x, c, torch.zeros(8, dtype=torch.int64)).x_s  # control
    assert not torch.allclose(early, handed_on, rtol=1e-2)


def test_frozen_experts_get_no_gradient(flow):
    phase = phases(2, 4)[1]
    frozen, expert = StepWise(phase.times), StepWise(phase.times)

    def prompts(stream: Stream, batch: int) -> Condition:
        return None

    starts = NoiseStarts(flow, [frozen, frozen], phase.times, (2,), prompts)
    x, condition = starts(Stream([0], 0, "x"), 8)
    assert not x.requires_grad
    assert frozen.rows == [8, 8]
    out = simulate_to_exit(flow, expert, phase, x.double(), condition, exit_steps(phase, 8, 1))
    out.x_s.sum().backward()
    assert frozen.steps_with_gradient() == []
    assert expert.steps_with_gradient() == [2, 3]

    x, _ = rows()  # control: without the cut the frozen expert's steps are reached
    x = sample(flow, [frozen, frozen], phase.times, x, None)
    simulate_to_end(flow, expert, phase, x, None).x_s.sum().backward()
    assert frozen.steps_with_gradient() == [0, 1]


def stacked(exits: Tensor, flow: Flow, runs: int = 2) -> tuple[Tensor, list[Tensor]]:
    """x_s of two runs rolled out together in groups of `runs` rows, and of each alone."""
    torch.manual_seed(0)
    (phase,), together = phases(4), VelocityMLP(2, 2, 8, 2)
    x = torch.randn(len(exits), 2)
    ends = simulate_to_exit(flow, together, phase, x, None, exits, runs).x_s
    alone = []
    for run in range(2):
        net = VelocityMLP(1, 2, 8, 2)
        net.load_state_dict({k: w[run : run + 1] for k, w in together.state_dict().items()})
        alone.append(simulate_to_exit(flow, net, phase, x[run::2], None, exits[run::2]).x_s)
    return ends, alone


def test_a_run_s_rollout_is_what_it_is_alone(flow):
    ends, alone = stacked(exit_steps(phases(4)[0], 8, 2), flow)
    for run in range(2):
        torch.testing.assert_close(ends[run::2], alone[run])
    assert not torch.allclose(ends[0::2], alone[1], rtol=1e-2)  # control: the other run


@pytest.mark.parametrize("exits", [(0, 2), (2, 0), (1, 3), (3, 3)])
def test_runs_may_leave_at_different_steps(flow, exits):
    """As when each run draws one exit for its update (Recipe.exits = "update")."""
    ends, alone = stacked(torch.tensor(exits).repeat(8), flow)
    for run in range(2):
        torch.testing.assert_close(ends[run::2], alone[run])


def test_rows_taken_one_by_one_do_not_fit_a_stack(flow):
    """The control of the test above: groups of one row split the last sample's runs."""
    with pytest.raises(RuntimeError, match="invalid for input"):
        stacked(torch.tensor([0, 2]).repeat(8), flow, runs=1)


@pytest.mark.parametrize("runs", [1, 2])
def test_calls_on_some_rows_at_once_carry_rows_as_one_call_does(flow, runs):
    x, c = rows(12 * runs)
    (phase,) = phases(4)
    v = StepWise(phase.times)
    exits = exit_steps(phase, 12, runs)
    whole, calls = approach(flow, v, phase, x, c, exits, runs)
    assert v.rows == [9 * runs, 6 * runs, 3 * runs]
    v.rows.clear()
    parts, again = approach(flow, v, phase, x, c, exits, runs, at_once=5 * runs)
    assert v.rows == [4 * runs, 5 * runs, 3 * runs, 3 * runs, 3 * runs]
    torch.testing.assert_close(parts, whole)
    assert calls == again == 1.5
    other, _ = approach(flow, v, phase, x, c, exits.flip(0), runs)  # control
    assert not torch.allclose(other, whole)
