"""Scores of emoji drawn for prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pdmd.data.prompts import Prompt
from pdmd.metrics import checks
from pdmd.metrics.alignment import score_of_cosines
from pdmd.metrics.checks import Scores
from pdmd.metrics.distances import centre_of
from pdmd.metrics.diversity import mode_shares, vendi_score, within_prompt
from pdmd.metrics.pictures import coverage_and_density
from pdmd.metrics.prompted import (
    PromptedMetrics,
    Reference,
    fidelity,
    mean_coverage,
    mean_shares,
    prompt_rows,
    through,
)


def stratum(prompt: Prompt) -> str | None:
    """What a prompt leaves open: `fine` the style of one object, `coarse` the object, too."""
    return prompt.kind if prompt.kind in ("fine", "coarse") else None


@dataclass(frozen=True)
class EmojiMetrics(PromptedMetrics):
    """Scores of pictures drawn from coarse and fine prompts; networks: features, lpips, clip."""

    @property
    def styles(self) -> int:
        """How many styles there are."""
        return int(self.labels["style"].max()) + 1

    @torch.no_grad()
    def __call__(self, pictures: Tensor, condition: Tensor) -> Scores:
        """What a judge sees in (N, 3, H, W) pictures drawn for (N,) prompts.

        Returns:
            accuracy, accuracy_<kind>: share whose object satisfies the prompt.
            modes_<kind>: known modes covered a prompt (fine: 4 styles; coarse: 4 objects x 4
                styles); entropy_<kind>: of the mode shares, 1 best; tv_<kind>: to equal shares.
            coverage, density: of held-out pictures of what the prompt asks for, by judge features.
            Those of a kind of prompt that no picture is of are None.
        Raises:
            UserError: a picture or a feature of one is not finite, a prompt is unknown, or has not
                more held-out pictures than `neighbours`; names the row or the prompt.
        """
        return self._quick(Reference(pictures), condition)

    def _quick(self, own: Reference, condition: Tensor) -> Scores:
        pictures = checks.pictures("accuracy", own.x, 4).float()
        condition = self.asked(condition, len(pictures))
        features = own.once("judge", lambda: through(self.judge.features, pictures, "judge"))
        guess = {name: head(features).argmax(1) for name, head in self.judge.heads.items()}
        right = self._right(condition, guess["object"])
        scores: Scores = {"accuracy": checks.mean(right)}
        for kind in ("fine", "coarse"):
            rows = prompt_rows(condition, self.prompts, kind)
            scores[f"accuracy_{kind}"] = checks.mean(right[rows])
            scores |= self._modes(kind, rows, condition, guess, right)
        return scores | self._coverage(features, condition)

    def _right(self, condition: Tensor, objects: Tensor) -> Tensor:
        known = 1 + max(int(self.labels["object"].max()), int(objects.max()))
        satisfied = torch.zeros(len(self.prompts), known).bool()
        for number, prompt in enumerate(self.prompts):
            satisfied[number, prompt.truth.get("objects", [])] = True
        return satisfied[condition, objects]

    def _modes(
        self,
        kind: str,
        rows: Tensor,
        condition: Tensor,
        guess: Mapping[str, Tensor],
        right: Tensor,
    ) -> Scores:
        shares = []
        for number in condition[rows].unique():
            right_rows = rows[(condition[rows] == number) & right[rows]]
            objects = torch.tensor(self.prompts[int(number)].truth["objects"])
            place = (guess["object"][right_rows][:, None] == objects).int().argmax(1)
            modes = place * self.styles + guess["style"][right_rows]
            shares.append(mode_shares(modes, len(objects) * self.styles))
        return mean_shares(shares, kind)

    def _coverage(self, features: Tensor, condition: Tensor) -> Scores:
        real = self.real.by("judge", self.judge.features)
        pairs = []
        for number in condition.unique():
            objects = torch.tensor(self.prompts[int(number)].truth["objects"])
            asked_for = torch.isin(self.labels["object"], objects)
            fake = features[condition == number]
            compared = real[asked_for][:: max(1, int(asked_for.sum()) // max(len(fake), 1))]
            with checks.telling(f"prompt {int(number)}"):
                pairs.append(coverage_and_density(fake, compared, self.neighbours))
        return mean_coverage(pairs)

    @torch.no_grad()
    def of_samples(self, own: Reference, condition: Tensor) -> Scores:
        """The scores above and those of real networks.

        Returns, further:
            cosine, cosine_pixels, vendi, lpips: diversity within a prompt, mean over prompts; the
                cosine of a network's features centred on held-out pictures, and of raw pixels.
            clip: the small CLIP's score.
        """
        scores, pictures = self._quick(own, condition), own.x
        features, real = self.features(own), self.features(self.real)
        centre, mean = centre_of(real), centre_of(self.real.x.flatten(1))
        scores["cosine"] = within_prompt(features, condition, centre)
        scores["cosine_pixels"] = within_prompt(
            pictures.flatten(1), condition, mean, "cosine_pixels"
        )
        scores["vendi"] = vendi_score(features, condition, centre)
        scores["lpips"] = own.by_prompt("lpips", condition, self.networks["lpips"])
        aligned = own.once("clip", lambda: self.networks["clip"](pictures, condition))
        return scores | {"clip": score_of_cosines(aligned)}

    @torch.no_grad()
    def distances(self, own: Reference) -> Scores:
        """fid, kid: of a network's features to held-out pictures; fid_teacher, kid_teacher: to
        the teacher's samples, as in the paper.
        """
        features = self.features(own)
        scores: Scores = {**fidelity(features, self.features(self.real))}
        if self.teacher is not None:
            scores |= fidelity(features, self.features(self.teacher), "_teacher")
        return scores

    def features(self, pictures: Reference) -> Tensor:
        """(N, D) features of pictures, made once."""
        return pictures.by("features", self.networks["features"])
