"""The command line: a subcommand for each stage of the chain, and `demo`, `report`, `status`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pdmd import __version__
from pdmd.config.experiment import Config
from pdmd.ending import MISTAKE, conclude
from pdmd.errors import UserError

EPILOG = """\
The stages are run by Snakemake: `snakemake -c2` makes every table, figure and the report.
To run one by hand, give it its resolved config: one that `pdmd resolve` lists, or the
config.json beside what it made before:

  pdmd distill --config results/mixture2d/dmd2/seed1/phase1/config.json --phase 1 --seeds 1 2 3 4 5
"""
# Commands that read the settings of another name.
PARTS = {"encode": "data", "render": "data", "judge": "classifier", "validate": "classifier"}
PARTS |= {"embed": "text", "keep": "base", "keep-judge": "classifier"}
PARTS |= {"embed-prompts": "embedding", "encode-images": "embedding"}
HANDED_ON = {"demo": "--cores", "warm": "--serve"}  # to another program, but for this option
GENERATE = "generate"  # what `sample --from` stands for
LAUNCHED = ("phase", "seeds", "device")  # what commands of a phase take
DIAGNOSTICS = {  # of a trained sampler
    "frontier": "score a sampler over its last phase's training",
    "exits": "score each exit step of a sampler's last phase",
    "boundary": "compare samples at phase boundaries with the exact mixture",
    "swaps": "draw samples with one of two experts exchanged",
}


def _config(text: str) -> Config:
    from pdmd.files.storage import read_json

    config: Config = read_json(Path(text), dict)
    return config


def _resolve(args: argparse.Namespace) -> None:
    from pdmd.config.parts import write_parts
    from pdmd.config.plan import read_workflow
    from pdmd.jobs.command import settings_of

    settings = settings_of("resolve", args.configfile, args.pairs, root=args.root)
    for parts in write_parts(read_workflow(args.root, settings), args.root).values():
        for part in parts.values():
            print(part.path)


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


def _encode(args: argparse.Namespace) -> None:
    from pdmd.config.run import read_run
    from pdmd.scenarios.kind import kind_of

    kind_of(read_run(args.config).data).encode(args.config)


def _classifier(args: argparse.Namespace) -> None:
    from pdmd.config.run import read_run
    from pdmd.scenarios.kind import kind_of

    kind_of(read_run(args.config).data).classifier(args.config)


def _render(args: argparse.Namespace) -> None:
    from pdmd.stages.precompute import encode, render

    render(args.config)
    encode(args.config)


def _embed(args: argparse.Namespace) -> None:
    from pdmd.stages.precompute import embed

    embed(args.config)


def _judge(args: argparse.Namespace) -> None:
    from pdmd.stages.judge import make_judge

    make_judge(args.config)


def _keep_judge(args: argparse.Namespace) -> None:
    from pdmd.stages.judge import keep_judge

    keep_judge(args.config, args.output)


def _weights(args: argparse.Namespace) -> None:
    from pdmd.files.assets import ASSETS, fetch, write_index

    names = args.names or list(ASSETS)
    if args.output:
        write_index(names, args.output)
    for name in names:
        fetch(name)


def _fetch(args: argparse.Namespace) -> None:
    from pdmd.models.source import fetch, verify

    if args.verify is not None:
        verify(args.verify)
        return
    if args.family is None or args.output is None:
        raise UserError("family, --output: not given: expected both, or --verify MANIFEST")
    fetch(args.family, args.source, args.revision, args.output)


def _find_networks(args: argparse.Namespace) -> None:
    from pdmd.config.sections import Networks
    from pdmd.stages.networks import find_networks

    wanted = Networks(features=args.features, flow=args.flow, clip=args.clip)
    find_networks(wanted, args.output)


def _tiny(args: argparse.Namespace) -> None:
    from pdmd.models.tiny import write_tiny

    write_tiny(args.family, args.output, args.seed)


def _embed_prompts(args: argparse.Namespace) -> None:
    from pdmd.stages.embed import embed_prompts
    from pdmd.training.world import join

    with join(args.device) as world:
        embed_prompts(args.config, world)


def _encode_images(args: argparse.Namespace) -> None:
    from pdmd.stages.embed import encode_images
    from pdmd.training.world import join

    with join(args.device) as world:
        encode_images(args.config, world)


def _previews(args: argparse.Namespace) -> None:
    from pdmd.stages.previews import draw_previews
    from pdmd.training.world import join

    with join(args.device) as world:
        draw_previews(args.config, args.seeds, world)


def _export(args: argparse.Namespace) -> None:
    from pdmd.stages.export import export_student

    export_student(args.config, args.seeds)


def _board(args: argparse.Namespace) -> None:
    import time

    from pdmd.report.board import write_board

    while True:
        count = write_board(args.results, args.output)
        print(f"{args.output}: {count} runs")
        if args.follow is None:
            return
        time.sleep(args.follow)


def _clip(args: argparse.Namespace) -> None:
    from pdmd.stages.clip import make_clip

    make_clip(args.updates, args.output, args.kept)


def _keep_clip(args: argparse.Namespace) -> None:
    from pdmd.stages.clip import keep_clip

    keep_clip(args.weights, args.output)


def _validate(args: argparse.Namespace) -> None:
    from pdmd.report.validation import validate_metrics

    validate_metrics(args.config, args.output)


def _fit(args: argparse.Namespace) -> None:
    from pdmd.stages.fit import fit_base, fit_runs
    from pdmd.training.world import join

    with join(args.device) as world:
        if args.seeds:
            fit_runs(args.config, args.seeds, world)
        else:
            fit_base(args.config, world)


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


def _keep(args: argparse.Namespace) -> None:
    from pdmd.stages.fit import keep

    keep(args.config, args.output)


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
            if line := too_small(args.config, args.phase, held, Path()):
                print(line, file=sys.stderr)
        distill_phase(args.config, args.phase, args.seeds, world)


def _sample(args: argparse.Namespace) -> None:
    from pdmd.stages.sample import sample_method
    from pdmd.training.world import join

    with join(args.device) as world:
        sample_method(args.config, args.seeds, world)


def _generate(args: argparse.Namespace) -> None:
    from pdmd.stages.generate import generate_file

    wanted = (args.export, args.base, args.prompt, args.output, args.seed, args.size, args.image)
    generate_file(*wanted, args.device)


def _decode(args: argparse.Namespace) -> None:
    from pdmd.stages.decode import decode_samples
    from pdmd.training.world import join

    with join(args.device) as world:
        decode_samples(args.config, args.seeds, world)


def _features(args: argparse.Namespace) -> None:
    from pdmd.stages.features import extract_features
    from pdmd.training.world import join

    with join(args.device) as world:
        extract_features(args.config, args.seeds, world)


def _score(args: argparse.Namespace) -> None:
    from pdmd.stages.score import score_method

    score_method(args.config, args.seeds)


def _diagnose(args: argparse.Namespace) -> None:
    from pdmd.stages.diagnostics import diagnose

    diagnose(args.config, args.diagnostic, args.seeds)


def _trajectories(args: argparse.Namespace) -> None:
    from pdmd.stages.trajectories import draw_trajectories

    draw_trajectories(args.config, args.seeds)


def _tables(args: argparse.Namespace) -> None:
    from pdmd.report.tables import write_tables

    write_tables(args.configs)


def _figures(args: argparse.Namespace) -> None:
    from pdmd.report.figures import draw_figures

    draw_figures(args.configs)


def _claims(args: argparse.Namespace) -> None:
    from pdmd.config.claims import check_planned, read_claims
    from pdmd.report.claims import write_claims

    claims = read_claims(args.claims)
    if args.only is not None:
        claims = check_planned(claims, args.only, args.planned, args.claims)
    there = None if args.scores is None else set(args.scores)
    write_claims(claims, args.results, args.output, there)


def _paper(args: argparse.Namespace) -> None:
    from pdmd.config.paper import read_paper
    from pdmd.report.paper.make import make_paper

    make_paper(read_paper(args.listed), args.scale, args.results, args.output, args.configs)


def _report(args: argparse.Namespace) -> None:
    from pdmd.jobs.demo import make_report

    make_report(Path(args.results), args.settings)


def _ablate(args: argparse.Namespace) -> None:
    from pdmd.config.plan import VARIABLE, recall
    from pdmd.jobs.ablate import ablate
    from pdmd.jobs.command import settings_of

    if args.planned:
        settings = recall(os.environ[VARIABLE]).settings
    else:
        settings = settings_of("ablate", args.configfile)
    ablate(args.file, settings, args.snakemake, args.dry_run)


def _bundle(args: argparse.Namespace) -> None:
    from pdmd.report.bundle import write_bundle

    write_bundle(args.results, args.output, not args.tables)
    print(f"{args.output}: {args.output.stat().st_size / 2**20:.1f} MiB")


def _redraw(args: argparse.Namespace) -> None:
    from pdmd.report.bundle import redraw

    same, every = redraw(args.bundle)
    print(f"{same} of {every} tables, figures and their records are as they were, bit by bit")


def _status(args: argparse.Namespace) -> None:
    from pdmd.jobs.status import print_status

    print_status(Path(args.results))


def _record(args: argparse.Namespace) -> None:
    from pdmd.config.claims import registered
    from pdmd.config.paper import artefacts
    from pdmd.report.pages import Record, write_pages
    from pdmd.report.paper.configured import draw_schemes
    from pdmd.report.record import keep_record

    root, docs = Path(), Path("docs/record")
    if not args.pages:
        keep_record(Path(args.results), docs)
    draw_schemes(root, artefacts(root), docs / "paper")
    write_pages(root, Record(docs, registered(root)))


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
    import os

    from pdmd.training.launch import launch
    from pdmd.warm import VARIABLE

    os.environ.pop(VARIABLE, None)  # processes that start together are this one's children
    return launch(args.nodes, args.processes, args.gpus, args.command)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="pdmd",
        description="Phased DMD, reproducible: distil, sample, measure, draw.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"pdmd {__version__}")
    commands = top.add_subparsers(title="commands", metavar="", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int | None], text: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    def stage(
        name: str, run: Callable[[argparse.Namespace], int | None], text: str, *extra: str
    ) -> argparse.ArgumentParser:
        sub = command(name, run, text)
        sub.set_defaults(part=PARTS.get(name, name))
        what = "resolved config, results/<scenario>/[<method>/]config/<stage>.<digest>.json"
        sub.add_argument("--config", type=_config, required=True, metavar="FILE", help=what)
        _add_digest(sub)
        if "phase" in extra:
            sub.add_argument("--phase", type=int, required=True, help="number of the phase, from 1")
        if "seeds" in extra:
            sub.add_argument("--seeds", type=int, nargs="+", required=True, help="train together")
        if "device" in extra:
            where = "where it computes (default: cpu)"
            sub.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=where)
        return sub

    demo = command("demo", _demo, "run everything through Snakemake, with progress")
    demo.add_argument("--cores", type=int, default=2, help="cores to use (default: 2)")
    demo.add_argument("snakemake", nargs="*", help="Snakemake's arguments, such as --configfile")
    warm = command("warm", _warm, "run a command whose pdmd commands start without imports")
    warm.add_argument("command", nargs="*", help="such as snakemake -c2")
    warm.add_argument("--serve", type=Path, help=argparse.SUPPRESS)  # by this socket
    status = command(
        "status", _status, "show which jobs run where, why others wait, and how far training is"
    )
    status.add_argument("--results", default="results", help="results folder (default: results)")
    report = command("report", _report, "write <results>/report.html if results are newer")
    report.add_argument("--results", default="results", help="results folder (default: results)")
    settings = "what the workflow was started with (default: as of the last report)"
    report.add_argument("--settings", type=Path, metavar="FILE", help=settings)
    ablation = command("ablate", _ablate, "run an ablation beside what is there; see config/README")
    ablation.add_argument("file", type=Path, help="such as config/ablations/fake_updates.yaml")
    overlays = "overlays of config.yaml, whose results it joins"
    ablation.add_argument("--configfile", type=Path, nargs="+", default=[], help=overlays)
    ablation.add_argument("-n", "--dry-run", action="store_true", help="say what it would train")
    ablation.add_argument("snakemake", nargs="*", help="further Snakemake arguments, after --")
    ablation.add_argument("--planned", action="store_true", help=argparse.SUPPRESS)  # by a rule
    bundle = command("bundle", _bundle, "put what tables and figures are made from in one archive")
    bundle.add_argument("--results", type=Path, default=Path("results"), help="results folder")
    bundle.add_argument("--output", type=Path, required=True, help="archive, .tar.gz")
    small = "leave out samples: tables can be made anew from it, figures are as they are"
    bundle.add_argument("--tables", action="store_true", help=small)
    unpack = command("redraw", _redraw, "unpack a bundle, and make its tables and figures anew")
    unpack.add_argument("bundle", type=Path, help="archive")
    claims = command("claims", _claims, "decide the registered claims by what was run")
    registry = "the registry (default: config/claims.yaml)"
    claims.add_argument(
        "--claims", type=Path, default="config/claims.yaml", metavar="FILE", help=registry
    )
    claims.add_argument(
        "--results", type=Path, default=Path("results"), help="what parts lie below"
    )
    claims.add_argument("--output", type=Path, required=True, help="table, without its ending")
    claims.add_argument("--only", nargs="+", metavar="ID", help="of these claims (default: all)")
    read = "the metrics.json to read (default: all that are there)"
    claims.add_argument("--scores", type=Path, nargs="+", metavar="FILE", help=read)
    planned = "of the claims planned with: others are refused"
    claims.add_argument("--digest", dest="planned", metavar="DIGEST", help=planned)
    paper = command("paper", _paper, "make the paper's tables and figures by number")
    scale = "of the models (default: all that the results give)"
    paper.add_argument("--scale", choices=("toy", "small", "tiny", "real"), help=scale)
    listed = "what they are made of (default: config/paper.yaml)"
    paper.add_argument(
        "--listed", type=Path, default="config/paper.yaml", metavar="FILE", help=listed
    )
    paper.add_argument("--results", type=Path, default=Path("results"), help="what parts lie below")
    folder = "folder of all scales (default: <results>/paper)"
    paper.add_argument("--output", type=Path, metavar="FOLDER", help=folder)
    configs = "of the methods to show (default: all that are in the results)"
    paper.add_argument("--configs", type=_config, nargs="+", metavar="FILE", help=configs)
    paper.set_defaults(part="paper")
    _add_digest(paper)
    record = command(
        "record", _record, "keep finished runs in docs/record, and renew what is made of it"
    )
    record.add_argument("--results", default="results", help="results folder (default: results)")
    again = "keep nothing new: fill the templates in docs/templates from what is on record"
    record.add_argument("--pages", action="store_true", help=again)
    resolve = command("resolve", _resolve, "write the configs of all jobs, as Snakemake does")
    resolve.add_argument("--root", type=Path, default=Path(), help="the repository (default: .)")
    resolve.add_argument(
        "--configfile", type=Path, nargs="*", default=[], help="overlays over config/config.yaml"
    )
    pairs = "settings over them, as for Snakemake"
    resolve.add_argument("--config", dest="pairs", nargs="*", metavar="KEY=VALUE", help=pairs)
    plan = command("plan", _plan, "what distilling a released model takes, without its weights")
    plan.add_argument("--gpus", help="that share a batch (default: as configured)")
    plan.add_argument("--gpu", default="h100", help="whose speed and memory (default: h100)")
    plan.add_argument("--gpu-memory", metavar="GIB", help="of one (default: as of that GPU)")
    plan.add_argument("--shard", action="store_true", help="share out weights, too (computed)")
    plan.add_argument("--json", action="store_true", help="bytes, operations and minutes as JSON")
    _add_rehearsed(plan)
    text = "measure updates of a released model's trainer, with random weights"
    measured = command("bench", _bench, text)
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
    stage("encode", _encode, "encode pictures to whitened latents")
    stage("classifier", _classifier, "train the classifier that scores pictures")
    stage("render", _render, "render pictures or clips, and encode them to latents")
    stage("embed", _embed, "encode prompts by the text encoder")
    stage("judge", _judge, "train the classifier that scores pictures and clips with prompts")
    weights = command("weights", _weights, "fetch the weights of frozen networks into the cache")
    weights.add_argument("--names", nargs="*", help="of weights (default: all)")
    weights.add_argument("--output", type=Path, help="where to say what was fetched")
    model = command(
        "fetch", _fetch, "check the weights of a released model, and record what they are"
    )
    model.add_argument("family", nargs="?", help="such as qwen-image or wan2.2-t2v-a14b")
    model.add_argument("--source", help="a folder in diffusers' layout, or a name of the hub")
    model.add_argument("--revision", help="of the hub's repository")
    model.add_argument("--output", type=Path, help="where the manifest goes")
    model.add_argument(
        "--verify", type=Path, metavar="MANIFEST", help="hash every file of a manifest again"
    )
    looked = command(
        "find-networks", _find_networks, "find the networks that samples will be looked at by"
    )
    looked.add_argument("--features", default="lite0", help="as evaluate.networks.features")
    looked.add_argument("--flow", default="opencv", help="as evaluate.networks.flow")
    looked.add_argument("--clip", help="as evaluate.networks.clip")
    looked.add_argument("--output", type=Path, required=True, help="where to say which they are")
    tiny = command(
        "tiny", _tiny, "write a tiny random model of a released family, to try the chain"
    )
    tiny.add_argument("family", help="such as qwen-image or wan2.2-t2v-a14b")
    tiny.add_argument("--output", type=Path, required=True, help="the folder that it gets")
    tiny.add_argument("--seed", type=int, default=0, help="of its weights (default: 0)")
    text = "encode a released model's prompts by its own text encoder"
    stage("embed-prompts", _embed_prompts, text, "device")
    text = "encode the first frames that image-to-video is given"
    stage("encode-images", _encode_images, text, "device")
    board = command("board", _board, "write TensorBoard's event files from what training recorded")
    board.add_argument("--results", type=Path, default=Path("results"), help="results folder")
    board.add_argument("--output", type=Path, required=True, help="the folder for TensorBoard")
    board.add_argument("--follow", type=float, metavar="SECONDS", help="go on, at such intervals")
    clip = command("clip", _clip, "train the small CLIP that scores alignment")
    clip.add_argument("--updates", type=int, required=True, help="of its training")
    clip.add_argument("--output", type=Path, required=True, help="where its weights go")
    clip.add_argument("--kept", type=Path, help="one that was trained before, to take instead")
    kept_clip = command("keep-clip", _keep_clip, "keep a trained small CLIP, to take it later")
    kept_clip.add_argument("--weights", type=Path, required=True, help="results/clip/small_clip.pt")
    kept_clip.add_argument("--output", type=Path, required=True, help="where it is kept")
    judge = stage("keep-judge", _keep_judge, "keep a trained judge, to take it later")
    judge.add_argument("--output", type=Path, required=True, help="where its weights go")
    fit = stage("fit", _fit, "fit the base network, or with --seeds one velocity a seed", "device")
    fit.add_argument("--seeds", type=int, nargs="+", help="train together")
    kept = stage("keep", _keep, "keep a fitted base network, to start from it later")
    kept.add_argument("--output", type=Path, required=True, help="where its weights go")
    text = "measure the teacher's errors of single Euler steps, over all t -> s"
    stage("measure", _measure, text, "device")
    stage("grid", _grid, "choose a method's noise levels and phase ends by those errors")
    text = "choose the re-noising range of each phase by how far the untrained student is off"
    stage("range", _range, text, "device")
    stage("bank", _bank, "precompute what the frozen experts hand to a phase", *LAUNCHED)
    stage("distill", _distill, "train the expert of one phase", *LAUNCHED)
    launch = command("launch", _launch, "run a stage that trains or draws in several processes")
    launch.add_argument("--nodes", type=int, default=1, help="of a Slurm allocation (default: 1)")
    launch.add_argument("--processes", type=int, default=1, help="on each node (default: 1)")
    launch.add_argument("--gpus", type=int, default=0, help="on each node, 0 or one a process")
    launch.add_argument("command", nargs="*", help="such a command and its arguments, after --")
    text = "draw every seed's samples of record; with --from a sample of an exported student"
    stage("sample", _sample, text, "seeds", "device")
    drawn = command(GENERATE, _generate, "draw a sample of an exported student")
    drawn.prog = "pdmd sample"
    drawn.add_argument("--from", dest="export", type=Path, required=True, help="folder `export`")
    drawn.add_argument("--base", help="the released model: a folder, or a name of the hub")
    drawn.add_argument("--prompt", required=True, help="what to draw")
    drawn.add_argument("--output", type=Path, required=True, help="a .png, or of clips an .mp4")
    drawn.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    drawn.add_argument("--size", help="such as 81x480x832 (default: as it was scored)")
    drawn.add_argument("--image", type=Path, help="image-to-video: the first frame")
    where = "where it computes (default: cpu)"
    drawn.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=where)
    stage("decode", _decode, "decode every seed's samples of record", "seeds", "device")
    seen = "what frozen networks see in every seed's samples"
    stage("features", _features, seen, "seeds", "device")
    text = "draw pictures from every snapshot of a released model's student"
    stage("previews", _previews, text, "seeds", "device")
    text = "write a student's adapters as other programs load them"
    stage("export", _export, text, "seeds")
    stage("score", _score, "score every seed's samples of record", "seeds")
    for name, text in DIAGNOSTICS.items():
        stage(name, _diagnose, text, "seeds").set_defaults(part="diagnostics", diagnostic=name)
    stage("trajectories", _trajectories, "compare fitted velocities with the exact one", "seeds")
    tried = stage("validate", _validate, "try the metrics on real data with known damage")
    tried.add_argument("--output", type=Path, required=True, help="table, without its ending")
    for name, run, text in (
        ("tables", _tables, "write a scenario's tables"),
        ("figures", _figures, "draw a scenario's figures"),
    ):
        sub = command(name, run, text)
        sub.set_defaults(part="table")
        sub.add_argument("--configs", type=_config, nargs="+", required=True, metavar="FILE")
        _add_digest(sub)
    return top


def _add_rehearsed(sub: argparse.ArgumentParser) -> None:
    """What names a method of a released model."""
    sub.add_argument("scenario", help="such as wan22t2v or qwenimage")
    sub.add_argument("--method", default="phased2", help="that trains (default: phased2)")
    sub.add_argument("--text-rows", default="512", help="token rows of a prompt (default: 512)")
    sub.add_argument("--root", type=Path, default=Path(), help="the repository (default: .)")
    overlays = "overlays over config/config.yaml"
    sub.add_argument("--configfile", type=Path, nargs="+", default=[], help=overlays)


def _add_digest(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--digest", help="of the settings planned with: others are refused")


def _check_planned(args: argparse.Namespace) -> None:
    """Refuse settings of another stage, or not those a job was planned with. Raises UserError."""
    from pdmd.config.parts import check_digest, check_part

    if "digest" in args:
        settings = args.config if "config" in args else args.configs
        if settings is None:
            return
        where = "--config" if "config" in args else "--configs"
        check_digest(settings, args.digest, where)
        part = "base" if args.part == "fit" and not args.seeds else args.part
        for config in args.configs if "configs" in args else [args.config]:
            check_part(config, part, where)
        from pdmd.files.provenance import checkout

        checkout()  # of the code as it is now, not at the end


def _meant(arguments: Sequence[str]) -> list[str]:
    """The arguments as the parser takes them.

    `sample --from` is a command of its own: it draws from files, by no config. What `demo` and
    `warm` hand on stands after --, which nobody needs to write.
    """
    if arguments[:1] == ["sample"] and any(one.split("=")[0] == "--from" for one in arguments):
        return [GENERATE, *arguments[1:]]
    name, *rest = arguments or [""]
    if name not in HANDED_ON:
        return list(arguments)
    option = HANDED_ON[name]
    own = 2 if rest[:1] == [option] else sum(one.startswith(f"{option}=") for one in rest[:1])
    if rest[own : own + 1] in ([], ["--"], ["-h"], ["--help"]):
        return list(arguments)
    return [name, *rest[:own], "--", *rest[own:]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status, and says in one line what a person can mend.

    No command at all is answered by the help, and is a mistake.
    """
    given = sys.argv[1:] if arguments is None else arguments

    def run() -> int | None:
        if not given:
            parser().print_help(sys.stderr)
            return MISTAKE
        args = parser().parse_args(_meant(given))
        _check_planned(args)
        status: int | None = args.run(args)
        return status

    return conclude(run)
