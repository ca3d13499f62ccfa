"""Scenarios of released models: what is wrong is one line before any job."""

import json
import shutil

import pytest
from configs import ROOT, accepted, own, refused

from pdmd.config.experiment import merge
from pdmd.config.yaml_files import read_yaml
from pdmd.models.families import FAMILIES, qwen_shift
from pdmd.models.tiny import write_tiny
from pdmd.scenarios.dataless.kind import METRICS

FIT = {"updates": 4, "batch": 8, "lr": 1e-3, "ema": 0.9, "time": "uniform"}
SCENARIOS = ["qwenimage", "wan21t2v", "wan21t2i", "wan22t2v", "wan22t2i", "wan22i2v"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    write_tiny("wan2.2-t2v-a14b", folder)
    return folder


@pytest.fixture
def model(base, tmp_path):
    """A folder that a test may damage."""
    shutil.copytree(base, tmp_path / "model")
    return tmp_path / "model"


def on(folder):
    return own("wan22t2v", model={"source": str(folder)})


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_values_of_the_paper(scenario):
    """Sec. 3, App. C: what the scenarios of its models have in common, and what they have not."""
    for run in accepted({"scenarios": [scenario]}).runs.values():
        student, family = run.student, FAMILIES[run.model.family]
        assert (student.lora.rank, student.lora.alpha) == (64, 8)
        assert student.shift == (3.0 if family.kind == "qwen" else 5.0)
        assert run.model.boundary == family.boundary
        assert abs(sum(run.data.shares) - 1) < 1e-6
        if run.kind == "distill":
            distill = run.distill
            assert (distill.batch, distill.fake_updates, distill.generator_lr) == (64, 5, 5e-5)
            assert distill.betas == (0.0, 0.999)
        elif run.method == "teacher":
            assert (run.teacher.steps, run.teacher.guidance) == (40, 4.0)


def test_the_teachers_shift_of_qwen_image_is_a_function_of_the_size():
    """exp(mu): 2.00 at 1024 px, 2.30 at 1328 px, as its scheduler computes it."""
    assert qwen_shift(64 * 64) == pytest.approx(2.00, abs=0.01)
    assert qwen_shift(83 * 83) == pytest.approx(2.30, abs=0.01)


def test_a_whole_folder_is_taken(model):
    accepted(on(model))


def damage_class(model):
    path = model / "model_index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "_class_name": "FluxPipeline"}))


def damage_shard(model):
    sorted((model / "transformer_2").glob("*.safetensors"))[0].unlink()


def damage_download(model):
    path = sorted((model / "transformer").glob("*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-100])


def damage_index(model):
    (model / "model_index.json").unlink()


def damage_text(model):
    shutil.rmtree(model / "text_encoder")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_class, "_class_name: FluxPipeline: expected WanPipeline"),
        (damage_shard, "missing: expected it by diffusion_pytorch_model.safetensors.index.json"),
        (damage_download, "expected a whole safetensors file"),
        (damage_index, "no model_index.json: expected a folder in diffusers' layout"),
        (damage_text, "text_encoder: missing: expected the folder of a UMT5EncoderModel"),
    ],
)
def test_a_damaged_folder_is_told_before_any_job(damage, said, model):
    accepted(on(model))  # control
    damage(model)
    assert said in refused(on(model))


@pytest.mark.parametrize(
    ("scenario", "diff", "said"),
    [
        ("wan22t2v", {"model": {"family": "flux"}}, "model.family: 'flux': expected one of qwen"),
        ("wan22t2v", {"model": {"source": "/no/folder"}}, "model.source: '/no/folder': expected a"),
        ("wan21t2v", {"model": {"boundary": 0.9}}, "model.boundary: 0.9: expected none"),
        ("wan21t2v", {"model": {"width": 8}}, "model.width: 8: expected no such key"),
        ("wan21t2v", {"data": {"image": True}}, "data.image: true: expected False"),
        ("wan21t2v", {"data": {"sizes": ["80x480x832"]}}, "data.sizes: '80x480x832': expected 4 k"),
        ("wan21t2v", {"data": {"sizes": ["81x480x830"]}}, "data.sizes: '81x480x830': expected"),
        ("wan21t2v", {"data": {"shares": [1.0]}}, "data.shares: [1.0]: expected one for each of 4"),
        ("wan21t2v", {"data": {"shares": [0.5] * 4}}, "expected one for each of 4 sizes, 1 in all"),
        ("wan21t2v", {"evaluate": {"size": "81x64x64"}}, "evaluate.size: '81x64x64': expected one"),
        ("wan21t2v", {"evaluate": {"samples": 2}}, "evaluate.samples: 2: expected at least 4"),
        ("wan21t2v", {"student": {"lora": None}}, "student.lora: null: expected a rank"),
        ("wan21t2v", {"teacher": {"shift": None}}, "teacher.shift: null: expected a number"),
        (
            "wan21t2v",
            {"teacher": {"guidance_low": 3.0}},
            "teacher.guidance_low: 3.0: expected none",
        ),
        ("wan21t2v", {"distill": {"region": "update"}}, "distill.region: 'update': expected row"),
        ("wan21t2v", {"fit": FIT}, "expected no such key: it was trained"),
        ("qwenimage", {"data": {"sizes": ["5x32x32"], "shares": [1.0]}}, "expected 1 frame"),
        ("emoji", {"teacher": {"shift": None}}, "teacher.shift: null: expected a number"),
        ("emoji", {"evaluate": {"size": "1x32x32"}}, "evaluate.size: '1x32x32': expected no such"),
    ],
)
def test_what_does_not_fit_is_refused(scenario, diff, said):
    assert said in refused(own(scenario, **diff))


SHARED = {"parallel": {"shard": "full"}}
EXITS = "student.exits: 'stratified': expected update, or stratified with distill.batch a multiple"


@pytest.mark.parametrize(
    ("scenario", "diff", "said", "fits"),
    [
        (
            "wan22t2v",
            {"distill": {**SHARED, "region": "row"}},
            "distill.region: 'row': expected update for two sharded experts",
            {"distill": SHARED, "model": {"offload": "none"}},
        ),
        (
            "wan22t2v",
            {"distill": SHARED},
            "model.offload: 'idle': expected none for a sharded network",
            {"distill": SHARED, "model": {"offload": "none"}},
        ),
        (
            "wan21t2v",
            {"distill": {**SHARED, "batch": 8}},
            EXITS,
            {"distill": {**SHARED, "batch": 8}, "student": {"exits": "update"}},
        ),
        (
            "wan21t2v",
            {"distill": SHARED, "student": {"exits": "late"}},
            "student.exits: 'late': expected update",
            {"distill": SHARED, "student": {"exits": "last"}},
        ),
        (
            "emoji",
            {"distill": SHARED},
            "distill.parallel.shard: 'full': expected none for model.kind qwen",
            {},
        ),
    ],
)
def test_processes_that_share_networks_call_them_alike(scenario, diff, said, fits):
    assert said in refused(own(scenario, **diff))
    accepted(own(scenario, **fits))  # control


def test_every_metric_is_in_one_table():
    names = [name for columns, _ in METRICS.values() for name in columns]
    assert len(set(names)) == len(names)


def test_an_overlay_trains_clips_at_480p_alone():
    names = ["wan21t2v", "wan22t2v", "wan22i2v"]
    overlay = read_yaml(ROOT / "config" / "wan480p.yaml")
    for settings, sizes in ((overlay, 2), ({}, 4)):  # control: the paper's
        runs = accepted(merge({"scenarios": names}, settings)).runs.values()
        assert {len(run.data.sizes) for run in runs} == {sizes}
        large = [size for run in runs for size in run.data.sizes if "1280" in size]
        assert bool(large) == (sizes == 4)
    two = [run for run in accepted({"scenarios": SCENARIOS}).runs.values() if run.model.boundary]
    assert {run.model.offload for run in two} == {"idle"}
