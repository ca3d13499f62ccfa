import socket

import pytest
import torch

from pdmd.files.assets import asset, fetch
from pdmd.networks.minilm import BATCH, load_minilm

TEXTS = [
    "a red apple",
    "a green apple",
    "an airplane",
    "",
    "a rocket moving left, fast, over a wood",
]


@pytest.fixture(scope="module")
def minilm():
    fetch("minilm")
    return load_minilm()


def test_like_texts_are_near_and_others_are_not(minilm):
    cosines = minilm.sentences(TEXTS) @ minilm.sentences(TEXTS).T
    assert cosines[0, 1].item() == pytest.approx(0.80, abs=0.01)
    assert cosines[0, 2].item() == pytest.approx(0.27, abs=0.01)  # control
    assert torch.allclose(cosines.diag(), torch.ones(5), atol=1e-5)


def test_each_text_has_a_row_a_token_with_both_ends(minilm):
    rows = minilm.tokens(TEXTS)
    assert [row.shape for row in rows[:4]] == [(5, 384), (5, 384), (4, 384), (2, 384)]


def test_a_batch_gives_what_its_texts_give_alone(minilm):
    """Padding is not attended to, and not among the rows."""
    for together, text in zip(minilm.tokens(TEXTS), TEXTS, strict=True):
        (alone,) = minilm.tokens([text])
        assert torch.allclose(together, alone, atol=1e-5)
    padded = minilm.tokenizer(TEXTS, padding=True, return_tensors="pt")
    padded["attention_mask"].fill_(1)
    unmasked = minilm.model(**padded).last_hidden_state[0, :5]
    assert not torch.allclose(unmasked, minilm.tokens(TEXTS)[0], atol=1e-2)  # control


def test_more_texts_than_a_batch_keep_their_order(minilm):
    texts = [f"picture number {number}" for number in range(BATCH + 3)]
    rows = minilm.sentences(texts)
    assert rows.shape == (BATCH + 3, 384)
    assert torch.allclose(rows[-1], minilm.sentences(texts[-1:])[0], atol=1e-5)
    assert not torch.allclose(rows[-1], rows[-2], atol=1e-2)  # control


def test_a_sentence_is_the_mean_of_its_tokens(minilm):
    (rows,) = minilm.tokens(TEXTS[:1])
    mean = rows.mean(0)
    assert torch.allclose(minilm.sentences(TEXTS[:1])[0], mean / mean.norm(), atol=1e-6)


def test_a_long_text_is_cut(minilm):
    (rows,) = minilm.tokens(["apple " * 400])
    assert rows.shape == (256, 384)


def test_loading_opens_no_connection(minilm, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(AssertionError), socket.socket() as wire:
        wire.connect(("127.0.0.1", 9))  # control
    again = load_minilm()
    assert torch.equal(again.sentences(TEXTS), minilm.sentences(TEXTS))


def test_it_is_frozen_and_read_from_the_cache(minilm):
    assert not any(parameter.requires_grad for parameter in minilm.model.parameters())
    assert not minilm.model.training
    assert minilm.model.name_or_path == str(asset("minilm", "config.json").parent)
