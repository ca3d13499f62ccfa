"""Plans that are kept are found by what decides them, and jobs ask for what they say."""

from types import SimpleNamespace

import pytest
from configs import ROOT, accepted, own

from pdmd.config.budget import phase_updates
from pdmd.config.experiment import Experiment, merge
from pdmd.config.parts import resolved
from pdmd.config.yaml_files import read_yaml
from pdmd.errors import UserError
from pdmd.files.storage import read_json, write_json
from pdmd.jobs.resources import Requests
from pdmd.planning.document import KEPT, METHODS, gpus_of
from pdmd.planning.gpus import GIB
from pdmd.planning.plan import Hardware, Planner
from pdmd.planning.store import OWN, RELEASED, find, keep, key_of, too_small, update_seconds

NAME = ("wan22t2v", "phased2")
GPUS = 8


def config_of(**diff):
    return accepted(own("wan22t2v", **diff)).configs[NAME]


@pytest.mark.parametrize(
    "diff",
    [
        {"distill": {"updates": 7}},
        {"distill": {"generator_lr": 1.0e-4, "average": {"law": "live"}}},
        {"data": {"train": "other.jsonl"}},
        {"teacher": {"steps": 30}},
        {"model": {"source": "own/copy"}},
        {"bank": {"rows": 100}},
    ],
)
def test_what_an_update_does_not_depend_on_changes_no_plan(diff):
    assert key_of(config_of(**diff), GPUS, False) == key_of(config_of(), GPUS, False)


@pytest.mark.parametrize(
    "diff",
    [
        {"distill": {"batch": 32}},
        {"distill": {"fake_updates": 2}},
        {"distill": {"microbatch": 2}},
        {"distill": {"fake": {"mode": "full"}}},
        {"data": {"sizes": ["81x480x832"], "shares": [1.0]}},
        {"teacher": {"guidance": 1.0}},
        {"student": {"lora": {"rank": 8, "alpha": 8}}},
        {"bank": {"rows": 0}},
        {"model": {"offload": "none"}},
    ],
)
def test_what_it_depends_on_is_another_plan(diff):
    assert key_of(config_of(**diff), GPUS, False) != key_of(config_of(), GPUS, False)


def test_so_are_other_gpus_sharding_and_another_architecture(tmp_path):
    config = config_of()
    keys = {key_of(config, GPUS, False), key_of(config, 4, False), key_of(config, GPUS, True)}
    write_json(tmp_path / "transformer/config.json", {"num_layers": 7})
    model = {**config["model"], "source": str(tmp_path)}
    keys.add(key_of({**config, "model": model}, GPUS, False))
    assert len(keys) == 4


def runtime(experiment, attempt=1):
    request = Requests(experiment).of("distill", lambda _: [1])["runtime"]
    scenario, method = NAME
    return request(SimpleNamespace(scenario=scenario, method=method, phase="2"), attempt)


def experiment_of(results, **diff):
    settings = merge(read_yaml(ROOT / "config/config.yaml"), own("wan22t2v", **diff))
    return Experiment(ROOT, merge(settings, {"results": str(results), "scenarios": ["wan22t2v"]}))


def test_a_job_asks_for_what_was_planned(tmp_path):
    """Of a setting that nobody has planned yet: an estimate; then the user's own plan."""
    diff = {"batch": 48, "updates": 100}
    experiment = experiment_of(tmp_path, distill=diff)
    estimated = runtime(experiment)
    flops = {"bfloat16": 0.2 * 989e12 * 3600}  # an hour an update at a fifth of an H100's peak
    assert update_seconds(flops) == pytest.approx(3600)
    phases = [{"bytes": 1.0, "flops": {}}, {"bytes": 1.0, "flops": flops}]
    key = key_of(experiment.configs[NAME], GPUS, False)
    write_json(tmp_path / OWN, {key: {"of": "wan22t2v/phased2", "size": "", "phases": phases}})
    planned = runtime(experiment_of(tmp_path, distill=diff))
    assert planned == 60 * phase_updates(experiment.runs[NAME], 2) + 10
    assert planned != estimated
    assert runtime(experiment_of(tmp_path, distill=diff), attempt=2) == 2 * planned
    other = experiment_of(tmp_path, distill={"batch": 40, "updates": 100})
    assert runtime(other) < planned  # control: another batch, which has no plan


@pytest.mark.parametrize("content", ["{", "[]", '{"KEY": 3}', '{"KEY": {"phases": [{}]}}'])
def test_a_file_that_is_none_is_named(tmp_path, content):
    config = config_of()
    path = tmp_path / OWN
    path.write_text(content.replace("KEY", key_of(config, GPUS, False)))
    with pytest.raises(UserError, match=r"plans\.json: "):
        find(config, GPUS, False, [path])


@pytest.mark.parametrize("row", KEPT, ids=lambda row: row.label)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_a_released_scenario_is_planned(row, method):
    """Fails where a scenario was changed and `make plans` not run."""
    config = row.config(ROOT, method)
    found = find(config, gpus_of(config), False, [ROOT / RELEASED])
    assert found is not None, "run `make plans`"
    assert all(sum(phase.flops.values()) > 1e15 for phase in found)
    assert all(phase.bytes > GIB for phase in found)


def test_a_gpu_that_is_too_small_for_a_plan_is_told(tmp_path):
    config = experiment_of(tmp_path / "results").configs[NAME]
    phases = [{"bytes": 70 * GIB, "flops": {}}, {"bytes": 90 * GIB, "flops": {}}]
    value = {"of": "wan22t2v/phased2", "size": "", "phases": phases}
    write_json(tmp_path / RELEASED, {key_of(config, gpus_of(config), False): value})
    gpus = gpus_of(config)
    assert too_small(config, 1, 80 * GIB, gpus, tmp_path) == ""
    line = too_small(config, 2, 80 * GIB, gpus, tmp_path)
    assert line.startswith(
        "wan22t2v phased2 phase 2: this GPU has 80 GiB, and 96 GiB are planned; "
    )
    assert "`pdmd plan wan22t2v --method phased2` names what makes it fit" in line
    assert too_small(config, 2, 141 * GIB, gpus, tmp_path) == ""
    assert too_small(config, 2, 80 * GIB, gpus, tmp_path / "elsewhere") == ""  # control: no plan
    assert too_small(config, 3, 80 * GIB, gpus, tmp_path) == ""  # which is refused later
    part = resolved(experiment_of(tmp_path / "results"))[NAME[0]][f"{NAME[1]}/config/distill.json"]
    assert too_small(part.content, 2, 80 * GIB, gpus, tmp_path).endswith(line.partition(":")[2])


@pytest.mark.parametrize("method", METHODS)
def test_a_jobs_own_part_of_the_configuration_finds_the_plan(method, tmp_path):
    experiment = experiment_of(tmp_path / "results")
    part = resolved(experiment)[NAME[0]][f"{method}/config/distill.json"].content
    assert key_of(part, GPUS, False) == key_of(experiment.configs[NAME[0], method], GPUS, False)


@pytest.mark.parametrize("diff", [{"parallel": {"context": 1}}, {"balance": {"law": "fixed"}}])
def test_a_default_that_is_written_out_changes_no_plan(diff):
    assert key_of(config_of(distill=diff), GPUS, False) == key_of(config_of(), GPUS, False)


@pytest.mark.slow
def test_a_kept_plan_is_what_planning_finds(tmp_path):
    (row,) = (row for row in KEPT if row.overlays and row.overlays[0].stem == "wan21small")
    config = row.config(ROOT)
    keep(tmp_path / OWN, [(config, Planner(config).plan(Hardware(gpus_of(config))))])
    ((key, fresh),) = read_json(tmp_path / OWN).items()
    kept = read_json(ROOT / RELEASED)[key]
    assert len(kept["phases"]) == len(fresh["phases"])
    for one, other in zip(kept["phases"], fresh["phases"], strict=True):
        assert one["flops"] == pytest.approx(other["flops"], rel=1e-6)
        assert one["bytes"] == pytest.approx(other["bytes"], rel=1e-2)
