"""`make demo`: the whole job through Snakemake with progress; the report; the headline table."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pdmd.config import SETTINGS, Experiment, load_experiment, merge, read_yaml
from pdmd.errors import UserError
from pdmd.storage import write_text
from pdmd.work import describe, running, training_jobs, work_done

HEADLINES = (
    ("mixture2d", "modes"),
    ("digits", "diversity"),
    ("toy1d", "velocity"),
    ("emoji", "diversity"),
    ("moving", "motion"),
)


def snakemake_command(arguments: Sequence[str]) -> list[str]:
    """Snakemake of this very environment."""
    return [sys.executable, "-m", "snakemake", *arguments]


def run_demo(cores: int, arguments: Sequence[str]) -> None:
    """Run Snakemake, show what it does, end with the headline tables and where things are.

    Raises:
        UserError: the workflow failed; its last lines have been printed.
    """
    experiment = _experiment(arguments)
    results = Path(experiment.settings["results"])
    log = results / "demo.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = snakemake_command([f"-c{cores}", "--rerun-incomplete", *arguments])
    started = time.time()
    pid = results / ".state" / "snakemake.pid"
    _unlock(pid, arguments)
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        write_text(pid, str(process.pid))
        try:
            _watch(process, experiment, log, started)
        except KeyboardInterrupt:
            process.wait()
            raise UserError("stopped: `make demo` goes on from the last checkpoints") from None
        finally:
            pid.unlink(missing_ok=True)
    text = log.read_text()
    if process.returncode != 0:
        print("\n".join(_failure(text)), file=sys.stderr)
        raise UserError(f"the workflow failed: see above, and all of it in {log}")
    if "Nothing to be done" in text:
        print("Nothing to do: every table and figure is up to date.")
    else:
        print(f"Done in {_clock(time.time() - started)}.")
    make_report(results, [])
    print_results(experiment, results)


def _unlock(pid: Path, arguments: Sequence[str]) -> None:
    """Clear the lock that a killed Snakemake of ours left behind.

    Raises:
        UserError: it still runs.
    """
    if not pid.exists():
        return
    command = Path("/proc") / pid.read_text() / "cmdline"
    if command.exists() and b"snakemake" in command.read_bytes():
        raise UserError(
            f"process {pid.read_text()} still runs this workflow: wait for it or end it"
        )
    subprocess.run(
        snakemake_command(["--unlock", *arguments]), capture_output=True, text=True, check=False
    )


def _experiment(arguments: Sequence[str]) -> Experiment:
    """The configuration as Snakemake will see it, --configfile overlays included."""
    settings = read_yaml(Path("config/config.yaml"))
    rest = list(arguments)
    while "--configfile" in rest:
        at = rest.index("--configfile")
        settings = merge(settings, read_yaml(Path(rest[at + 1])))
        del rest[at : at + 2]
    return load_experiment(Path(), settings)


def _watch(
    process: subprocess.Popen[bytes], experiment: Experiment, log: Path, started: float
) -> None:
    """Show progress until Snakemake ends: redrawn on a terminal, else a block every 15 s."""
    results, jobs = Path(experiment.settings["results"]), training_jobs(experiment)
    before = work_done(jobs, running(results))
    live, drawn, last = sys.stdout.isatty(), 0, 0.0
    while process.poll() is None:
        time.sleep(0.5)
        if not live and time.time() - last < 15:
            continue
        last = time.time()
        lines = _progress(experiment, log, started, before)
        if live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\x1b[{drawn}F\x1b[0J" if drawn else "", end="")
            lines, drawn = [line[:width] for line in lines], len(lines)
        print("\n".join(lines), flush=True)


def _progress(experiment: Experiment, log: Path, started: float, before: float) -> list[str]:
    """The present state in a few lines."""
    results, jobs = Path(experiment.settings["results"]), training_jobs(experiment)
    text = log.read_text()
    planned = re.findall(r"^total +(\d+)", text, re.M)
    steps = re.findall(r"(\d+) of (\d+) steps", text)
    done, total = steps[-1] if steps else ("0", planned[-1] if planned else "?")
    now = running(results)
    work, behind = sum(job.work for job in jobs), work_done(jobs, now)
    elapsed, left = time.time() - started, "time left not known yet"
    if behind - before > 0.02 * work:
        rest = elapsed * (work - behind) / (behind - before)
        left = f"about {_clock(rest)} left" if rest > 0 else "measuring and drawing"
    elif behind == work and int(done):
        left = f"about {_clock(elapsed * (int(total) - int(done)) / int(done))} left"
    head = f"[{_clock(elapsed)}] jobs {done} of {total}, training {behind / work:.0%}, {left}"
    return [head, *[f"    {describe(value)}" for value in now]]


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _failure(text: str) -> list[str]:
    """The lines that say what went wrong, each once; the last lines where none does."""
    found = re.findall(r"^(?:pdmd: .*|Error in rule .*|\w*(?:Error|Exception): .*)$", text, re.M)
    return list(dict.fromkeys(found)) or text.splitlines()[-25:]


def make_report(results: Path, arguments: Sequence[str]) -> None:
    """Write <results>/report.html, Snakemake's report, if tables or figures are newer.

    Raises:
        UserError: Snakemake could not make it.
    """
    report, settings = results / "report.html", results / SETTINGS
    shown = [*results.glob("*/tables/*.csv"), *results.glob("*/figures/*.png")]
    if not shown or not settings.exists():
        raise UserError(f"{results}: no tables or figures: expected a finished `snakemake -c2`")
    newest = max(path.stat().st_mtime for path in shown)
    if report.exists() and report.stat().st_mtime >= newest:
        return
    command = ["--nolock", "--configfile", str(settings), "--report", str(report), *arguments]
    done = subprocess.run(snakemake_command(command), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{report}: {reason}: expected Snakemake to write the report")


def print_results(experiment: Experiment, results: Path) -> None:
    """The headline tables, and where everything is."""
    for scenario, name in HEADLINES:
        path = results / scenario / "tables" / f"{name}.md"
        if scenario in experiment.scenarios and path.exists():
            print(f"\n{path.read_text().rstrip()}")
    print(f"\nReport   {results / 'report.html'}")
    print(f"Tables   {results}/<scenario>/tables/*.csv (.md, .tex)")
    print(f"Figures  {results}/<scenario>/figures/*.pdf (.png)")
