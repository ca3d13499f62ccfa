"""The workflow from another directory, and as a module of another workflow."""

import re

import pytest

OUTER = """
module distillation:
    snakefile: "{snakefile}"


use rule * from distillation


rule mine:
    default_target: True
    input:
        rules.all.input,
    output:
        "mine.txt",
    shell:
        "ls {{input}} > {{output}}"
"""
SMALL = """
scenarios: [toy1d]
validate: []
overrides:
  toy1d: {seeds: [1], fit: {updates: 4}, model: {width: 8}, save: {snapshots: 1}}
"""


def jobs(done):
    """Rule -> number of its jobs in a dry run."""
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE)
    return {name: int(count) for name, count in rows}


@pytest.fixture
def elsewhere(checkout, tmp_path):
    """A folder that is not the checkout's."""
    folder = tmp_path / "elsewhere"
    (folder / "workflow").mkdir(parents=True)
    snakefile = checkout / "Snakefile"
    (folder / "small.yaml").write_text(SMALL)
    (folder / "workflow" / "Snakefile").write_text(OUTER.format(snakefile=snakefile))
    return folder


def test_another_directory_plans_the_same_jobs(checkout, elsewhere, snakemake):
    here = jobs(snakemake(checkout, "-n"))
    there = jobs(snakemake(checkout, "-n", "-s", "Snakefile", "-d", str(elsewhere)))
    assert there == here
    assert (elsewhere / "results" / "emoji" / "config").is_dir()
    small = ("--configfile", str(elsewhere / "small.yaml"))
    assert jobs(snakemake(checkout, "-n", *small)) != here  # control


@pytest.mark.slow
@pytest.mark.long
def test_a_module_of_another_workflow_runs(checkout, elsewhere, snakemake):
    arguments = ("-c1", "-s", str(elsewhere / "workflow" / "Snakefile"), "-d", str(elsewhere))
    arguments += ("--configfile", str(elsewhere / "small.yaml"))
    plan = jobs(snakemake(checkout, "-n", *arguments))
    assert plan["mine"] == 1
    assert plan["fit"] == 3  # a job a method: one seed each, the wildcard {group}
    done = snakemake(checkout, *arguments)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "results/toy1d/tables/velocity.csv" in (elsewhere / "mine.txt").read_text()


def test_a_mistake_in_a_modules_configuration_is_one_line(checkout, elsewhere, snakemake):
    """The control: the module reads the settings of the outer workflow."""
    arguments = ("-n", "-s", str(elsewhere / "workflow" / "Snakefile"), "-d", str(elsewhere))
    done = snakemake(checkout, *arguments, "--config", "scenarios=[nowhere]")
    assert done.returncode == 1
    assert "pdmd: config: scenarios: 'nowhere': expected one of" in done.stderr
