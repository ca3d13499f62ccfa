"""Everything that scores pictures and clips drawn from prompts, by kind of prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pdmd.data.conditions import prompt_of
from pdmd.data.prompts import Prompt
from pdmd.errors import UserError
from pdmd.metrics import checks
from pdmd.metrics.checks import Scores
from pdmd.metrics.diversity import ModeShares, rows_by_prompt
from pdmd.metrics.fidelity import frechet_distance, kernel_distance
from pdmd.networks.judge import Judge
from pdmd.training.world import ALONE, World

Features = Callable[[Tensor], Tensor]
CHUNK = 64  # pictures at a time through a frozen network
SUBSETS = 20  # of a kernel distance
CENTRED_ON = 256  # held-out clips whose last frames are the centre of cosines


@dataclass
class Reference:
    """A set of pictures or clips that others are compared with, its features made once.

    Attributes:
        x: (N, 3, H, W) or (N, 3, T, H, W) in [-1, 1].
        features: name -> (M, D), made when they are first asked for.
        what: what errors call the set.
    """

    x: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    what: str = "samples"

    def by(self, name: str, network: Features, chosen: Tensor | None = None) -> Tensor:
        """(M, D) features of a network: of all, or of what was chosen from them."""
        if name not in self.features:
            with checks.telling(self.what):
                self.features[name] = through(network, self.x if chosen is None else chosen, name)
        return self.features[name]

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """(N, ...) what is known of each sample, made when it is first asked for."""
        if name not in self.features:
            self.features[name] = make()
        return self.features[name]

    def by_prompt(
        self, name: str, condition: Tensor, score: Callable[[Tensor, Tensor], float]
    ) -> float:
        """Mean over prompts of a score of each one's samples, which is made once.

        Args:
            condition: (N,) prompts; score: (samples, their prompt) -> a number.
        """

        def make() -> Tensor:
            values = torch.zeros(len(condition), dtype=torch.float64)
            for rows in rows_by_prompt(condition, name):
                values[rows] = score(self.x[rows], condition[rows])
            return values

        values = self.once(name, make)
        of_prompts = [float(values[rows[0]]) for rows in rows_by_prompt(condition, name)]
        return sum(of_prompts) / len(of_prompts)

    def part(self, rows: Tensor) -> Reference:
        """Some samples, with what is known of each."""
        every = len(self.x)
        known = {name: one[rows] for name, one in self.features.items() if len(one) == every}
        return Reference(self.x[rows], known, self.what)


@torch.no_grad()
def through(network: Features, x: Tensor, name: str = "features", size: int = CHUNK) -> Tensor:
    """A frozen network's features of many pictures or clips, a chunk at a time.

    Raises:
        UserError: a feature is not finite; names the network and the row.
    """
    features = torch.cat([network(part) for part in x.split(size)])
    return checks.samples(name, features, what="features")


def over_processes(network: Features, world: World) -> Features:
    """A network, or decoder, of rows that the processes of a job share out, on their devices.

    All of them return all rows, on the CPU.
    """

    def rows(x: Tensor) -> Tensor:
        mine = x[world.samples]
        outputs = network((mine if len(mine) else x[:1]).to(world.device))  # some have none left
        return world.gather(outputs[: len(mine)], len(x))

    return network if world == ALONE else rows


def prompt_rows(condition: Tensor, prompts: Sequence[Prompt], kind: str) -> Tensor:
    """The samples, (M,) indices, whose prompt is of a kind."""
    kinds = torch.tensor([prompt.kind == kind for prompt in prompts])
    return kinds[condition].nonzero().flatten()


def fidelity(features: Tensor, real: Tensor, suffix: str = "") -> dict[str, float]:
    """Frechet and kernel distance of features (N, D) to a reference's (M, D)."""
    size, kid = min(len(features), len(real)) // 2, f"kid{suffix}"
    return {
        f"fid{suffix}": frechet_distance(features, real, f"fid{suffix}"),
        kid: kernel_distance(features, real, SUBSETS, size, 0, kid),
    }


def mean_shares(shares: Sequence[ModeShares], kind: str) -> Scores:
    """Mode shares of the prompts of a kind, averaged; None of no prompt."""
    return {
        f"{short}_{kind}": _average([getattr(one, name) for one in shares])
        for short, name in (("modes", "covered"), ("entropy", "entropy"), ("tv", "tv"))
    }


def mean_coverage(pairs: Sequence[tuple[float, float]]) -> Scores:
    """Coverage and density of prompts, averaged; None of no prompt."""
    return {
        "coverage": _average([coverage for coverage, _ in pairs]),
        "density": _average([density for _, density in pairs]),
    }


def _average(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


@dataclass(frozen=True)
class PromptedMetrics:
    """What scores of pictures and of clips are made from.

    Attributes:
        prompts: all of the scenario; judge: trained on real pictures, or frames, only.
        real: held-out pictures or clips; labels: what is true of them, (M,) each.
        networks: name -> frozen network, for the full scores.
        teacher: the teacher's samples of the same seed, for the full scores; asked_of_teacher: the
            conditions that they were drawn for.
    """

    prompts: Sequence[Prompt]
    judge: Judge
    real: Reference
    labels: Mapping[str, Tensor]
    neighbours: int
    networks: Mapping[str, Any] = field(default_factory=dict)
    teacher: Reference | None = None
    asked_of_teacher: Tensor | None = None

    def __post_init__(self) -> None:
        checks.weights("accuracy", self.judge)

    def __call__(self, x: Tensor, condition: Tensor) -> Scores:
        """The quick scores, those of training's path, of samples drawn for conditions."""
        raise NotImplementedError

    def full(self, own: Reference, condition: Tensor) -> Scores:
        """All scores; `own` holds afterwards what networks saw in each sample."""
        return self.of_samples(own, condition) | self.distances(own)

    def of_samples(self, own: Reference, condition: Tensor) -> Scores:
        """Scores of single samples and of prompts, which part of the samples has as well."""
        raise NotImplementedError

    def distances(self, own: Reference) -> Scores:
        """Distances of all samples to others."""
        raise NotImplementedError

    def features(self, samples: Reference) -> Tensor:
        """What frozen networks see in samples, made once."""
        raise NotImplementedError

    def asked(self, condition: Tensor, rows: int) -> Tensor:
        """The prompt of each sample, (N,).

        Raises:
            UserError: not one for each sample, or there is no such prompt.
        """
        checks.labels("accuracy", condition, rows)
        return checks.labels("accuracy", prompt_of(condition), rows, len(self.prompts))


def by_stratum(
    metrics: PromptedMetrics,
    own: Reference,
    condition: Tensor,
    strata: Sequence[str | None],
    names: Sequence[str],
) -> dict[str, Scores]:
    """Stratum -> how many samples it has, and scores of these alone.

    After `full` no network sees a sample again: a stratum has whole prompts.

    Args:
        own, condition: all samples and what they were drawn for; strata: of each prompt, None of
            none; names: of scores, among those of `of_samples`.
    """
    known = list(dict.fromkeys(one for one in strata if one is not None))
    numbers = torch.tensor([-1 if one is None else known.index(one) for one in strata])
    of_rows, scores = numbers[prompt_of(condition)], {}
    for number, stratum in enumerate(known):
        rows = (of_rows == number).nonzero().flatten()
        if len(rows):
            with checks.telling(f"stratum {stratum}"):
                every = metrics.of_samples(own.part(rows), condition[rows])
            scores[stratum] = {"samples": len(rows), **{name: every[name] for name in names}}
    return scores


def spread_rows(rows: int, wanted: int) -> Tensor:
    """Evenly spread row numbers, at most `wanted` of them.

    Raises:
        UserError: none are wanted, or there are none.
    """
    if min(rows, wanted) < 1:
        raise UserError(f"fvd: {wanted} of {rows} clips: expected at least 1")
    return torch.arange(min(rows, wanted)) * rows // min(rows, wanted)
