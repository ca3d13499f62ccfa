"""Table 1: what is trained, from the configuration and the code's own phases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pdmd.config.paper import Artefact
from pdmd.config.sections import Run
from pdmd.report.looks import look
from pdmd.report.paper.schemes import phases_drawn

if TYPE_CHECKING:
    import pandas as pd

THOUSAND = 1000  # the paper's noise levels
BETWEEN = " | "  # phases


def settings_table(artefact: Artefact, runs: Sequence[Run]) -> pd.DataFrame:
    """A row a base and method, the published ones first, of which less is known."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for one in artefact.published:
        for name, values in one.rows.items():
            row = {"source": f"published, {one.version}", "base": one.base}
            row["method"] = look(name).label
            rows.append(row | dict(zip(artefact.columns, values, strict=True)))
    rows += [_row(run) for run in runs]
    columns = list(dict.fromkeys(name for row in reversed(rows) for name in row))
    filled = [[row.get(name) or "-" for name in columns] for row in rows]
    return pd.DataFrame(filled, columns=columns, dtype=object)


def _row(run: Run) -> dict[str, Any]:
    phases, teacher, distill = phases_drawn(run), run.teacher, run.distill
    steps = BETWEEN.join(
        " ".join(_level(t) for t in phase.times[phase.first : phase.last]) for phase in phases
    )
    renoised = BETWEEN.join(
        f"{_level(max(phase.low, phase.floor))} to {_level(phase.high)}" for phase in phases
    )
    guidance = "" if teacher.guidance == 1 else f", CFG {teacher.guidance:g}"
    return {
        "source": "ours",
        "base": f"{run.scenario} ({run.model.family or run.model.kind})",
        "method": look(run.method).label,
        "steps": steps,
        "noised again in": renoised,
        "gradient through": "all calls" if run.student.backward == "all" else "the last call",
        "teacher": f"{teacher.steps} steps{guidance}",
        "updates": distill.updates,
        "batch": distill.batch,
    }


def _level(t: float) -> str:
    return f"{THOUSAND * t:.0f}"
