"""A Snakemake whose own work does not grow with the jobs that have ended."""

from __future__ import annotations

import threading
from typing import Any

NAME = "_schedule_reevalutation"  # as Snakemake 9 spells it


def calm(scheduler: Any = None) -> None:
    """Let Snakemake look at its jobs once a second, and at each job's end.

    Its scheduler (9.27) asks for another look a second after each, to keep to its rate of
    submissions, with a thread for each wish. As every job's end is a look, too, there is one more
    look a second for each job that has ended, for as long as it runs: after 165 jobs they took 31%
    of a core. One wish at a time is as good: the next look makes the next wish.

    Args:
        scheduler: the class; None: Snakemake's own. One that has no such method is left alone.
    """
    from snakemake.scheduling.job_scheduler import JobScheduler

    chosen = JobScheduler if scheduler is None else scheduler
    if hasattr(chosen, NAME):
        setattr(chosen, NAME, _wish)


def _wish(self: Any, delay: float) -> None:
    """Look again after a delay in seconds, if no look is to come already."""
    if getattr(self, "_wished", False):
        return
    self._wished = True

    def look() -> None:
        self._wished = False
        self._open_jobs.release()

    timer = threading.Timer(delay, look)
    timer.daemon = True  # the last one is not waited for
    timer.start()
