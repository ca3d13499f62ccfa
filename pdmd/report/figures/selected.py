"""Which methods a figure shows that has no room for all."""

from __future__ import annotations

from collections.abc import Sequence

from pdmd.config.sections import Run

# In the order of the paper's comparisons; of each group the first that is there.
FIRST = (
    ("teacher",),
    ("dmd2",),
    ("phased2",),
    ("phased4",),
    ("dmd1",),
    ("teacher4", "teacher4-shift3", "teacher4-shift2", "teacher4-even"),
    ("dmd",),
)
AGAIN = "-again"


def selected(runs: Sequence[Run], most: int) -> list[Run]:
    """At most so many methods, those of the paper's comparisons before others, in order of runs.

    Further draws of a teacher come last of all.
    """
    names = [run.method for run in runs]
    groups = ([name for name in group if name in names][:1] for group in FIRST)
    wanted = [name for group in groups for name in group]
    others = [name for name in names if name not in wanted]
    others.sort(key=lambda name: name.endswith(AGAIN))
    kept = [*wanted, *others][:most]
    return [run for run in runs if run.method in kept]
