"""pyproject.toml, envs/pdmd.yaml and requirements.lock say the same."""

import importlib.metadata
import re
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "envs" / "pdmd.yaml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
RUNTIME = PROJECT["dependencies"]
DOCS, DOCS_LOCK = (
    PROJECT["optional-dependencies"]["docs"],
    (ROOT / "envs" / "docs.lock").read_text(),
)
EVERYTHING = RUNTIME + PROJECT["optional-dependencies"]["dev"]


def ranges(lines: Iterable[str]) -> dict[str, str]:
    """Package name -> version range, both in their canonical spelling."""
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): str(r.specifier) for r in requirements}


def pip_section(conda: dict) -> list[str]:
    """The packages that a conda environment leaves to pip."""
    return next(item["pip"] for item in conda["dependencies"] if isinstance(item, dict))


def pins(lock: str) -> dict[str, str]:
    """Package name -> exact version; ValueError for what is neither a pin, with digests of its
    files, nor a comment."""
    found = {}
    for entry in lock.replace("\\\n", "").splitlines():
        line, *digests = entry.split("--hash=")
        if entry.startswith("#"):
            continue
        if not (match := re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!]+) +", line)):
            raise ValueError(f"requirements.lock: {line!r} is not name==version")
        if not all(re.fullmatch(r"sha256:[0-9a-f]{64} *", digest) for digest in digests or [""]):
            raise ValueError(f"requirements.lock: {line!r} has no digests of its files")
        found[canonicalize_name(match[1])] = match[2]
    return found


def outside(lock: dict[str, str], wanted: Iterable[str]) -> list[str]:
    """The requirements that the lock leaves out or pins to a version out of their range."""
    requirements = [Requirement(line) for line in wanted]
    return [
        str(r)
        for r in requirements
        if (name := canonicalize_name(r.name)) not in lock
        or not r.specifier.contains(Version(lock[name]), prereleases=True)
    ]


def closure(wanted: Iterable[str], requires: Callable[[str], list[str] | None]) -> set[str]:
    """Every package that the requirements bring in, with what those need, and so on."""
    todo, seen = [Requirement(line) for line in wanted], set()
    while todo:
        requirement = todo.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        for needed in map(Requirement, requires(key[0]) or []):
            extras = key[1] or {""}
            if not needed.marker or any(needed.marker.evaluate({"extra": e}) for e in extras):
                todo.append(needed)
    return {name for name, _ in seen}


def test_the_conda_environment_has_the_ranges_of_pyproject():
    assert ranges(pip_section(CONDA)) == ranges(RUNTIME)


def test_control_a_tampered_range_or_a_lost_package_is_noticed():
    tampered = [line.replace(">=2.14", ">=2.13") for line in RUNTIME]
    assert ranges(tampered) != ranges(RUNTIME)
    assert ranges(RUNTIME[1:]) != ranges(RUNTIME)


def test_the_conda_environment_has_the_python_of_pyproject():
    (python,) = (d for d in CONDA["dependencies"] if str(d).startswith("python"))
    assert PROJECT["requires-python"] == python_range(python)
    assert "pip" in CONDA["dependencies"]


def python_range(conda_pin: str) -> str:
    """python=3.11 -> >=3.11,<3.12"""
    major, minor = map(int, conda_pin.removeprefix("python=").split("."))
    return f">={major}.{minor},<{major}.{minor + 1}"


def test_control_another_python_is_noticed():
    assert python_range("python=3.12") != PROJECT["requires-python"]


def test_the_lock_lies_in_the_ranges_of_pyproject():
    assert outside(pins(LOCK), EVERYTHING) == []


def test_the_lock_of_the_site_lies_in_its_range_and_leaves_the_environment_as_it_is():
    """That it is complete is pip's to say, which installs nothing without a digest."""
    assert outside(pins(DOCS_LOCK), DOCS) == []
    assert not set(ranges(DOCS)) & set(pins(LOCK))
    assert outside(pins(LOCK), DOCS) != []  # control


def test_the_lock_has_what_the_executor_plugin_needs_and_what_builds_it():
    """So that `make setup` takes nothing from the network but what the lock names."""
    plugin = tomllib.loads((ROOT / "workflow" / "executor" / "pyproject.toml").read_text())
    for project in (plugin, tomllib.loads((ROOT / "pyproject.toml").read_text())):
        wanted = project["build-system"]["requires"]
        wanted = [*wanted, *closure(wanted, importlib.metadata.requires)]
        assert outside(pins(LOCK), [*wanted, *project["project"]["dependencies"]]) == []
    assert outside(pins(LOCK), ["no-such-builder>=1"]) == ["no-such-builder>=1"]  # control
    makefile = (ROOT / "Makefile").read_text()
    assert "--no-deps --no-build-isolation -e . -e workflow/executor" in makefile


def test_control_a_pin_out_of_range_or_left_out_is_noticed():
    assert outside(pins(LOCK) | {"torch": "2.13.0"}, EVERYTHING) == ["torch<2.15,>=2.14"]
    without_numpy = {name: pin for name, pin in pins(LOCK).items() if name != "numpy"}
    assert outside(without_numpy, EVERYTHING) == ["numpy<3,>=2.4"]


def test_the_lock_is_complete_and_holds_nothing_else():
    assert set(pins(LOCK)) == closure(EVERYTHING, importlib.metadata.requires)


def test_control_a_package_needed_by_a_package_is_found():
    needs = {
        "a": ["b[fast]>=1", "never; python_version < '3'"],
        "b": ["c; extra == 'fast'", "d; extra == 'slow'", "a"],
    }
    assert closure(["A"], needs.get) == {"a", "b", "c"}
    one_less = set(pins(LOCK)) - {"jinja2"}
    assert closure(EVERYTHING, importlib.metadata.requires) - one_less == {"jinja2"}


def test_the_lock_is_what_is_installed():
    assert {name: importlib.metadata.version(name) for name in pins(LOCK)} == pins(LOCK)


def test_the_lock_is_sorted_and_names_each_package_once():
    names = [line.split("==")[0] for line in LOCK.splitlines() if line[0] not in "# "]
    assert names == sorted(names, key=str.lower)
    assert len(names) == len(pins(LOCK))


@pytest.mark.parametrize(
    "line",
    [
        "torch @ file:///tmp/torch.whl",
        "--index-url https://example.org",
        "torch>=2",
        "torch==2.14.1",  # without digests
        "torch==2.14.1 --hash=md5:0",
    ],
)
def test_control_anything_but_a_pin_is_refused(line):
    with pytest.raises(ValueError, match=re.escape(line.partition(" --hash")[0])):
        pins(LOCK + line)
