"""The export stage: the adapters of a finished student as other programs load them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pdmd.config.experiment import Config
from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.config.sections import ReleasedData, Run, parse_size
from pdmd.files import provenance
from pdmd.files.storage import load_tensors, read_json
from pdmd.models.export import Student, write_export
from pdmd.models.families import FAMILIES
from pdmd.stages.grid import plan_of
from pdmd.stages.outputs import EXPORT_RECORD, base_file, export_reads, phases_of

SCORES = {  # of a model card, in words
    "flow": "mean optical flow, px a frame",
    "dynamic": "dynamic degree",
    "cosine_uncentred": "pairwise cosine within a prompt",
    "lpips": "pairwise LPIPS within a prompt",
    "fid_teacher": "FID to the teacher's samples",
    "fvd_teacher": "FVD to the teacher's samples",
    "clip": "CLIP score",
}


def export_student(config: Config, seeds: list[int]) -> None:
    """Write a folder `export` for each seed: adapters, scheduler, settings, examples, card."""
    run = read_run(config)
    paths, student = Paths(run), run.student
    lora, data = student.lora, run.data
    assert lora is not None
    assert isinstance(data, ReleasedData)
    plan = plan_of(run)
    firsts = [0, *plan.boundaries[:-1]]
    for seed in seeds:
        states = {
            number: load_tensors(paths.phase(seed, number, "expert.safetensors"))
            for number in phases_of(run)
        }
        made = Student(
            family=str(run.model.family),
            times=plan.times,
            shift=student.shift,
            boundary=run.model.boundary,
            rank=lora.rank,
            alpha=lora.alpha,
            phases=tuple(zip(firsts, plan.boundaries, strict=True)),
            states=states,
            size=parse_size(str(run.evaluate.size)),
        )
        folder = paths.seed(seed, "export")
        names = write_export(made, folder, card(run, seed))
        inputs = export_reads(run, seed)
        provenance.record(folder / EXPORT_RECORD, config, [seed], inputs, [*names, EXPORT_RECORD])


def card(run: Run, seed: int) -> str:
    """What the model card says above its examples: what it was made from, how, and its scores."""
    student, family = run.student, FAMILIES[str(run.model.family)]
    metrics = read_json(Paths(run).seed(seed, "metrics.json"), dict)
    manifest = read_json(base_file(run), dict)
    revision = manifest.get("commit") or manifest.get("revision") or "no revision named"
    lines = [
        *_front_matter(run),
        f"# {run.title}: {run.method}, seed {seed}",
        "",
        f"A {student.steps}-step student of `{family.hub}` ({revision}), distilled in"
        f" {len(student.ends)} phase(s) by distribution matching, with prompts alone.",
        "",
        "| what | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in _settings(run).items()),
        "",
        f"Scores of {run.evaluate.samples} samples at {run.evaluate.size}:",
        "",
        "| metric | value |",
        "|---|---|",
        *_scores(metrics),
    ]
    return "\n".join(lines) + "\n"


def _front_matter(run: Run) -> list[str]:
    """What the hub reads of a model card (huggingface.co/docs/hub/model-cards)."""
    family = FAMILIES[str(run.model.family)]
    made = "image" if parse_size(str(run.evaluate.size))[0] == 1 else "video"
    values = {
        "base_model": family.hub,
        "base_model_relation": "adapter",
        "library_name": "diffusers",
        "license": family.licence,
        "pipeline_tag": f"{'image' if family.image_channels else 'text'}-to-{made}",
        "tags": ["lora", "distillation", "few-step", run.method],
    }
    return ["---", *(f"{key}: {json.dumps(value)}" for key, value in values.items()), "---", ""]


def _settings(run: Run) -> dict[str, Any]:
    student, distill, lora = run.student, run.distill, run.student.lora
    assert lora is not None
    plan, levels = plan_of(run), f"shift {student.shift:g}"
    if student.grid is not None:
        levels = f"from noise levels {', '.join(f'{t:g}' for t in plan.times[:-1])}"
    teacher = f"{run.teacher.guidance:g}"
    if run.teacher.guidance_low is not None:
        teacher += f", low-noise expert {run.teacher.guidance_low:g}"
    return {
        "steps": f"{student.steps}, {levels}, no guidance",
        "phases end after steps": ", ".join(map(str, plan.boundaries)),
        "LoRA": f"rank {lora.rank}, alpha {lora.alpha}",
        "teacher's guidance": teacher,
        "generator updates": distill.updates,
        "batch": distill.batch,
        "fake score": f"{distill.fake.mode}, {distill.fake_updates} updates to one",
        "learning rates": f"{distill.generator_lr:g}, fake {distill.fake_lr:g}",
    }


def _scores(metrics: Mapping[str, Any]) -> list[str]:
    known = {name: metrics.get(name) for name in SCORES}
    return [
        f"| {SCORES[name]} | {value:.4g} |" for name, value in known.items() if value is not None
    ]
