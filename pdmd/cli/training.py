"""Commands that train: the base network, banks, the experts of phases."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pdmd.cli.commands import LAUNCHED, Commands


def add_to(commands: Commands) -> None:
    """Add them to the command line."""
    fit = commands.stage(
        "fit", _fit, "fit the base network, or with --seeds one velocity a seed", "device"
    )
    fit.add_argument("--seeds", type=int, nargs="+", help="train together")
    kept = commands.stage("keep", _keep, "keep a fitted base network, to start from it later")
    kept.add_argument("--output", type=Path, required=True, help="where its weights go")
    text = "measure the teacher's errors of single Euler steps, over all t -> s"
    commands.stage("measure", _measure, text, "device")
    commands.stage("grid", _grid, "choose a method's noise levels and phase ends by those errors")
    text = "choose the re-noising range of each phase by how far the untrained student is off"
    commands.stage("range", _range, text, "device")
    commands.stage("bank", _bank, "precompute what the frozen experts hand to a phase", *LAUNCHED)
    commands.stage("distill", _distill, "train the expert of one phase", *LAUNCHED)


def _fit(args: argparse.Namespace) -> None:
    from pdmd.stages.fit import fit_base, fit_runs
    from pdmd.training.world import join

    with join(args.device) as world:
        if args.seeds:
            fit_runs(args.config, args.seeds, world)
        else:
            fit_base(args.config, world)


def _keep(args: argparse.Namespace) -> None:
    from pdmd.stages.fit import keep

    keep(args.config, args.output)


def _measure(args: argparse.Namespace) -> None:
    from pdmd.stages.measure import measure_steps
    from pdmd.training.world import join

    with join(args.device) as world:
        measure_steps(args.config, world)


def _grid(args: argparse.Namespace) -> None:
    from pdmd.stages.grid import choose_grid

    choose_grid(args.config)


def _range(args: argparse.Namespace) -> None:
    from pdmd.stages.ranges import choose_ranges
    from pdmd.training.world import join

    with join(args.device) as world:
        choose_ranges(args.config, world)


def _bank(args: argparse.Namespace) -> None:
    from pdmd.stages.bank import make_bank
    from pdmd.training.world import join

    with join(args.device) as world:
        make_bank(args.config, args.phase, args.seeds, world)


def _distill(args: argparse.Namespace) -> None:
    from pdmd.stages.distill import distill_phase
    from pdmd.training.world import join

    with join(args.device) as world:
        if world.device.type == "cuda" and world.leads:
            import torch

            from pdmd.planning.store import too_small

            held = torch.cuda.mem_get_info(world.device)[1]
            if line := too_small(args.config, args.phase, held, world.size, Path()):
                print(line, file=sys.stderr)
        distill_phase(args.config, args.phase, args.seeds, world)
