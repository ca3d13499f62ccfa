"""What jobs of a released model ask for comes from its plan, which is made once."""

import json
from types import SimpleNamespace

import pytest
from configs import ROOT
from rehearsed import tiny_config

from pdmd.config.experiment import Experiment, merge, read_yaml
from pdmd.errors import UserError
from pdmd.jobs import resources
from pdmd.jobs.resources import Requests
from pdmd.planning import cache
from pdmd.planning.gpus import GPUS, UTILISATION, needed, usable


def experiment(*overlays):
    settings = read_yaml(ROOT / "config/config.yaml")
    for overlay in overlays:
        settings = merge(settings, read_yaml(ROOT / overlay))
    return Experiment(ROOT, settings)


JOB = SimpleNamespace(scenario="wan22t2v", method="phased2", phase="2")


@pytest.fixture
def planned(monkeypatch):
    """A plan whose numbers are known, in the place of what `pdmd plan` counts."""
    peak, call = GPUS["h100"].peak["bfloat16"] * UTILISATION[0], 1e15
    made = {
        "bytes": 50 * 2**30,
        "weights": 30 * 2**30,
        "call_bytes": 40 * 2**30,
        "phases": [{"flops": {"bfloat16": peak * 60}, "call_flops": {"bfloat16": call}}] * 2,
    }
    monkeypatch.setattr(resources, "plan_of", lambda config: made)
    return made


def test_training_asks_for_its_plans_memory_and_minutes(planned):
    asked = Requests(experiment("config/real.yaml")).of("distill", lambda wildcards: [42])
    assert asked["gpu_mem_mb"](JOB) == pytest.approx(needed(50 * 2**30) / 2**20, abs=1)
    assert asked["runtime"](JOB, 1) == 510  # 500 updates of a minute, and ten to start
    assert asked["runtime"](JOB, 2) == 1020
    least = asked["mem_mb"](JOB, 1)
    planned["weights"] = 300 * 2**30
    assert asked["mem_mb"](JOB, 1) >= 8 * 300 * 1024 > least  # of the plan, where that is more


def test_sampling_asks_for_its_calls(planned):
    asked = Requests(experiment("config/real.yaml")).drawing("sample", lambda wildcards: [42])
    assert asked["gpu_mem_mb"](JOB) == pytest.approx(needed(40 * 2**30) / 2**20, abs=1)
    assert asked["runtime"](JOB, 1) == 20  # 220 clips of four calls on eight GPUs


def test_a_teacher_and_tiny_models_ask_as_before(planned):
    real = Requests(experiment("config/real.yaml")).drawing("sample", lambda wildcards: [42])
    teacher = SimpleNamespace(scenario="wan22t2v", method="teacher")
    assert real["gpu_mem_mb"](teacher) == 0
    tiny = Requests(experiment("config/tiny.yaml")).of("distill", lambda wildcards: [1])
    assert "gpu_mem_mb" not in tiny


def test_memory_that_is_asked_for_is_what_fits():
    assert usable(needed(50 * 2**30) / 2**30) == pytest.approx(50 * 2**30)


@pytest.mark.slow
def test_a_plan_is_made_once_and_anew_for_other_settings(tmp_path, capfd):
    config = tiny_config("wan21t2v")
    first = cache.plan_of(config, tmp_path)
    assert "planning wan21t2v phased2 once" in capfd.readouterr().err
    assert cache.plan_of(config, tmp_path) == first
    assert capfd.readouterr().err == ""
    (path,) = tmp_path.glob("*.json")
    changed = {**json.loads(path.read_text()), "bytes": 1}
    path.write_text(json.dumps(changed))
    assert cache.plan_of(config, tmp_path)["bytes"] == 1  # the control: the file is what is read
    other = tiny_config("wan21t2v", {"distill": {"microbatch": 4}})
    assert cache.plan_of(other, tmp_path)["bytes"] > first["bytes"]


def test_a_plan_that_fails_is_one_line(tmp_path):
    config = tiny_config("wan21t2v")
    broken = {**config, "model": {**config["model"], "family": "none"}}
    with pytest.raises(UserError, match=r"wan21t2v phased2: no plan: .*none"):
        cache.plan_of(broken, tmp_path)
