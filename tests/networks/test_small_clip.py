import pytest
import torch

from pdmd.files.storage import save_pickled
from pdmd.networks.small_clip import (
    CONTEXT,
    SIZES,
    Objects,
    contrastive_loss,
    heldout_retrieval,
    load_objects,
    picture_pool,
    prepare,
    retrieval_accuracy,
)
from pdmd.streams import Stream

SOME = ["banana", "frog", "rocket", "ghost", "red-heart", "evergreen-tree"]


@pytest.fixture(scope="module")
def objects():
    from pdmd.scenarios.sprites import nouns

    found = load_objects()
    rows = [list(nouns()).index(name) for name in SOME]
    words = [found.nouns[row] for row in rows]
    return Objects(found.sprites[rows], words, found.groups[rows], found.group_nouns)


def build():
    from clip.model import CLIP

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CLIP(**SIZES)


def batch_loss(model, objects):
    """Loss of one batch, always the same."""
    pool = picture_pool(objects, 2, Stream([0], 0, "pool"))
    return contrastive_loss(model, objects, pool, Stream([0], 0, "test"))


@pytest.fixture(scope="module")
def model(objects):
    """Trained on one batch until it knows it: whole training takes minutes."""
    found = build()
    optimizer = torch.optim.AdamW(found.parameters(), 1e-3)
    for _ in range(50):
        optimizer.zero_grad()
        batch_loss(found, objects).backward()
        optimizer.step()
    return found.eval().requires_grad_(False)


def test_a_batch_is_learnt_pair_by_pair(model, objects):
    before, after = (float(batch_loss(m, objects).detach()) for m in (build(), model))
    words = objects.nouns[1:] + objects.nouns[:1]
    wrong = Objects(objects.sprites, words, objects.groups, objects.group_nouns)
    assert after < 0.3 < before
    assert float(batch_loss(model, wrong)) > 2  # the words of another object


def test_a_category_is_right_for_all_of_its_objects(objects, monkeypatch):
    """Were the texts of one category rivals, objects of one group could not be told apart."""
    monkeypatch.setattr("pdmd.networks.small_clip.CATEGORY_SHARE", 1.0)
    one_group = Objects(objects.sprites, objects.nouns, 0 * objects.groups, ["animal"])
    assert float(batch_loss(build(), one_group).detach()) == pytest.approx(0, abs=1e-6)
    apart = Objects(objects.sprites, objects.nouns, torch.arange(6), list("abcdef"))
    assert float(batch_loss(build(), apart).detach()) > 1


def test_random_weights_retrieve_no_better_than_chance(objects):
    found = heldout_retrieval(build().eval(), objects)
    assert found["heldout_r1"] < 0.5
    assert found["objects"] == 6


def test_clip_loads_the_file_and_embeds_alike(model, objects, tmp_path):
    import clip

    save_pickled(tmp_path / "small.pt", model.state_dict())
    loaded, _ = clip.load(str(tmp_path / "small.pt"), device="cpu", jit=False)
    rows = torch.arange(6)
    pictures = prepare(objects.pictures(rows, 0 * rows, Stream([1], 0, "test")), 32)
    texts = clip.tokenize(objects.nouns, context_length=loaded.context_length)
    with torch.no_grad():
        for name, x in (("encode_image", pictures), ("encode_text", texts)):
            kept, read = getattr(model, name)(x), getattr(loaded, name)(x)
            # clip.load keeps weights in half precision, 2^-11 of their size
            torch.testing.assert_close(read, kept, atol=0.02, rtol=0.01)
            assert not torch.allclose(read.flip(0), kept, atol=0.02, rtol=0.01)


def test_weights_rounded_to_half_precision_load_exactly(model, tmp_path):
    import copy

    import clip

    rounded = copy.deepcopy(model)
    for weights in rounded.parameters():
        weights.copy_(weights.half().float())
    texts = clip.tokenize(["a frog", "a rocket"], context_length=CONTEXT)
    gaps = []
    for one in (rounded, model):
        save_pickled(tmp_path / "small.pt", one.state_dict())
        loaded, _ = clip.load(str(tmp_path / "small.pt"), device="cpu", jit=False)
        with torch.no_grad():
            gaps.append(float((loaded.encode_text(texts) - one.encode_text(texts)).abs().max()))
    assert gaps[0] < 1e-5
    assert gaps[1] > 10 * gaps[0]


def test_a_rank_within_k_counts_as_found():
    text = torch.eye(3)
    image = torch.tensor([[3.0, 2, 1], [3.0, 2, 1], [3.0, 2, 1]])
    truth = torch.arange(3)
    shares = [retrieval_accuracy(image, text, truth, k) for k in (1, 2, 3)]
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])


def test_preparation_is_clips_own(objects):
    """Up to the rounding to bytes between enlarging and scaling."""
    from clip.clip import _transform
    from PIL import Image

    picture = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pixels = ((picture[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    expected = _transform(32)(Image.fromarray(pixels))
    gap = (prepare(picture, 32)[0] - expected).abs()
    assert gap.median() < 0.02
    assert (prepare(picture.flip(1), 32)[0] - expected).abs().median() > 0.3
