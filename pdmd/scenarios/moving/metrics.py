"""Scores of clips drawn for prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pdmd.data.conditions import prompt_of
from pdmd.data.prompts import Prompt
from pdmd.metrics import checks
from pdmd.metrics.alignment import score_of_cosines
from pdmd.metrics.checks import Scores
from pdmd.metrics.consistency import DIMENSIONS, steadiness
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
        networks: features, lpips, clip, clip_image, flow, i3d.
        fvd_clips: how many clips go through I3D, and frame by frame through others.
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
        return self._quick(Reference(clips), condition)

    def _quick(self, own: Reference, condition: Tensor) -> Scores:
        clips = checks.pictures("accuracy", own.x, 5, SMALLEST).float()
        condition = self.asked(condition, len(clips))
        scores = self._accuracy(condition, self._guess(own, clips))
        scores |= self._motion(own, clips, condition)
        return scores | self._coverage(own, clips, condition)

    def _guess(self, own: Reference, clips: Tensor) -> dict[str, Tensor]:
        """(N,) what the judge sees of each label."""
        names = {name: f"guess_{name}" for name in self.judge.heads}
        if not set(names.values()) <= own.features.keys():
            guess = self.judge.guess(clips)
            own.features |= {key: guess[name] for name, key in names.items()}
        return {name: own.features[key] for name, key in names.items()}

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

    def _motion(self, own: Reference, clips: Tensor, condition: Tensor) -> Scores:
        px, scores = clips.shape[-1], Scores()
        free, stated, camera = (
            prompt_rows(condition, self.prompts, kind) for kind in ("free", "stated", "camera")
        )
        objects = torch.cat([free, stated])
        motion = own.once("motion", lambda: _at(objects, _motion_of(clips[objects]), len(clips)))
        motion = motion[objects]
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
            "control_camera": checks.mean(self._camera_hits(own, clips, camera, condition)),
        }

    def _camera_hits(
        self, own: Reference, clips: Tensor, camera: Tensor, condition: Tensor
    ) -> Tensor:
        if not len(camera):
            return torch.zeros(0).bool()

        def make() -> Tensor:
            known = known_camera(camera_motion(clips[camera]), clips.shape[-1])
            return _at(camera, known, len(clips))

        return own.once("camera", make)[camera] == self._said(condition[camera], "camera")

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

    def _coverage(self, own: Reference, clips: Tensor, condition: Tensor) -> Scores:
        features = own.once("looks", lambda: through(self._looks, clips, "judge"))
        real = self.real.by("looks", self._looks)
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
    def of_samples(self, own: Reference, condition: Tensor) -> Scores:
        """The scores above and those of real networks.

        Returns, further:
            flow: mean magnitude of optical flow, px a frame (the paper's OF); dynamic: share of
                clips with a dynamic degree as VBench defines it.
            cosine, vendi, lpips: diversity within a prompt of the last frames, as of pictures.
            clip: the small CLIP's score of the middle frames.
        """
        scores, clips = self._quick(own, condition), own.x
        condition = prompt_of(condition)
        if not {"flow", "dynamic"} <= own.features.keys():
            flow = self.networks["flow"](clips)
            own.features |= {"flow": mean_flow(flow), "dynamic": dynamic_degree(flow)}
        scores["flow"] = float(own.features["flow"].mean())
        scores["dynamic"] = float(own.features["dynamic"].double().mean())
        features = self._ends(own, len(clips))
        centre = centre_of(self._ends(self.real, CENTRED_ON))
        scores["cosine"] = within_prompt(features, condition, centre)
        scores["vendi"] = vendi_score(features, condition, centre)
        lpips, clip = self.networks["lpips"], self.networks["clip"]
        scores["lpips"] = own.by_prompt("lpips", condition, lambda x, c: lpips(x[:, :, -1], c))
        aligned = own.once("clip", lambda: clip(clips[:, :, clips.shape[2] // 2], condition))
        return scores | {"clip": score_of_cosines(aligned)}

    def features(self, clips: Reference) -> Tensor:
        """(M, D) features of I3D, made once, and beside them what else costs much."""
        self._ends(clips, CENTRED_ON if clips is self.real else len(clips.x))
        if clips is not self.real:
            self._steadiness(clips)
        return self._i3d(clips)

    def _ends(self, clips: Reference, count: int) -> Tensor:
        """(count, D) features of last frames."""
        return clips.by("ends", self.networks["features"], clips.x[:count, :, -1])

    def _i3d(self, clips: Reference) -> Tensor:
        rows = spread_rows(len(clips.x), self.fvd_clips)
        return clips.by("i3d", self.networks["i3d"], clips.x[rows])

    def _steadiness(self, clips: Reference) -> Tensor:
        """(M, 4) dimensions of VBench, of the clips that I3D sees."""
        of = self.networks

        def network(x: Tensor) -> Tensor:
            return steadiness(x, of["flow"], of["features"], of["clip_image"])

        return clips.by("steadiness", network, clips.x[spread_rows(len(clips.x), self.fvd_clips)])

    @torch.no_grad()
    def distances(self, own: Reference) -> Scores:
        """fvd, kvd: Frechet distance of I3D logits, kernel distance of pooled I3D features, to
        held-out clips; fvd_teacher, kvd_teacher: to the teacher's, as in the paper. Of the same
        clips temporal_flicker, motion_smoothness, subject_consistency, background_consistency.
        """
        features = self._i3d(own)
        means = self._steadiness(own).double().mean(0).tolist()
        distances: Scores = dict(zip(DIMENSIONS, means, strict=True))
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


def stratum(prompt: Prompt) -> str | None:
    """How hard a clip is, by what its prompt says: an object that moves as it likes, slowly or
    fast, or a camera that pans or zooms over a scene.
    """
    if prompt.kind == "stated":
        return ("object-slow", "object-fast")[prompt.truth["speed"]]
    if prompt.kind == "camera":
        zooms = list(CAMERAS.values())[prompt.truth["camera"]][2] != 0
        return "camera-zoom" if zooms else "camera-pan"
    return "object-free" if prompt.kind == "free" else None


def _at(rows: Tensor, values: Tensor, count: int) -> Tensor:
    """(count, ...) values at some rows, 0 at others."""
    return values.new_zeros(count, *values.shape[1:]).index_copy(0, rows, values)


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
