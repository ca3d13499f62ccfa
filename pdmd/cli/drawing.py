"""Commands that draw from what was trained, look at it and score it."""

from __future__ import annotations

import argparse
from pathlib import Path

from pdmd.cli.commands import GENERATE, Commands

DIAGNOSTICS = {  # of a trained sampler
    "frontier": "score a sampler over its last phase's training",
    "exits": "score each exit step of a sampler's last phase",
    "boundary": "compare samples at phase boundaries with the exact mixture",
    "swaps": "draw samples with one of two experts exchanged",
}


def add_to(commands: Commands) -> None:
    """Add them to the command line."""
    text = "draw every seed's samples of record; with --from a sample of an exported student"
    commands.stage("sample", _sample, text, "seeds", "device")
    drawn = commands.add(GENERATE, _generate, "draw a sample of an exported student")
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
    commands.stage("decode", _decode, "decode every seed's samples of record", "seeds", "device")
    seen = "what frozen networks see in every seed's samples"
    commands.stage("features", _features, seen, "seeds", "device")
    text = "draw pictures from every snapshot of a released model's student"
    commands.stage("previews", _previews, text, "seeds", "device")
    text = "write a student's adapters as other programs load them"
    commands.stage("export", _export, text, "seeds")
    commands.stage("score", _score, "score every seed's samples of record", "seeds")
    for name, text in DIAGNOSTICS.items():
        commands.stage(name, _diagnose, text, "seeds").set_defaults(
            part="diagnostics", diagnostic=name
        )
    commands.stage(
        "trajectories", _trajectories, "compare fitted velocities with the exact one", "seeds"
    )


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


def _previews(args: argparse.Namespace) -> None:
    from pdmd.stages.previews import draw_previews
    from pdmd.training.world import join

    with join(args.device) as world:
        draw_previews(args.config, args.seeds, world)


def _export(args: argparse.Namespace) -> None:
    from pdmd.stages.export import export_student

    export_student(args.config, args.seeds)


def _score(args: argparse.Namespace) -> None:
    from pdmd.stages.score import score_method

    score_method(args.config, args.seeds)


def _diagnose(args: argparse.Namespace) -> None:
    from pdmd.stages.diagnostics import diagnose

    diagnose(args.config, args.diagnostic, args.seeds)


def _trajectories(args: argparse.Namespace) -> None:
    from pdmd.stages.trajectories import draw_trajectories

    draw_trajectories(args.config, args.seeds)
