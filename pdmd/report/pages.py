"""Pages whose numbers come from docs/record: Jinja templates, a function for each kind of number.

A page says what a record says: no mean, interval, count or verdict is typed by hand.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdmd.config.claims import Claim
from pdmd.errors import UserError
from pdmd.files.storage import reading, write_text
from pdmd.metrics.intervals import Paired, mean_interval, paired
from pdmd.metrics.ranges import ANY, metric_range
from pdmd.report.claims import RECORDED, claims_table, evidence
from pdmd.report.looks import look
from pdmd.report.tables import cell, markdown

if TYPE_CHECKING:
    import pandas as pd

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
        self.scores = cache(self._scores)
        self.decided = cache(self._decided)

    def _scores(self, where: str) -> pd.DataFrame:
        import pandas as pd

        path = self.docs / where / RECORDED
        with reading(path, "a record of scores"):
            return pd.read_csv(path)

    def _decided(self) -> pd.DataFrame:
        found = [evidence(claim, self.docs) for claim in self.registry]
        return claims_table(self.registry, found).set_index("id")

    def has(self, where: str) -> bool:
        """Whether a part's scenario was recorded."""
        return (self.docs / where / RECORDED).exists()

    def seeds(self, where: str, metric: str, method: str) -> Mapping[int, float]:
        """A metric of a method by seed. Raises UserError for what the record lacks."""
        frame = self.scores(where)
        rows = frame[frame["method"] == method]
        if rows.empty or metric not in frame.columns:
            raise UserError(f"{self.docs / where}: {metric} of {method}: expected it on record")
        pairs = zip(rows["seed"], rows[metric], strict=True)
        return {int(seed): float(value) for seed, value in pairs}

    def value(self, where: str, metric: str, method: str) -> str:
        """Mean and 95% interval over seeds."""
        values = list(self.seeds(where, metric, method).values())
        return cell(*mean_interval(values, metric_range(metric)))

    def contrast(self, where: str, metric: str, weights: Mapping[str, float]) -> Paired:
        """The paired test of a weighted sum of methods, by seed."""
        columns = {method: self.seeds(where, metric, method) for method in weights}
        seeds = sorted(set.intersection(*(set(column) for column in columns.values())))
        sums = [sum(weights[name] * columns[name][seed] for name in weights) for seed in seeds]
        return paired(sums, ANY)

    def difference(self, where: str, metric: str, method: str, other: str) -> str:
        """Mean difference by seed, its 95% interval."""
        test = self.contrast(where, metric, {method: 1.0, other: -1.0})
        return cell(test.mean, test.low, test.high)

    def off(self, where: str, metric: str, weights: Mapping[str, float]) -> str:
        """A weighted sum of methods, its 95% interval: how far a prediction was off."""
        test = self.contrast(where, metric, weights)
        return cell(test.mean, test.low, test.high)

    def table(self, where: str, methods: Sequence[str] | None, metrics: Sequence[str]) -> str:
        """A row a method as Markdown; all methods where none is named."""
        import pandas as pd

        names = methods or list(dict.fromkeys(self.scores(where)["method"]))
        rows = [
            {"method": f"`{name}` {_called(name)}", "n": len(self.seeds(where, metrics[0], name))}
            | {metric: self.value(where, metric, name) for metric in metrics}
            for name in names
        ]
        return markdown(pd.DataFrame(rows))

    def claims(self, *parts: str) -> str:
        """The claims of some parts, as Markdown: what was registered, and what came out."""
        import pandas as pd

        table = self.decided()
        rows = table[table["part"].isin(parts)] if parts else table
        shown = [
            {
                "claim": row["claim"],
                "of": row["place"],
                "metric": f"`{row['metric']}` of `{row['method']}` {WORDS[row['direction']]}"
                f" `{row['against']}`{_allowance(row)}",
                "n": row["n"],
                "difference": cell(row["effect_mean"], row["effect_low"], row["effect_high"]),
                "p (Holm)": "-" if math.isnan(row["p_holm"]) else f"{row['p_holm']:.2g}",
                "verdict": f"**{row['verdict']}**",
            }
            for _, row in rows.iterrows()
        ]
        return markdown(pd.DataFrame(shown))

    def verdict(self, name: str) -> str:
        """A claim's verdict in a word."""
        return str(self._row(name)["verdict"])

    def effect(self, name: str) -> str:
        """A claim's mean difference and interval, with its corrected p."""
        row = self._row(name)
        p = "-" if math.isnan(row["p_holm"]) else f"{row['p_holm']:.2g}"
        return f"{cell(row['effect_mean'], row['effect_low'], row['effect_high'])}, p = {p}"

    def lines(self, *names: str) -> str:
        """A list of claims, each with its verdict and numbers."""
        rows = [self._row(name) for name in names]
        return "\n".join(
            f"- **{row['verdict']}**: {row['claim']} {self._numbers(row)}" for row in rows
        )

    def _numbers(self, row: Any) -> str:
        if not row["n"]:
            return ""
        return f"`{row['metric']}` {self.effect(row.name)} ({row['scenario']}, {row['n']} seeds)"

    def count(self, verdict: str) -> int:
        """How many claims have a verdict."""
        return Counter(self.decided()["verdict"])[verdict]

    def _row(self, name: str) -> Any:
        table = self.decided()
        if name not in table.index:
            raise UserError(f"claim {name}: expected one of the registry")
        return table.loc[name]


FUNCTIONS = (
    "has",
    "value",
    "difference",
    "off",
    "table",
    "claims",
    "verdict",
    "effect",
    "lines",
    "count",
)
WORDS = {"less": "below", "greater": "above", "nearer": "nearer to the teacher than"}


def _allowance(row: Any) -> str:
    """What a claim's method may be worse by, or must be better by."""
    if row["slack"]:
        return f", but for {row['slack']:g}"
    return f" by {row['margin']:g}" if row["margin"] else ""


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
    """Path -> text of every page with numbers on record, as it should be.

    A page with markers has its template between them; another is its template as a whole.
    """
    found = {}
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


def write_pages(root: Path, record: Record) -> None:
    """Write every page anew, all or none. Raises UserError."""
    for path, text in pages(root, record).items():
        write_text(path, text)


def write_decided(record: Record) -> None:
    """Write the ledger of claims beside the record that decides it, as CSV and Markdown."""
    table = record.decided().reset_index()
    path = record.docs / "claims"
    write_text(path.with_suffix(".csv"), table.to_csv(index=False, float_format="%.6g"))
    write_text(path.with_suffix(".md"), record.claims())
