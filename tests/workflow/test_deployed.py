"""A workflow that snakedeploy made of a repository on a host: its template of 0.17, offline."""

import shutil
import subprocess

import pytest
import yaml
from test_elsewhere import SMALL, jobs

MODULE = """from snakemake.utils import min_version


min_version("6.10.0")


configfile: "config/config.yaml"


# declare https://github.com/someone/pdmd as a module
module pdmd:
    snakefile:
        github("someone/pdmd", path="workflow/Snakefile", tag="v1")
    config:
        config


# use all rules from https://github.com/someone/pdmd
use rule * from pdmd
"""
USAGE = {"mandatory-flags", "software-stack-deployment", "report"}  # what the catalogue knows


@pytest.fixture
def deployed(checkout, tmp_path, monkeypatch):
    """A folder that snakedeploy has filled; git finds the host's repository on this disk."""
    repository = tmp_path / "github" / "someone" / "pdmd"
    leave = shutil.ignore_patterns("pdmd", ".snakemake")
    shutil.copytree(checkout, repository, ignore=leave)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all of it"], ["tag", "v1"]):
        who = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
        subprocess.run(["git", *who, *command], cwd=repository, check=True)
    config = tmp_path / "gitconfig"
    found = f'[url "file://{tmp_path}/github/"]\n  insteadOf = https://github.com/\n'
    config.write_text(f"{found}[safe]\n  directory = *\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    folder = tmp_path / "deployed"
    shutil.copytree(repository / "config", folder / "config")
    (folder / "workflow").mkdir()
    (folder / "workflow" / "Snakefile").write_text(MODULE)
    return folder


@pytest.fixture
def there(checkout, deployed, snakemake):
    """Run Snakemake in that folder, pdmd known to Python: (*arguments) -> the finished process."""

    def run(*arguments):
        inside = ("-s", str(deployed / "workflow" / "Snakefile"), "-d", str(deployed))
        return snakemake(checkout, *inside, *arguments)

    return run


def test_it_plans_what_the_repository_plans(checkout, deployed, there, snakemake):
    small = deployed / "small.yaml"
    small.write_text(SMALL)
    planned = jobs(there("-n", "--configfile", str(small)))
    assert planned == jobs(snakemake(checkout, "-n", "--configfile", str(small)))
    scenario = deployed / "config" / "scenarios" / "toy1d.yaml"
    values = yaml.safe_load(scenario.read_text())
    scenario.write_text(yaml.safe_dump({**values, "methods": values["methods"][:1]}))
    fewer = jobs(there("-n", "--configfile", str(small)))
    assert fewer["total"] < planned["total"]  # control: it is the deployed copy that counts


def test_without_its_configuration_it_says_so_in_one_line(deployed, there):
    shutil.rmtree(deployed / "config" / "scenarios")
    done = there("-n")
    assert done.returncode == 1
    assert "pdmd: " in done.stderr
    assert "no config/methods.yaml or config/scenarios: expected a copy" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_it_runs(deployed, there):
    (deployed / "small.yaml").write_text(SMALL)
    done = there("-c1", "--configfile", str(deployed / "small.yaml"))
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert (deployed / "results" / "toy1d" / "tables" / "velocity.csv").stat().st_size
    again = there("-n", "--configfile", str(deployed / "small.yaml"))
    assert "Nothing to be done" in again.stdout + again.stderr  # a dry run speaks on stdout


def test_the_catalogue_is_told_what_is_so(repository):
    usage = yaml.safe_load((repository / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage.keys() == USAGE
    assert usage["report"] is ("\nreport:" in (repository / "Snakefile").read_text())
    libraries = yaml.safe_load((repository / "envs" / "pdmd.yaml").read_text())["dependencies"]
    ships_itself = any("pdmd" in str(one) for one in libraries)
    assert usage["software-stack-deployment"] == {"conda": ships_itself}
    for name in ("README.md", "LICENSE", "config/README.md", "config/config.yaml"):
        assert (repository / name).is_file()  # which the catalogue, and snakedeploy, look for
