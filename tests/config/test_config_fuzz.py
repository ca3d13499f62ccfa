"""Every key of every run and overlay, changed in every way: right, or refused in one line."""

import datetime
import random
from collections import Counter

import pytest
from configs import ROOT, SCENARIOS, accepted, one_line, own, read_once, settings

from pdmd.config.experiment import Experiment, merge
from pdmd.config.yaml_files import read_yaml
from pdmd.errors import UserError
from pdmd.phases import split_phases
from pdmd.stages.distill import phase_recipe
from pdmd.training.loop import snapshot_steps

OVERLAYS = sorted(
    path.stem
    for path in (ROOT / "config").glob("*.yaml")
    if path.stem not in ("config", "methods", "claims")
)


def nested(depth):
    value = 1
    for _ in range(depth):
        value = {"x": value}
    return value


def ring():
    value = []
    value.append(value)
    return value


VALUES = {
    "nothing": None,
    "a truth": True,
    "zero": 0,
    "one": 1,
    "less than zero": -1,
    "seven": 7,
    "10^18": 10**18,
    "10^400": 10**400,
    "2^63": 2**63,
    "a half": 0.5,
    "less than zero, a fraction": -0.5,
    "a huge fraction": 1e300,
    "no number": float("nan"),
    "without end": float("inf"),
    "an empty text": "",
    "a word": "x",
    "a number as text": "1e-3",
    "a line break": "a\nb",
    "NUL": "\0",
    "300 letters": "x" * 300,
    "5000 letters": "x" * 5000,
    "an empty list": [],
    "a list": [1],
    "a list of words": ["x"],
    "an empty mapping": {},
    "a mapping": {"x": 1},
    "a mapping of integers": {1: 1},
    "a date": datetime.date(2026, 1, 1),
    "3000 mappings": nested(3000),
    "a ring": ring(),
    "bytes": b"x",
}
# What no scenario of the repository has, so that its keys are changed, too.
FURTHER = {
    "emoji": {
        "student": {"lora": {"rank": 4, "alpha": 4}},
        "evaluate": {"networks": {"features": "lite0", "clip": "ViT-B/32"}},
        "fit": {"weight_decay": 0.1},
    },
    "moving": {"evaluate": {"networks": {"flow": "opencv"}}, "data": {"image": False}},
    "toy1d": {"fit": {"start": 0.0, "target": "flow"}},
}
TEXTS = (
    "title",
    "evaluate.beside",
    "evaluate.networks.clip",
    "fit.kept",
    "classifier.kept",
    "fit.start_from",
    "results",
)
MAY_BE_NOTHING = (
    "student.lora",
    "fit.kept",
    "classifier.kept",
    "fit.start_from",
    "teacher.shift",
    "evaluate.previews",
)


def leaves(value, at=()):
    """(path, value) of all that is in nested mappings, the mappings included."""
    for key, inner in value.items():
        yield (*at, key), inner
        if isinstance(inner, dict):
            yield from leaves(inner, (*at, key))


def diff_of(path, value):
    """The nested mapping that sets one key."""
    for key in reversed(path):
        value = {key: value}
    return value


def at(value, path):
    for key in path:
        value = value[key]
    return value


def may_be(key, old, new):
    """Whether a value is of a kind that a key can have, as the documentation has it."""
    if new is None:
        return key in MAY_BE_NOTHING
    if isinstance(old, bool) or isinstance(new, bool):
        return isinstance(old, bool) and isinstance(new, bool)
    if isinstance(new, dict | list):  # an empty diff changes nothing
        return type(new) is type(old) and (not isinstance(new, dict) or not new)
    if isinstance(new, str):
        if key == "data.negative":
            return len(new) < 2001 and (not new or new.isprintable())
        words = isinstance(old, str) or key in TEXTS
        return words and 0 < len(new) < 301 and new.isprintable()
    if isinstance(new, int):
        return isinstance(old, int | float) and 0 <= new < 2**32
    return isinstance(new, float) and isinstance(old, int | float) and 0 <= new < 1e9


def works(experiment):
    """Jobs can be made of an accepted run: nothing raises."""
    for run in experiment.runs.values():
        fitted = run.fit.updates if hasattr(run, "fit") else 1  # not of released models
        snapshot_steps(run.save.snapshots, max(fitted, 1))
        names = ("steps", "boundaries", "shift", "interval", "margin")
        student = {name: getattr(run.student, name) for name in names}
        phases = split_phases(**student, switch=run.model.boundary or 0.0)
        assert all(phase_recipe(run, phase).updates >= 1 for phase in phases)


def try_one(diff, counts):
    """An experiment, or None where it was refused in one line; other exceptions are failures."""
    try:
        found = accepted(diff)
    except UserError as error:
        one_line(error)
        counts["refused in one line"] += 1
        return None
    counts["accepted"] += 1
    works(found)
    return found


@pytest.fixture(scope="module", autouse=True)
def _fast():
    with pytest.MonkeyPatch.context() as patch:
        read_once(patch)
        yield


@pytest.fixture(scope="module")
def tried():
    """Keys whose every value was tried, and what came of them all."""
    return set(), Counter()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_key_of_a_run_takes_what_it_can_and_refuses_the_rest(scenario, tried):
    """All values where a key is met first, some of them where it is met again."""
    known, total = tried
    counts, draw = Counter(), random.Random(scenario)
    methods = list(accepted({"scenarios": [scenario]}).runs)[-1:]
    named = [method for _, method in methods]
    if scenario not in ("toy1d", "mixture2d", "digits"):
        named = ["teacher-again", *named]
    base = FURTHER.get(scenario, {}) | {"methods": named}
    resolved = accepted(own(scenario, **base)).shared_config(scenario)
    for path, old in leaves(resolved):
        key = ".".join(path)
        if path[0] in ("results", "scenario"):
            continue
        some = list(VALUES) if key not in known else draw.sample(list(VALUES), 4)
        known.add(key)
        for name in some:
            new = VALUES[name]
            found = try_one(own(scenario, **merge(base, diff_of(path, new))), counts)
            if found is None:
                continue
            assert may_be(key, old, new), f"{key}: {new!r} was accepted in the place of {old!r}"
            for run in found.configs.values():
                if isinstance(new, dict):
                    assert run.get(path[0]) is not None
                elif path[0] not in found.methods[run["method"]]:
                    assert at(run, path) == new  # what is accepted is what is used
    total.update(counts)
    print(scenario, dict(counts), "in all", dict(total))
    assert counts["refused in one line"] > 50
    assert counts["accepted"] > 3


def test_without_its_guard_such_a_value_is_a_traceback(monkeypatch):
    """The control: what the tests here would report."""
    monkeypatch.setattr("pdmd.config.experiment.plain", lambda value, where: value)
    with pytest.raises(TypeError):
        try_one(own("toy1d", data=VALUES["a mapping of integers"]), Counter())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_key_of_an_overlay_takes_what_it_can_and_refuses_the_rest(overlay):
    counts, draw = Counter(), random.Random(overlay)
    mine = read_yaml(ROOT / "config" / f"{overlay}.yaml")
    for path, _ in leaves(mine):
        for name in draw.sample(list(VALUES), 4):
            diff = merge(mine, {})
            if path[0] == "overrides" and len(path) > 2 and path[1] in SCENARIOS:
                diff |= {"scenarios": [path[1]], "validate": []}
            holder = diff = merge({}, diff)
            for key in path[:-1]:
                holder[key] = dict(holder[key])
                holder = holder[key]
            holder[path[-1]] = VALUES[name]
            try_one(diff, counts)
    print(overlay, dict(counts))
    assert counts["refused in one line"] > counts["accepted"]


@pytest.mark.parametrize("name", VALUES)
def test_every_top_level_key_and_the_whole_are_refused_or_right(name):
    value, counts = VALUES[name], Counter()
    for key in (*settings(), "bogus"):
        try_one({key: value}, counts)
    try_one({"overrides": {name: value}}, counts)
    try_one({"overrides": {"all": value}}, counts)
    try_one({"scenarios": [value]}, counts)
    with pytest.raises(UserError) as caught:
        Experiment(ROOT, value)
    one_line(caught.value)
    assert counts["refused in one line"] >= 5
