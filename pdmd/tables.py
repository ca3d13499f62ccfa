"""Tables of record: a row a method, 95% intervals over seeds, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdmd import provenance
from pdmd.catalogue import FIDELITY as FIDELITY
from pdmd.catalogue import PROMPTED, TABLES
from pdmd.config import Config
from pdmd.errors import UserError
from pdmd.metrics.intervals import defined, mean_interval
from pdmd.metrics.ranges import ANY, Range, ranges
from pdmd.outputs import PROVENANCE, table_reads
from pdmd.paths import Paths
from pdmd.reading import read_boundaries, read_costs, read_frames, read_metrics
from pdmd.storage import write_text

if TYPE_CHECKING:
    import pandas as pd

MODES = ["modes_covered", "tv", "effective_modes", "spread", "inliers", "energy"]
STYLES = ["modes_covered", "tv"]
DIVERSITY = ["coverage", "cosine", "feature_cosine", "density", "accuracy", "kid"]
VELOCITY = ["velocity_rmse", "relative_error", "trajectory_rmse"]
# The paper's Table 3, and what else shows diversity.
PICTURES = {
    "diversity": ["cosine", "lpips", "vendi", "coverage", "cosine_pixels"],
    "modes": ["modes_coarse", "entropy_coarse", "tv_coarse", "modes_fine", "entropy_fine"],
    "fidelity": ["fid", "kid", "fid_teacher", "kid_teacher", "density", "accuracy", "clip"],
}
# The paper's Table 2 (optical flow, dynamic degree, FID, FVD against the base model), and more.
CLIPS = {
    "motion": [
        "flow",
        "dynamic",
        "speed",
        "speed_w1_teacher",
        "speed_w1",
        "modes_free",
        "entropy_free",
        "control",
        "control_camera",
    ],
    "diversity": ["cosine", "lpips", "vendi", "coverage"],
    "fidelity": ["fvd_teacher", "kvd_teacher", "fvd", "kvd", "density", "accuracy", "clip"],
}
RECOVERED = {
    "emoji": ["cosine", "lpips", "vendi", "coverage", "entropy_coarse"],
    "moving": ["flow", "speed", "speed_w1", "entropy_free", "cosine", "lpips", "coverage"],
}
CAPTIONS = {
    "diversity": "diversity within a prompt",
    "modes": "known modes covered",
    "fidelity": "distance to held-out pictures and to the teacher's, alignment",
    "motion": "motion and its control",
}
COST = ["updates", "seconds", "forward_equivalents", "peak_memory_mb"]

EQUAL = {
    "emoji": ["coverage", "entropy_coarse", "tv_coarse", "accuracy"],
    "moving": [
        "coverage",
        "entropy_free",
        "speed",
        "speed_w1",
        "control",
        "control_camera",
        "accuracy",
    ],
    "grid": ["modes_covered", "tv", "effective_modes", "spread"],
    "digits": ["coverage", "cosine", "accuracy", "kid"],
}


def interval_table(
    values: Mapping[str, Sequence[Mapping[str, float | None]]],
    names: Sequence[str],
    limits: Mapping[str, Range] | None = None,
) -> pd.DataFrame:
    """Method -> its seeds' metrics, as a tidy frame: method, n, <metric>_mean, _low, _high.

    n counts a method's seeds. A metric that only some seeds of a method have (in others it is not
    defined) has one more column, <metric>_n: the seeds that its mean is over.

    Args:
        limits: metric -> its range, at which intervals are cut.
    """
    import pandas as pd

    rows, ends = [], limits or {}
    for method, seeds in values.items():
        row: dict[str, Any] = {"method": method, "n": len(seeds)}
        for name in names:
            own = [seed.get(name) for seed in seeds]
            interval = mean_interval(own, ends.get(name, ANY))
            row |= dict(zip(_columns(name), (*interval, len(defined(own))), strict=True))
        rows.append(row)
    columns = ["method", "n", *(column for name in names for column in _columns(name))]
    return _without_full_counts(pd.DataFrame(rows, columns=columns))


def _columns(name: str) -> list[str]:
    return [f"{name}_{end}" for end in ("mean", "low", "high", "n")]


def _without_full_counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Drop <metric>_n where every method's seeds all have the metric, or none has."""
    counts = [column for column in frame.columns if _counts(frame, column)]
    full = [name for name in counts if (frame[name].eq(0) | frame[name].eq(frame["n"])).all()]
    return frame.drop(columns=full)


def _counts(frame: pd.DataFrame, column: str) -> bool:
    return column.endswith("_n") and f"{column.removesuffix('_n')}_mean" in frame.columns


def stacked(frames: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Frames one below the other, each metric's seeds counted in all if in one; or no rows."""
    import pandas as pd

    if not frames:
        return pd.DataFrame(columns=list(columns))
    found = pd.concat(frames, ignore_index=True)
    counts = [column for column in found.columns if _counts(found, column)]
    for column in counts:
        name = column.removesuffix("_n")
        all_or_none = found["n"].where(found[f"{name}_mean"].notna(), 0)
        values = found.pop(column).fillna(all_or_none).astype(int)
        found.insert(list(found.columns).index(f"{name}_high") + 1, column, values)
    return found


def crossing(frontier: pd.DataFrame, fidelity: str, level: float) -> dict[str, float] | None:
    """Metrics where training last passes a level of fidelity, linear between snapshots.

    The last pass, because students start as the teacher's few-step sampler. Inliers count on the
    way up only: a collapsed start has many, too, and loses them first. Density falls as a student
    gains diversity, and counts both ways. None if training never passes the level. Snapshots whose
    fidelity is undefined are left out.
    """
    frontier = frontier.dropna(subset=[fidelity])
    above = (frontier[fidelity] >= level).to_numpy()
    passes = above[1:] > above[:-1] if fidelity == "inliers" else above[1:] != above[:-1]
    if not passes.any():
        return None
    last = passes.nonzero()[0][-1]
    before, after = frontier.iloc[last], frontier.iloc[last + 1]
    share = (level - before[fidelity]) / (after[fidelity] - before[fidelity])
    mixed = before + share * (after - before)
    return {str(name): float(value) for name, value in mixed.items()}


def write_table(frame: pd.DataFrame, path: Path, caption: str) -> None:
    """Write <path>.csv and its .md and .tex twins."""
    if any(_counts(frame, column) for column in frame.columns):
        caption += " Where fewer seeds have a metric, n says how many."
    write_text(path.with_suffix(".csv"), frame.to_csv(index=False, float_format="%.6g"))
    short = readable(frame)
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
            columns[name] = [_cell(*triple) for triple in triples]
            if f"{name}_n" in frame.columns:
                counts = zip(columns[name], frame[f"{name}_n"], frame["n"], strict=True)
                columns[name] = [
                    f"{cell} (n={own})" if 0 < own < n else cell for cell, own, n in counts
                ]
        elif not column.endswith(("_low", "_high")) and not _counts(frame, column):
            columns[column] = [str(value) for value in frame[column]]
    return pd.DataFrame(columns)


def _cell(mean: float, low: float, high: float) -> str:
    if math.isnan(mean):
        return "-"
    size = max(abs(mean), 1e-9)
    digits = 0 if size >= 1000 else 1 if size >= 10 else 3
    if math.isnan(low) or math.isclose(low, high):
        return f"{mean:.{digits}f}"
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


def equal_fidelity_table(configs: Sequence[Config], levels: Sequence[float]) -> pd.DataFrame:
    """Diversity where each seed's training last passes a level of fidelity.

    `n` counts the seeds that pass it; a method that never does has n = 0.
    """
    data = configs[0]["data"]
    fidelity, names, frames = FIDELITY[data["kind"]], EQUAL[data["kind"]], []
    for level in levels:
        found: dict[str, list[dict[str, float]]] = {}
        for config in _distilled(configs):
            paths = [Paths(config).seed(seed, "frontier.csv") for seed in config["seeds"]]
            hits = [
                crossing(frontier.drop(columns="step"), fidelity, level)
                for frontier in read_frames(paths, "step", [fidelity, *names])
            ]
            found[config["method"]] = [hit for hit in hits if hit is not None]
        frame = interval_table(found, names, ranges(names, data))
        frame.insert(1, fidelity, level)
        frames.append(frame)
    return stacked(frames, ["method", fidelity, "n"])


def _distilled(configs: Sequence[Config]) -> list[Config]:
    return [config for config in configs if config["kind"] == "distill"]


def exits_table(configs: Sequence[Config]) -> pd.DataFrame:
    """What each exit step of the last phase gives, for methods that train with random exits.

    Exit "all" is the mixture over exits, which the truncated gradient matches to the teacher.
    """
    data = configs[0]["data"]
    names, frames = [FIDELITY[data["kind"]], *EQUAL[data["kind"]]], []
    for config in _distilled(configs):
        if config["student"]["backward"] != "exit":
            continue
        paths = [Paths(config).seed(seed, "exits.csv") for seed in config["seeds"]]
        seeds = read_frames(paths, "exit", names)
        if "all" not in set(seeds[0]["exit"]):
            raise UserError(f"{paths[0]}: exit all: missing: expected the mixture over exits")
        if len(seeds[0]) <= 2:
            continue  # a phase of one step has one exit
        frames += _by_row(config["method"], seeds, "exit", names, data)
    return stacked(frames, ["method", "exit", "n"])


def experts_table(configs: Sequence[Config]) -> pd.DataFrame:
    """How pictures change when one of two experts is exchanged: in layout, and in detail."""
    names, frames = ["layout", "detail"], []
    for config in _distilled(configs):
        if len(config["student"]["boundaries"]) != 2:
            continue
        paths = [Paths(config).seed(seed, "experts.csv") for seed in config["seeds"]]
        seeds = read_frames(paths, "variant", names)
        frames += _by_row(config["method"], seeds, "variant", names, configs[0]["data"])
    return stacked(frames, ["method", "variant", "n"])


def _by_row(
    method: str, seeds: Sequence[pd.DataFrame], key: str, names: Sequence[str], data: Config
) -> list[pd.DataFrame]:
    """A frame for each row of the seeds' files, which have the same rows."""
    frames = []
    for number, row in enumerate(seeds[0][key]):
        found = [{name: float(seed[name].iloc[number]) for name in names} for seed in seeds]
        frame = interval_table({method: found}, names, ranges(names, data))
        frame.insert(1, key, row)
        frames.append(frame)
    return frames


def boundary_table(configs: Sequence[Config]) -> pd.DataFrame:
    """How far the samples that leave each phase are from the teacher's law at that noise level."""
    frames = []
    for config in _distilled(configs):
        paths = [Paths(config).seed(seed, "boundary.json") for seed in config["seeds"]]
        seeds = [read_boundaries(path, len(config["student"]["boundaries"])) for path in paths]
        for number in range(len(seeds[0])):
            frame = interval_table({config["method"]: [one[number] for one in seeds]}, ["energy"])
            frame.insert(1, "phase", number + 1)
            frame.insert(2, "t", round(seeds[0][number]["t"], 4))
            frames.append(frame)
    return stacked(frames, ["method", "phase", "t", "n"])


def recovered_table(configs: Sequence[Config], names: Sequence[str]) -> pd.DataFrame:
    """The share of the gap from DMD2 to the teacher that each method closes, seed by seed.

    (value - DMD2) / (teacher - DMD2): 1 is the teacher, 0 is DMD2, more than 1 is past the teacher.
    The row `gap` is the mean gap and its 95% interval; where that holds 0, a share of it would mean
    nothing and is NaN.
    """
    import pandas as pd

    metrics = read_metrics(configs, names)
    if not {"teacher", "dmd2"} <= metrics.keys():
        return pd.DataFrame(columns=["method", "n"])
    pairs = list(zip(metrics["teacher"], metrics["dmd2"], strict=True))
    found: dict[str, list[dict[str, float]]] = {
        "gap": [{name: t[name] - d[name] for name in names} for t, d in pairs]
    }
    told = [name for name in names if not _holds_zero([gap[name] for gap in found["gap"]])]
    for method, seeds in metrics.items():
        if method in ("teacher", "dmd2"):
            continue
        found[method] = [
            {name: _share(own[name], t[name], d[name]) for name in told}
            for own, (t, d) in zip(seeds, pairs, strict=True)
        ]
    return interval_table(found, names)


def _share(own: float, teacher: float, dmd2: float) -> float:
    return (own - dmd2) / (teacher - dmd2) if teacher != dmd2 else math.nan


def _holds_zero(gaps: Sequence[float]) -> bool:
    """Whether the 95% interval of the gaps holds 0; one seed has none, and does not."""
    _, low, high = mean_interval(gaps)
    return low <= 0 <= high


NOTE = "Mean and 95% interval over seeds, cut to what the metric can be."


def metric_tables(kind: str) -> dict[str, tuple[list[str], str]]:
    """Table -> its metrics of record and its caption, for a kind of data."""
    if kind == "atoms":
        return {"velocity": (VELOCITY, "error against the exact velocity")}
    if kind in PROMPTED:
        shown = PICTURES if kind == "emoji" else CLIPS
        return {name: (columns, CAPTIONS[name]) for name, columns in shown.items()}
    if kind == "grid":
        diversity = ["effective_modes", "tv", "modes_covered"]
        return {"modes": (MODES, "modes and fidelity"), "diversity": (diversity, "diversity")}
    return {"modes": (STYLES, "writing styles covered"), "diversity": (DIVERSITY, "diversity")}


def write_tables(configs: Sequence[Config]) -> None:
    """Write every table of one scenario from its resolved runs."""
    first = configs[0]
    data, title, folder = first["data"], first["title"], Paths(first).scenario / "tables"
    for name, (columns, what) in metric_tables(data["kind"]).items():
        metrics = read_metrics(configs, columns)
        table = interval_table(metrics, columns, ranges(columns, data))
        write_table(table, folder / name, f"{title}: {what}. {NOTE}")
    if data["kind"] != "atoms":
        _write_paths_of_training(configs, folder, title)
    if data["kind"] == "grid":
        caption = f"{title}: energy distance to the exact law at the end of each phase. {NOTE}"
        write_table(boundary_table(configs), folder / "boundary", caption)
    if data["kind"] in PROMPTED:
        caption = f"{title}: share of the gap from DMD2 to the teacher that is closed. {NOTE}"
        recovered = recovered_table(configs, RECOVERED[data["kind"]])
        write_table(recovered, folder / "recovered", caption)
        caption = f"{title}: change of pictures when one expert is exchanged. {NOTE}"
        write_table(experts_table(configs), folder / "experts", caption)
    costs = interval_table(read_costs(configs), COST, ranges(COST))
    write_table(costs, folder / "runs", f"{title}: cost of one seed's training. {NOTE}")
    inputs = [path for config in configs for path in table_reads(config)]
    written = [f"{name}.{end}" for name in TABLES[data["kind"]] for end in ("csv", "md", "tex")]
    provenance.record(folder / PROVENANCE, first, first["seeds"], inputs, written)


def _write_paths_of_training(configs: Sequence[Config], folder: Path, title: str) -> None:
    """The tables that follow training: at equal fidelity, and by exit step."""
    kind, levels = configs[0]["data"]["kind"], configs[0]["tables"]["levels"]
    equal = equal_fidelity_table(configs, levels)
    caption = f"{title}: diversity where training last passes the same {FIDELITY[kind]}. {NOTE}"
    write_table(equal, folder / "equal_fidelity", caption)
    caption = f"{title}: samples by exit step of the last phase, and their mixture. {NOTE}"
    write_table(exits_table(configs), folder / "exits", caption)
