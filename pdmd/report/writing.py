"""How a table is written: CSV, and for people Markdown and LaTeX with an interval in a cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdmd.files.storage import write_text

if TYPE_CHECKING:
    import pandas as pd

FINEST = 6  # digits after the point, at most


def write_table(
    frame: pd.DataFrame, path: Path, caption: str, columns: Sequence[str] | None = None
) -> None:
    """Write <path>.csv and its .md and .tex twins, which may have some of its columns alone."""
    if any(is_count(frame, column) for column in frame.columns):
        caption += " Where fewer seeds have a metric, n says how many."
    write_text(path.with_suffix(".csv"), frame.to_csv(index=False, float_format="%.6g"))
    short = readable(frame if columns is None else frame[list(columns)])
    write_text(path.with_suffix(".md"), f"{caption}\n\n{markdown(short)}")
    write_text(path.with_suffix(".tex"), latex(short, caption))


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """Fold mean, low and high of a metric into one cell: mean [low, high], n if seeds lack it."""
    import pandas as pd

    columns: dict[str, list[str]] = {}
    for column in frame.columns:
        if column.endswith("_mean"):
            name = column.removesuffix("_mean")
            triples = zip(frame[column], frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
            columns[name] = [cell(*triple) for triple in triples]
            if f"{name}_n" in frame.columns:
                counts = zip(columns[name], frame[f"{name}_n"], frame["n"], strict=True)
                columns[name] = [
                    f"{cell} (n={count})" if 0 < count < n else cell for cell, count, n in counts
                ]
        elif not column.endswith(("_low", "_high")) and not is_count(frame, column):
            columns[column] = [plain(column, value) for value in frame[column]]
    return pd.DataFrame(columns)


def plain(column: str, value: Any) -> str:
    """A value that has no interval; of a p, NaN is none."""
    if column not in ("p", "p_holm"):
        return str(value)
    return "-" if math.isnan(value) else f"{value:.2g}"


def cell(mean: float, low: float, high: float) -> str:
    """mean [low, high] as tables print it, "-" of nothing; digits enough to tell the ends apart."""
    if math.isnan(mean):
        return "-"
    size = max(abs(mean), 1e-9)
    digits = 0 if size >= 1000 else 1 if size >= 10 else 3
    if math.isnan(low) or math.isclose(low, high):
        return f"{mean:.{digits}f}"
    if size < 1:
        digits = max(digits, min(FINEST, -math.floor(math.log10((high - low) / 2))))
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def markdown(frame: pd.DataFrame) -> str:
    """A Markdown table with padded columns."""
    cells = [list(frame.columns), *frame.itertuples(index=False)]
    rows = [[_one_line(value).replace("|", r"\|") for value in row] for row in cells]
    header = rows[0]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = [
        "| " + " | ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{sign: rf"\{sign}" for sign in "#$%&_{}"},
}


def latex(frame: pd.DataFrame, caption: str) -> str:
    """A booktabs table."""
    head = [str(column).replace("_", " ") for column in frame.columns]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(frame.columns) - 1)}}}",
        r"\toprule",
        _latex_row(head),
        r"\midrule",
        *(_latex_row(row) for row in frame.itertuples(index=False)),
    ]
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text as LaTeX prints it, in one line."""
    return "".join(LATEX.get(sign, sign) for sign in _one_line(text))


def _latex_row(cells: Sequence[Any]) -> str:
    first, *others = (escaped(str(cell)) for cell in cells)
    # after \\ LaTeX takes [ for an option and * for a variant
    guard = "{}" if first.startswith(("[", "*")) else ""
    return " & ".join([guard + first, *others]) + r" \\"


def _one_line(value: Any) -> str:
    return " ".join(str(value).split())


def is_count(frame: pd.DataFrame, column: str) -> bool:
    return column.endswith("_n") and f"{column.removesuffix('_n')}_mean" in frame.columns
