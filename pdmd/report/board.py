"""TensorBoard's event files, from the records that training keeps of itself.

They are made beside training, not by it: what a job writes is read, and nothing of its own changed.
A run's file is written whole when its source has changed, under a new name; the old one goes.
"""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdmd.errors import UserError
from pdmd.files.storage import load_tensors, read_json, shown, write_json

WRITTEN = ".written.json"  # run -> what its event file was made from
FRAME_MS, ABREAST = 125, 4  # of an animated clip; pictures of a grid in a row
STATS, SCORES, PREVIEWS = "stats.jsonl", "metrics.json", "previews.safetensors"


@dataclass(frozen=True)
class Source:
    """What one run of TensorBoard is made from.

    Attributes:
        name: `scenario/method/seed1/phase1`; stats: its records; scores, previews: of its seed,
            behind its last phase alone, or None.
    """

    name: str
    stats: Path
    scores: Path | None = None
    previews: Path | None = None

    def files(self) -> list[Path]:
        """Those of them that are there."""
        every = (self.stats, self.scores, self.previews)
        return [path for path in every if path is not None and path.is_file()]

    def mark(self) -> list[Any]:
        """What changes with them."""
        stats = ((str(path), path.stat()) for path in self.files())
        return [[name, one.st_size, one.st_mtime_ns] for name, one in stats]


def write_board(results: Path, output: Path) -> int:
    """Bring event files up to date; returns the number of runs that have one.

    A damaged file is told in a line, and the other runs go on.

    Raises:
        UserError: there is no such results folder.
    """
    if not results.is_dir():
        raise UserError(f"{results}: missing: expected a results folder")
    record = output / WRITTEN
    written: dict[str, Any] = read_json(record, dict) if record.is_file() else {}
    for source in sources(results):
        try:
            mark = source.mark()
            if written.get(source.name) == mark and (output / source.name).is_dir():
                continue
            _write(source, output / source.name)
            written[source.name] = mark
        except (UserError, OSError) as error:  # a job ends at this moment, or a file is damaged
            print(f"left out: {source.name}: {shown(error)}")
    write_json(record, written)
    return len(written)


def sources(results: Path) -> Iterator[Source]:
    """Every run below a results folder: those that are under way, then those that are done."""
    done = sorted(results.glob(f"*/*/seed*/phase*/{STATS}"))
    finished = {str(path.parent.relative_to(results)) for path in done}
    for path in sorted(results.glob(f".state/*/*/*-seed*/{STATS}")):
        stage, _, seeds = path.parent.name.partition("-seed")
        scenario, method = path.parent.parts[-3:-1]
        name = f"{scenario}/{method}/seed{seeds}/{stage}"
        if name not in finished:
            yield Source(name, path)
    for path in done:
        last = _number(path) == max(_number(other) for other in path.parents[1].glob("phase*/*"))
        name, seed = str(path.parent.relative_to(results)), path.parents[1]
        yield Source(name, path, seed / SCORES if last else None, seed / PREVIEWS)
    for path in sorted(results.glob(f"*/base/{STATS}")):
        yield Source(str(path.parent.relative_to(results)), path)


def _number(path: Path) -> int:
    return int(path.parent.name.removeprefix("phase"))


def read_records(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; one that is being written is left for the next time."""
    lines = path.read_bytes().split(b"\n")[:-1]
    try:
        return [dict(json.loads(line)) for line in lines if line.strip()]
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: {shown(error)}: expected a record in each line") from error


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """Tag -> number of one record: values of several runs by their number, of roles by name."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if name == "step":
            continue
        tag = name.removesuffix("_by_role")
        if isinstance(value, Mapping):
            found |= {f"{tag}/{role}": float(one) for role, one in value.items()}
        elif isinstance(value, list):
            runs = {name: value[0]} if len(value) == 1 else dict(_numbered(name, value))
            found |= {key: float(one) for key, one in runs.items()}
        elif isinstance(value, (int, float)):
            found[name] = float(value)
    return found


def _numbered(name: str, values: list[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{name}/run{i}", value) for i, value in enumerate(values))


def _write(source: Source, folder: Path) -> None:
    """One run's event file, made beside and put in the place of its last one."""
    from tensorboardX import SummaryWriter

    records = read_records(source.stats)
    beside = folder.with_name(f".{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    # Under a name of its own: TensorBoard goes on with a file that it knows, however it changed.
    with SummaryWriter(str(beside), filename_suffix=f".{time.time_ns()}") as writer:
        step = 0
        for record in records:
            step = int(record["step"])
            for tag, value in scalars(record).items():
                writer.add_scalar(tag, value, step, walltime=float(record["seconds"]))
        if source.scores is not None and source.scores.is_file():
            for name, value in read_json(source.scores, dict).items():
                if isinstance(value, (int, float)):
                    writer.add_scalar(f"scores/{name}", value, step)
        if source.previews is not None and source.previews.is_file():
            _add_previews(writer, source, folder.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside.rename(folder)


def _add_previews(writer: Any, source: Source, phase: str) -> None:
    assert source.previews is not None
    for key, pictures in load_tensors(source.previews).items():
        of_phase, _, step = key.partition("/")
        if of_phase == phase:
            writer.file_writer.add_summary(_image(pictures), int(step))


def _image(pictures: Tensor) -> Any:
    """A summary of pictures (N, 3, T, H, W) in uint8: a grid, of clips one that moves."""
    from tensorboardX.proto.summary_pb2 import Summary

    frames = [_grid(pictures[:, :, t]) for t in range(pictures.shape[2])]
    height, width = frames[0].shape[:2]
    data = _encoded(frames)
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
    return Summary(value=[Summary.Value(tag="samples", image=image)])


def _grid(pictures: Tensor) -> Any:
    """(N, 3, H, W) uint8 -> (h, w, 3), some in a row, black where none is left."""
    rows = []
    for some in pictures.split(ABREAST):
        gap = some.new_zeros(min(ABREAST, len(pictures)) - len(some), *some.shape[1:])
        rows.append(torch.cat(list(torch.cat([some, gap])), 2))
    return torch.cat(rows, 1).permute(1, 2, 0).numpy()


def _encoded(frames: list[Any]) -> bytes:
    """PNG of one frame, else a GIF."""
    from PIL import Image

    images, out = [Image.fromarray(frame) for frame in frames], io.BytesIO()
    if len(images) == 1:
        images[0].save(out, "PNG")
    else:
        more = {"save_all": True, "append_images": images[1:], "duration": FRAME_MS, "loop": 0}
        images[0].save(out, "GIF", **more)
    return out.getvalue()
