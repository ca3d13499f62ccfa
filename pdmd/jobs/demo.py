"""`make demo`: the whole job through Snakemake with progress; the report; the headline table."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pdmd.config.experiment import Experiment
from pdmd.config.plan import read_workflow
from pdmd.errors import UserError
from pdmd.files.storage import read_json, write_json
from pdmd.jobs.claim import Claim, snakemake_command
from pdmd.jobs.command import given_settings, read_arguments
from pdmd.jobs.events import EVENTS, LOGGER
from pdmd.jobs.view import View, clock
from pdmd.report.bundle import SETTINGS as LAST_SETTINGS
from pdmd.scenarios.kind import kind_of
from pdmd.warm import warmed


def run_demo(cores: int, arguments: Sequence[str]) -> None:
    """Run Snakemake, show what it does, end with the headline tables and where things are.

    Args:
        cores: where the arguments do not say how many.
    Raises:
        UserError: the workflow failed; its last lines have been printed.
    """
    arguments = list(arguments)
    given = read_arguments("demo", arguments)
    experiment = _experiment(given)
    cores = given.cores or cores
    results = Path(experiment.settings["results"])
    log = results / "demo.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # Snakemake's --configfile takes all that follows: its own flags stand first.
    events = ["--logger", LOGGER, "--logger-pdmd-file", str(results / EVENTS)]
    command = snakemake_command([f"-c{cores}", "--rerun-incomplete", *events, *arguments])
    started = time.time()
    with Claim(results / ".state" / "demo.json") as claim:
        claim.unlock(arguments)
        with log.open("w", encoding="utf-8") as out, _starts(given):
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
            claim.note(process.pid)
            try:
                _watch(process, View(experiment, cores, started), claim)
            except KeyboardInterrupt:
                process.wait()
                raise UserError("stopped: `make demo` goes on from the last checkpoints") from None
    text = log.read_text(encoding="utf-8", errors="replace")
    if process.returncode != 0:
        print("\n".join(_failure(text)), file=sys.stderr)
        raise UserError(f"the workflow failed: see above, and all of it in {log}")
    if "Nothing to be done" in text:
        print("Nothing to do: every table and figure is up to date.")
    else:
        print(f"Done in {clock(time.time() - started)}.")
    make_report(results, None)
    print_results(experiment, results)


def _starts(given: Namespace) -> AbstractContextManager[None]:
    """Warm starts for jobs that are processes of this machine, children of Snakemake."""
    return warmed() if given.executor in (None, "local") else contextlib.nullcontext()


def _experiment(given: Namespace) -> Experiment:
    """The configuration as Snakemake will see it. Raises UserError."""
    return read_workflow(Path(), given_settings("demo", given))


def _watch(process: subprocess.Popen[bytes], view: View, claim: Claim) -> None:
    """Show progress until Snakemake ends: redrawn on a terminal, else a block every 15 s."""
    live, drawn, last = sys.stdout.isatty(), 0, 0.0
    while process.poll() is None:
        time.sleep(0.5)
        claim.note()
        if not live and time.time() - last < 15:
            continue
        last = time.time()
        lines = view.lines()
        if live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\x1b[{drawn}F\x1b[0J" if drawn else "", end="")
            lines, drawn = [line[:width] for line in lines], len(lines)
        print("\n".join(lines), flush=True)


def _failure(text: str) -> list[str]:
    """The lines that say what went wrong, each once; the last lines where none does."""
    lines = re.findall(r"^(?:pdmd: .*|Error in rule .*|\w*(?:Error|Exception): .*)$", text, re.M)
    return list(dict.fromkeys(lines)) or text.splitlines()[-25:]


def make_report(results: Path, settings: Path | None) -> None:
    """Write <results>/report.html, one page of all that is finished, if something is newer.

    Args:
        settings: what the workflow was started with, beside copies of the files it was read from,
            kept for the next report; None: as of the last one.
    Raises:
        UserError: there is nothing to report, or a file of the results is damaged.
    """
    from pdmd.config.experiment import Experiment
    from pdmd.config.paper import artefacts
    from pdmd.report.looks import call
    from pdmd.report.page.write import newest, write_page

    report, last = results / "report.html", results / LAST_SETTINGS
    if settings is not None:
        write_json(last, read_json(settings))
    shown = newest(results)
    if not shown or not last.exists():
        raise UserError(f"{results}: no tables or figures: expected a finished `snakemake -c2`")
    if report.exists() and report.stat().st_mtime >= shown:
        return
    root = Path() if settings is None else settings.parent
    experiment = Experiment(root, read_json(last, dict))
    runs = {
        name: [experiment.runs[name, method] for method in experiment.method_names(name)]
        for name in experiment.scenarios
    }
    for method, label in experiment.overlay.labels.items():
        call(method, label)
    write_page(results, runs, artefacts(root), report)


def print_results(experiment: Experiment, results: Path) -> None:
    """The headline tables, and where everything is."""
    for scenario in experiment.scenarios:
        headline = kind_of(experiment.shared(scenario).data).headline
        path = results / scenario / "tables" / f"{headline}.md"
        if path.exists():
            print(f"\n{path.read_text().rstrip()}")
    print(f"\nReport   {results / 'report.html'}")
    print(f"Tables   {results}/<scenario>/tables/*.csv (.md, .tex)")
    print(f"Figures  {results}/<scenario>/figures/*.pdf (.png)")
