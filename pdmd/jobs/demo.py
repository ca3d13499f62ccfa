"""`make demo`: the whole job through Snakemake with progress; the report; the headline table."""

from __future__ import annotations

import contextlib
import fcntl
import io
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pdmd.config.experiment import Experiment
from pdmd.config.paths import job_label
from pdmd.config.plan import read_workflow
from pdmd.config.yaml_files import read_mapping
from pdmd.errors import UserError
from pdmd.files.storage import read_json, write_json
from pdmd.jobs.estimates import describe, running, training_jobs
from pdmd.jobs.events import EVENTS, LOGGER, Jobs, Reader, Started
from pdmd.jobs.remaining import TRAINS, expected, seconds_left, stage
from pdmd.report.bundle import SETTINGS as LAST_SETTINGS
from pdmd.scenarios.kind import kind_of
from pdmd.warm import warmed

CONFIG = Path("config/config.yaml")
LOCKS = Path(".snakemake/locks")


def snakemake_command(arguments: Sequence[str]) -> list[str]:
    """Snakemake of this very environment."""
    return [sys.executable, "-m", "snakemake", *arguments]


def run_demo(cores: int, arguments: Sequence[str]) -> None:
    """Run Snakemake, show what it does, end with the headline tables and where things are.

    Raises:
        UserError: the workflow failed; its last lines have been printed.
    """
    arguments = list(arguments)
    experiment = _experiment(arguments)
    results = Path(experiment.settings["results"])
    log = results / "demo.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # Snakemake's --configfile takes all that follows: its own flags stand first.
    events = ["--logger", LOGGER, "--logger-pdmd-file", str(results / EVENTS)]
    command = snakemake_command([f"-c{cores}", "--rerun-incomplete", *events, *arguments])
    started = time.time()
    with Claim(results / ".state" / "demo.json") as claim:
        claim.unlock(arguments)
        with log.open("w", encoding="utf-8") as out, _starts(arguments):
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
        print(f"Done in {_clock(time.time() - started)}.")
    make_report(results, None)
    print_results(experiment, results)


def _starts(arguments: Sequence[str]) -> AbstractContextManager[None]:
    """Warm starts for jobs that are processes of this machine, children of Snakemake."""
    elsewhere = ("--profile", "--executor", "-e", "--workflow-profile")
    if any(one.partition("=")[0] in elsewhere for one in arguments):
        return contextlib.nullcontext()
    return warmed()


class Claim:
    """Which Snakemake of ours runs here, and which locks it took, for the demo that comes next.

    A lock is cleared only where it is the very one that a Snakemake of ours took, which has ended:
    process ids come round again, and others may lock the same folder meanwhile.
    """

    def __init__(self, path: Path, locks: Path = LOCKS):
        self.path, self.locks = path, locks
        self._pid = 0
        self._noted: dict[str, Any] = {}

    def __enter__(self) -> Claim:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._held = self.path.with_suffix(".lock").open("a")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._held.close()
            raise UserError(
                f"{self.path.parent.parent}: another demo runs here: wait for it or end it"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        # What is there may tell of another's, or of ours that outlives this demo.
        if self._noted and not _identity(self._pid)["start"]:
            self.path.unlink(missing_ok=True)
        self._held.close()

    def note(self, pid: int | None = None) -> None:
        """Keep who runs, and the locks as they are now; nothing is written where that is known."""
        self._pid = pid or self._pid
        value = {**_identity(self._pid), "locks": _stamps(self.locks)}
        if value != self._noted:
            write_json(self.path, value)
            self._noted = value

    def unlock(self, arguments: Sequence[str]) -> None:
        """Clear the locks that a killed Snakemake of ours left behind.

        Raises:
            UserError: it still runs.
        """
        if not self.path.exists():
            return
        try:
            left = read_json(self.path)
            pid, locks, host, _ = int(left["pid"]), left["locks"], left["host"], left["start"]
        except (UserError, TypeError, KeyError, ValueError):
            return  # torn: Snakemake itself says that the folder is locked, and what to do
        if left["start"] and left == {**_identity(pid), "locks": locks}:
            raise UserError(f"process {pid} still runs this workflow: wait for it or end it")
        if host == socket.gethostname() and locks and locks == _stamps(self.locks):
            command = snakemake_command(["--unlock", *arguments])
            subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


def _identity(pid: int) -> dict[str, Any]:
    """A process, told apart from a later one of the same number; start 0 if it has ended."""
    try:
        state, *rest = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        )
        start = 0 if state == "Z" else int(rest[18])
    except (OSError, ValueError, IndexError):
        start = 0
    return {"pid": pid, "start": start, "host": socket.gethostname()}


def _stamps(locks: Path) -> dict[str, list[int]]:
    """Snakemake's lock files, each with what tells it from a later one of the same name."""
    stamps = {}
    for path in sorted(locks.glob("*.lock")):
        with contextlib.suppress(OSError):  # it went at this moment
            stamps[path.name] = [path.stat().st_ino, path.stat().st_mtime_ns]
    return stamps


def _experiment(arguments: Sequence[str]) -> Experiment:
    """The configuration as Snakemake will see it, by its own reading of its arguments."""
    from snakemake.cli import parse_args, parse_config
    from snakemake.settings.types import ConfigSettings
    from snakemake.utils import update_config
    from snakemake_interface_common.exceptions import WorkflowError

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            _, given = parse_args(list(arguments))
    except SystemExit:  # after pages of usage
        reason = (said.getvalue().strip().splitlines() or ["see snakemake --help"])[-1]
        raise UserError(f"demo: {reason.rpartition('error: ')[2]}") from None
    if given.directory or given.snakefile:
        raise UserError("demo: --directory, --snakefile: expected Snakemake itself for these")
    settings = read_mapping(CONFIG)
    try:
        for path in given.configfile or ():
            read_mapping(Path(path))  # what is wrong with it is said in one line
        wanted = ConfigSettings(
            config=parse_config(given.config), configfiles=given.configfile or ()
        )
    except (ValueError, WorkflowError) as error:
        raise UserError(f"demo: {' '.join(str(error).split())}") from error
    if given.replace_workflow_config:
        settings = {}
    update_config(settings, wanted.overwrite_config)
    return read_workflow(Path(), settings)


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


class View:
    """What is shown of a run: every job under way with its own progress, and the time left."""

    def __init__(self, experiment: Experiment, cores: int, started: float):
        self.experiment, self.cores, self.started = experiment, cores, started
        self.results = Path(experiment.settings["results"])
        self.reader = Reader(self.results / EVENTS, started)
        self.training = training_jobs(experiment)

    def lines(self) -> list[str]:
        """The present state: a line for all, and one for each job."""
        jobs, reports = self.reader.look(), running(self.results)
        by_label = {str(value["label"]): value for value in reports}
        rest = seconds_left(jobs, self.training, reports, self.label, self.cores)
        elapsed = _clock(time.time() - self.started)
        left = "planning" if rest is None else f"about {_clock(rest)} left"
        head = f"[{elapsed}] {jobs.done} of {jobs.total or '?'} jobs, {left}"
        return [head, *(f"    {self._line(job, jobs, by_label)}" for job in jobs.running.values())]

    def _line(self, job: Started, jobs: Jobs, reports: dict[str, dict[str, Any]]) -> str:
        label = self.label(job)
        if label in reports:
            return describe(reports[label])
        return f"{job.name:<38} {_clock(time.time() - job.time)} of about" + (
            f" {_clock(expected(jobs, job.rule))}" if stage(job.rule) != TRAINS else " to begin"
        )

    def label(self, job: Started) -> str:
        """What a training job calls itself, of the job that Snakemake runs."""
        of = job.wildcards
        run = self.experiment.runs.get((of.get("scenario", ""), of.get("method", "")))
        if run is None or "phase" not in of:
            return job.name
        group = of.get("group", "")
        seeds = [int(group)] if group.isdecimal() else self.experiment.groups(run.scenario)[0]
        return job_label(run, int(of["phase"]), seeds)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


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
