from dataclasses import replace

import pytest
import torch

from pdmd.config.sections import Model
from pdmd.data.sources import check_index, check_samples
from pdmd.errors import UserError
from pdmd.files.contents import check_state, take
from pdmd.files.storage import save_tensors
from pdmd.models.base import Space
from pdmd.models.build import build, load_files, load_state, stack_states, warm_start

SPEC = Model(kind="mlp", width=8, depth=1)
SPACE = Space((2,))


def refused(call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 300
    return text


# ---- one tensor


def test_what_fits_is_handed_on_as_it_is():
    tensor = torch.arange(6).view(2, 3)
    assert take("f", {"x": tensor}, "x", (2, None), torch.int64, 0, 6) is tensor
    whole = torch.full((4,), 3.4e38)  # a sum of these would be infinite
    assert take("f", {"x": whole}, "x", (None,)) is whole


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.zeros(2, 3).half(), "x: float16 (2, 3): expected float32 (2, any)"),
        (torch.zeros(2, 3).long(), "x: int64 (2, 3): expected float32"),
        (torch.zeros(3, 2), "x: float32 (3, 2): expected float32 (2, any)"),
        (torch.zeros(2), "x: float32 (2,): expected"),
        (torch.zeros(2, 0), "x: float32 (2, 0): expected"),
        (torch.tensor([[0.0, float("nan")], [0.0, 0.0]]), "x: not finite"),
        (torch.tensor([[0.0, float("inf")], [0.0, 0.0]]), "x: not finite"),
        (torch.tensor([[0.0, -1.0], [0.0, 0.0]]), "x: -1 to 0: expected 0 <= value < 5"),
        (torch.tensor([[0.0, 5.0], [0.0, 0.0]]), "x: 0 to 5: expected 0 <= value < 5"),
    ],
)
def test_what_does_not_fit_is_named(tensor, words):
    found = refused(take, "file", {"x": tensor}, "x", (2, None), least=0, below=5)
    assert found.startswith(f"file: {words}")


def test_a_missing_tensor_is_named_with_what_is_there():
    assert refused(take, "file", {"y": torch.zeros(1)}, "x", (1,)) == (
        "file: y: expected a tensor 'x'"
    )


# ---- weights


def network(runs=1, seed=0):
    return build(SPEC, SPACE, runs, seed)


def test_weights_go_in_and_come_out():
    one, other = network(seed=1).state_dict(), network(seed=2).state_dict()
    model = network(2)
    load_state(model, [one, other], "file")
    assert all(
        torch.equal(tensor, stack_states([one, other])[name])
        for name, tensor in model.state_dict().items()
    )


CHANGES = {
    "gone": lambda state: state.pop("out.bias"),
    "one more": lambda state: state.update(more=torch.zeros(1)),
    "turned": lambda state: state.update({"out.weight": state["out.weight"].mT.contiguous()}),
    "whole numbers": lambda state: state.update({"out.weight": state["out.weight"].long()}),
    "double": lambda state: state.update({"out.weight": state["out.weight"].double()}),
    "two runs": lambda state: state.update({"out.weight": torch.cat([state["out.weight"]] * 2)}),
    "NaN": lambda state: state["out.weight"].view(-1)[-1:].fill_(float("nan")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_weights_are_refused_by_the_runs_own_file(tmp_path, change):
    """torch itself takes NaN, and casts whole numbers and doubles without a word."""
    paths = [tmp_path / "one.safetensors", tmp_path / "other.safetensors"]
    states = [network(seed=seed).state_dict() for seed in (1, 2)]
    for path, state in zip(paths, states, strict=True):
        save_tensors(path, state)
    load_files(SPEC, SPACE, paths)  # control: whole
    CHANGES[change](states[1])
    save_tensors(paths[1], states[1])
    found = refused(load_files, SPEC, SPACE, paths)
    assert found.startswith(f"{paths[1]}: ")
    assert ("more" if change == "one more" else "out.") in found


def test_a_network_of_other_sizes_is_refused():
    found = refused(
        load_state, network(), [build(replace(SPEC, width=9), SPACE, 1, 0).state_dict()], "f"
    )
    assert "expected float32" in found
    assert "no hidden.0.bias and 3 more" in refused(check_state, "f", {}, network().state_dict())


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update({"out.weight": state["out.weight"][0]}),
        lambda state: state.update({"out.weight": state["out.weight"].half()}),
        lambda state: state.update(more=torch.zeros(1)),
        lambda state: state["out.bias"].fill_(float("inf")),
    ],
)
def test_a_relative_that_does_not_fit_is_refused(change):
    state = network(seed=1).state_dict()
    warm_start(network(), state, "relative")  # control
    change(state)
    assert refused(warm_start, network(), state, "relative").startswith("relative: ")


# ---- samples and conditions


PROMPTED = Space((2,), prompts=3)
PICTURED = Space((2,), prompts=3, images=5)


@pytest.mark.parametrize(
    ("space", "good", "bad"),
    [
        (Space((2,), classes=3), [2, 0], [3, 0]),
        (Space((2,), classes=3), [2, 0], [-1, 0]),
        (PROMPTED, [2, 0], [3, 0]),
        (PICTURED, [[2, 4], [0, 0]], [[3, 4], [0, 0]]),
        (PICTURED, [[2, 4], [0, 0]], [[2, 5], [0, 0]]),
        (PICTURED, [[2, 4], [0, 0]], [2, 0]),
    ],
)
def test_conditions_are_indices_of_what_there_is(space, good, bad):
    tensors = {"x": torch.zeros(2, 2), "condition": torch.tensor(good)}
    assert check_samples("f", tensors, space, 2)[1] is tensors["condition"]
    tensors["condition"] = torch.tensor(bad)
    assert refused(check_index, "f", tensors, "condition", space).startswith("f: condition")
    with pytest.raises(UserError, match="f: condition"):
        check_samples("f", tensors, space, 2)


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (2, 2, 1)])
def test_samples_are_as_many_and_as_large_as_the_config_says(shape):
    assert check_samples("f", {"x": torch.zeros(2, 2)}, SPACE, 2)[1] is None
    assert "expected float32 (2, 2)" in refused(
        check_samples, "f", {"x": torch.zeros(shape)}, SPACE, 2
    )


def test_conditions_where_there_are_none_are_refused():
    tensors = {"x": torch.zeros(2, 2), "condition": torch.zeros(2).long()}
    assert "condition" in refused(check_samples, "f", tensors, SPACE)
