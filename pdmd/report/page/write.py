"""Write the report of a results folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup, escape

from pdmd.config.paper import Artefact
from pdmd.config.sections import Run
from pdmd.errors import UserError
from pdmd.files.storage import write_text
from pdmd.report.looks import name_methods
from pdmd.report.page.content import Page, Scenario, Shown, claims_of, paper_of, scenario
from pdmd.report.page.media import clips_of
from pdmd.scenarios.kind import kind_of

TITLE = "Phased DMD, reproduced"
TEMPLATE = Path(__file__).with_name("page.html.j2")


def write_page(
    results: Path, runs: Mapping[str, Sequence[Run]], listed: Sequence[Artefact], path: Path
) -> None:
    """Write a page of all that is finished below a results folder.

    Args:
        runs: of each scenario, in the order of the report; listed: the paper's artefacts.
    Raises:
        UserError: there is no table, or a file of the results is damaged.
    """
    import jinja2

    name_methods(run for of in runs.values() for run in of)
    scenarios = []
    for name, of in runs.items():
        visible = kind_of(of[0].data).prompted is not None
        found = scenario(results / name, clips_of(of) if visible else [])
        if found is not None:
            scenarios.append(found)
    if not scenarios:
        raise UserError(f"{results}: no tables: expected a finished `snakemake -c2`")
    headline = [one for of in scenarios for one in _headline(of, runs[of.name][0])]
    page = Page(
        TITLE,
        _commit([*headline, *(one for of in scenarios for one in of.tables)]),
        headline,
        claims_of(results),
        paper_of(results, listed),
        scenarios,
    )
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["marked"] = marked
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    write_text(path, template.render(page=page))


def marked(text: str) -> Markup:
    """A caption in HTML: what stands between backticks as code."""
    parts = str(escape(text)).split("`")
    if len(parts) % 2 == 0:  # one is alone
        return escape(text)
    return Markup("".join(f"<code>{one}</code>" if i % 2 else one for i, one in enumerate(parts)))


def _headline(scenario: Scenario, run: Run) -> list[Shown]:
    """The table that says what a scenario came to, of the mixture above it its samples."""
    kind = kind_of(run.data)
    pictures = [one for one in scenario.figures if one.name == "samples" and kind.mixture]
    return pictures + [one for one in scenario.tables if one.name == kind.headline]


def _commit(shown: Sequence[Shown]) -> str:
    return shown[0].origin.commit if shown else "none"


def newest(results: Path) -> float:
    """When the last of what a page shows was written, 0 of nothing."""
    patterns = ("*/tables/*.csv", "*/figures/*.png", "paper/*/*.csv", "paper/*/*.png", "claims.csv")
    times = [path.stat().st_mtime for one in patterns for path in results.glob(one)]
    return max(times, default=0.0)
