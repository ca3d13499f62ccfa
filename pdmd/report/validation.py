"""The table of what metrics do under known damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.files import provenance
from pdmd.report.writing import write_table
from pdmd.scenarios.kind import prompted
from pdmd.stages.precompute import load_pictures, to_unit


def validate_metrics(config: dict[str, Any], path: Path) -> None:
    """Write the table of what each metric does on real data with known damage, three files."""
    run = read_run(config)
    paths, name = Paths(run), run.data.kind
    torch.set_num_threads(run.threads)
    tensors, kind = load_pictures(paths.data("pictures.safetensors"), name), prompted(name)
    table = kind.validated(tensors, kind.shown(to_unit(tensors["heldout"])), paths.root)
    caption = f"{run.scenario}: metrics on real data with known damage."
    write_table(table, path, caption)
    sources = [paths.data("pictures.safetensors"), paths.root / "clip" / "small_clip.pt"]
    written = [f"{path.name}.{end}" for end in ("csv", "md", "tex")]
    provenance.record(path.with_suffix(".json"), config, [], sources, written)
