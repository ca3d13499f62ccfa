"""A bundle: what tables and figures are made from, in one archive; no weights are needed."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pdmd.config.experiment import Config, Experiment
from pdmd.config.paper import artefacts
from pdmd.config.parts import resolved
from pdmd.config.sections import Run
from pdmd.errors import UserError
from pdmd.files import provenance
from pdmd.files.digests import RECORDS, sha256
from pdmd.files.storage import read_json, reading, replacing
from pdmd.report.registry import figures_from, tables_from

MANIFEST = "bundle.json"  # the archive's first member
SETTINGS = Path(".state/settings.json")  # what a workflow was started with, below its results
KEYS = ("results", "settings", "figures", "files", "drawn", "commit")


@dataclass(frozen=True)
class Content:
    """What a bundle holds.

    Attributes:
        files: all that tables and figures are made from, with the records beside them; drawn: what
            was made of them.
    """

    files: Sequence[Path]
    drawn: Sequence[Path]


def started_with(results: Path) -> Experiment:
    """The experiment that some results are of. Raises UserError."""
    path = results / SETTINGS
    if not path.exists():
        raise UserError(f"{path}: missing: expected a finished workflow's results")
    return Experiment(Path(), read_json(path, dict))


def content(experiment: Experiment, figures: bool = True) -> Content:
    """The files of a bundle, with or without what figures are made from.

    Raises:
        UserError: one is missing.
    """
    results, parts = Path(experiment.settings["results"]), resolved(experiment)
    needed: dict[Path, None] = {results / SETTINGS: None}
    drawn: list[Path] = []
    for scenario, of in parts.items():
        configs = [part for name, part in of.items() if name.endswith(("table.json", "paper.json"))]
        runs = [part.run for name, part in of.items() if name.endswith("config/table.json")]
        made_from = [*tables_from(runs).values()]
        made_from += figures_from(runs).values() if figures else []
        needed |= dict.fromkeys(part.path for part in configs)
        needed |= dict.fromkeys(path for paths in made_from for path in paths)
        for kind in ("tables", "figures"):
            drawn += sorted((results / scenario / kind).glob("*"))
    for path in list(needed):
        needed |= dict.fromkeys(beside for beside in _records(path) if beside.exists())
    drawn += sorted(path for path in (results / "paper").glob("*/*") if path.is_file())
    drawn += [path for path in sorted(results.glob("claims.*")) if path.is_file()]
    drawn += [path for path in [results / "report.html"] if path.exists()]
    for path in needed:
        if not path.is_file():
            raise UserError(f"{path}: missing: expected a finished workflow's results")
    return Content(list(needed), drawn)


def _records(path: Path) -> Iterator[Path]:
    yield from (path.with_name(name) for name in RECORDS)


def write_bundle(results: Path, output: Path, figures: bool = True) -> None:
    """Write the bundle of some results, equal bytes of equal results.

    Args:
        figures: whether figures can be drawn anew from it: samples are most of it.
    Raises:
        UserError: a file that it needs is missing, or lies outside of the results.
    """
    experiment = started_with(results)
    found = content(experiment, figures)
    commit, dirty = provenance.checkout()
    manifest = {
        "results": str(results),
        "settings": experiment.settings,
        "figures": figures,
        "files": {str(path): sha256(path) for path in found.files},
        "drawn": {str(path): sha256(path) for path in found.drawn},
        "commit": commit,
        "dirty": dirty,
        "packages": provenance.versions(),
    }
    text = json.dumps(manifest, indent=1, sort_keys=True).encode()
    with (
        replacing(output) as beside,
        beside.open("wb") as handle,
        gzip.GzipFile("", "wb", 6, handle, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        _add(archive, MANIFEST, text)
        for path in sorted([*found.files, *found.drawn]):
            _add(archive, str(path), path.read_bytes())


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    archive.addfile(member, io.BytesIO(data))


def redraw(bundle: Path) -> tuple[int, int]:
    """Unpack a bundle where its results were, and make every table and figure anew.

    Returns:
        how many of the files that it had of them come out equal, and of how many.
    Raises:
        UserError: the archive is damaged, leads elsewhere, or there are such results already.
    """
    manifest = _unpack(bundle)
    results = Path(manifest["results"])
    experiment = Experiment(Path(), manifest["settings"])
    draw(experiment, results, bool(manifest["figures"]))
    drawn: Mapping[str, str] = manifest["drawn"]
    same = sum(Path(path).is_file() and sha256(Path(path)) == was for path, was in drawn.items())
    return same, len(drawn)


def draw(experiment: Experiment, results: Path, figures: bool = True) -> None:
    """Make tables, figures, the paper's artefacts and the report of results that are there.

    Args:
        figures: False leaves what shows samples as it is: figures, and pages that hold them.
    """
    from pdmd.report.figures import draw_figures
    from pdmd.report.page.write import write_page
    from pdmd.report.paper.make import make_paper
    from pdmd.report.tables import write_tables

    parts = resolved(experiment)
    every: list[Config] = []
    runs: dict[str, list[Run]] = {}
    for scenario, of in parts.items():
        methods = experiment.method_names(scenario)
        configs = [of[f"{method}/config/table.json"].content for method in methods]
        every += [of[f"{method}/config/paper.json"].content for method in methods]
        runs[scenario] = [of[f"{method}/config/table.json"].run for method in methods]
        write_tables(configs)
        if figures:
            draw_figures(configs)
    if not figures:
        return
    listed = artefacts(Path())
    if listed:
        make_paper(listed, None, results, None, every)
    write_page(results, runs, listed, results / "report.html")


def _unpack(bundle: Path) -> dict[str, Any]:
    """Write a bundle's files, each compared with its digest. Raises UserError."""
    with reading(bundle, "a bundle that `pdmd bundle` wrote"), tarfile.open(bundle) as archive:
        first = archive.next()
        if first is None or first.name != MANIFEST:
            raise UserError(f"{bundle}: expected {MANIFEST} as its first member")
        manifest: dict[str, Any] = json.loads(_data(archive, first))
        for key in KEYS:
            if key not in manifest:
                raise UserError(f"{bundle}: {MANIFEST}: {key}: missing: expected a bundle's")
        results = _inside(bundle, manifest["results"])
        if results.exists():
            raise UserError(f"{results}: it is there already: expected no such folder")
        beside = results.with_name(f".{results.name}.unpacked")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            _unpack_to(beside, results, archive, {**manifest["files"], **manifest["drawn"]}, bundle)
            beside.rename(results)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return manifest


def _unpack_to(
    beside: Path, results: Path, archive: tarfile.TarFile, wanted: dict[str, str], bundle: Path
) -> None:
    """Write every further member below a folder; each has the digest that is wanted of it."""
    while (member := archive.next()) is not None:
        path = _inside(bundle, member.name)
        if not member.isfile() or not path.is_relative_to(results) or member.name not in wanted:
            raise UserError(f"{bundle}: {member.name}: expected a file of {results}")
        with replacing(beside / path.relative_to(results)) as target:
            target.write_bytes(_data(archive, member))
        if sha256(beside / path.relative_to(results)) != wanted.pop(member.name):
            raise UserError(f"{bundle}: {member.name}: another digest than {MANIFEST} has")
    if wanted:
        raise UserError(f"{bundle}: {next(iter(wanted))}: missing: expected a whole bundle")


def _data(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    source = archive.extractfile(member)
    return b"" if source is None else source.read()


def _inside(bundle: Path, name: Any) -> Path:
    """A member's path, which may not lead out of the working directory. Raises UserError."""
    path = PurePosixPath(str(name))
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise UserError(f"{bundle}: {name}: expected a path below the working directory")
    return Path(path)
