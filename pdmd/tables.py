"""Tables of record: a row a method, 95% intervals over seeds, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdmd import provenance
from pdmd.catalogue import FIDELITY as FIDELITY
from pdmd.catalogue import PROMPTED, TABLES
from pdmd.config import Config
from pdmd.metrics.intervals import mean_interval
from pdmd.outputs import PROVENANCE, table_reads
from pdmd.paths import Paths
from pdmd.storage import read_json, write_text

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
    values: Mapping[str, Sequence[Mapping[str, float]]], names: Sequence[str]
) -> pd.DataFrame:
    """Method -> its seeds' metrics, as a tidy frame: method, n, <metric>_mean, _low, _high."""
    import pandas as pd

    rows = []
    for method, seeds in values.items():
        row: dict[str, Any] = {"method": method, "n": len(seeds)}
        for name in names:
            mean, low, high = mean_interval([seed.get(name, math.nan) for seed in seeds])
            row |= {f"{name}_mean": mean, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def crossing(frontier: pd.DataFrame, fidelity: str, level: float) -> dict[str, float] | None:
    """Metrics where training last passes a level of fidelity, linear between snapshots.

    The last pass, because students start as the teacher's few-step sampler. Inliers count on the
    way up only: a collapsed start has many, too, and loses them first. Density falls as a student
    gains diversity, and counts both ways. None if training never passes the level.
    """
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
    write_text(path.with_suffix(".csv"), frame.to_csv(index=False, float_format="%.6g"))
    short = readable(frame)
    write_text(path.with_suffix(".md"), f"{caption}\n\n{markdown(short)}")
    write_text(path.with_suffix(".tex"), latex(short, caption))


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """Fold mean, low and high of a metric into one cell: mean [low, high]."""
    import pandas as pd

    columns: dict[str, list[str]] = {}
    for column in frame.columns:
        if column.endswith("_mean"):
            name = column.removesuffix("_mean")
            triples = zip(frame[column], frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
            columns[name] = [_cell(*triple) for triple in triples]
        elif not column.endswith(("_low", "_high")):
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
    header = [str(column) for column in frame.columns]
    rows = [header, *[[str(value) for value in row] for row in frame.itertuples(index=False)]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = [
        "| " + " | ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def latex(frame: pd.DataFrame, caption: str) -> str:
    """A booktabs table."""

    def escape(text: str) -> str:
        return text.replace("&", r"\&").replace("%", r"\%").replace("_", r"\_")

    head = " & ".join(escape(str(column).replace("_", " ")) for column in frame.columns)
    body = [
        " & ".join(escape(str(v)) for v in row) + r" \\" for row in frame.itertuples(index=False)
    ]
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape(caption)}}}"]
    lines += [
        rf"\begin{{tabular}}{{l{'r' * (len(frame.columns) - 1)}}}",
        r"\toprule",
        rf"{head} \\",
    ]
    lines += [r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def read_metrics(configs: Iterable[Config]) -> dict[str, list[dict[str, float]]]:
    """Method -> metrics.json of each seed."""
    return {
        config["method"]: [
            read_json(Paths(config).seed(seed, "metrics.json")) for seed in config["seeds"]
        ]
        for config in configs
    }


def read_costs(configs: Iterable[Config]) -> dict[str, list[dict[str, float]]]:
    """Method -> cost of each seed, summed over phases; seeds trained together share the seconds."""
    costs: dict[str, list[dict[str, float]]] = {}
    for config in configs:
        if config["kind"] == "teacher":
            continue
        paths, seeds = Paths(config), []
        phases = len(config["student"]["boundaries"]) if config["kind"] == "distill" else 1
        for seed in config["seeds"]:
            parts = [
                read_json(paths.phase(seed, number, "metrics.json"))
                for number in range(1, phases + 1)
            ]
            seeds.append(
                {
                    "updates": sum(part["updates"] for part in parts),
                    "seconds": sum(p["seconds"] / p["runs_trained_together"] for p in parts),
                    "forward_equivalents": sum(
                        sum(part["forward_equivalents_by_role"].values()) for part in parts
                    ),
                    "peak_memory_mb": max(part["peak_memory_mb"] for part in parts),
                }
            )
        costs[config["method"]] = seeds
    return costs


def equal_fidelity_table(configs: Sequence[Config], levels: Sequence[float]) -> pd.DataFrame:
    """Diversity where each seed's training last passes a level of fidelity.

    `n` counts the seeds that pass it; a method that never does has n = 0.
    """
    import pandas as pd

    kind = configs[0]["data"]["kind"]
    fidelity, frames = FIDELITY[kind], []
    for level in levels:
        found: dict[str, list[dict[str, float]]] = {}
        for config in configs:
            if config["kind"] != "distill":
                continue
            paths = [Paths(config).seed(seed, "frontier.csv") for seed in config["seeds"]]
            hits = [crossing(pd.read_csv(path), fidelity, level) for path in paths]
            found[config["method"]] = [hit for hit in hits if hit is not None]
        frame = interval_table(found, EQUAL[kind])
        frame.insert(1, fidelity, level)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def exits_table(configs: Sequence[Config]) -> pd.DataFrame:
    """What each exit step of the last phase gives, for methods that train with random exits.

    Exit "all" is the mixture over exits, which the truncated gradient matches to the teacher.
    """
    import pandas as pd

    kind, frames = configs[0]["data"]["kind"], []
    for config in configs:
        if config["kind"] != "distill" or config["student"]["backward"] != "exit":
            continue
        paths = [Paths(config).seed(seed, "exits.csv") for seed in config["seeds"]]
        seeds = [pd.read_csv(path, dtype={"exit": str}).set_index("exit") for path in paths]
        if len(seeds[0]) <= 2:
            continue  # a phase of one step has one exit
        for exit_step in seeds[0].index:
            found = [seed.loc[exit_step].to_dict() for seed in seeds]
            frame = interval_table({config["method"]: found}, [FIDELITY[kind], *EQUAL[kind]])
            frame.insert(1, "exit", exit_step)
            frames.append(frame)
    columns = ["method", "exit", "n"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def experts_table(configs: Sequence[Config]) -> pd.DataFrame:
    """How pictures change when one of two experts is exchanged: in layout, and in detail."""
    import pandas as pd

    frames = []
    for config in configs:
        if config["kind"] != "distill" or len(config["student"]["boundaries"]) != 2:
            continue
        paths = [Paths(config).seed(seed, "experts.csv") for seed in config["seeds"]]
        seeds = [pd.read_csv(path).set_index("variant") for path in paths]
        for variant in seeds[0].index:
            found = [seed.loc[variant].to_dict() for seed in seeds]
            frame = interval_table({config["method"]: found}, ["layout", "detail"])
            frame.insert(1, "variant", variant)
            frames.append(frame)
    columns = ["method", "variant", "n"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def boundary_table(configs: Sequence[Config]) -> pd.DataFrame:
    """How far the samples that leave each phase are from the teacher's law at that noise level."""
    import pandas as pd

    frames = []
    for config in configs:
        if config["kind"] != "distill":
            continue
        paths = [Paths(config).seed(seed, "boundary.json") for seed in config["seeds"]]
        seeds = [read_json(path) for path in paths]
        for number in range(len(seeds[0])):
            frame = interval_table({config["method"]: [one[number] for one in seeds]}, ["energy"])
            frame.insert(1, "phase", number + 1)
            frame.insert(2, "t", round(seeds[0][number]["t"], 4))
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def recovered_table(configs: Sequence[Config], names: Sequence[str]) -> pd.DataFrame:
    """The share of the gap from DMD2 to the teacher that each method closes, seed by seed.

    (value - DMD2) / (teacher - DMD2): 1 is the teacher, 0 is DMD2, more than 1 is past the teacher.
    The row `gap` is the mean gap and its 95% interval; where that holds 0, a share of it would mean
    nothing and is NaN.
    """
    import pandas as pd

    metrics = read_metrics(configs)
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


def write_tables(configs: Sequence[Config]) -> None:
    """Write every table of one scenario from its resolved runs."""
    first = configs[0]
    kind, title, folder = first["data"]["kind"], first["title"], Paths(first).scenario / "tables"
    metrics = read_metrics(configs)
    note = "Mean and 95% interval over seeds."
    if kind == "atoms":
        table = interval_table(metrics, VELOCITY)
        write_table(
            table, folder / "velocity", f"{title}: error against the exact velocity. {note}"
        )
    elif kind in PROMPTED:
        for name, columns in (PICTURES if kind == "emoji" else CLIPS).items():
            caption = f"{title}: {CAPTIONS[name]}. {note}"
            write_table(interval_table(metrics, columns), folder / name, caption)
        caption = f"{title}: share of the gap from DMD2 to the teacher that is closed. {note}"
        write_table(recovered_table(configs, RECOVERED[kind]), folder / "recovered", caption)
        caption = f"{title}: change of pictures when one expert is exchanged. {note}"
        write_table(experts_table(configs), folder / "experts", caption)
        _write_paths_of_training(configs, folder, title, note)
    else:
        modes = MODES if kind == "grid" else STYLES
        what = "modes and fidelity" if kind == "grid" else "writing styles covered"
        write_table(interval_table(metrics, modes), folder / "modes", f"{title}: {what}. {note}")
        _write_paths_of_training(configs, folder, title, note)
        if kind == "grid":
            caption = f"{title}: energy distance to the exact law at the end of each phase. {note}"
            write_table(boundary_table(configs), folder / "boundary", caption)
        diversity = ["effective_modes", "tv", "modes_covered"] if kind == "grid" else DIVERSITY
        write_table(
            interval_table(metrics, diversity), folder / "diversity", f"{title}: diversity. {note}"
        )
    costs = interval_table(read_costs(configs), COST)
    write_table(costs, folder / "runs", f"{title}: cost of one seed's training. {note}")
    inputs = [path for config in configs for path in table_reads(config)]
    written = [f"{name}.{end}" for name in TABLES[kind] for end in ("csv", "md", "tex")]
    provenance.record(folder / PROVENANCE, first, first["seeds"], inputs, written)


def _write_paths_of_training(
    configs: Sequence[Config], folder: Path, title: str, note: str
) -> None:
    """The tables that follow training: at equal fidelity, and by exit step."""
    kind, levels = configs[0]["data"]["kind"], configs[0]["tables"]["levels"]
    equal = equal_fidelity_table(configs, levels)
    caption = f"{title}: diversity where training last passes the same {FIDELITY[kind]}. {note}"
    write_table(equal, folder / "equal_fidelity", caption)
    caption = f"{title}: samples by exit step of the last phase, and their mixture. {note}"
    write_table(exits_table(configs), folder / "exits", caption)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The records of a stats.jsonl."""
    return [json.loads(line) for line in path.read_text().splitlines()]
