"""What evaluation hands to metrics, and what it refuses before a decoder hides it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.errors import UserError
from pdmd.files.storage import save_tensors
from pdmd.flow import RECTIFIED
from pdmd.models.mixture import atoms
from pdmd.scenarios.digits.pictures import CLASSES, STYLES, Classifier, fit_codec
from pdmd.stages import decode, swaps
from pdmd.stages.score import scorer
from pdmd.stages.trajectories import velocity_errors


def test_a_velocity_that_is_no_number_is_refused() -> None:
    mixture, stage = atoms([-1.0, 1.0]), SimpleNamespace(flow=RECTIFIED)
    assert velocity_errors(stage, mixture, mixture)["velocity_rmse"] == 0
    with pytest.raises(UserError, match="velocity_rmse: velocities, row 0: nan"):
        velocity_errors(stage, lambda x, t, _: x * float("nan"), mixture)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_latent_that_the_clamp_of_pictures_would_hide_is_named(
    tmp_path: Path, value: float
) -> None:
    config = {"data": {"kind": "digits"}, "evaluate": {"neighbours": 3}}
    config |= {"results": str(tmp_path), "scenario": "s", "method": "m"}
    run = read_run(config)
    paths = Paths(run)
    pictures = torch.rand(80, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codec, labels = fit_codec(pictures, 4, 1.0), torch.arange(80) % CLASSES
    styles = pictures[: CLASSES * STYLES].view(CLASSES, STYLES, 64).clone()
    encoded = {"pictures": pictures, "labels": labels, "latents": codec.encode(pictures)}
    for name, tensors in {
        "codec": vars(codec),
        "train": {**encoded, "picture_labels": labels.clone(), "styles": styles},
        "heldout": encoded,
        "classifier": Classifier().state_dict(),
    }.items():
        save_tensors(paths.data(f"{name}.safetensors"), tensors)
    score, x = scorer(SimpleNamespace(run=run, paths=paths)), codec.encode(pictures)
    assert score(x, labels)["coverage"] is not None  # the control
    x[7, 0] = value
    with pytest.raises(UserError, match="scores: latents, row 7: "):
        score(x, labels)


def test_a_sample_of_exchanged_experts_that_is_no_number_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paths = Paths(read_run({"results": str(tmp_path), "scenario": "s"}))
    monkeypatch.setattr(swaps, "decoded", lambda _, x: x.clamp(-1, 1))
    variants = {name: torch.zeros(2, 3, 1, 8, 8) for name in ("both", "first alone")}
    assert [row["layout"] for row in swaps.changes(paths, variants)] == [0, 0]
    variants["first alone"][1, 0, 0, 0, 0] = float("inf")
    with pytest.raises(UserError, match="layout: first alone, row 1: inf"):
        swaps.changes(paths, variants)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_latent_that_a_decoders_clamp_would_hide_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: float
) -> None:
    class Codec:
        def to(self, device: object) -> "Codec":
            return self

        def decode(self, x: torch.Tensor) -> torch.Tensor:
            return x.clamp(-1, 1)

    monkeypatch.setattr(decode, "load_codec", lambda _: Codec())
    paths = Paths(read_run({"results": str(tmp_path), "scenario": "s"}))
    latents = torch.zeros(3, 3, 1, 8, 8)
    assert torch.equal(decode.decoded(paths, latents), latents)  # the control
    latents[1, 0] = value
    with pytest.raises(UserError, match="decode: latents, row 1: "):
        decode.decoded(paths, latents)
