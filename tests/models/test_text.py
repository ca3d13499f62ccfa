"""A family's own text encoder, without the rest of its folder."""

import shutil

import diffusers
import pytest
import torch

from pdmd.models.families import FAMILIES
from pdmd.models.text import FamilyText
from pdmd.models.tiny import write_tiny

NAMES = ["qwen-image", "wan2.1-t2v-1.3b", "wan2.2-i2v-a14b"]
TEXTS = ["a cat", "", "two boats meet on a lake, 城市夜景", "x" * 40]


@pytest.fixture(scope="module", params=NAMES)
def model(request, tmp_path_factory):
    """A family's folder, its text encoder alone, and its whole pipeline in the same precision."""
    folder = tmp_path_factory.mktemp("model") / "whole"
    write_tiny(request.param, folder)
    family = FAMILIES[request.param]
    bare = folder.with_name("bare")
    shutil.copytree(folder, bare)
    for name in ("transformer", "transformer_2", "vae"):
        shutil.rmtree(bare / name, ignore_errors=True)
    pipeline = getattr(diffusers, family.pipeline).from_pretrained(folder, dtype=torch.bfloat16)
    text = FamilyText.load(bare, family)
    for encoder in (text.pipeline.text_encoder, pipeline.text_encoder):
        for p in encoder.parameters():  # which lie elsewhere: another kernel, another last bit
            p.data = p.data.clone()
    return family, text, pipeline


def padded(rows, length):
    return torch.cat([rows, rows.new_zeros(length - len(rows), rows.shape[1])])


@torch.no_grad()  # with gradients attention takes another kernel
def test_rows_are_those_of_the_pipeline_bit_for_bit(model):
    family, text, pipeline = model
    rows = text.rows(TEXTS)
    if family.kind == "wan":
        theirs, _ = pipeline.encode_prompt(TEXTS, None, False, max_sequence_length=512)
        lengths = [512] * len(TEXTS)
    else:
        theirs, mask = pipeline.encode_prompt(TEXTS)
        lengths = [theirs.shape[1]] * len(TEXTS)
        assert [len(one) for one in rows] == mask.sum(1).tolist()
    for own, other, length in zip(rows, theirs, lengths, strict=True):
        assert own.dtype == torch.bfloat16
        assert torch.equal(padded(own, length), other)
    assert not torch.equal(padded(rows[0], lengths[0]), theirs[2])  # control
    assert len(rows[0]) < len(rows[2])
    assert all(len(one) for one in rows)


def test_a_text_does_not_depend_on_its_neighbours(model):
    _, text, _ = model
    together, alone = text.rows(TEXTS)[0], text.rows(TEXTS[:1])[0]
    torch.testing.assert_close(together.float(), alone.float(), rtol=0.02, atol=0.02)
    (other,) = text.rows(["a bat"])  # control: of another letter
    assert len(other) == len(alone)
    assert (other.float() - alone.float()).abs().max() > 0.1


def test_what_is_cut_is_said(model):
    family, text, _ = model
    longest = 1024 if family.kind == "qwen" else 512
    (rows,) = text.rows(["y" * 3000])
    assert len(rows) == longest
    assert text.cut[-1] == "y" * 3000
    text.rows(["short"])
    assert text.cut[-1] != "short"
