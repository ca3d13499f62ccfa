"""GitHub's jobs do what .ci/run does: the same targets, packages and settings, on Debian."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
OURS = (ROOT / ".ci" / "run").read_text()
THEIRS = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
WITHOUT_A_CHECKOUT = {"ca-certificates", "zstd"}  # for checkout and cache, in a bare container


def targets_of_script(text):
    """The targets of make that a script runs, in order."""
    return re.findall(r"^make ([a-z-]+)$", text, re.MULTILINE)


def packages_of_script(text):
    return {
        name for listed in re.findall(r"missing\+=\(([^)]*)\)", text) for name in listed.split()
    }


def job(text, name):
    return yaml.safe_load(text)["jobs"][name]


def steps(text, name):
    """What a job runs: its commands, one text a step."""
    return [step["run"] for step in job(text, name)["steps"] if "run" in step]


def targets_of_job(text, name):
    """The targets of make that a job runs, a matrix's written out."""
    matrix = job(text, name).get("strategy", {}).get("matrix", {}).get("target", [])
    found = []
    for command in steps(text, name):
        if match := re.fullmatch(r"make (.+)", command.strip()):
            found += matrix if match[1] == "${{ matrix.target }}" else [match[1]]
    return found


def packages_of_job(text, name):
    (command,) = [one for one in steps(text, name) if "apt-get install" in one]
    words = command.partition("apt-get install")[2].replace("\\\n", " ").split()
    return {word for word in words if not word.startswith("-")} - WITHOUT_A_CHECKOUT


def differences(ours, theirs):
    """What of the script the jobs leave out, or have besides."""
    every = [one for name in ("check", "docs") for one in targets_of_job(theirs, name)]
    targets = [one for one in every if one != "setup"]
    settings = dict(re.findall(r"^export (PDMD_\w+)=(\S+)", ours, re.MULTILINE))
    given = {name: str(value) for name, value in yaml.safe_load(theirs)["env"].items()}
    pairs = {
        "targets": (sorted(targets_of_script(ours)), sorted(targets)),
        "packages": (packages_of_script(ours), packages_of_job(theirs, "check")),
        "settings": (settings, given),
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def test_the_jobs_do_what_the_script_does():
    assert differences(OURS, THEIRS) == {}


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("[lint, test, test-long]", "[lint, test]", "targets"),
        ("munge chromium", "munge", "packages"),
        ("PDMD_REQUIRE_SLURM: 1", "PDMD_REQUIRE_SLURM: 0", "settings"),
    ],
)
def test_control_what_is_left_out_is_noticed(old, new, what):
    assert old in THEIRS
    assert differences(OURS, THEIRS.replace(old, new)).keys() == {what}


def test_every_target_is_one_of_the_makefile():
    known = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert set(targets_of_job(THEIRS, "check")) <= known
    assert targets_of_job(THEIRS, "docs") == ["docs"]
    if (ROOT / "mkdocs.yml").exists():
        assert "docs" in known
    assert not set(targets_of_job(THEIRS.replace("make setup", "make nothing"), "check")) <= known


def test_pages_are_built_where_there_are_any():
    (step,) = [step for step in job(THEIRS, "docs")["steps"] if step.get("run") == "make docs"]
    assert step["if"] == "hashFiles('mkdocs.yml') != ''"


@pytest.mark.parametrize(("name", "folder"), [("check", ".venv"), ("docs", ".venv-docs")])
def test_the_cached_environment_is_that_of_its_files(name, folder):
    """A key that leaves out what .venv is made of would keep an old one."""
    (cache,) = [s for s in job(THEIRS, name)["steps"] if "actions/cache" in s.get("uses", "")]
    made_of = re.search(rf"^{re.escape(folder)}/\.ready: (.+)$", MAKEFILE, re.M)[1].split()
    assert re.findall(r"'([^']+)'", cache["with"]["key"]) == made_of
    assert cache["with"]["path"] == folder
    uses = [step["uses"] for step in job(THEIRS, name)["steps"] if "uses" in step]
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+", one) for one in uses)
