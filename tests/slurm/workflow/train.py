"""`pdmd` at a pace that leaves time for a fault, with a line in steps.txt for every update."""

import os
import sys
import time

import torch

from pdmd.cli import main
from pdmd.distill import PhaseTrainer

PACE = float(sys.argv[1])
update = PhaseTrainer.update


def slowly(trainer, step):
    """One update, counted when it is done."""
    time.sleep(PACE)
    values = update(trainer, step)
    with open("steps.txt", "a") as steps:
        steps.write(f"{step} {os.getpid()} {os.environ.get('SLURMD_NODENAME', '-')}\n")
    return values


PhaseTrainer.update = slowly
torch.set_num_threads(1)
sys.exit(main(sys.argv[2:]))
