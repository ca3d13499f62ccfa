"""Pages whose numbers come from docs/record: Jinja templates, a function for each kind of number.

A page says what a record says: no mean, interval, count or verdict is typed by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdmd.config.claims import Claim
from pdmd.config.paper import SCALES, Artefact, artefacts
from pdmd.errors import UserError
from pdmd.files.storage import reading, write_text
from pdmd.metrics.components import components
from pdmd.metrics.intervals import mean_interval
from pdmd.metrics.ranges import metric_range
from pdmd.report.claims import RECORDED, claims_table, evidence, read_recorded
from pdmd.report.looks import look
from pdmd.report.paper.configured import configured
from pdmd.report.paper.documents import index, table_texts
from pdmd.report.paper.scores import read_group, score_tables
from pdmd.report.paper.settings import settings_table
from pdmd.report.writing import cell, markdown, plain

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = ("csv", "md")  # of the tables on record
TEMPLATES = {"results.md": "docs/results.md", "readme.md": "README.md"}  # template -> page
BEGIN, END = "<!-- results: made by `make record` -->", "<!-- end of results -->"
MADE = "<!-- made by `make record` from docs/templates/{name} and docs/record -->\n\n"


class Record:
    """What docs/record holds, as templates ask for it.

    Args:
        docs: the record; claims: the registry.
    """

    def __init__(self, docs: Path, claims: Sequence[Claim]):
        self.docs, self.registry = docs, claims
        self.seeds = cache(self._seeds)

    @cached_property
    def decided(self) -> pd.DataFrame:
        """The ledger: a row a claim, by its id."""
        found = [evidence(claim, self.docs) for claim in self.registry]
        return claims_table(self.registry, found).set_index("id")

    def has(self, where: str) -> bool:
        """Whether a part's scenario was recorded."""
        return (self.docs / where / RECORDED).exists()

    def _seeds(self, where: str, metric: str, method: str) -> Mapping[int, float]:
        """A metric of a method by seed. Raises UserError for what the record lacks."""
        path = self.docs / where / RECORDED
        values = read_recorded(path, method, metric)
        if not values:
            raise UserError(f"{path}: {method}: expected it on record")
        return values

    def value(self, where: str, metric: str, method: str) -> str:
        """Mean and 95% interval over seeds."""
        values = list(self.seeds(where, metric, method).values())
        return cell(*mean_interval(values, metric_range(metric)))

    def off(self, where: str, metric: str, weights: Mapping[str, float]) -> str:
        """A weighted sum of methods by seed, its 95% interval: how far a prediction was off."""
        columns = {method: self.seeds(where, metric, method) for method in weights}
        seeds = sorted(set.intersection(*(set(column) for column in columns.values())))
        sums = [sum(weights[name] * columns[name][seed] for name in weights) for seed in seeds]
        return cell(*mean_interval(sums))

    def components(
        self, where: str, metrics: Sequence[str], cell: str, factors: Mapping[str, Sequence[str]]
    ) -> str:
        """Shares of metrics' spread that factors of an experiment make, as Markdown.

        Args:
            cell: a method's name with the factors' names in braces; factors: name -> its levels.
        """
        import numpy as np
        import pandas as pd

        methods = [
            cell.format(**dict(zip(factors, levels, strict=True)))
            for levels in product(*factors.values())
        ]
        shape, rows = [len(levels) for levels in factors.values()], []
        for metric in metrics:
            cells = [list(self.seeds(where, metric, method).values()) for method in methods]
            shares = components(np.array(cells).reshape(*shape, -1), list(factors))
            rows.append({"metric": f"`{metric}`"} | {k: f"{v:.0%}" for k, v in shares.items()})
        return markdown(pd.DataFrame(rows))

    def table(self, where: str, methods: Sequence[str] | None, metrics: Sequence[str]) -> str:
        """A row a method as Markdown; all methods where none is named."""
        import pandas as pd

        names = methods or methods_of(self.docs / where / RECORDED)
        rows = [
            {"method": f"`{name}` {_called(name)}", "n": len(self.seeds(where, metrics[0], name))}
            | {metric: self.value(where, metric, name) for metric in metrics}
            for name in names
        ]
        return markdown(pd.DataFrame(rows))

    def ranks(self, parts: Sequence[str], without: str, metric: str, others: Sequence[str]) -> str:
        """Spearman's correlations of a metric with others, over the means of recorded methods.

        Args:
            parts: folders of records; without: methods whose names start so are left out.
        """
        import pandas as pd

        every = pd.concat(pd.read_csv(self.docs / part / RECORDED) for part in parts)
        means = every[~every["method"].str.startswith(without)].groupby("method").mean()
        found = means.corr("spearman")[metric]
        said = ", ".join(f"`{other}` {found[other]:.2f}" for other in others)
        return f"{said}; {len(means)} methods"

    def claims(self, *parts: str) -> str:
        """The claims of some parts, as Markdown: what was registered, and what came out."""
        import pandas as pd

        table = self.decided
        rows = table[table["part"].isin(parts)] if parts else table
        shown = [
            {
                "claim": row["claim"],
                "of": row["place"],
                "metric": f"`{row['metric']}` of `{row['method']}` {WORDS[row['direction']]}"
                f" `{row['against']}`{_allowance(row)}",
                "n": row["n"],
                "difference": cell(row["effect_mean"], row["effect_low"], row["effect_high"]),
                "p (Holm)": plain("p_holm", row["p_holm"]),
                "verdict": f"**{row['verdict']}**",
            }
            for _, row in rows.iterrows()
        ]
        return markdown(pd.DataFrame(shown))

    def lines(self, *names: str) -> str:
        """A list of claims, each with its verdict and numbers."""
        rows = [self._row(name) for name in names]
        return "\n".join(
            f"- **{row['verdict']}**: {row['claim']} {self._numbers(row)}" for row in rows
        )

    def _numbers(self, row: Any) -> str:
        """A claim's metric, mean difference and interval, corrected p, scenario and seeds."""
        if not row["n"]:
            return ""
        effect = cell(row["effect_mean"], row["effect_low"], row["effect_high"])
        p = plain("p_holm", row["p_holm"])
        return f"`{row['metric']}` {effect}, p = {p} ({row['scenario']}, {row['n']} seeds)"

    def count(self, verdict: str) -> int:
        """How many claims have a verdict."""
        return Counter(self.decided["verdict"])[verdict]

    def _row(self, name: str) -> Any:
        if name not in self.decided.index:
            raise UserError(f"claim {name}: expected one of the registry")
        return self.decided.loc[name]


# What templates call.
FUNCTIONS = ("has", "off", "components", "table", "ranks", "claims", "lines", "count")
WORDS = {"less": "below", "greater": "above", "nearer": "nearer to the teacher than"}


def _allowance(row: Any) -> str:
    """What a claim's method may be worse by, or must be better by."""
    if row["slack"]:
        return f", but for {row['slack']:g}"
    return f" by {row['margin']:g}" if row["margin"] else ""


def methods_of(path: Path) -> list[str]:
    """The methods of a record of scores, in its order. Raises UserError."""
    import pandas as pd

    with reading(path, "a record of scores"):
        return list(dict.fromkeys(pd.read_csv(path)["method"]))


def _called(method: str) -> str:
    """A method's name in tables, empty for one of an overlay."""
    label = look(method).label
    return "" if label == method else label


def rendered(template: Path, record: Record) -> str:
    """A template's text with its numbers. Raises UserError that names it."""
    import jinja2

    with reading(template, "a template whose numbers are on record"):
        source = template.read_text(encoding="utf-8")
        undefined = jinja2.StrictUndefined
        environment = jinja2.Environment(undefined=undefined, trim_blocks=True, autoescape=False)
        functions = {name: getattr(record, name) for name in FUNCTIONS}
        return environment.from_string(source).render(**functions) + "\n"


def pages(root: Path, record: Record) -> dict[Path, str]:
    """Path -> text of all that is made of the record, as it should be.

    That is the ledger of claims beside it, the paper's tables, and pages: one with markers has its
    template between them; another is its template as a whole.
    """
    ledger = record.docs / "claims"
    table = record.decided.reset_index().to_csv(index=False, float_format="%.6g")
    found = {ledger.with_suffix(".csv"): table, ledger.with_suffix(".md"): record.claims()}
    found |= paper_pages(root, record.docs)
    for name, page in TEMPLATES.items():
        text = rendered(root / "docs" / "templates" / name, record)
        path = root / page
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        if BEGIN in old:
            with reading(path, f"one part between {BEGIN!r} and {END!r}"):
                head, rest = old.split(BEGIN)
                _, tail = rest.split(END)
            found[path] = f"{head}{BEGIN}\n{text}{END}{tail}"
        else:
            found[path] = MADE.format(name=name) + text
    return found


def paper_pages(root: Path, docs: Path) -> dict[Path, str]:
    """The paper's tables by what is on record and by the configuration; an index, by scale."""
    found: dict[Path, str] = {}
    listed = artefacts(root)
    for scale in SCALES:
        folder, made = docs / "paper" / scale, []
        for artefact in listed:
            texts = _paper_table(root, docs, artefact, scale)
            if texts or (folder / f"{artefact.id}.png").exists():
                made.append(artefact)
            found |= {folder / f"{artefact.id}.{end}": text for end, text in texts.items()}
        if made:
            found[folder / "README.md"] = index(listed, scale, made, ENDINGS, ("png",))
    return found


def _paper_table(root: Path, docs: Path, artefact: Artefact, scale: str) -> dict[str, str]:
    """Ending -> text of a table of the paper; empty where there is nothing to make it of."""
    if artefact.kind == "scores":
        groups = [read_group(docs, one) for one in artefact.at(scale)]
        there = [group for group in groups if group is not None]
        texts = table_texts(artefact, *score_tables(artefact, there)) if there else {}
    elif artefact.kind == "settings":
        runs = [run for one in configured(root, artefact, scale) for run in one.runs]
        texts = table_texts(artefact, settings_table(artefact, runs), None) if runs else {}
    else:
        return {}
    return {end: texts[end] for end in ENDINGS if texts}


def write_pages(root: Path, record: Record) -> None:
    """Write all that is made of the record, once all of it can be. Raises UserError."""
    for path, text in pages(root, record).items():
        write_text(path, text)
