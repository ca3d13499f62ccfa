"""Commands that make what training starts from: weights, data, judges."""

from __future__ import annotations

import argparse
from pathlib import Path

from pdmd.cli.commands import Commands
from pdmd.errors import UserError


def add_to(commands: Commands) -> None:
    """Add them to the command line."""
    weights = commands.add(
        "weights", _weights, "fetch the weights of frozen networks into the cache"
    )
    weights.add_argument("--names", nargs="*", help="of weights (default: all)")
    weights.add_argument("--output", type=Path, help="where to say what was fetched")
    model = commands.add(
        "fetch", _fetch, "check the weights of a released model, and record what they are"
    )
    model.add_argument("family", nargs="?", help="such as qwen-image or wan2.2-t2v-a14b")
    model.add_argument("--source", help="a folder in diffusers' layout, or a name of the hub")
    model.add_argument("--revision", help="of the hub's repository")
    model.add_argument("--output", type=Path, help="where the manifest goes")
    model.add_argument(
        "--verify", type=Path, metavar="MANIFEST", help="hash every file of a manifest again"
    )
    looked = commands.add(
        "find-networks", _find_networks, "find the networks that samples will be looked at by"
    )
    looked.add_argument("--features", default="lite0", help="as evaluate.networks.features")
    looked.add_argument("--flow", default="opencv", help="as evaluate.networks.flow")
    looked.add_argument("--clip", help="as evaluate.networks.clip")
    looked.add_argument("--output", type=Path, required=True, help="where to say which they are")
    tiny = commands.add(
        "tiny", _tiny, "write a tiny random model of a released family, to try the chain"
    )
    tiny.add_argument("family", help="such as qwen-image or wan2.2-t2v-a14b")
    tiny.add_argument("--output", type=Path, required=True, help="the folder that it gets")
    tiny.add_argument("--seed", type=int, default=0, help="of its weights (default: 0)")
    commands.stage("encode", _encode, "encode pictures to whitened latents")
    commands.stage("classifier", _classifier, "train the classifier that scores pictures")
    commands.stage("render", _render, "render pictures or clips, and encode them to latents")
    commands.stage("embed", _embed, "encode prompts by the text encoder")
    text = "encode a released model's prompts by its own text encoder"
    commands.stage("embed-prompts", _embed_prompts, text, "device")
    text = "encode the first frames that image-to-video is given"
    commands.stage("encode-images", _encode_images, text, "device")
    commands.stage(
        "judge", _judge, "train the classifier that scores pictures and clips with prompts"
    )
    judge = commands.stage("keep-judge", _keep_judge, "keep a trained judge, to take it later")
    judge.add_argument("--output", type=Path, required=True, help="where its weights go")
    clip = commands.add("clip", _clip, "train the small CLIP that scores alignment")
    clip.add_argument("--updates", type=int, required=True, help="of its training")
    clip.add_argument("--output", type=Path, required=True, help="where its weights go")
    clip.add_argument("--kept", type=Path, help="one that was trained before, to take instead")
    kept_clip = commands.add("keep-clip", _keep_clip, "keep a trained small CLIP, to take it later")
    kept_clip.add_argument("--weights", type=Path, required=True, help="results/clip/small_clip.pt")
    kept_clip.add_argument("--output", type=Path, required=True, help="where it is kept")
    tried = commands.stage("validate", _validate, "try the metrics on real data with known damage")
    tried.add_argument("--output", type=Path, required=True, help="table, without its ending")


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


def _judge(args: argparse.Namespace) -> None:
    from pdmd.stages.judge import make_judge

    make_judge(args.config)


def _keep_judge(args: argparse.Namespace) -> None:
    from pdmd.stages.judge import keep_judge

    keep_judge(args.config, args.output)


def _clip(args: argparse.Namespace) -> None:
    from pdmd.stages.clip import make_clip

    make_clip(args.updates, args.output, args.kept)


def _keep_clip(args: argparse.Namespace) -> None:
    from pdmd.stages.clip import keep_clip

    keep_clip(args.weights, args.output)


def _validate(args: argparse.Namespace) -> None:
    from pdmd.report.validation import validate_metrics

    validate_metrics(args.config, args.output)
