import json

import pytest

from pdmd.data.prompts import NULL, Prompt, heldout, read_prompts, with_article, write_prompts
from pdmd.errors import UserError

PROMPTS = [
    Prompt("a fox", "fine", "train", {"objects": [3]}),
    Prompt("an image of a fox", "fine", "heldout", {"objects": [3]}),
    Prompt("a small fox", "fine", "heldout", {"objects": [3]}),
    Prompt("any fox", "coarse", "heldout", {"objects": [3]}),
    Prompt("an owl", "fine", "heldout", {"objects": [4]}),
    NULL,
]


def test_prompts_are_read_back_in_their_order(tmp_path):
    path = tmp_path / "prompts.json"
    write_prompts(path, PROMPTS)
    assert read_prompts(path) == PROMPTS
    assert json.loads(path.read_text())[-1] == {
        "text": "",
        "kind": "null",
        "split": "train",
        "truth": {},
    }
    write_prompts(path, PROMPTS[::-1])
    assert read_prompts(path) != PROMPTS  # control


@pytest.mark.parametrize("text", ['[{"wording": "a fox"}]', '[{"text": "a fox"}]', "[", "[3]"])
def test_a_file_of_something_else_is_named(tmp_path, text):
    path = tmp_path / "prompts.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"prompts\.json: "):
        read_prompts(path)


def test_evaluation_takes_the_first_unseen_wording_of_each_truth_and_kind():
    assert [PROMPTS[i].text for i in heldout(PROMPTS)] == ["an image of a fox", "any fox", "an owl"]
    assert heldout(PROMPTS[:1]) == []  # control: wordings trained on do not count


@pytest.mark.parametrize("noun", ["fox", "star", "red apple"])
def test_a_consonant_takes_a(noun):
    assert with_article(noun) == f"a {noun}"


@pytest.mark.parametrize("noun", ["owl", "apple", "umbrella"])
def test_a_vowel_takes_an(noun):
    assert with_article(noun) == f"an {noun}"
