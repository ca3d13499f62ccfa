import re

import pytest
import torch

from pdmd.config.typed import build
from pdmd.data.prompts import NULL, heldout
from pdmd.scenarios.emoji.kind import Emoji, stratum
from pdmd.scenarios.emoji.pictures import BACKGROUND, CATEGORIES, OBJECTS, make_pictures, prompts
from pdmd.scenarios.sprites import STYLES, place, sprite

SPEC = {"px": 32, "copies": 4, "heldout": 2, "seed": 0}
SPLITS = {"train": "copies", "heldout": "heldout"}


@pytest.fixture(scope="module")
def made():
    return make_pictures(build(Emoji, SPEC))


def truths(kind, split):
    return [tuple(p.truth["objects"]) for p in prompts() if (p.kind, p.split) == (kind, split)]


def test_four_categories_have_four_objects_each():
    assert [len(names) for names in CATEGORIES.values()] == [4] * 4
    assert len(set(OBJECTS)) == 16


def test_every_object_and_category_has_wordings_seen_and_unseen():
    groups = {tuple(range(first, first + 4)) for first in range(0, 16, 4)}
    for split, least in (("train", 4), ("heldout", 2)):
        fine, coarse = truths("fine", split), truths("coarse", split)
        assert set(fine) == {(i,) for i in range(16)}
        assert set(coarse) == groups
        assert min(map(fine.count, fine)) >= least
        assert min(map(coarse.count, coarse)) >= least


def test_no_wording_stands_for_two_things_or_in_both_splits():
    texts = [prompt.text for prompt in prompts()]
    assert len(set(texts)) == len(texts)


def test_the_null_prompt_is_last_and_alone():
    assert prompts()[-1] == NULL
    assert [p.kind for p in prompts()].count("null") == 1


def test_articles_fit_the_word_that_follows():
    text = " ; ".join(prompt.text for prompt in prompts())
    wrong = re.compile(r"\ba [aeiou]|\ban [^aeiou]|\b(an?) an? ")
    assert not wrong.search(text)
    assert wrong.search(text + " ; a octopus")  # control


def test_evaluation_asks_for_each_object_and_category_once_in_unseen_words():
    chosen = [prompts()[i] for i in heldout(prompts())]
    assert len(chosen) == 20
    assert {prompt.split for prompt in chosen} == {"heldout"}


@pytest.mark.parametrize("split", SPLITS)
def test_every_sprite_is_drawn_equally_often(made, split):
    pair = made[f"{split}_object"] * len(STYLES) + made[f"{split}_style"]
    assert pair.bincount().tolist() == [SPEC[SPLITS[split]]] * 64
    assert made[split].shape == (len(pair), 3, 32, 32)
    assert made[split].dtype == torch.uint8


@pytest.mark.parametrize("split", SPLITS)
def test_captions_are_right_and_as_often_fine_as_coarse(made, split):
    known, rows = prompts(), made[f"{split}_prompts"].tolist()
    for number, row in zip(made[f"{split}_object"].tolist(), rows, strict=True):
        said = [known[i] for i in row]
        assert all(number in prompt.truth["objects"] for prompt in said)
        assert {prompt.split for prompt in said} == {"train"}
        kinds = [prompt.kind for prompt in said]
        assert kinds.count("fine") == kinds.count("coarse") == len(kinds) / 2
        other = (number + 4) % 16
        assert not any(other in prompt.truth["objects"] for prompt in said)  # control


def test_a_picture_is_nearest_to_its_own_sprite(made):
    drawn = torch.stack([sprite(name, style, 96) for name in OBJECTS for style in STYLES])
    n = len(drawn)
    clean = place(
        drawn, 32, torch.full((n,), 0.9), torch.zeros(n), torch.zeros(n), torch.tensor(BACKGROUND)
    )
    pictures = made["train"].float() / 127.5 - 1
    nearest = torch.cdist(pictures.flatten(1), clean.flatten(1)).argmin(1)
    true = made["train_object"] * len(STYLES) + made["train_style"]
    assert (nearest == true).double().mean() > 0.9
    assert (nearest == true.roll(SPEC["copies"])).double().mean() < 0.1  # control


def test_held_out_pictures_are_other_draws(made):
    known = {picture.numpy().tobytes() for picture in made["train"]}
    assert len(known) == len(made["train"])
    assert not any(picture.numpy().tobytes() in known for picture in made["heldout"])
    assert made["train"][5].numpy().tobytes() in known  # control


def test_pictures_depend_on_the_seed_alone(made):
    again = make_pictures(build(Emoji, SPEC))
    assert all(torch.equal(again[name], made[name]) for name in made)
    other = make_pictures(build(Emoji, SPEC | {"seed": 1}))
    assert not torch.equal(other["train"], made["train"])
    assert torch.equal(other["train_prompts"], made["train_prompts"])


@pytest.mark.parametrize("px", [16, 24])
def test_the_size_is_the_one_asked_for(px):
    small = make_pictures(build(Emoji, SPEC | {"px": px, "copies": 1, "heldout": 1}))
    assert small["train"].shape == (64, 3, px, px)
    corner = torch.tensor(BACKGROUND).mul(255).round().byte()
    assert (small["train"][:, :, 0, 0] == corner).all(1).double().mean() > 0.9


def test_a_prompt_is_of_the_stratum_of_what_it_leaves_open():
    found = {prompt.kind: stratum(prompt) for prompt in prompts()}
    assert found == {"fine": "fine", "coarse": "coarse", "null": None}
