import pytest
import torch
from tiny import conditions

from pdmd.errors import UserError
from pdmd.models.base import without_prompt
from pdmd.models.conditions import load_conditions, save_conditions


def test_rows_come_back_as_they_were(tmp_path):
    told = conditions()
    rows = [told.text[i, :length] for i, length in enumerate(told.lengths.tolist())]
    path = tmp_path / "prompts.safetensors"
    save_conditions(path, rows, 3, {"encoder": "none"})
    found = load_conditions(path)
    assert torch.equal(found.text, told.text)
    assert torch.equal(found.lengths, told.lengths)
    assert found.null == 3
    assert found.images is None


def test_a_batch_is_as_long_as_its_longest_prompt():
    told = conditions(images=torch.arange(5.0).view(5, 1, 1, 1, 1))
    text, lengths, images = told.take(torch.tensor([[1, 4], [0, 2]]))
    assert text.shape[1] == 7
    assert lengths.tolist() == [5, 7]
    assert images.flatten().tolist() == [4.0, 2.0]
    assert told.take(torch.tensor([1]))[0].shape[1] == 5


def test_the_null_prompt_keeps_the_image():
    pairs = torch.tensor([[0, 4], [1, 2]])
    assert without_prompt(pairs, 3).tolist() == [[3, 4], [3, 2]]
    where = torch.tensor([True, False])
    assert without_prompt(pairs, 3, where).tolist() == [[3, 4], [1, 2]]
    assert without_prompt(pairs[:, 0], 3, where).tolist() == [3, 1]


def test_a_file_that_holds_no_prompts_is_refused(tmp_path):
    from pdmd.storage import save_tensors

    path = tmp_path / "other.safetensors"
    save_tensors(path, {"x": torch.zeros(1)})
    with pytest.raises(UserError, match="expected embeddings written by"):
        load_conditions(path)
