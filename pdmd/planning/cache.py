"""Plans kept on disk, so that a workflow that starts again asks for what it asked for at once.

Nothing here imports torch: a plan that is missing is made in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pdmd.config.experiment import Config
from pdmd.errors import UserError
from pdmd.files.digests import sha256
from pdmd.files.storage import fingerprint, read_json, write_json

KEPT = Path(".snakemake/pdmd-plans")
FIELDS = ["bytes", "weights", "call_bytes", "phases"]
# Of a configuration: what a plan depends on; of `model` not where the weights lie.
READ = ("data", "model", "teacher", "student", "distill", "bank", "hardware")


def plan_of(config: Config, kept: Path = KEPT) -> dict[str, Any]:
    """What a method takes of a GPU, by phase; made once.

    Returns:
        bytes: at most; weights: of them those that come from disk; call_bytes: of a network that
        is called alone; phases: for each, flops: precision -> operations of an update and GPU, and
        call_flops: the same of one call on a sample of the mean size.
    Raises:
        UserError: no plan could be made.
    """
    path = kept / f"{_digest(config)}.json"
    if not path.is_file():
        _make(config, path)
    return read_json(path, dict, FIELDS)


def _digest(config: Config) -> str:
    sections = {name: config[name] for name in READ}
    code = {path.name: sha256(path) for path in sorted(Path(__file__).parent.glob("*.py"))}
    return fingerprint({"config": sections, "code": code, "torch": version("torch")})


def _make(config: Config, path: Path) -> None:
    name = f"{config['scenario']} {config['method']}"
    print(f"pdmd: planning {name} once, for its jobs' requests", file=sys.stderr)
    asked = path.with_suffix(".config.json")
    write_json(asked, config)
    command = [sys.executable, "-m", "pdmd.planning.cache", str(asked), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    asked.unlink()
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise UserError(f"{name}: no plan: {last}: expected what `pdmd plan` prints")


def _write(asked: Path, path: Path) -> None:
    """Plan a configuration that lies in a file."""
    from pdmd.config.run import read_run
    from pdmd.planning.plan import Hardware, Planner

    config = read_json(asked, dict)
    run = read_run(config)
    processes = run.hardware.nodes * run.hardware.processes
    shared = run.distill.parallel.shard == "full"
    plan = Planner(config).plan(Hardware(processes, shared))
    parts = ("base", "fake", "generator", "average")
    made = {
        "bytes": plan.bytes,
        "weights": max(sum(phase.memory.get(p, 0.0) for p in parts) for phase in plan.phases),
        "call_bytes": max(phase.call_bytes for phase in plan.phases),
        "phases": [
            {"flops": dict(phase.flops), "call_flops": dict(phase.call_flops)}
            for phase in plan.phases
        ],
    }
    write_json(path, made)


if __name__ == "__main__":
    _write(*map(Path, sys.argv[1:]))
