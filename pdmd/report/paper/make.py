"""Write the paper's tables and figures of one scale, with an index and a LaTeX document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pdmd.config.claims import part_of
from pdmd.config.experiment import Config
from pdmd.config.paper import SCALES, Artefact, Made, made_in
from pdmd.config.run import read_run
from pdmd.config.sections import Run
from pdmd.errors import UserError
from pdmd.files import provenance
from pdmd.files.storage import read_json, write_text
from pdmd.report.looks import name_methods
from pdmd.report.paper import documents, scores
from pdmd.report.registry import READS, figure_reads, files
from pdmd.scenarios.kind import kind_of
from pdmd.stages.outputs import PROVENANCE

INDEX, DOCUMENT = "index.md", "main.tex"


@dataclass(frozen=True)
class Source:
    """One scenario that an artefact is made of.

    Attributes:
        made: what is wanted of it; results: the folder that it lies in; runs: its methods, in the
            order of `made`.
    """

    made: Made
    results: Path
    runs: tuple[Run, ...]


Plan = list[tuple[Artefact, list[Source]]]  # what is made at a scale, in the registry's order


def planned(
    listed: Iterable[Artefact], scale: str, part: str | None, runs: Sequence[Run], results: Path
) -> Plan:
    """What of the paper an experiment gives at a scale.

    Args:
        part: its folder below `results`; runs: every method of every scenario that it has; results:
            the folder itself.
    """
    by_scenario: dict[str, dict[str, Run]] = {}
    for run in runs:
        by_scenario.setdefault(run.scenario, {})[run.method] = run
    plan: dict[str, tuple[Artefact, list[Source]]] = {}
    for artefact, made in made_in(listed, part, by_scenario):
        if made.scale == scale:
            methods = by_scenario[made.scenario]
            of_made = tuple(methods[name] for name in made.methods)
            source = Source(replace(made, parts=("",)), results, of_made)
            plan.setdefault(artefact.id, (artefact, []))[1].append(source)
    return list(plan.values())


def reads(artefact: Artefact, sources: Sequence[Source]) -> list[Path]:
    """The results that an artefact is made from; none of one that shows the configuration."""
    if artefact.kind in ("scores", "curve"):
        return [path for one in sources for run in one.runs for path in READS["metrics"](run)]
    if artefact.kind == "figure":
        ((made, runs),) = [(one.made, one.runs) for one in sources]
        return files(runs, figure_reads(runs[0], str(made.drawing)))
    return []


def outputs(plan: Plan) -> list[str]:
    """The files that a plan is written as, the record last."""
    made = [f"{artefact.id}.{end}" for artefact, _ in plan for end in artefact.endings]
    return [*made, INDEX, DOCUMENT, PROVENANCE]


def write_paper(
    listed: Sequence[Artefact], scale: str, plan: Plan, folder: Path, configs: Sequence[Config]
) -> None:
    """Write all of a plan.

    Raises:
        UserError: nothing is planned, or a result is missing or damaged.
    """
    if not plan:
        raise UserError(f"{folder}: nothing of the paper at scale {scale}: expected some results")
    name_methods(run for _, sources in plan for one in sources for run in one.runs)
    for artefact, sources in plan:
        MAKE[artefact.kind](artefact, sources, folder / artefact.id)
    made = [artefact for artefact, _ in plan]
    write_text(folder / INDEX, documents.index(listed, scale, made))
    write_text(folder / DOCUMENT, documents.document(scale, made))
    made_from = {artefact.id: reads(artefact, sources) for artefact, sources in plan}
    seeds = sorted({seed for _, sources in plan for one in sources for seed in one.runs[0].seeds})
    record = folder / PROVENANCE
    provenance.record_drawn(record, {"runs": list(configs)}, seeds, made_from, outputs(plan))


def _scores(artefact: Artefact, sources: Sequence[Source], path: Path) -> None:
    groups = [scores.read_group(one.results, one.made) for one in sources]
    there = [group for group in groups if group is not None]
    _write(documents.table_texts(artefact, *scores.score_tables(artefact, there)), path)


def _settings(artefact: Artefact, sources: Sequence[Source], path: Path) -> None:
    from pdmd.report.paper.settings import settings_table

    runs = [run for one in sources for run in one.runs]
    _write(documents.table_texts(artefact, settings_table(artefact, runs), None), path)


def _write(texts: Mapping[str, str], path: Path) -> None:
    for end, text in texts.items():
        write_text(path.with_suffix(f".{end}"), text)


def _drawn(draw: Callable[[Artefact, Source], Any]) -> Callable[..., None]:
    def write(artefact: Artefact, sources: Sequence[Source], path: Path) -> None:
        from pdmd.report.figures import style

        (source,) = sources
        with style.paper():
            style.save(draw(artefact, source), path)

    return write


def _figure(artefact: Artefact, source: Source) -> Any:
    return kind_of(source.runs[0].data).figure(str(source.made.drawing))(source.runs)


def _curve(artefact: Artefact, source: Source) -> Any:
    from pdmd.report.paper.curves import curve

    along, made = str(artefact.along), source.made
    axis = artefact.axis or along.rpartition(".")[2]
    return curve(source.runs, along, dict(made.metrics), axis, dict(made.lines))


def _rollouts(artefact: Artefact, source: Source) -> Any:
    from pdmd.report.paper.schemes import rollouts

    return rollouts(source.runs)


def _intervals(artefact: Artefact, source: Source) -> Any:
    from pdmd.report.paper.schemes import intervals

    return intervals(source.runs)


MAKE: Mapping[str, Callable[[Artefact, Sequence[Source], Path], None]] = {
    "scores": _scores,
    "settings": _settings,
    "figure": _drawn(_figure),
    "curve": _drawn(_curve),
    "rollouts": _drawn(_rollouts),
    "intervals": _drawn(_intervals),
}


def make_paper(
    listed: Sequence[Artefact],
    scale: str | None,
    results: Path,
    output: Path | None,
    configs: Sequence[Config] | None,
) -> None:
    """Make what some results give of the paper.

    Args:
        scale: None: each that they give some of.
        output: the folder of all scales, None for the results' own.
        configs: of the methods to show, which lie in `results` itself; None: of all that are there
            and in the parts below, of each scenario the part that the registry names last.
    Raises:
        UserError: there is nothing to make, or a result is missing or damaged.
    """
    given = None if configs is None else [(part_of(str(results)), results, configs)]
    found = given or discovered(listed, results)
    made = False
    for one in SCALES if scale is None else (scale,):
        plan = merged(
            [
                planned(listed, one, part, [read_run(config) for config in of], folder)
                for part, folder, of in found
            ]
        )
        plan = plan if given else begun(plan)
        if plan or scale is not None:
            folder = (output or results / "paper") / one
            every = [config for _, _, of in found for config in of]
            write_paper(listed, one, plan, folder, every)
            made = True
    if not made:
        raise UserError(f"{results}: nothing of the paper: expected finished results")


Part = tuple[str | None, Path, Sequence[Config]]  # its name, its folder, the methods it has


def discovered(listed: Sequence[Artefact], results: Path) -> list[Part]:
    """The parts of a results folder that hold what artefacts are made of."""
    names = dict.fromkeys(name for one in listed for made in one.made for name in made.parts)
    found: list[Part] = []
    for name in names:
        folder = results / name
        newest: dict[Path, Path] = {}
        for path in folder.glob("*/*/config/paper.*.json"):
            last = newest.get(path.parent)
            if last is None or last.stat().st_mtime < path.stat().st_mtime:
                newest[path.parent] = path
        configs = [read_json(path, dict) for path in sorted(newest.values())]
        if configs:
            found.append((name, folder, configs))
    return found


def begun(plan: Plan) -> Plan:
    """A plan without what nothing of is there: a workflow that was planned leaves configs alone."""
    found = []
    for artefact, sources in plan:
        wanted = {id(one): reads(artefact, [one]) for one in sources}
        has = [one for one in sources if any(map(Path.exists, wanted[id(one)] or [one.results]))]
        if has:
            found.append((artefact, has))
    return found


def merged(plans: Iterable[Plan]) -> Plan:
    """One plan of several parts': of each scenario of an artefact the part named last."""
    every: dict[str, tuple[Artefact, dict[str, Source]]] = {}
    for plan in plans:
        for artefact, sources in plan:
            _, of = every.setdefault(artefact.id, (artefact, {}))
            of.update({one.made.scenario: one for one in sources})
    return [(artefact, list(of.values())) for artefact, of in every.values()]
