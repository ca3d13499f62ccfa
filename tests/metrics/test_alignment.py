import pytest
import torch
from PIL import Image
from torch.nn import functional

from pdmd.files.storage import save_pickled
from pdmd.metrics.alignment import clip_score
from pdmd.networks.small_clip import SIZES

TEXTS = ["a fox", "a rocket", "a slice of pizza"] * 4


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A CLIP of random weights whose attention is strong, so that it tells inputs apart."""
    from clip.model import CLIP

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIP(**SIZES)
    with torch.no_grad():
        model.token_embedding.weight.mul_(50)
        for block in (*model.visual.transformer.resblocks, *model.transformer.resblocks):
            block.attn.out_proj.weight.mul_(30)
    found = tmp_path_factory.mktemp("clip") / "random.pt"
    save_pickled(found, model.state_dict())
    return str(found)


@pytest.fixture(scope="module")
def pictures():
    generator = torch.Generator().manual_seed(0)
    colours = 2 * torch.rand(12, 3, 1, 1, generator=generator) - 1
    return (colours + 0.3 * torch.randn(12, 3, 24, 24, generator=generator)).clamp(-1, 1)


def cosines(path, pictures, texts):
    """One at a time, by clip's own loader, tokenizer and preprocessing."""
    import clip

    model, preprocess = clip.load(path, device="cpu", jit=False)
    found = []
    for picture, text in zip(pictures, texts, strict=True):
        pixels = ((picture + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        tokens = clip.tokenize([text], context_length=model.context_length)
        with torch.no_grad():
            image = model.encode_image(preprocess(Image.fromarray(pixels))[None])
            words = model.encode_text(tokens)
        found.append(functional.cosine_similarity(image, words))
    return torch.cat(found)


def test_the_score_is_that_of_clips_own_functions_one_by_one(path, pictures):
    """Half a unit of 100: clip's preprocessing rounds the enlarged picture to bytes."""
    own = cosines(path, pictures, TEXTS)
    expected = float(100 * own.clamp_min(0).mean())
    assert own.min() < 0 < own.max()  # else the clamp is not seen
    assert clip_score(path, pictures, TEXTS) == pytest.approx(expected, abs=0.5)
    assert float(100 * own.mean()) != pytest.approx(expected, abs=1)


def test_texts_of_other_pictures_give_another_score(path, pictures):
    right = clip_score(path, pictures, TEXTS)
    assert clip_score(path, pictures, TEXTS[1:] + TEXTS[:1]) != pytest.approx(right, abs=0.05)


def test_equal_texts_and_chunks_do_not_change_the_score(path, pictures, monkeypatch):
    whole = clip_score(path, pictures, TEXTS)
    monkeypatch.setattr("pdmd.metrics.alignment.CHUNK", 5)
    assert clip_score(path, pictures, TEXTS) == pytest.approx(whole, abs=1e-3)
    parts = [clip_score(path, pictures[i : i + 1], [TEXTS[i]]) for i in range(12)]
    assert sum(parts) / 12 == pytest.approx(whole, abs=1e-3)
