"""Scores of clips drawn for prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pdmd.data.conditions import prompt_of
from pdmd.metrics import checks
from pdmd.metrics.checks import Scores
from pdmd.metrics.distances import centre_of
from pdmd.metrics.diversity import mode_shares, vendi_score, within_prompt
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
from pdmd.metrics.prompted import (
    CENTRED_ON,
    SUBSETS,
    PromptedMetrics,
    Reference,
    mean_coverage,
    mean_shares,
    prompt_rows,
    spread_rows,
    through,
)
from pdmd.scenarios.moving.clips import CAMERAS, DIRECTIONS, PAN, ZOOM, speeds_of


@dataclass(frozen=True)
class MovingMetrics(PromptedMetrics):
    """Scores of clips drawn from free, stated and camera prompts.

    Attributes:
        networks: features, lpips, clip, flow, i3d.
        fvd_clips: how many clips go through I3D.
    """

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
        if self.teacher is not None and self.asked_of_teacher is not None:
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
        shares = []
        for number in condition.unique():
            of_prompt = known[(condition == number) & (speed >= 0)]
            shares.append(mode_shares(of_prompt, count))
        return mean_shares(shares, "free")

    def _real_speeds(self) -> Tensor:
        if "speeds" not in self.real.features:
            objects = self.real.x[self.labels["object"] >= 0]
            with checks.telling("held-out clips"):
                self.real.features["speeds"] = _motion_of(objects).norm(dim=1)
        return self.real.features["speeds"]

    def _teacher_speeds(self) -> Tensor:
        assert self.teacher is not None
        assert self.asked_of_teacher is not None
        if "speeds" not in self.teacher.features:
            free = prompt_rows(prompt_of(self.asked_of_teacher), self.prompts, "free")
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
            asked_for = torch.ones(len(real), dtype=torch.bool)
            for name, value in self.prompts[int(number)].truth.items():
                if value is not None:
                    asked_for &= self.labels[name] == value
            if int(asked_for.sum()) <= self.neighbours:
                continue
            with checks.telling(f"prompt {int(number)}"):
                pairs.append(
                    coverage_and_density(
                        features[condition == number], real[asked_for], self.neighbours
                    )
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
        features = self._ends(own, len(clips))
        centre = centre_of(self._ends(self.real, CENTRED_ON))
        scores["cosine"] = within_prompt(features, condition, centre)
        scores["vendi"] = vendi_score(features, condition, centre)
        scores["lpips"] = self.networks["lpips"](last, condition)
        scores["clip"] = self.networks["clip"](clips[:, :, clips.shape[2] // 2], condition)
        return scores | self._video_distances(own)

    def features(self, clips: Reference) -> Tensor:
        """(M, D) features of I3D, and beside them those of last frames, made once."""
        self._ends(clips, CENTRED_ON if clips is self.real else len(clips.x))
        return self._i3d(clips)

    def _ends(self, clips: Reference, count: int) -> Tensor:
        """(count, D) features of last frames."""
        return clips.by("ends", self.networks["features"], clips.x[:count, :, -1])

    def _i3d(self, clips: Reference) -> Tensor:
        rows = spread_rows(len(clips.x), self.fvd_clips)
        return clips.by("i3d", self.networks["i3d"], clips.x[rows])

    def _video_distances(self, own: Reference) -> dict[str, float]:
        features, distances = self._i3d(own), {}
        others = {"": self.real} | ({} if self.teacher is None else {"_teacher": self.teacher})
        for suffix, other in others.items():
            fvd, kvd, theirs = f"fvd{suffix}", f"kvd{suffix}", self._i3d(other)
            logits, pooled = slice(0, 400), slice(400, None)
            distances[fvd] = frechet_distance(features[:, logits], theirs[:, logits], fvd)
            half = len(features) // 2
            distances[kvd] = kernel_distance(
                features[:, pooled], theirs[:, pooled], SUBSETS, half, 0, kvd
            )
        return distances


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
