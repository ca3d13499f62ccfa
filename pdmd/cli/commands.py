"""A subcommand of the command line, and what many of them are given."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from pdmd.config.experiment import Config

# Commands that read the settings of another name.
PARTS = {"encode": "data", "render": "data", "judge": "classifier", "validate": "classifier"}
PARTS |= {"embed": "text", "keep": "base", "keep-judge": "classifier"}
PARTS |= {"embed-prompts": "embedding", "encode-images": "embedding"}
GENERATE = "generate"  # what `sample --from` stands for
LAUNCHED = ("phase", "seeds", "device")  # what commands of a phase take
Run = Callable[[argparse.Namespace], int | None]


class Commands:
    """The subcommands of a parser."""

    def __init__(self, top: argparse.ArgumentParser):
        self._parsers = top.add_subparsers(title="commands", metavar="", required=True)

    def add(self, name: str, run: Run, text: str) -> argparse.ArgumentParser:
        """A command, what runs it, and what it does."""
        sub = self._parsers.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    def stage(self, name: str, run: Run, text: str, *extra: str) -> argparse.ArgumentParser:
        """A command that is given a resolved config.

        Args:
            extra: what else it is given, of `phase`, `seeds` and `device`.
        """
        sub = self.add(name, run, text)
        sub.set_defaults(part=PARTS.get(name, name))
        what = "resolved config, results/<scenario>/[<method>/]config/<stage>.<digest>.json"
        sub.add_argument("--config", type=config_of, required=True, metavar="FILE", help=what)
        add_digest(sub)
        if "phase" in extra:
            sub.add_argument("--phase", type=int, required=True, help="number of the phase, from 1")
        if "seeds" in extra:
            sub.add_argument("--seeds", type=int, nargs="+", required=True, help="train together")
        if "device" in extra:
            where = "where it computes (default: cpu)"
            sub.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=where)
        return sub


def add_digest(sub: argparse.ArgumentParser) -> None:
    """The digest that a job was planned with."""
    sub.add_argument("--digest", help="of the settings planned with: others are refused")


def config_of(text: str) -> Config:
    """What a config file holds. Raises UserError."""
    from pdmd.files.storage import read_json

    config: Config = read_json(Path(text), dict)
    return config
