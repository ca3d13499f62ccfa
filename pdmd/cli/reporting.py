"""Commands that write what people read: tables, figures, claims, the report."""

from __future__ import annotations

import argparse
from pathlib import Path

from pdmd.cli.commands import Commands, add_digest, config_of


def add_to(commands: Commands) -> None:
    """Add them to the command line."""
    for name, run, text in (
        ("tables", _tables, "write a scenario's tables"),
        ("figures", _figures, "draw a scenario's figures"),
    ):
        sub = commands.add(name, run, text)
        sub.set_defaults(part="table")
        sub.add_argument("--configs", type=config_of, nargs="+", required=True, metavar="FILE")
        add_digest(sub)
    claims = commands.add("claims", _claims, "decide the registered claims by what was run")
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
    paper = commands.add("paper", _paper, "make the paper's tables and figures by number")
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
    paper.add_argument("--configs", type=config_of, nargs="+", metavar="FILE", help=configs)
    paper.set_defaults(part="paper")
    add_digest(paper)
    report = commands.add("report", _report, "write <results>/report.html if results are newer")
    report.add_argument("--results", default="results", help="results folder (default: results)")
    settings = "what the workflow was started with (default: as of the last report)"
    report.add_argument("--settings", type=Path, metavar="FILE", help=settings)
    bundle = commands.add(
        "bundle", _bundle, "put what tables and figures are made from in one archive"
    )
    bundle.add_argument("--results", type=Path, default=Path("results"), help="results folder")
    bundle.add_argument("--output", type=Path, required=True, help="archive, .tar.gz")
    small = "leave out samples: tables can be made anew from it, figures are as they are"
    bundle.add_argument("--tables", action="store_true", help=small)
    unpack = commands.add(
        "redraw", _redraw, "unpack a bundle, and make its tables and figures anew"
    )
    unpack.add_argument("bundle", type=Path, help="archive")
    record = commands.add(
        "record", _record, "keep finished runs in docs/record, and renew what is made of it"
    )
    record.add_argument("--results", default="results", help="results folder (default: results)")
    again = "keep nothing new: fill the templates in docs/templates from what is on record"
    record.add_argument("--pages", action="store_true", help=again)
    board = commands.add(
        "board", _board, "write TensorBoard's event files from what training recorded"
    )
    board.add_argument("--results", type=Path, default=Path("results"), help="results folder")
    board.add_argument("--output", type=Path, required=True, help="the folder for TensorBoard")
    board.add_argument("--follow", type=float, metavar="SECONDS", help="go on, at such intervals")


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


def _bundle(args: argparse.Namespace) -> None:
    from pdmd.report.bundle import write_bundle

    write_bundle(args.results, args.output, not args.tables)
    print(f"{args.output}: {args.output.stat().st_size / 2**20:.1f} MiB")


def _redraw(args: argparse.Namespace) -> None:
    from pdmd.report.bundle import redraw

    same, every = redraw(args.bundle)
    print(f"{same} of {every} tables, figures and their records are as they were, bit by bit")


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


def _board(args: argparse.Namespace) -> None:
    import time

    from pdmd.report.board import write_board

    while True:
        count = write_board(args.results, args.output)
        print(f"{args.output}: {count} runs")
        if args.follow is None:
            return
        time.sleep(args.follow)
