"""`pdmd plan` and `pdmd bench`: what they are asked, checked, and what they print."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_args

from pdmd.config.catalogue import PRETRAINED
from pdmd.config.complaints import refusal
from pdmd.config.experiment import Config, merge
from pdmd.config.plan import read_workflow
from pdmd.config.sections import Attention
from pdmd.config.yaml_files import read_mapping
from pdmd.files.storage import write_json

METHOD = "phased2"  # the paper's own


def method_config(
    root: Path, scenario: str, method: str, overlays: Iterable[Path], command: str
) -> Config:
    """The resolved configuration of a method of a released model.

    Raises:
        UserError: there is no such scenario or method, or nothing of a released model is trained.
    """
    settings = read_mapping(root / "config" / "config.yaml")
    for overlay in overlays:
        settings = merge(settings, read_mapping(overlay))
    settings = merge(settings, {"scenarios": [scenario], "validate": []})
    known = sorted(path.stem for path in (root / "config" / "scenarios").glob("*.yaml"))
    if scenario not in known:
        raise refusal(command, "scenario", scenario, f"one of {', '.join(known)}")
    experiment = read_workflow(root, settings)
    kind = experiment.shared(scenario).model.kind
    if kind != PRETRAINED:
        expected = "a scenario of a released model, such as wan22t2v or qwenimage"
        raise refusal(command, f"{scenario}: model.kind", kind, expected)
    names = experiment.select(scenario, ["distill"])
    if method not in names:
        expected = f"one that trains: {', '.join(names) or 'none of them does'}"
        raise refusal(f"{command} {scenario}", "--method", method, expected)
    return experiment.configs[scenario, method]


def whole(text: str, flag: str, command: str) -> int:
    """A number of GPUs, samples or updates. Raises UserError."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 100_000:
        raise refusal(command, flag, text, "a whole number from 1 to 100000")
    return int(text)


def gibibytes(text: str, command: str) -> float:
    """A GPU's memory in GiB. Raises UserError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1 <= value <= 10_000:
        raise refusal(command, "--gpu-memory", text, "a number of GiB from 1 to 10000")
    return value


def print_plan(
    config: Config,
    gpus: str | None,
    gpu_name: str,
    gpu_memory: str | None,
    shard: bool,
    text_rows: str,
    machine: bool,
) -> None:
    """Plan a method, print it as a table, or as JSON for a machine, and keep it for its jobs."""
    from pdmd.config.run import read_run
    from pdmd.planning.gpus import GPUS, usable
    from pdmd.planning.knobs import nearest
    from pdmd.planning.plan import Hardware, Planner
    from pdmd.planning.rehearsal import TEXT_ROWS
    from pdmd.planning.store import OWN, keep
    from pdmd.planning.table import as_json, as_text

    if gpu_name not in GPUS:
        raise refusal("plan", "--gpu", gpu_name, f"one of {', '.join(GPUS)}")
    gpu, run = GPUS[gpu_name], read_run(config)
    gib = gpu.gib if gpu_memory is None else gibibytes(gpu_memory, "plan")
    default = run.hardware.nodes * run.hardware.processes
    count = default if gpus is None else whole(gpus, "--gpus", "plan")
    context = run.distill.parallel.context
    if count % context:
        expected = f"a multiple of distill.parallel.context = {context}"
        raise refusal("plan", "--gpus", count, expected)
    if run.distill.batch % (count // context):
        groups = f" times distill.parallel.context = {context}" if context > 1 else ""
        expected = f"a number that distill.batch = {run.distill.batch}{groups} divides by"
        raise refusal("plan", "--gpus", count, expected)
    rows = whole(text_rows, "--text-rows", "plan")
    planner = Planner(config, rows)
    hardware = Hardware(count, shard or run.distill.parallel.shard == "full")
    plan = planner.plan(hardware)
    tried = [] if plan.bytes <= usable(gib) else nearest(planner, hardware, usable(gib))
    if rows == TEXT_ROWS:
        keep(Path(run.results) / OWN, [(config, plan)])
    if machine:
        print(json.dumps(as_json(plan, gpu_name, gpu, gib, tried), indent=2))
    else:
        print(as_text(plan, gpu_name, gpu, gib, tried))


TINY = Path("config/tiny.yaml")  # of the repository


def print_bench(
    config: Config,
    phase: str,
    size: str | None,
    device: str,
    counts: Mapping[str, str | None],
    output: Path | None,
    attention: str | None = None,
    compiled: bool = False,
) -> None:
    """Measure updates of a method's phase, and print what they took as JSON.

    Args:
        counts: flag -> a number as it was written: `--rows`, `--updates`, `--warm`, `--text-rows`;
        attention, compiled: in the place of `model.attention` and `model.compile`.
    """
    from pdmd.config.run import read_run
    from pdmd.planning.bench import bench
    from pdmd.planning.plan import data_of
    from pdmd.planning.rehearsal import largest_first, local_rows

    if attention is not None:
        if attention not in get_args(Attention):
            expected = f"one of {', '.join(get_args(Attention))}"
            raise refusal("bench", "--attention", attention, expected)
        config = merge(config, {"model": {"attention": attention}})
    config = merge(config, {"model": {"compile": compiled or read_run(config).model.compile}})
    run = read_run(config)
    sizes, ends = data_of(run).sizes, run.student.ends
    if size is not None and size not in sizes:
        raise refusal("bench", "--size", size, f"one of {', '.join(sizes)}")
    number = whole(phase, "--phase", "bench")
    if number > len(ends):
        raise refusal("bench", "--phase", number, f"1 to {len(ends)}")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise refusal("bench", "--device", device, "cpu, where there is no GPU")
    rows = local_rows(run, run.hardware.nodes * run.hardware.processes)
    few = min(rows, 2 * (run.distill.microbatch or rows))
    wanted = {flag: whole(text, flag, "bench") for flag, text in counts.items() if text is not None}
    made = bench(
        config,
        number,
        size or largest_first(data_of(run))[0],
        device,
        wanted.get("--rows", few),
        wanted["--updates"],
        wanted["--warm"],
        wanted["--text-rows"],
    )
    if output is None:
        print(json.dumps(made, indent=2))
    else:
        write_json(output, made)
