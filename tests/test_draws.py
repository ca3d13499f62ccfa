import pytest
import torch

from pdmd.draws import Stream, stream_seed

DRAWS = {
    "normal": lambda stream: stream.normal(6, (2, 3)),
    "uniform": lambda stream: stream.uniform(6),
    "integers": lambda stream: stream.integers(6, 1000),
}


@pytest.fixture(params=sorted(DRAWS))
def draw(request):
    return DRAWS[request.param]


def test_the_same_names_give_the_same_numbers(draw):
    assert torch.equal(draw(Stream([1, 2], 7, "fake0")), draw(Stream([1, 2], 7, "fake0")))


@pytest.mark.parametrize(
    "other", [([1, 3], 7, "fake0"), ([1, 2], 8, "fake0"), ([1, 2], 7, "fake1")]
)
def test_another_seed_step_or_role_gives_other_numbers(draw, other):
    assert not torch.equal(draw(Stream([1, 2], 7, "fake0")), draw(Stream(*other)))


def test_names_that_read_alike_when_joined_are_told_apart():
    names = [(1, 23, "a"), (12, 3, "a"), (1, 2, "3a"), (123, 0, "a"), (0, 123, "a")]
    assert len({stream_seed(*name) for name in names}) == len(names)
    assert len({"".join(map(str, name)) for name in names}) < len(names)  # control: no separator


def test_seeds_fit_a_torch_generator():
    seeds = [stream_seed(0, step, "generator") for step in range(1000)]
    assert len(set(seeds)) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_seed_of_a_name_never_changes():
    """A resumed run on another machine must draw the same; Python's own hash would not."""
    assert stream_seed(0, 0, "fake0") == 2348050460631087370


def test_a_run_draws_what_it_draws_alone(draw):
    together = draw(Stream([4, 5, 6], 0, "x"))
    for run, seed in enumerate([4, 5, 6]):
        assert torch.equal(together[run::3], draw(Stream([seed], 0, "x")))
    assert not torch.equal(together[1::3], draw(Stream([4], 0, "x")))  # control: another run


def test_a_later_draw_does_not_depend_on_the_runs_beside_it(draw):
    def second(seeds: list[int]) -> torch.Tensor:
        stream = Stream(seeds, 0, "x")
        stream.normal(5, (2,))
        return draw(stream)

    assert torch.equal(second([4, 5, 6])[1::3], second([5]))
    assert not torch.equal(second([5]), draw(Stream([5], 0, "x")))  # control: the stream advances


def test_rows_are_interleaved_by_run():
    rows = Stream([4, 5], 0, "x").normal(3, (2,)).view(3, 2, 2)  # sample, run, axis
    alone = [Stream([seed], 0, "x").normal(3, (2,)) for seed in (4, 5)]
    assert torch.equal(rows, torch.stack(alone, dim=1))
    assert not torch.equal(rows.flatten(0, 1), torch.cat(alone))  # control: run after run


def test_draws_have_the_distribution_they_are_named_after():
    stream = Stream([0, 1], 0, "x")
    normal, uniform, integers = (
        stream.normal(20_000, (1,)),
        stream.uniform(20_000),
        stream.integers(20_000, 4),
    )
    assert abs(normal.mean().item()) < 4 / 40_000**0.5
    assert abs(normal.var().item() - 1) < 4 * (2 / 40_000) ** 0.5
    assert 0 <= uniform.min() < uniform.max() < 1
    assert abs(uniform.mean().item() - 0.5) < 4 / (12 * 40_000) ** 0.5
    counts = integers.bincount(minlength=4)
    assert len(counts) == 4
    assert (counts - 10_000).abs().max() < 4 * (40_000 * 3 / 16) ** 0.5
