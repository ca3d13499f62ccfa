"""How the paper's tables are written, and what gathers them: an index, a LaTeX document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pdmd.config.paper import IMAGE, TABLE, Artefact
from pdmd.report.paper.scores import BETWEEN
from pdmd.report.writing import escaped, markdown, readable

if TYPE_CHECKING:
    import pandas as pd

CLOSED = (
    "Share of the gap from DMD2 to the teacher that is closed (1: as the teacher; more is past it)"
)
NOTE = "Ours: mean and 95% interval over seeds, of three or more; published values have none."
MOST = 3  # decimals
TITLE = "Phased DMD (arXiv 2510.27684): its tables and figures, made again at scale `{scale}`"
HEAD = r"""\documentclass{article}
\usepackage[a4paper,margin=2cm]{geometry}
\usepackage{booktabs,caption,graphicx}
\begin{document}
"""
PICTURE = r"""\begin{figure}[htbp]
\centering
\includegraphics[width=\textwidth,height=.8\textheight,keepaspectratio]{%s.pdf}
\caption*{%s}
\end{figure}
"""
TABULAR = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"  # as wide as a page


def table_texts(
    artefact: Artefact, values: pd.DataFrame, shares: pd.DataFrame | None
) -> dict[str, str]:
    """Ending -> text: csv, md, tex. A table of shares stands below that of values."""
    every, shown = values, [_shown(values)]
    if shares is not None and len(shares.columns) > 1:
        closing = {name: f"closed, {name}" for name in shares.columns if name != "method"}
        every = values.merge(shares.rename(columns=closing), on="method", how="left")
        shown.append(_shown(shares))
    caption = f"{artefact.caption} {NOTE}" if artefact.kind == "scores" else artefact.caption
    text = f"\n{CLOSED}:\n\n".join(markdown(frame) for frame in shown)
    return {
        "csv": every.to_csv(index=False, float_format="%.6g"),
        "md": f"**{artefact.name}.** {caption}\n\n{text}",
        "tex": latex(shown, _titled(artefact, caption)),
    }


def _titled(artefact: Artefact, caption: str) -> str:
    """An artefact's number in the paper and its caption, in LaTeX."""
    return rf"\textbf{{{escaped(artefact.name)} of the paper.}} {escaped(caption)}"


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and interval in a cell, "-" where there is no value."""
    plain = frame.copy()
    for name in plain.columns:
        if not name.endswith(("_mean", "_low", "_high")) and plain[name].dtype.kind == "f":
            plain[name] = _numbers(list(plain[name]))
    return readable(plain)


def _numbers(values: Sequence[float]) -> list[str]:
    """A column's values with as many decimals as one of them needs, at most MOST."""
    given = [f"{value:.{MOST}f}".rstrip("0") for value in values if not math.isnan(value)]
    decimals = max((len(one.partition(".")[2]) for one in given), default=0)
    return ["-" if math.isnan(value) else f"{value:.{decimals}f}" for value in values]


def latex(frames: Sequence[pd.DataFrame], caption: str) -> str:
    """Booktabs tables below one another, each column group's title over its columns."""
    lines = [r"\begin{table}[htbp]", r"\centering", rf"\caption*{{{caption}}}"]
    for number, frame in enumerate(frames):
        if number:
            lines.append(rf"\par\medskip {CLOSED}:\par\smallskip")
        lines += _tabular(frame)
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _tabular(frame: pd.DataFrame) -> list[str]:
    pairs = [_parted(str(name)) for name in frame.columns]
    lines = [TABULAR, rf"\begin{{tabular}}{{l{'r' * (len(pairs) - 1)}}}", r"\toprule"]
    if any(group for group, _ in pairs):
        lines += _grouped(pairs)
    lines += [_row([head for _, head in pairs]), r"\midrule"]
    lines += [_row(row) for row in frame.itertuples(index=False)]
    return [*lines, r"\bottomrule", r"\end{tabular}}"]


def _parted(name: str) -> tuple[str, str]:
    group, _, head = name.rpartition(BETWEEN)
    return group, head


def _grouped(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The row of groups' titles, and rules below them."""
    cells, rules, column = [], [], 1
    for group, members in groupby(pairs, lambda pair: pair[0]):
        width = len(list(members))
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{escaped(group)}}}" if group else "")
        if group:
            rules.append(rf"\cmidrule(lr){{{column}-{column + width - 1}}}")
        column += width
    return [" & ".join(cells) + r" \\", "".join(rules)]


def _row(cells: Sequence[Any]) -> str:
    first, *others = (escaped(str(cell)) for cell in cells)
    guard = "{}" if first.startswith(("[", "*")) else ""  # after \\ LaTeX takes them for its own
    return " & ".join([guard + first, *others]) + r" \\"


def index(
    listed: Sequence[Artefact],
    scale: str,
    made: Sequence[Artefact],
    tables: Sequence[str] = TABLE,
    images: Sequence[str] = IMAGE,
) -> str:
    """A page of all of the paper's artefacts: where each is, or why it is not.

    Args:
        tables, images: endings of their files.
    """
    import pandas as pd

    there = {one.id for one in made}
    rows = []
    for artefact in listed:
        endings = images if artefact.drawn else tables
        where = ", ".join(f"[{end}]({artefact.id}.{end})" for end in endings)
        why = artefact.why_not(scale) or "not run: no results of its methods are here"
        state = where if artefact.id in there else f"not made: {why}"
        rows.append({"paper": artefact.name, "what": artefact.caption, "here": state})
    title = TITLE.format(scale=scale)
    return f"# {title}\n\n{markdown(pd.DataFrame(rows))}"


def document(scale: str, made: Sequence[Artefact]) -> str:
    """A LaTeX document of all tables and figures: `pdflatex main.tex`."""
    title = escaped(TITLE.format(scale=scale).replace("`", ""))
    parts = [HEAD, rf"\section*{{{title}}}" + "\n"]
    for one in made:
        caption = _titled(one, one.caption)
        parts.append(
            PICTURE % (one.id, caption) if one.drawn else rf"\input{{{one.id}.tex}}" + "\n"
        )
    return "".join([*parts, r"\end{document}", "\n"])
