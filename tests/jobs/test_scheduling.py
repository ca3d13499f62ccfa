"""What Snakemake does while it waits."""

import contextlib
import os
import subprocess
import sys
import threading
import time

import pytest

from pdmd.jobs.scheduling import calm

JOBS = 40
WORKFLOW = """
{first}
rule all:
    input: expand("{{i}}.txt", i=range({jobs}))
rule one:
    output: "{{i}}.txt"
    shell: "touch {{output}}"
"""


class Scheduler:
    """As much of Snakemake's as is changed."""

    def __init__(self):
        self._open_jobs = threading.Semaphore(0)

    def _schedule_reevalutation(self, delay):
        threading.Timer(delay, self._open_jobs.release).start()


@pytest.mark.parametrize(("calmed", "looks"), [(True, 1), (False, 20)], ids=["calm", "control"])
def test_of_many_wishes_for_a_look_one_is_granted(calmed, looks):
    class Mine(Scheduler):
        pass

    if calmed:
        calm(Mine)
    scheduler = Mine()
    for _ in range(20):
        scheduler._schedule_reevalutation(0.05)
    time.sleep(0.5)
    assert sum(scheduler._open_jobs.acquire(blocking=False) for _ in range(30)) == looks
    scheduler._schedule_reevalutation(0.05)  # and the next one is granted again
    assert scheduler._open_jobs.acquire(timeout=5)


def test_a_scheduler_without_the_method_is_left_alone():
    class Other:
        pass

    calm(Other)
    assert not hasattr(Other, "_schedule_reevalutation")


@pytest.mark.parametrize("calmed", [True, False], ids=["calm", "control"])
def test_threads_do_not_grow_with_the_jobs_that_have_ended(tmp_path, calmed):
    """The control is Snakemake as it is: where it has been mended, `calm` has had its day."""
    first = "from pdmd.jobs.scheduling import calm; calm()" if calmed else ""
    (tmp_path / "Snakefile").write_text(WORKFLOW.format(first=first, jobs=JOBS))
    command = [sys.executable, "-m", "snakemake", "-c1", "-q", "all"]
    process, most = subprocess.Popen(command, cwd=tmp_path), 0
    while process.poll() is None:
        with contextlib.suppress(OSError):
            most = max(most, len(os.listdir(f"/proc/{process.pid}/task")))
        time.sleep(0.02)
    assert process.returncode == 0
    assert (most < JOBS / 2) == calmed, most
