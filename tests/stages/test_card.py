"""A model card says what its configuration and its scores say."""

import json

import pytest
import yaml
from configs import accepted, own

from pdmd.models.families import FAMILIES
from pdmd.stages.export import SCORES, card

METRICS = {"flow": 1.2345678, "dynamic": 0.5, "clip": 27.25, "lpips": None, "fid_teacher": 3.0}
TASKS = {
    "qwenimage": "text-to-image",
    "wan21t2v": "text-to-video",
    "wan21t2i": "text-to-image",
    "wan22i2v": "image-to-video",
}


def made(scenario, tmp_path, metrics=METRICS, **diff):
    """A card's front matter and the rows of its tables, and the run that it is of."""
    settings = {**own(scenario, **diff), "results": str(tmp_path)}
    run = accepted(settings).runs[scenario, "phased2"]
    folder = tmp_path / scenario / "phased2" / "seed1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    base = tmp_path / scenario / "base"
    base.mkdir(exist_ok=True)
    (base / "manifest.json").write_text(json.dumps({"revision": "main", "commit": "abc123"}))
    _, front, text = card(run, 1).split("---\n", 2)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return run, yaml.safe_load(front), dict(rows), text


@pytest.mark.parametrize("scenario", TASKS)
def test_the_front_matter_is_the_configurations(scenario, tmp_path):
    run, front, _, text = made(scenario, tmp_path)
    family = FAMILIES[run.model.family]
    assert front == {
        "base_model": family.hub,
        "base_model_relation": "adapter",
        "library_name": "diffusers",
        "license": "apache-2.0",
        "pipeline_tag": TASKS[scenario],
        "tags": ["lora", "distillation", "few-step", "phased2"],
    }
    assert "(abc123)" in text


def test_settings_and_scores_are_those_of_the_files(tmp_path):
    run, _, rows, text = made("wan22t2v", tmp_path)
    assert rows["LoRA"] == f"rank {run.student.lora.rank}, alpha {run.student.lora.alpha}"
    assert rows["phases end after steps"] == ", ".join(map(str, run.student.ends))
    assert rows["teacher's guidance"] == f"{run.teacher.guidance:g}"
    assert rows["generator updates"] == str(run.distill.updates)
    assert rows["batch"] == str(run.distill.batch)
    assert f"{run.distill.generator_lr:g}" in rows["learning rates"]
    for name, value in METRICS.items():
        if value is None:
            assert SCORES[name] not in rows
        else:
            assert float(rows[SCORES[name]]) == pytest.approx(value, rel=1e-3)
    assert f"Scores of {run.evaluate.samples} samples at {run.evaluate.size}" in text


def test_another_configuration_or_other_scores_give_another_card(tmp_path):
    """Control."""
    _, _, rows, _ = made("wan22t2v", tmp_path)
    lora = {"student": {"lora": {"rank": 16, "alpha": 4}}}
    _, _, others, _ = made("wan22t2v", tmp_path, {**METRICS, "clip": 11.0}, **lora)
    assert others["LoRA"] == "rank 16, alpha 4"
    assert {name for name in rows if rows[name] != others[name]} == {"LoRA", SCORES["clip"]}
