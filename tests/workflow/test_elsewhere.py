"""The workflow from another directory, and as a module of another workflow."""

import re

import pytest

OUTER = """
module distillation:
    snakefile: "{snakefile}"
{more}

use rule * from distillation{renamed}


rule mine:
    default_target: True
    input:
        rules.{prefix}all.input,
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
    (folder / "small.yaml").write_text(SMALL)
    write_outer(folder, checkout)
    return folder


def write_outer(folder, checkout, renamed="", more=""):
    """Write a workflow that has ours as a module, its rules renamed."""
    snakefile, prefix = checkout / "workflow" / "Snakefile", renamed.removeprefix(" as ").strip("*")
    text = OUTER.format(snakefile=snakefile, renamed=renamed, prefix=prefix, more=more)
    (folder / "workflow" / "Snakefile").write_text(text)


def test_another_directory_plans_the_same_jobs(checkout, elsewhere, snakemake):
    here = jobs(snakemake(checkout, "-n"))
    there = jobs(snakemake(checkout, "-n", "-s", "Snakefile", "-d", str(elsewhere)))
    assert there == here
    assert (elsewhere / "results" / "emoji" / "config").is_dir()
    small = ("--configfile", str(elsewhere / "small.yaml"))
    assert jobs(snakemake(checkout, "-n", *small)) != here  # control


def test_the_snakefile_below_workflow_plans_the_same_jobs(checkout, elsewhere, snakemake):
    """Where Snakemake and others look for one: beside config/ or below workflow/."""
    small = ("-n", "--configfile", str(elsewhere / "small.yaml"))
    here = jobs(snakemake(checkout, *small))
    assert here["all"] == 1
    assert jobs(snakemake(checkout, *small, "-s", "workflow/Snakefile")) == here
    (checkout / "workflow" / "Snakefile").write_text('include: "../Snakefile"\n')
    control = snakemake(checkout, *small, "-s", "workflow/Snakefile")
    assert control.returncode or jobs(control) != here  # an include has no default target


def test_a_modules_rules_may_be_renamed(checkout, elsewhere, snakemake):
    arguments = ("-n", "-s", str(elsewhere / "workflow" / "Snakefile"), "-d", str(elsewhere))
    arguments += ("--configfile", str(elsewhere / "small.yaml"))
    plain = jobs(snakemake(checkout, *arguments))
    write_outer(elsewhere, checkout, " as theirs_*")
    renamed = jobs(snakemake(checkout, *arguments))
    assert renamed["theirs_fit"] == plain["fit"] > 0
    assert sum(renamed.values()) == sum(plain.values())
    assert not renamed.keys() & (plain.keys() - {"mine", "total"})  # control


@pytest.mark.parametrize(
    "more",
    ['    prefix: "mine"', '    replace_prefix: {"results": "mine"}'],
    ids=["put", "replace"],
)
def test_a_modules_prefix_is_refused_in_one_line(checkout, elsewhere, snakemake, more):
    """Commands write where their config says; results are moved by that, which is the control."""
    arguments = ("-n", "-s", str(elsewhere / "workflow" / "Snakefile"), "-d", str(elsewhere))
    arguments += ("--configfile", str(elsewhere / "small.yaml"))
    write_outer(elsewhere, checkout, more=more)
    done = snakemake(checkout, *arguments)
    assert done.returncode == 1
    assert "pdmd: a module's prefix, replace_prefix: expected none" in done.stderr
    assert "Traceback" not in done.stderr
    write_outer(elsewhere, checkout)
    moved = snakemake(checkout, *arguments, "--config", "results=mine/results")
    assert "output: mine/results/toy1d/tables/" in moved.stdout


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
