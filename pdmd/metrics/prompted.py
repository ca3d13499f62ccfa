"""Everything that scores pictures and clips drawn from prompts, by kind of prompt."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pdmd.errors import UserError
from pdmd.judge import Judge
from pdmd.metrics import checks
from pdmd.metrics.checks import Scores
from pdmd.metrics.distances import centre_of
from pdmd.metrics.diversity import ModeShares, mode_shares, vendi_score, within_prompt
from pdmd.metrics.fidelity import frechet_distance, kernel_distance
from pdmd.metrics.motion import (
    SMALLEST,
    camera_motion,
    dynamic_degree,
    mean_flow,
    nearest_direction,
    nearest_speed,
    object_motion,
    wasserstein,
)
from pdmd.metrics.pictures import coverage_and_density
from pdmd.models.base import prompt_of
from pdmd.moving import CAMERAS, DIRECTIONS, PAN, ZOOM, speeds_of
from pdmd.prompts import Prompt

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


@torch.no_grad()
def through(network: Features, x: Tensor, name: str = "features", size: int = CHUNK) -> Tensor:
    """A frozen network's features of many pictures or clips, a chunk at a time.

    Raises:
        UserError: a feature is not finite; names the network and the row.
    """
    found = torch.cat([network(part) for part in x.split(size)])
    return checks.samples(name, found, what="features")


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
        teacher: the teacher's samples of the same seed, for the full scores.
    """

    prompts: Sequence[Prompt]
    judge: Judge
    real: Reference
    labels: Mapping[str, Tensor]
    neighbours: int
    networks: Mapping[str, Any] = field(default_factory=dict)
    teacher: Reference | None = None

    def __post_init__(self) -> None:
        checks.weights("accuracy", self.judge)

    def asked(self, condition: Tensor, rows: int) -> Tensor:
        """The prompt of each sample, (N,).

        Raises:
            UserError: not one for each sample, or there is no such prompt.
        """
        checks.labels("accuracy", condition, rows)
        return checks.labels("accuracy", prompt_of(condition), rows, len(self.prompts))


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
        pictures = checks.pictures("accuracy", pictures, 4).float()
        condition = self.asked(condition, len(pictures))
        features = through(self.judge.features, pictures, "judge")
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
        found = []
        for number in condition[rows].unique():
            mine = rows[(condition[rows] == number) & right[rows]]
            objects = torch.tensor(self.prompts[int(number)].truth["objects"])
            place = (guess["object"][mine][:, None] == objects).int().argmax(1)
            modes = place * self.styles + guess["style"][mine]
            found.append(mode_shares(modes, len(objects) * self.styles))
        return mean_shares(found, kind)

    def _coverage(self, features: Tensor, condition: Tensor) -> Scores:
        real = self.real.by("judge", self.judge.features)
        pairs = []
        for number in condition.unique():
            objects = torch.tensor(self.prompts[int(number)].truth["objects"])
            mine = torch.isin(self.labels["object"], objects)
            fake = features[condition == number]
            some = real[mine][:: max(1, int(mine.sum()) // max(len(fake), 1))]
            with checks.telling(f"prompt {int(number)}"):
                pairs.append(coverage_and_density(fake, some, self.neighbours))
        return mean_coverage(pairs)

    @torch.no_grad()
    def full(self, own: Reference, condition: Tensor) -> Scores:
        """The scores above and those of real networks; `own` holds their features afterwards.

        Returns, further:
            cosine, cosine_pixels, vendi, lpips: diversity within a prompt, mean over prompts; the
                cosine of a network's features centred on held-out pictures, and of raw pixels.
            fid, kid: these features against held-out pictures; fid_teacher, kid_teacher: against
                the teacher's samples, as in the paper; clip: the small CLIP's score.
        """
        scores, pictures = self(own.x, condition), own.x
        features = own.by("features", self.networks["features"])
        real = self.real.by("features", self.networks["features"])
        centre, mean = centre_of(real), centre_of(self.real.x.flatten(1))
        scores["cosine"] = within_prompt(features, condition, centre)
        scores["cosine_pixels"] = within_prompt(
            pictures.flatten(1), condition, mean, "cosine_pixels"
        )
        scores["vendi"] = vendi_score(features, condition, centre)
        scores["lpips"] = self.networks["lpips"](pictures, condition)
        scores["clip"] = self.networks["clip"](pictures, condition)
        scores |= fidelity(features, real)
        if self.teacher is not None:
            theirs = self.teacher.by("features", self.networks["features"])
            scores |= fidelity(features, theirs, "_teacher")
        return scores


@dataclass(frozen=True)
class MovingMetrics(PromptedMetrics):
    """Scores of clips drawn from free, stated and camera prompts.

    Attributes:
        networks: features, lpips, clip, flow, i3d; conditions: of the teacher's samples.
        fvd_clips: how many clips go through I3D.
    """

    conditions: Tensor | None = None
    fvd_clips: int = 64

    @torch.no_grad()
    def __call__(self, clips: Tensor, condition: Tensor) -> Scores:
        """What a judge and estimates of motion see in (N, 3, T, H, W) clips of (N,) prompts.

        Returns:
            accuracy: share of clips whose object, or scene, is the one asked for.
            modes_free, entropy_free, tv_free: known motions (directions x speeds) of a free prompt
                covered, entropy of their shares, distance to equal shares.
            control: share of stated prompts whose direction and speed are the ones stated;
            control_camera: the same of the camera's move.
            speed: mean of object clips, px a frame; speed_w1, speed_w1_teacher: Wasserstein
                distance of free clips' speeds to held-out clips and to the teacher's.
            coverage, density: of held-out clips of the same subject, by judge features, over the
                prompts that have more than `neighbours` of them.
            Those of a kind of prompt that no clip is of are None.
        Raises:
            UserError: a clip or a feature of one is not finite, or a prompt is unknown; names the
                row.
        """
        clips = checks.pictures("accuracy", clips, 5, SMALLEST).float()
        condition = self.asked(condition, len(clips))
        scores = self._accuracy(condition, self.judge.guess(clips))
        scores |= self._motion(clips, condition)
        return scores | self._coverage(clips, condition)

    def _said(self, condition: Tensor, name: str) -> Tensor:
        """(N,) what the prompts say of one label, -1 where they leave it free."""
        values = [-1 if p.truth.get(name) is None else p.truth[name] for p in self.prompts]
        return torch.tensor(values)[condition]

    def _accuracy(self, condition: Tensor, guess: Mapping[str, Tensor]) -> Scores:
        hits = []
        for name in ("object", "scene"):
            wanted = self._said(condition, name)
            hits.append((guess[name] == wanted)[wanted >= 0])
        return {"accuracy": checks.mean(torch.cat(hits))}

    def _motion(self, clips: Tensor, condition: Tensor) -> Scores:
        px, scores = clips.shape[-1], Scores()
        free, stated, camera = (
            prompt_rows(condition, self.prompts, kind) for kind in ("free", "stated", "camera")
        )
        motion = _motion_of(clips[torch.cat([free, stated])])
        speeds = motion[: len(free)].norm(dim=1)
        scores["speed"] = checks.mean(motion.norm(dim=1))
        scores["speed_w1"] = _apart(speeds, self._real_speeds(), "speed_w1")
        if self.teacher is not None and self.conditions is not None:
            theirs = self._teacher_speeds()
            scores["speed_w1_teacher"] = _apart(speeds, theirs, "speed_w1_teacher")
        scores |= self._free_modes(motion[: len(free)], condition[free], px)
        direction, speed = known_motion(motion[len(free) :], px)
        right = direction == self._said(condition[stated], "direction")
        right &= speed == self._said(condition[stated], "speed")
        return scores | {
            "control": checks.mean(right),
            "control_camera": checks.mean(self._camera_hits(clips[camera], condition[camera])),
        }

    def _camera_hits(self, clips: Tensor, condition: Tensor) -> Tensor:
        if not len(clips):
            return torch.zeros(0).bool()
        moves = known_camera(camera_motion(clips), clips.shape[-1])
        return moves == self._said(condition, "camera")

    def _free_modes(self, motion: Tensor, condition: Tensor, px: int) -> Scores:
        direction, speed = known_motion(motion, px)
        known = direction * len(speeds_of(px)) + speed
        count = len(DIRECTIONS) * len(speeds_of(px))
        found = []
        for number in condition.unique():
            mine = known[(condition == number) & (speed >= 0)]
            found.append(mode_shares(mine, count))
        return mean_shares(found, "free")

    def _real_speeds(self) -> Tensor:
        if "speeds" not in self.real.features:
            objects = self.real.x[self.labels["object"] >= 0]
            with checks.telling("held-out clips"):
                self.real.features["speeds"] = _motion_of(objects).norm(dim=1)
        return self.real.features["speeds"]

    def _teacher_speeds(self) -> Tensor:
        assert self.teacher is not None
        assert self.conditions is not None
        if "speeds" not in self.teacher.features:
            free = prompt_rows(prompt_of(self.conditions), self.prompts, "free")
            with checks.telling("the teacher's clips"):
                self.teacher.features["speeds"] = _motion_of(self.teacher.x[free]).norm(dim=1)
        return self.teacher.features["speeds"]

    def _looks(self, clips: Tensor) -> Tensor:
        """(N, D) judge features of the first, the middle and the last frame."""
        frames = clips[:, :, [0, clips.shape[2] // 2, -1]].movedim(2, 1)
        return self.judge.features(frames.flatten(0, 1)).view(len(clips), -1)

    def _coverage(self, clips: Tensor, condition: Tensor) -> Scores:
        features, real = through(self._looks, clips, "judge"), self.real.by("looks", self._looks)
        pairs = []
        for number in condition.unique():
            mine = torch.ones(len(real), dtype=torch.bool)
            for name, value in self.prompts[int(number)].truth.items():
                if value is not None:
                    mine &= self.labels[name] == value
            if int(mine.sum()) <= self.neighbours:
                continue
            with checks.telling(f"prompt {int(number)}"):
                pairs.append(
                    coverage_and_density(features[condition == number], real[mine], self.neighbours)
                )
        return mean_coverage(pairs)

    @torch.no_grad()
    def full(self, own: Reference, condition: Tensor) -> Scores:
        """The scores above and those of real networks; `own` holds I3D's features afterwards.

        Returns, further:
            flow: mean magnitude of optical flow, px a frame (the paper's OF); dynamic: share of
                clips with a dynamic degree as VBench defines it.
            cosine, vendi, lpips: diversity within a prompt of the last frames, as of pictures.
            fvd, kvd: Frechet distance of I3D logits, kernel distance of pooled I3D features, to
                held-out clips; fvd_teacher, kvd_teacher: to the teacher's, as in the paper.
            clip: the small CLIP's score of the middle frames.
        """
        scores, clips = self(own.x, condition), own.x
        condition = prompt_of(condition)
        flow = self.networks["flow"](clips)
        scores["flow"] = float(mean_flow(flow).mean())
        scores["dynamic"] = float(dynamic_degree(flow).double().mean())
        last = clips[:, :, -1]
        features = through(self.networks["features"], last)
        ends = self.real.x[:CENTRED_ON, :, -1]
        centre = centre_of(self.real.by("ends", self.networks["features"], ends))
        scores["cosine"] = within_prompt(features, condition, centre)
        scores["vendi"] = vendi_score(features, condition, centre)
        scores["lpips"] = self.networks["lpips"](last, condition)
        scores["clip"] = self.networks["clip"](clips[:, :, clips.shape[2] // 2], condition)
        return scores | self._video_distances(own)

    def _i3d(self, clips: Reference) -> Tensor:
        some = spread_rows(len(clips.x), self.fvd_clips)
        return clips.by("i3d", self.networks["i3d"], clips.x[some])

    def _video_distances(self, own: Reference) -> dict[str, float]:
        mine, found = self._i3d(own), {}
        others = {"": self.real} | ({} if self.teacher is None else {"_teacher": self.teacher})
        for suffix, other in others.items():
            fvd, kvd, theirs = f"fvd{suffix}", f"kvd{suffix}", self._i3d(other)
            logits, pooled = slice(0, 400), slice(400, None)
            found[fvd] = frechet_distance(mine[:, logits], theirs[:, logits], fvd)
            half = len(mine) // 2
            found[kvd] = kernel_distance(mine[:, pooled], theirs[:, pooled], SUBSETS, half, 0, kvd)
        return found


def _motion_of(clips: Tensor) -> Tensor:
    """(N, 2) motions of objects, of no clips as well."""
    return object_motion(clips) if len(clips) else torch.zeros(0, 2)


def _apart(speeds: Tensor, others: Tensor, metric: str) -> float | None:
    """Wasserstein distance of two sets of speeds; None where one is empty."""
    return wasserstein(speeds, others, metric) if len(speeds) and len(others) else None


def known_motion(motion: Tensor, px: int) -> tuple[Tensor, Tensor]:
    """Indices of the nearest known direction and speed, -1 for a clip that stands."""
    direction = nearest_direction(motion, list(DIRECTIONS.values()))
    return direction, nearest_speed(motion.norm(dim=1), speeds_of(px))


def known_camera(motion: Tensor, px: int) -> Tensor:
    """Index of the known camera move that a pan and zoom (N, 3) is nearest to, -1 for none.

    Pan and zoom are compared in units of the known moves.

    Raises:
        UserError: a motion is not finite.
    """
    motion = checks.samples("camera motion", motion, 0, "motions").float()
    checks.same_width("camera motion", motion, torch.zeros(1, 3), "motions")
    units = torch.tensor([PAN * px, PAN * px, math.log(ZOOM)])
    scaled = motion / units
    moves = torch.tensor(list(CAMERAS.values()))
    return torch.where(scaled.norm(dim=1) < 0.4, -1, (scaled @ moves.T).argmax(1))


def spread_rows(rows: int, wanted: int) -> Tensor:
    """Evenly spread row numbers, at most `wanted` of them.

    Raises:
        UserError: none are wanted, or there are none.
    """
    if min(rows, wanted) < 1:
        raise UserError(f"fvd: {wanted} of {rows} clips: expected at least 1")
    return torch.arange(min(rows, wanted)) * rows // min(rows, wanted)
