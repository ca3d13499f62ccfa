"""How much training an experiment holds and how far it is: the sums behind progress lines."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdmd.config.budget import calls_of, forwards, phase_updates
from pdmd.config.catalogue import TRANSFORMERS
from pdmd.config.experiment import Experiment
from pdmd.config.paths import job_label
from pdmd.config.sections import ReleasedData, Run, latent_size, parse_size
from pdmd.models.families import FAMILIES
from pdmd.models.source import is_tiny

TINY = 1e5  # weights of a tiny random model
TOKENS = 16  # of a small transformer's sample
# Operations as torch's FlopCounterMode counts them, of the released decoders and the networks that
# config/scenarios names: of a px by a VAE; of a px by RAFT-large, whose flow is taken of each pair,
# and of every second frame to the next and back; of a frame by DINOv3 ViT-L/16 and CLIP ViT-L/14.
DECODING, FLOWING, SEEING = 9.0e6, 2 * 1.63e6, 1.26e11 + 1.62e11
STALE_SECONDS = 60.0  # a job that has not reported for so long is shown as silent


@dataclass(frozen=True)
class Job:
    """One training job.

    Attributes:
        label: as the job's own progress file names it; output: exists when it is done.
        work: rows through the network times its size, in arbitrary units.
    """

    label: str
    output: Path
    work: float


def released_weights(run: Run) -> float:
    """Weights of one transformer of a released model; of a tiny one none that matter."""
    if is_tiny(str(run.model.source), run.results):
        return TINY
    return FAMILIES[str(run.model.family)].parameters * 1e9


def largest_sample(data: ReleasedData) -> int:
    """Tokens of a sample at the largest size: 2 x 2 latents each."""
    sizes = [latent_size(parse_size(text)) for text in data.sizes]
    return max(frames * height * width // 4 for frames, height, width in sizes)


def network_size(run: Run) -> float:
    """Roughly the number of weights that a row meets, once for each of a transformer's tokens."""
    model, data = run.model, run.data
    if isinstance(data, ReleasedData):
        return released_weights(run) * largest_sample(data)
    each = {"mlp": 1, "conditional-mlp": 4, "qwen": 40, "wan": 14}
    layers = model.depth * each[model.kind] + 1
    rows = TOKENS if model.kind in TRANSFORMERS else 1
    return float(layers * rows * model.width**2)


def looking_work(run: Run, stage: str) -> float:
    """Operations of decoding a released model's sample (`decode`), or of what frozen networks see
    in it (`features`).
    """
    frames, height, width = parse_size(str(run.evaluate.size))
    if stage == "decode":
        return DECODING * frames * height * width
    looks = SEEING * frames
    return looks + (FLOWING * frames * height * width if frames > 1 else 0.0)


def fit_work(run: Run, runs: int) -> float:
    """Work of fitting one velocity for each of `runs` seeds."""
    return 3 * run.fit.updates * run.fit.batch * runs * network_size(run)


def measuring_work(run: Run) -> float:
    """Work of measuring the teacher's errors of single steps."""
    spec, guided = run.measure, 1 if run.teacher.guidance == 1 else 2
    calls = calls_of(spec.levels, spec.substeps, spec.error == "end", guided)
    return float(sum(calls.values()) * spec.samples) * network_size(run)


def ranging_work(run: Run) -> float:
    """Work of measuring how far an untrained student is off: a fine trajectory, and its own."""
    spec, guided = run.measure, 1 if run.teacher.guidance == 1 else 2
    calls = calls_of(spec.levels + len(run.student.ends), spec.substeps, False, guided)
    return float((calls["trajectory"] + guided * run.student.steps) * spec.samples) * (
        network_size(run)
    )


def sampling_work(run: Run, runs: int, rows: int, number: int | None = None) -> float:
    """Work of drawing samples: with all of a sampler's steps, or those before a phase."""
    student = run.student
    if run.kind == "teacher":
        guided = 1 if run.teacher.guidance == 1 else 2
        steps = guided * run.teacher.steps
    else:
        steps = student.steps if number is None else [0, *student.ends][number - 1]
    return float(steps * rows * runs) * network_size(run)


def phase_work(run: Run, runs: int, number: int) -> float:
    """Work of distilling one phase: rollouts, fake updates and the generator's."""
    first, last = [0, *run.student.ends][number - 1 : number + 1]
    updates = phase_updates(run, number)
    return updates * run.distill.batch * runs * forwards(run, first, last) * network_size(run)


def training_jobs(experiment: Experiment) -> list[Job]:
    """Every training job of an experiment."""
    jobs = []
    for scenario in experiment.scenarios:
        folder = Path(experiment.settings["results"]) / scenario
        methods = experiment.method_names(scenario)
        if experiment.select(scenario, ["distill", "teacher"]):
            run = experiment.shared(scenario)
            if hasattr(run, "fit"):
                work = 0.0 if run.fit.kept else fit_work(run, 1)
                jobs.append(Job(f"{scenario} base", folder / "base/model.safetensors", work))
        for method in methods:
            run = experiment.runs[scenario, method]
            if run.kind == "teacher":
                continue
            for seeds in experiment.groups(scenario):
                for number in range(1, experiment.phases(scenario, method) + 1):
                    output = folder / method / f"seed{seeds[-1]}/phase{number}/metrics.json"
                    fits = run.kind == "fit"
                    size = (
                        fit_work(run, len(seeds)) if fits else phase_work(run, len(seeds), number)
                    )
                    name = job_label(run, None if fits else number, seeds)
                    jobs.append(Job(name, output, size))
    return jobs


def running(results: Path) -> list[dict[str, Any]]:
    """What the training jobs that run now last said of themselves, by label."""
    reports = []
    for path in results.glob(".state/*/*/*/progress.json"):
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if describe(value) and value["step"] / value["updates"] >= 0:
                reports.append(value)
        except Exception:  # it ends at this moment, or is damaged: watchers go on without it
            continue
    return sorted(reports, key=lambda value: str(value["label"]))


def describe(value: dict[str, Any]) -> str:
    """One running job in one line: label, updates, losses, updates a second."""
    line = f"{value['label']:<38} {value['step']:>6}/{value['updates']} updates"
    spent, step = value["now"] - value["started"], value["step"] - value.get("first", 0)
    record = value["record"] or {}
    for name in ("loss", "fake_loss"):
        if name in record:
            mean = sum(record[name]) / len(record[name])
            line += f"  {name.replace('_', ' ')} {mean:.3f}"
    if time.time() - value["now"] > STALE_SECONDS:
        return f"{line}  silent for {time.time() - value['now']:.0f} s"
    if step and spent > 1:
        line += f"  {step / spent:.0f}/s"
    return line
