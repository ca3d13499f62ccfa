"""The command line: a subcommand for each stage of the chain, and `demo`, `report`, `status`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pdmd import __version__
from pdmd.cli import drawing, preparing, reporting, training, workflow
from pdmd.cli.commands import GENERATE, Commands
from pdmd.ending import MISTAKE, conclude

EPILOG = """\
The stages are run by Snakemake: `snakemake -c2` makes every table, figure and the report.
To run one by hand, give it its resolved config: one that `pdmd resolve` lists, or the
config.json beside what it made before:

  pdmd distill --config results/mixture2d/dmd2/seed1/phase1/config.json --phase 1 --seeds 1 2 3 4 5
"""
HANDED_ON = {"demo": "--cores", "warm": "--serve"}  # to another program, but for this option


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="pdmd",
        description="Phased DMD, reproducible: distil, sample, measure, draw.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"pdmd {__version__}")
    commands = Commands(top)
    for group in (workflow, reporting, preparing, training, drawing):
        group.add_to(commands)
    return top


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
