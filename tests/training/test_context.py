"""Processes that share the tokens of a sample train what one does alone."""

import dataclasses

import pytest
import torch
from configs import accepted, own, refused
from diffusers import QwenImageTransformer2DModel
from diffusers.models.attention_dispatch import attention_backend
from sharded import Case, train
from test_parallel import distance, models  # noqa: F401
from test_world import in_processes

from pdmd.errors import UserError
from pdmd.training.world import ALONE, World

KEY = "distill.parallel.context"
SHORT = Case("wan2.2-t2v-a14b", 2, context=2)
CASES = [
    (Case("wan2.1-t2v-14b", 1, context=2), 2, False),
    (Case("wan2.2-i2v-a14b", 2, "full", context=2), 2, False),
    (
        Case("wan2.1-t2v-14b", 2, "lora", (("microbatch", None), ("backward", "all")), context=2),
        4,
        False,
    ),
    (Case("wan2.2-t2v-a14b", 2, "full", context=2), 2, True),
    (Case("wan2.2-t2v-a14b", 1, context=2), 4, True),
    (Case("qwen-image", 2, context=2), 2, False),
    (Case("qwen-image", 1, "full", context=2), 4, True),
]


def compare(case, model, processes, folder, sharded=False, change=None):
    """How far so many processes, in groups, end from one."""
    alone = train(dataclasses.replace(case, context=1), model, ALONE, False, 2)
    found = in_processes(processes, lambda w: train(case, model, w, sharded, 2, change), folder)
    return [distance(alone, one) for one in found]


def unscaled(trainer):
    """A process takes the gradient through its own tokens for the whole."""
    original, context = trainer._backward, trainer.world.context
    trainer._backward = lambda loss, share: original(loss / context, share)


def test_two_processes_that_share_tokens_train_what_one_trains(models, tmp_path):  # noqa: F811
    model = models(SHORT.family)
    for error, name in compare(SHORT, model, 2, tmp_path / "x"):
        assert error < 1, name
    for error, _ in compare(SHORT, model, 2, tmp_path / "y", change=unscaled):
        assert error > 100


def reading_padding(_):
    """Attention sees the rows that text is padded with, so that processes have as many."""
    whole = QwenImageTransformer2DModel.forward
    unmasked = {"encoder_hidden_states_mask": None}
    QwenImageTransformer2DModel.forward = lambda net, **given: whole(net, **{**given, **unmasked})


@pytest.mark.slow
def test_text_that_does_not_divide_is_padded_where_nothing_looks(models, tmp_path):  # noqa: F811
    """Prompts of 5, 3 and 8 rows, a sample at a time and together."""
    model = models("qwen-image")
    together = (("microbatch", None),)
    for case in (Case("qwen-image", context=2), Case("qwen-image", 1, "lora", together, context=2)):
        for error, name in compare(case, model, 2, tmp_path / case.name):
            assert error < 1, name
    for error, _ in compare(case, model, 2, tmp_path / "y", change=reading_padding):
        assert error > 100


@pytest.mark.long
@pytest.mark.parametrize(("case", "processes", "sharded"), CASES)
def test_groups_that_share_tokens_do(case, processes, sharded, models, tmp_path):  # noqa: F811
    for error, name in compare(case, models(case.family), processes, tmp_path / "x", sharded):
        assert error < 1, name


def test_heads_that_do_not_divide_are_refused(models, tmp_path, capfd):  # noqa: F811
    case = Case(SHORT.family, 1, context=3)
    with pytest.raises(UserError, match=r"0\.safetensors"):
        in_processes(3, lambda w: train(case, models(case.family), w, False, 1), tmp_path / "x")
    assert f"{KEY}: 3: expected a divisor of the 2 heads" in capfd.readouterr().err


def test_an_attention_that_sees_a_processs_own_tokens_alone_is_refused(models, tmp_path, capfd):  # noqa: F811
    """As the environment may choose one for all networks."""
    case = Case(SHORT.family, 1, context=2)
    with attention_backend("_native_math"), pytest.raises(UserError, match=r"0\.safetensors"):
        in_processes(2, lambda w: train(case, models(case.family), w, False, 1), tmp_path / "x")
    expected = f"{KEY}: 2: expected 1 with the attention _native_math, or another attention"
    assert expected in capfd.readouterr().err


def test_a_batch_is_divided_among_groups():
    rows = torch.arange(12)
    worlds = [World(rank, 6).sharing_tokens(2) for rank in range(6)]
    assert [world.shares for world in worlds] == [3] * 6
    parts = [world.share(rows, 2).tolist() for world in worlds]
    assert parts[::2] == parts[1::2] == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    worlds[0].check_batch(9, "distill.batch")
    words = r"distill\.batch: 8: expected a multiple of the 3 groups of 2 pr"
    with pytest.raises(UserError, match=words):
        worlds[0].check_batch(8, "distill.batch")
    with pytest.raises(UserError, match=f"{KEY}: 4: expected a divisor of the 6 processes"):
        World(0, 6).sharing_tokens(4)


HARDWARE = {"nodes": 2, "processes": 8, "gpus": 8}


def diff(scenario="wan22t2v", context=4, batch=64, **further):
    distill = {"parallel": {"context": context}, "batch": batch}
    return own(scenario, **{"hardware": HARDWARE, "distill": distill, **further})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (diff(context=5), f"{KEY}: 5: expected a divisor of hardware.processes = 8"),
        (diff(batch=66), "distill.batch: 66: expected a multiple of the 4 groups of 4 processes"),
        (diff("moving"), f"{KEY}: 4: expected 1 but for a pretrained model"),
        (diff(model={"compile": True}), f"{KEY}: 4: expected 1 with model.compile"),
        (diff(model={"attention": "flex"}), "model.attention: 'flex': expected one of native, "),
        (
            diff(
                context=8,
                data={"sizes": ["81x480x720"], "shares": [1.0]},
                evaluate={"size": "81x480x720"},
            ),
            f"{KEY}: 8: expected a divisor of 28350, the tokens of data.sizes 81x480x720",
        ),
        (
            diff("wan21t2v", context=8, model={"family": "wan2.1-t2v-1.3b"}),
            f"{KEY}: 8: expected a divisor of the 12 heads of wan2.1-t2v-1.3b's attention",
        ),
        (
            diff("qwenimage", context=16, hardware={"processes": 16, "gpus": 16}),
            f"{KEY}: 16: expected a divisor of the 24 heads of qwen-image's attention",
        ),
    ],
)
def test_tokens_that_cannot_be_shared_are_refused(changed, words):
    assert words in refused(changed)


def test_a_batch_may_be_smaller_than_the_processes():
    accepted(diff(batch=4))
    assert "expected a multiple of the 16 processes" in refused(diff(context=1, batch=4))
