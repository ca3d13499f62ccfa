"""The judge stage: the classifier of pictures and clips, trained on real ones only, or kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from pdmd.config.experiment import Config
from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.files import provenance
from pdmd.files.kept import check_recipe, said, say
from pdmd.files.storage import read_json, reading, save_tensors, write_json
from pdmd.networks.judge import Judge, load_judge, sizes_of
from pdmd.scenarios.kind import prompted
from pdmd.stages.outputs import JUDGE, judge_reads
from pdmd.stages.precompute import load_pictures, to_unit
from pdmd.streams import Stream

BATCH = 96


def spoil(pictures: Tensor, stream: Stream) -> Tensor:
    """Add noise of a random strength, so that the judge bears what generators leave."""
    n = len(pictures)
    strength = 0.2 * stream.uniform(n)[:, None, None, None]
    return pictures + strength * stream.normal(n, pictures.shape[1:])


def make_judge(config: Config) -> None:
    """Train a judge, or take the one that `classifier.kept` names.

    Raises:
        UserError: that one is not there, differs from what is said beside it, or is of other data.
    """
    run = read_run(config)
    if run.classifier.kept is None:
        train_judge(config)
        return
    source, paths = Path(run.classifier.kept), Paths(run)
    made = said(source, "classifier.kept", "the weights of a judge", ("recipe", "accuracy"))
    with reading(source.with_suffix(".json"), "what `pdmd keep-judge` writes"):
        recipe = {name: dict(made["recipe"][name]) for name in ("data", "classifier")}
    check_recipe(source, recipe_of(config), recipe)
    judge = load_judge(source)
    _save(paths.data(JUDGE[0]), judge, sizes_of(judge), made["accuracy"])
    provenance.record(paths.data(JUDGE[-1]), config, [0], judge_reads(run), JUDGE)


def keep_judge(config: Config, output: Path) -> None:
    """Keep a trained judge for `classifier.kept`, with digest and recipe beside it."""
    paths = Paths(read_run(config))
    judge, accuracy = load_judge(paths.data(JUDGE[0])), read_json(paths.data(JUDGE[1]), dict)
    made = read_json(paths.data(JUDGE[-1]), dict, ("commit", "packages"))
    save_tensors(output, judge.state_dict(), sizes_of(judge))
    origin = {name: made[name] for name in ("commit", "packages")}
    say(output, {"accuracy": accuracy, **origin, "recipe": recipe_of(config)})


def recipe_of(config: Config) -> dict[str, Config]:
    """What decides a judge: its data, but for how they are made latents, and its updates."""
    data = {key: value for key, value in config["data"].items() if key != "codec"}
    return {"data": data, "classifier": {"updates": config["classifier"]["updates"]}}


def train_judge(config: Config) -> None:
    """Train on real training pictures; state the accuracy on held-out ones."""
    run = read_run(config)
    paths = Paths(run)
    torch.set_num_threads(run.threads)
    source = paths.data("pictures.safetensors")
    kind = run.data.kind
    tensors, names = load_pictures(source, kind), prompted(kind).judged
    labels = {name: tensors[f"train_{name}"] for name in names}
    sizes = {name: int(values.max()) + 1 for name, values in labels.items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judge = Judge(sizes)
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3, weight_decay=1e-2)
    updates = run.classifier.updates
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for step in range(updates):
        stream = Stream([0], step, "judge")
        rows = stream.integers(BATCH, len(tensors["train"]))
        pictures = spoil(one_frame(tensors["train"][rows], stream), stream)
        loss = heads_loss(judge(pictures), {name: values[rows] for name, values in labels.items()})
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        decay.step()
    _save(paths.data(JUDGE[0]), judge, sizes_of(judge), heldout_accuracy(judge, tensors, names))
    provenance.record(paths.data(JUDGE[-1]), config, [0], [source], JUDGE)


def _save(path: Path, judge: Judge, sizes: dict[str, str], accuracy: dict[str, float]) -> None:
    save_tensors(path, judge.state_dict(), sizes)
    write_json(path.with_suffix(".json"), accuracy)


def one_frame(pictures: Tensor, stream: Stream) -> Tensor:
    """uint8 pictures or clips -> (N, 3, H, W) in [-1, 1], of a clip one frame."""
    x = to_unit(pictures)
    frame = stream.integers(len(x), x.shape[2])
    return x[torch.arange(len(x)), :, frame]


def heads_loss(logits: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> Tensor:
    """Cross entropy summed over heads; rows to which a label does not apply (-1) are left out."""
    losses = [
        functional.cross_entropy(logits[name], labels[name], ignore_index=-1)
        for name in labels
        if bool((labels[name] >= 0).any())
    ]
    return torch.stack(losses).sum()


def heldout_accuracy(
    judge: Judge, tensors: Mapping[str, Tensor], names: tuple[str, ...]
) -> dict[str, float]:
    """Share of held-out pictures, or clips, whose label is guessed right, by label."""
    pictures = to_unit(tensors["heldout"])
    guesses: dict[str, list[Tensor]] = {name: [] for name in names}
    for part in pictures.split(256):
        for name, guess in judge.guess(part.squeeze(2) if part.shape[2] == 1 else part).items():
            guesses[name].append(guess)
    accuracies = {}
    for name in names:
        true = tensors[f"heldout_{name}"]
        hits = torch.cat(guesses[name]) == true
        accuracies[f"heldout_{name}_accuracy"] = float(hits[true >= 0].double().mean())
    return accuracies
