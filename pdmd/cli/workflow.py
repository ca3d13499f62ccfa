"""Commands that run the workflow, or look at it: `demo`, `status`, `plan` and so on."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pdmd.cli.commands import Commands
from pdmd.errors import UserError


def add_to(commands: Commands) -> None:
    """Add them to the command line."""
    demo = commands.add("demo", _demo, "run everything through Snakemake, with progress")
    demo.add_argument("--cores", type=int, default=2, help="cores to use (default: 2)")
    demo.add_argument("snakemake", nargs="*", help="Snakemake's arguments, such as --configfile")
    warm = commands.add("warm", _warm, "run a command whose pdmd commands start without imports")
    warm.add_argument("command", nargs="*", help="such as snakemake -c2")
    warm.add_argument("--serve", type=Path, help=argparse.SUPPRESS)  # by this socket
    launch = commands.add(
        "launch", _launch, "run a stage that trains or draws in several processes"
    )
    launch.add_argument("--nodes", type=int, default=1, help="of a Slurm allocation (default: 1)")
    launch.add_argument("--processes", type=int, default=1, help="on each node (default: 1)")
    launch.add_argument("--gpus", type=int, default=0, help="on each node, 0 or one a process")
    launch.add_argument("command", nargs="*", help="such a command and its arguments, after --")
    status = commands.add(
        "status", _status, "show which jobs run where, why others wait, and how far training is"
    )
    status.add_argument("--results", default="results", help="results folder (default: results)")
    resolve = commands.add("resolve", _resolve, "write the configs of all jobs, as Snakemake does")
    resolve.add_argument("--root", type=Path, default=Path(), help="the repository (default: .)")
    resolve.add_argument(
        "--configfile", type=Path, nargs="*", default=[], help="overlays over config/config.yaml"
    )
    pairs = "settings over them, as for Snakemake"
    resolve.add_argument("--config", dest="pairs", nargs="*", metavar="KEY=VALUE", help=pairs)
    ablation = commands.add(
        "ablate", _ablate, "run an ablation beside what is there; see config/README"
    )
    ablation.add_argument("file", type=Path, help="such as config/ablations/fake_updates.yaml")
    overlays = "overlays of config.yaml, whose results it joins"
    ablation.add_argument("--configfile", type=Path, nargs="+", default=[], help=overlays)
    ablation.add_argument("-n", "--dry-run", action="store_true", help="say what it would train")
    ablation.add_argument("snakemake", nargs="*", help="further Snakemake arguments, after --")
    ablation.add_argument("--planned", action="store_true", help=argparse.SUPPRESS)  # by a rule
    plan = commands.add(
        "plan", _plan, "what distilling a released model takes, without its weights"
    )
    plan.add_argument("--gpus", help="that share a batch (default: as configured)")
    plan.add_argument("--gpu", default="h100", help="whose speed and memory (default: h100)")
    plan.add_argument("--gpu-memory", metavar="GIB", help="of one (default: as of that GPU)")
    plan.add_argument("--shard", action="store_true", help="share out weights, too (computed)")
    plan.add_argument("--json", action="store_true", help="bytes, operations and minutes as JSON")
    _add_rehearsed(plan)
    text = "measure updates of a released model's trainer, with random weights"
    measured = commands.add("bench", _bench, text)
    measured.add_argument("--random-init", action="store_true", help="the only weights there are")
    measured.add_argument("--tiny", action="store_true", help="the tiny model of config/tiny.yaml")
    measured.add_argument("--phase", default="1", help="of the method (default: 1)")
    measured.add_argument("--size", help="one of data.sizes (default: that of most tokens)")
    measured.add_argument("--rows", help="samples of an update (default: two microbatches)")
    measured.add_argument("--updates", default="3", help="that are measured (default: 3)")
    measured.add_argument("--warm", default="2", help="updates before them (default: 2)")
    backend = "one of diffusers' backends, such as flash (default: native)"
    measured.add_argument("--attention", metavar="NAME", help=backend)
    measured.add_argument("--compile", action="store_true", help="compile blocks")
    measured.add_argument("--output", type=Path, metavar="FILE", help="JSON (default: printed)")
    where = "where it computes (default: cpu)"
    measured.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=where)
    _add_rehearsed(measured)


def _add_rehearsed(sub: argparse.ArgumentParser) -> None:
    """What names a method of a released model."""
    sub.add_argument("scenario", help="such as wan22t2v or qwenimage")
    sub.add_argument("--method", default="phased2", help="that trains (default: phased2)")
    sub.add_argument("--text-rows", default="512", help="token rows of a prompt (default: 512)")
    sub.add_argument("--root", type=Path, default=Path(), help="the repository (default: .)")
    overlays = "overlays over config/config.yaml"
    sub.add_argument("--configfile", type=Path, nargs="+", default=[], help=overlays)


def _demo(args: argparse.Namespace) -> None:
    from pdmd.jobs.demo import run_demo

    run_demo(args.cores, args.snakemake)


def _warm(args: argparse.Namespace) -> int:
    import subprocess

    from pdmd.warm import serve, warmed

    if args.serve is not None:
        from pdmd.__main__ import main

        serve(args.serve, lambda: main(alone=True))
        return 0
    if not args.command:
        raise UserError("warm: no command: expected one after --, such as snakemake -c2")
    with warmed():
        try:
            return subprocess.run(args.command, check=False).returncode
        except OSError as error:
            reason = f"{args.command[0]}: {error.strerror}"
            raise UserError(f"warm: {reason}: expected a command") from error


def _launch(args: argparse.Namespace) -> int:
    from pdmd.training.launch import launch

    return launch(args.nodes, args.processes, args.gpus, args.command)


def _status(args: argparse.Namespace) -> None:
    from pdmd.jobs.status import print_status

    print_status(Path(args.results))


def _resolve(args: argparse.Namespace) -> None:
    from pdmd.config.parts import write_parts
    from pdmd.config.plan import read_workflow
    from pdmd.jobs.command import settings_of

    settings = settings_of("resolve", args.configfile, args.pairs, root=args.root)
    for parts in write_parts(read_workflow(args.root, settings), args.root).values():
        for part in parts.values():
            print(part.path)


def _ablate(args: argparse.Namespace) -> None:
    from pdmd.config.plan import VARIABLE, recall
    from pdmd.jobs.ablate import ablate
    from pdmd.jobs.command import settings_of

    if args.planned:
        settings = recall(os.environ[VARIABLE]).settings
    else:
        settings = settings_of("ablate", args.configfile)
    ablate(args.file, settings, args.snakemake, args.dry_run)


def _plan(args: argparse.Namespace) -> None:
    from pdmd.planning.command import method_config, print_plan

    config = method_config(args.root, args.scenario, args.method, args.configfile, "plan")
    wanted = (args.gpus, args.gpu, args.gpu_memory, args.shard, args.text_rows, args.json)
    print_plan(config, *wanted)


def _bench(args: argparse.Namespace) -> None:
    from pdmd.planning.command import TINY, method_config, print_bench

    if not args.random_init:
        raise UserError("bench: --random-init: absent: expected it: no released weights are read")
    overlays = [*([args.root / TINY] if args.tiny else []), *args.configfile]
    config = method_config(args.root, args.scenario, args.method, overlays, "bench")
    flags = ("rows", "updates", "warm", "text_rows")
    counts = {f"--{flag.replace('_', '-')}": getattr(args, flag) for flag in flags}
    print_bench(
        config,
        args.phase,
        args.size,
        args.device,
        counts,
        args.output,
        args.attention,
        args.compile,
    )
