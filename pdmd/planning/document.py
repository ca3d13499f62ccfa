"""The plans of every released scenario, for docs/real_models.md and for jobs: `make plans`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pdmd.config.experiment import Config
from pdmd.planning.command import METHOD, method_config
from pdmd.planning.gpus import GIB, GPUS, LINKED, UTILISATION, Gpu, usable
from pdmd.planning.knobs import nearest
from pdmd.planning.plan import Hardware, Plan, Planner
from pdmd.planning.store import RELEASED, keep

PAGE = Path("docs/real_models.md")
MARKS = re.compile(r"(<!-- plans: made by `make plans` -->\n).*?(<!-- end of plans -->)", re.DOTALL)
GPU, NUMBER = "h100", 8
SMALL = Path("config/wan21small.yaml")
HEAD = (
    "scenario",
    "GiB a GPU, phases 1 and 2",
    f"sharded over {NUMBER}",
    "then received by a GPU an update",
    "to fit",
    "PFLOP a GPU and update: bf16, fp32",
    "minutes an update",
    "hours in all",
)


@dataclass(frozen=True)
class Row:
    """A row of the table: a scenario, and overlays over it."""

    label: str
    scenario: str
    overlays: tuple[Path, ...] = ()

    def config(self, root: Path, method: str = METHOD) -> Config:
        """Of a method, else the paper's own."""
        overlays = [root / path for path in self.overlays]
        return method_config(root, self.scenario, method, overlays, "plans")


ROWS = (
    Row("Qwen-Image", "qwenimage"),
    Row("Wan2.1 14B", "wan21t2v"),
    Row("Wan2.1 1.3B", "wan21t2v", (SMALL,)),
    Row("Wan2.2 T2V", "wan22t2v"),
    Row("Wan2.2 I2V", "wan22i2v"),
)


# What jobs ask for where nothing that decides a plan was changed.
METHODS = ("dmd2", "phased2", "phased4")
SMALLER = Path("config/wan480p.yaml")
KEPT = (
    *ROWS,
    Row("Wan2.1 pictures", "wan21t2i"),
    Row("Wan2.2 pictures", "wan22t2i"),
    *(Row(f"{name}, 480p", name, (SMALLER,)) for name in ("wan21t2v", "wan22t2v", "wan22i2v")),
)


def keep_all(root: Path = Path()) -> None:
    """Plan every method of every scenario as it is configured, on its own GPUs."""
    for row in KEPT:
        for method in METHODS:
            planner = planner_of(row, method, root)
            plan = planner.plan(Hardware(gpus_of(planner.config)))
            keep(root / RELEASED, [(planner.config, plan)])


@cache
def planner_of(row: Row, method: str, root: Path) -> Planner:
    """What was counted for jobs is not counted again for the table."""
    return Planner(row.config(root, method))


def gpus_of(config: Config) -> int:
    """GPUs that share a batch."""
    return int(config["hardware"]["nodes"] * config["hardware"]["processes"])


def line(row: Row, root: Path = Path()) -> str:
    """A row of the table in Markdown."""
    planner, gpu = planner_of(row, METHOD, root), GPUS[GPU]
    plan = planner.plan(Hardware(NUMBER))
    shared = planner.plan(Hardware(NUMBER, True))
    room, first = usable(gpu.gib), plan.phases[0]
    made = "fits"
    if plan.bytes > room:
        tried = nearest(planner, Hardware(NUMBER), room)[-1]
        made = f"`{'`, `'.join(tried.changes)}`: {tried.bytes / GIB:.0f} GiB"
        made = made if tried.fits else f"nothing tried ({made})"
    flops = [first.flops.get(kind, 0.0) / 1e15 for kind in ("bfloat16", "float32")]
    minutes, hours = first.minutes(gpu), plan.hours(gpu)
    cells = [
        row.label,
        _phases(plan),
        _phases(shared),
        _exchanges(shared, gpu),
        made,
        f"{flops[0]:.0f}, {flops[1]:.1f}",
        f"{minutes[0]:.1f} to {minutes[1]:.1f}",
        f"{hours[0]:.0f} to {hours[1]:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _phases(plan: Plan) -> str:
    return " and ".join(f"{phase.bytes / GIB:.1f}" for phase in plan.phases)


def _exchanges(plan: Plan, gpu: Gpu) -> str:
    """What a GPU gets from others in an update of the first phase, and how long that takes."""
    phase = plan.phases[0]
    low, high = phase.exchanges(gpu, NUMBER)
    return f"{sum(phase.received.values()) / 1e9:,.0f} GB, {low:.2g} to {high:.2g} min"


def table(root: Path = Path()) -> str:
    """The whole table, and what it is of."""
    gpu = GPUS[GPU]
    shares = " to ".join(f"{share:g}" for share in UTILISATION)
    lines = [
        f"| {' | '.join(HEAD)} |",
        f"|{'---|' * len(HEAD)}",
        *(line(row, root) for row in ROWS),
        "",
        f"Computed, of `{METHOD}` as configured on {NUMBER} x {GPU} ({gpu.gib:g} GiB, of which"
        f" tensors can have {usable(gpu.gib) / GIB:.1f}),",
        f"at {shares} of {gpu.peak['bfloat16'] / 1e12:g} TFLOP/s in bfloat16 and"
        f" {gpu.peak['float32'] / 1e12:g} in float32 ({gpu.source}); exchanges at"
        f" {' to '.join(f'{share:g}' for share in LINKED)} of {gpu.link(NUMBER) / 1e9:g} GB/s.",
        "",
    ]
    return "\n".join(lines)


def write(root: Path = Path()) -> None:
    """Fill the page. Raises ValueError where it has no place for the table."""
    text = (root / PAGE).read_text(encoding="utf-8")
    if not MARKS.search(text):
        raise ValueError(f"{PAGE}: expected the marks of the plans")
    made = table(root)
    text = MARKS.sub(lambda marks: marks[1] + made + marks[2], text)
    (root / PAGE).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    keep_all()
    write()
