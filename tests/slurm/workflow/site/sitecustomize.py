"""With PACE in the environment: `pdmd distill` at a pace that leaves time for a fault.

Every update that is done is a line in steps.txt: its number, process and node. With LAST, too, it
ends that many seconds after all is written, and leaves a file done.txt before that.
"""

import atexit
import importlib.abc
import importlib.machinery
import os
import sys
import time
from pathlib import Path

MODULE = "pdmd.distill"


class Slowly(importlib.abc.MetaPathFinder):
    """Finds the module as ever, and changes its update once it is loaded."""

    def find_spec(self, name, path=None, target=None):
        if name != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module

        def load_and_change(module):
            load(module)
            slow_down(module.PhaseTrainer)

        spec.loader.exec_module = load_and_change
        return spec


def slow_down(trainer):
    """Wait before every update, and count it after."""
    update, pace = trainer.update, float(os.environ["PACE"])

    def slowly(self, step):
        time.sleep(pace)
        values = update(self, step)
        if os.environ.get("RANK", "0") == "0":
            node = os.environ.get("SLURMD_NODENAME", "-")
            with open("steps.txt", "a") as steps:
                steps.write(f"{step} {os.getpid()} {node}\n")
        return values

    trainer.update = slowly
    if float(os.environ.get("LAST", "0")):
        atexit.register(linger)


def linger():
    """Wait on the way to the exit."""
    Path("done.txt").touch()
    time.sleep(float(os.environ["LAST"]))


if "PACE" in os.environ:
    sys.meta_path.insert(0, Slowly())
