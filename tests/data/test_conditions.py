import pytest
import torch
from tiny import NULL, conditions, noise, prompts, qwen, wan

from pdmd.data.conditions import drop_prompts, load_prompts, save_prompts
from pdmd.errors import UserError
from pdmd.files.storage import save_tensors
from pdmd.models.base import join, without_prompt

IMAGES = torch.arange(5.0).view(5, 1, 1, 1, 1)


def rows_of(store):
    return [store.text(number).text[0] for number in range(len(store))]


def saved(folder, rows, null=0):
    path = folder / "prompts.safetensors"
    save_prompts(path, rows, null, {"encoder": "none"})
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_come_back_as_they_were(tmp_path, dtype):
    rows = [row.to(dtype) for row in rows_of(conditions())]
    store = load_prompts(saved(tmp_path, rows, 3))
    assert all(map(torch.equal, rows_of(store), rows))
    assert store.text(0).text.dtype == dtype
    assert (store.null, len(store), store.images) == (3, 4, None)


def test_only_rows_that_are_asked_for_are_read(tmp_path):
    """64 MiB of rows: the process grows by a few pages, and by all of them once all are read."""
    path = saved(tmp_path, [torch.ones(64, 1024)] * 256)

    def resident():
        with open("/proc/self/smaps_rollup") as rollup:
            return next(int(line.split()[1]) for line in rollup if line.startswith("Rss")) / 1024

    store, before = load_prompts(path), resident()
    store.values(torch.tensor([3, 200]))
    assert resident() - before < 16
    store.rows.sum()
    assert resident() - before > 48  # control


def test_a_batch_is_as_long_as_its_longest_prompt():
    store = conditions(images=IMAGES)
    both = store.values(torch.tensor([[1, 4], [0, 2]]))
    assert both.text.shape[1] == 7
    assert both.lengths.tolist() == [5, 7]
    assert not both.text[0, 5:].any()
    assert both.images.flatten().tolist() == [4.0, 2.0]
    assert store.values(torch.tensor([1])).text.shape[1] == 5
    assert conditions(padded=12).values(torch.tensor([1])).text.shape[1] == 12


def test_no_image_without_a_column_of_them():
    assert conditions(images=IMAGES).values(torch.tensor([1])).images is None


@pytest.mark.parametrize("make", [qwen, wan])
def test_a_prompts_velocity_does_not_change_when_another_joins_the_file(make, tmp_path):
    rows, network = rows_of(conditions()), make()
    x, t = noise(1, 16, 1, 4, 4), torch.tensor([0.4])

    def velocity(folder, more, length):
        folder.mkdir()
        store = load_prompts(saved(folder, rows + more), length)
        return network(x, t, store.values(torch.tensor([1])))

    longer = [torch.ones(30, rows[0].shape[1])]
    alone = velocity(tmp_path / "alone", [], 40)
    assert torch.equal(velocity(tmp_path / "joined", longer, 40), alone)
    if make is wan:  # control: text as long as the longest of the file
        short = velocity(tmp_path / "short", [], 9)
        assert not torch.allclose(velocity(tmp_path / "long", longer, 30), short, atol=1e-3)


def test_a_prompt_that_is_too_long_is_named(tmp_path):
    path = saved(tmp_path, rows_of(conditions()))
    load_prompts(path, 9)  # control
    with pytest.raises(UserError, match=r"prompt 2: 9 token rows: expected at most 8, model"):
        load_prompts(path, 8)


def test_the_null_prompt_keeps_the_image():
    pairs = torch.tensor([[0, 4], [1, 2]])
    where = torch.tensor([True, False])
    assert drop_prompts(pairs, 3, where).tolist() == [[3, 4], [1, 2]]
    assert drop_prompts(pairs[:, 0], 3, where).tolist() == [3, 1]
    given = conditions(images=IMAGES).values(pairs)
    free = without_prompt(given, NULL)
    assert torch.equal(free.text, NULL.text.expand(2, -1, -1))
    assert torch.equal(free.images, given.images)


def test_joined_text_is_as_long_as_the_longest():
    both = join([prompts(0, padded=None), prompts(3, padded=None)])
    assert both.text.shape[1] == 7
    assert both.lengths.tolist() == [7, 1]
    assert torch.equal(both[1:].text[:, :1], prompts(3, padded=None).text)


def test_a_file_that_holds_no_prompts_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_tensors(path, {"x": torch.zeros(1)})
    with pytest.raises(UserError, match="expected embeddings written by"):
        load_prompts(path)


@pytest.mark.parametrize(
    ("starts", "expected"),
    [([0, 2, 2, 4], "rise from 0 to 4"), ([1, 2, 4], "rise from 0"), ([0, 2], "rise from 0 to 4")],
)
def test_starts_that_do_not_cut_the_rows_are_refused(tmp_path, starts, expected):
    path = tmp_path / "prompts.safetensors"
    tensors = {"rows": torch.zeros(4, 2), "starts": torch.tensor(starts)}
    save_tensors(path, tensors, {"null": "0"})
    with pytest.raises(UserError, match=expected):
        load_prompts(path)


def test_rows_that_are_not_finite_are_refused_where_they_are_used(tmp_path):
    store = load_prompts(saved(tmp_path, [torch.zeros(2, 2), torch.full((2, 2), torch.nan)]))
    store.values(torch.tensor([0]))  # control
    with pytest.raises(UserError, match=r"prompts\.safetensors: rows: not finite"):
        store.values(torch.tensor([1]))
