import pytest
import torch

from pdmd.streams import Stream, stream_seed

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


def test_a_torch_generator_takes_the_low_32_bits_of_a_seed(draw):
    """The other 31 decide nothing: two streams in 2^32 draw the same numbers."""
    seeds = [0x1234567_89ABCDEF, 0x7654321_89ABCDEF, 0x1234567_89ABCDEE]
    streams = [Stream([0], 0, "x") for _ in seeds]
    for stream, seed in zip(streams, seeds, strict=True):
        stream.generators = [torch.Generator().manual_seed(seed)]
    one, same, other = map(draw, streams)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)  # control: another low bit


def test_few_streams_of_a_job_draw_the_same_numbers():
    """As many as said: n^2 / 2^33 pairs."""
    count = 300_000
    seeds = {stream_seed(0, step, "generator") % 2**32 for step in range(count)}
    pairs, wanted = count - len(seeds), count**2 / 2**33
    assert abs(pairs - wanted) < 4 * wanted**0.5
    whole = {stream_seed(0, step, "generator") for step in range(10_000)}
    assert len(whole) == 10_000  # control: the names' own digests do not collide


def test_an_order_is_one_of_all_alike():
    orders = torch.cat([Stream([4, 5], step, "x").order(3) for step in range(3000)])
    assert orders.sort(1).values.unique(dim=0).tolist() == [[0, 1, 2]]
    kinds, counts = orders.unique(dim=0, return_counts=True)
    assert len(kinds) == 6
    assert (counts - 1000).abs().max() < 4 * 1000**0.5
    together, alone = Stream([4, 5], 0, "x").order(9), Stream([5], 0, "x").order(9)
    assert torch.equal(together[1:], alone)


def test_a_stream_beside_another_has_numbers_of_its_own(draw):
    stream = Stream([4, 5], 0, "x", share=slice(1, None, 2))
    assert torch.equal(draw(stream.beside("y")), draw(Stream([4, 5], 0, "x/y")))  # not the share
    assert not torch.equal(draw(stream.beside("y")), draw(stream.beside("z")))
    assert torch.equal(draw(stream), draw(Stream([4, 5], 0, "x", share=slice(1, None, 2))))


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


SHAPE = (4, 64, 64)  # of a sample that is large


def test_a_large_sample_has_a_generator_of_its_own():
    """A process draws its share alone, and whoever draws it, however many there are."""
    whole = Stream([3], 5, "fake0").normal(6, SHAPE)
    share = Stream([3], 5, "fake0", share=slice(1, None, 2)).normal(6, SHAPE)
    assert torch.equal(share, whole[1::2])
    assert torch.equal(Stream([3], 5, "fake0").normal(9, SHAPE)[:6], whole)
    assert torch.equal(Stream([3], 5, "fake0").normal_rows([4], SHAPE), whole[4:5])
    assert not torch.equal(Stream([3], 5, "fake0").normal_rows([3], SHAPE), whole[4:5])  # control
    stream = Stream([3], 5, "fake0")
    stream.normal(6, (2, 3))
    assert stream.large == 0  # small ones are drawn together, as they were


def test_large_samples_differ_from_each_other_and_from_draw_to_draw():
    stream = Stream([3, 4], 5, "fake0")
    drawn = torch.cat([stream.normal(3, SHAPE), stream.normal(3, SHAPE)])
    flat = drawn.flatten(1)
    assert len({tuple(row[:4].tolist()) for row in flat}) == 12
    assert (torch.corrcoef(flat) - torch.eye(12)).abs().max() < 0.05
    assert abs(float(flat.std()) - 1) < 0.01


def test_runs_of_large_samples_are_interleaved():
    both, alone = Stream([3, 4], 5, "x").normal(2, SHAPE), Stream([4], 5, "x").normal(2, SHAPE)
    assert torch.equal(both[1::2], alone)
