"""What pdmd's commands read of Snakemake's command line is what Snakemake reads."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pdmd.cli import _meant, main, parser
from pdmd.errors import UserError
from pdmd.jobs import demo
from pdmd.jobs.command import given_settings, read_arguments

PRINTS = """
import json
configfile: "config/config.yaml"
print("SETTINGS", json.dumps(config))
rule all:
"""
PROFILE = "configfile: [a.yaml]\ncores: 7\njobs: 7\nexecutor: submitit\n"


@pytest.fixture
def here(repository, tmp_path, monkeypatch):
    """A repository to start from, with overlays and profiles."""
    for name in ("config", "workflow", "Snakefile"):
        (tmp_path / name).symlink_to(repository / name)
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("results: a\nscenarios: [toy1d]\n")
    Path("b.yaml").write_text("results: b\n")
    Path("empty.yaml").write_text("")
    Path("twice.yaml").write_text("results: a\nresults: b\n")
    Path("cluster").mkdir()
    Path("cluster/config.yaml").write_text(PROFILE)
    Path("quiet").mkdir()
    Path("quiet/config.yaml").write_text("quiet: rules\n")
    return tmp_path


def by_snakemake(arguments):
    """The settings that a workflow has, as Snakemake itself merges them."""
    Path("Prints").write_text(PRINTS)
    command = [sys.executable, "-m", "snakemake", "-n", "-s", "Prints", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = [one for one in done.stdout.splitlines() if one.startswith("SETTINGS")]
    return json.loads(line.removeprefix("SETTINGS"))


def seen(arguments):
    return given_settings("demo", read_arguments("demo", arguments))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "results", "scenarios"),
    [
        ([], "results", 5),
        (["--configfile=a.yaml"], "a", 1),
        (["--configfiles", "a.yaml", "b.yaml"], "b", 1),
        (["--configfile", "b.yaml", "a.yaml"], "a", 1),
        (["--configfile", "a.yaml", "--configfile=b.yaml"], "b", 5),  # the last one alone counts
        (["--configfile", "a.yaml", "--config", "results=c", "clip={updates: 7}"], "c", 1),
        (["-C", "results=c", "--configfile", "a.yaml"], "c", 1),
        (["--config=results=d", "--configfile=a.yaml"], "d", 1),
        (["--profile=cluster"], "a", 1),
        (["--configfile", "b.yaml", "--profile", "cluster"], "b", 5),
    ],
)
def test_the_settings_are_those_of_snakemake(here, arguments, results, scenarios):
    settings = seen(arguments)
    assert settings["results"] == results
    assert len(settings["scenarios"]) == scenarios
    assert settings == by_snakemake(arguments)
    other = "b.yaml" if arguments[-1:] == ["--configfile=b.yaml"] else "a.yaml"
    control = by_snakemake(["--configfile", other, "--config", "results=another"])
    assert settings != control


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--configfile"], "expected at least one argument"),
        (["--configfile", "nowhere.yaml"], "nowhere.yaml"),
        (["--configfile", "empty.yaml"], "empty.yaml"),
        (["--configfile", "twice.yaml"], "twice.yaml"),
        (["--config", "results"], "name=value"),
        (["--config", "1=2"], "valid identifier"),
        (["--no-such-flag"], "no-such-flag"),
        (["--directory", "/tmp"], "--directory"),
        (["--profile", "nowhere"], "nowhere"),
        (["--profile", "none", "--profile", "cluster"], "none"),
    ],
)
def test_arguments_that_snakemake_would_refuse_are_one_line(here, arguments, said):
    with pytest.raises(UserError) as caught:
        seen(arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_where_there_is_no_workflow_the_line_says_what_to_clone(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--configfile", "x.yaml"]) == 2
    assert "no Snakefile: expected a clone of pdmd's repository" in capfd.readouterr().err
    (tmp_path / "Snakefile").write_text("")
    assert main(["demo"]) == 2  # control: another line, of what is missing then
    assert "config/config.yaml: No such file" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "cores", "handed"),
    [
        (["demo", "--configfile=x", "--config", "a=b"], 2, ["--configfile=x", "--config", "a=b"]),
        (["demo", "--", "--configfile", "x"], 2, ["--configfile", "x"]),
        (["demo", "--cores", "4", "--", "--configfile", "x"], 4, ["--configfile", "x"]),
        (["demo", "--cores=4", "-n"], 4, ["-n"]),
        (["demo", "-n", "--cores", "4"], 2, ["-n", "--cores", "4"]),
        (["demo", "--configfile", "x", "--", "all"], 2, ["--configfile", "x", "--", "all"]),
        (["demo"], 2, []),
    ],
)
def test_demo_hands_on_what_it_is_given(arguments, cores, handed):
    args = parser().parse_args(_meant(arguments))
    assert (args.cores, args.snakemake) == (cores, handed)
    if arguments[1:2] == ["-n"]:  # control: what the parser by itself makes of it
        with contextlib.redirect_stderr(io.StringIO()), pytest.raises(SystemExit):
            parser().parse_args(arguments)


@pytest.mark.parametrize("dashes", [[], ["--"]])
def test_warm_hands_on_what_it_is_given(dashes):
    command = ["snakemake", "-c2", "--configfile=x", "--config", "a=b"]
    assert parser().parse_args(_meant(["warm", *dashes, *command])).command == command


def test_demo_says_what_it_takes(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--help"])
    assert ended.value.code == 0
    assert "Snakemake's arguments" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "warm"),
    [
        ([], True),
        (["-e", "local"], True),
        (["--profile=quiet"], True),
        (["-esubmitit"], False),
        (["--exec=submitit"], False),
        (["--profile", "cluster"], False),
    ],
)
def test_jobs_start_warm_where_they_are_this_machines(here, monkeypatch, arguments, warm):
    monkeypatch.setattr(demo, "warmed", lambda: contextlib.nullcontext("warm"))
    with demo._starts(read_arguments("demo", arguments)) as how:
        assert (how == "warm") is warm


def test_resolve_takes_settings_as_snakemake_does(here, capsys):
    def written(*arguments):
        assert main(["resolve", *arguments]) == 0
        return capsys.readouterr().out.splitlines()

    by_file = written("--configfile", "a.yaml")
    assert by_file
    assert all(line.startswith("a/") for line in by_file)
    assert written("--configfile=a.yaml", "--config", "results=a") == by_file
    other = written("--configfile", "b.yaml", "a.yaml", "--config", "results=c")
    assert {line.partition("/")[0] for line in other} == {"c"}  # control


def test_no_command_at_all_is_answered_by_the_help(capsys):
    assert main([]) == 2  # a mistake: on stderr, with the status that argparse has for it
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: pdmd")
    assert "distill " in said.err
    assert "run everything through Snakemake" in said.err
    with pytest.raises(SystemExit) as ended:  # control: who asks for help makes no mistake
        main(["--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == said.err
