"""Digests of the results of tests/golden/chain.yaml, and their comparison with those on record.

    python tests/golden/digests.py results/golden             # compare
    python tests/golden/digests.py results/golden --record    # keep as tests/golden/digests.json

`make golden` makes results/golden afresh and compares. Record anew only what is meant to change,
from results of the whole chain that started in an empty folder, as `make golden` makes them.

Nothing here knows how the workflow makes its files: only where they lie, and how times are named.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import math
import platform
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import safe_open
from torch import Tensor

HERE = Path(__file__).resolve().parent
CHAIN, RECORD = HERE / "chain.yaml", HERE / "digests.json"
GROUPS = {  # what is compared -> where it lies below the results
    "weights": ["**/base/model.safetensors", "**/expert.safetensors", "**/snapshots.safetensors"],
    "samples": ["**/samples.safetensors", "**/experts.safetensors", "**/bank/*.safetensors"],
    "latents": [
        f"*/data/{n}.safetensors" for n in ("train", "heldout", "evaluation", "codec", "pictures")
    ],
    "prompts": ["*/data/prompts.safetensors"],
    "judges": ["*/data/classifier.safetensors", "*/data/judge.safetensors"],
    "curves": ["*/*/seed*/*.csv"],
    "scores": ["**/metrics.json", "**/boundary.json"],
    "tables": ["*/tables/*.csv", "metrics_validation/*.csv"],
}
SCALED = ("weights", "samples", "latents", "prompts", "judges")  # these have norms beside digests
COSTS = re.compile(r"seconds|memory")  # keys and columns that no two runs agree on
EXACT = ("torch", "cpu_capability", "threads")  # conditions under which digests must be equal
TOLERANCE = 1e-3  # of sums of squares, elsewhere
LAST_DIGITS = 1e-7  # of weighted sums of squares of a text's numbers
LISTED = 8  # names that a message lists

Entry = dict[str, Any]
Groups = dict[str, dict[str, Entry]]


def conditions() -> dict[str, Any]:
    """What the bits of a result depend on, here."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": yaml.safe_load(CHAIN.read_text())["overrides"]["all"]["threads"],
        "cpu": model[1] if model else platform.processor(),
    }


def of_tensors(path: Path) -> Entry:
    """Digest and sum of squares of a safetensors file, whatever its metadata and order."""
    digest, squares = hashlib.sha256(), 0.0
    with safe_open(path, framework="pt") as file:
        for name in sorted(file.keys()):
            tensor: Tensor = file.get_tensor(name)
            digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            squares += tensor.double().square().sum().item()
    return {"digest": digest.hexdigest(), "squares": squares}


def of_csv(path: Path) -> Entry:
    """Digest of a CSV file without the columns that hold costs."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    kept = [index for index, name in enumerate(rows[0]) if not COSTS.search(name)]
    cells = [[row[index] for index in kept] for row in rows]
    text = io.StringIO()
    csv.writer(text).writerows(cells)
    return _of_text(text.getvalue(), [cell for row in cells for cell in row])


def of_json(path: Path) -> Entry:
    """Digest of a JSON file without the keys that hold costs."""
    value = _without_costs(json.loads(path.read_text()))
    return _of_text(json.dumps(value, sort_keys=True), list(_leaves(value)))


def _of_text(text: str, cells: list[Any]) -> Entry:
    """Digest of a text, that of its words alone, and a weighted sum of squares of its numbers.

    OpenCV has other kernels for another generation of processor: the last digits of motions differ.
    """
    numbers, words = [], []
    for cell in cells:
        try:
            number = math.nan if isinstance(cell, bool) else float(cell)
        except (TypeError, ValueError):
            number = math.nan
        (numbers if math.isfinite(number) else words).append(
            number if math.isfinite(number) else cell
        )
    squares = sum((1 + i % 97) * number**2 for i, number in enumerate(numbers))
    said = hashlib.sha256(json.dumps([len(numbers), words]).encode()).hexdigest()
    return {
        "digest": hashlib.sha256(text.encode()).hexdigest(),
        "words": said,
        "numbers": squares,
    }


def _leaves(value: Any) -> Iterable[Any]:
    """Keys and values of JSON, at any depth, in order."""
    if isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    elif isinstance(value, dict):
        for key in sorted(value):
            yield f"key {key}"
            yield from _leaves(value[key])
    else:
        yield value


def _without_costs(value: Any) -> Any:
    """A JSON value, without times and memory at any depth."""
    if isinstance(value, list):
        return [_without_costs(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: _without_costs(one) for key, one in value.items() if not COSTS.search(key)}


READERS = {".safetensors": of_tensors, ".csv": of_csv, ".json": of_json}


def collect(results: Path) -> Groups:
    """Group -> path below the results -> its digest, and for tensors their sum of squares."""
    return {
        group: {
            str(path.relative_to(results)): READERS[path.suffix](path)
            for pattern in patterns
            for path in sorted(results.glob(pattern))
        }
        for group, patterns in GROUPS.items()
    }


def is_exact(under: dict[str, Any]) -> bool:
    """Whether digests recorded under some conditions must be equal here.

    They must on another processor of the same maker; MKL has other kernels for another maker's.
    """
    here = conditions()
    maker, other = (str(where["cpu"]).partition(" ")[0] for where in (under, here))
    return maker == other and all(under[name] == here[name] for name in EXACT)


def same(wanted: Entry, found: Entry, exact: bool) -> bool:
    """Whether a file is as recorded: tensors bit by bit, texts but for last digits of numbers.

    On another maker's processor by the sum of squares, where that is known.
    """
    if exact and "words" in wanted:
        near = math.isclose(wanted["numbers"], found["numbers"], rel_tol=LAST_DIGITS)
        return wanted["words"] == found["words"] and near
    if exact:
        return wanted["digest"] == found["digest"]
    if "squares" not in wanted:
        return True
    return math.isclose(wanted["squares"], found["squares"], rel_tol=TOLERANCE)


def differences(wanted: dict[str, Entry], found: dict[str, Entry], exact: bool) -> list[str]:
    """What is not as recorded, in a line for each way to differ; nothing where all is."""
    both = sorted(wanted.keys() & found.keys())
    kinds = {
        "changed": [name for name in both if not same(wanted[name], found[name], exact)],
        "missing": sorted(wanted.keys() - found.keys()),
        "unexpected": sorted(found.keys() - wanted.keys()),
    }
    return [f"{kind}, {len(names)}: {_brief(names)}" for kind, names in kinds.items() if names]


def _brief(names: list[str]) -> str:
    """The first of some names."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def compare(wanted: Groups, found: Groups, exact: bool) -> list[str]:
    """Lines that say, group by group, what is not as recorded."""
    return [
        f"{group}: {line}"
        for group in wanted
        for line in differences(wanted[group], found[group], exact)
    ]


def main(arguments: Iterable[str] | None = None) -> int:
    """Compare results with those on record, or record them."""
    parser = argparse.ArgumentParser(description="compare results of chain.yaml with the record")
    parser.add_argument("results", type=Path, help="the chain's results folder")
    parser.add_argument("--record", action="store_true", help="record them instead")
    wanted = parser.parse_args(arguments if arguments is None else list(arguments))
    found = collect(wanted.results)
    number = sum(map(len, found.values()))
    if wanted.record:
        record = {"under": conditions(), "groups": found}
        RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        print(f"{number} digests in {RECORD}")
        return 0
    record = json.loads(RECORD.read_text())
    exact = is_exact(record["under"])
    lines = compare(record["groups"], found, exact)
    how = "bit by bit" if exact else f"within {TOLERANCE:g}, recorded under {record['under']}"
    print("\n".join(lines or [f"{number} files are as recorded, {how}"]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
