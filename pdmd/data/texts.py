"""Prompts that users bring: JSON lines, CSV, plain lines, or a folder of pictures.

What is wrong with a row is one line that names the file and the line; the good rows are kept.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdmd.errors import UserError
from pdmd.files.digests import result_sha256
from pdmd.files.storage import shown

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
CLIPS = (".mp4", ".webm", ".mov", ".avi", ".gif")
METADATA, FILE_NAME = "metadata.jsonl", "file_name"  # of a folder, as Hugging Face's imagefolder
KINDS = ".jsonl, .csv or .txt, or a folder of pictures"
HALF = re.compile("[\ud800-\udfff]")  # of a letter that UTF-16 writes as two
COMPLAINTS = 20  # about rows, that are printed
STRATUM, SCENE = "stratum", "scene"


@dataclass(frozen=True)
class Text:
    """A prompt as a user wrote it.

    Attributes:
        id: of the row, its line's number where it has none; where: file and line;
        image: the first frame that it goes with; stratum: what it is about, a tag;
        scene: what a first frame is drawn from, where there is no picture.
    """

    id: str
    text: str
    where: str
    image: Path | None = None
    stratum: str | None = None
    scene: Mapping[str, Any] | None = None


Row = tuple[str, Any]  # file and line, and what stands there: a mapping, or why there is none


class _Bad(Exception):
    """What is wrong with a row."""


def read_texts(
    path: Path, column: str = "prompt", with_images: bool = False
) -> tuple[list[Text], list[str]]:
    """The good rows of a file in its order, and a line about each of the others.

    Args:
        column: where prompts stand; with_images: whether each row must have a picture or a scene.
    Raises:
        UserError: there is no such file, it is of no known kind, no row has the column, or none
            is good.
    """
    texts: list[Text] = []
    bad: list[str] = []
    seen: dict[str, str] = {}
    columns: set[str] = set()
    for where, row in _rows(path, column):
        try:
            if isinstance(row, _Bad):
                raise row
            columns |= set(row)
            text = _text(path, where, row, column, with_images)
            if text.id in seen:
                raise _Bad(f"id: {shown(text.id)}: expected another than that of {seen[text.id]}")
        except _Bad as error:
            bad.append(f"{where}: {error}")
            continue
        seen[text.id] = where
        texts.append(text)
    if not texts:
        if columns and column not in columns:
            have = shown(", ".join(sorted(map(str, columns))))
            raise UserError(f"{path}: no column {column!r}: expected it among {have}")
        raise UserError(bad[0] if bad else f"{path}: no rows: expected prompts")
    return texts, bad


def tell(path: Path, bad: Sequence[str]) -> None:
    """Say which rows of a file were left out, up to COMPLAINTS of them one by one."""
    for line in bad[:COMPLAINTS]:
        print(f"left out: {line}")
    if len(bad) > COMPLAINTS:
        print(f"left out: {len(bad) - COMPLAINTS} more of {path}")


def texts_hash(texts: Iterable[Text]) -> str:
    """sha256 of ids, prompts, pictures' own digests and scenes, in their order."""
    digest = hashlib.sha256()
    for one in texts:
        image = None if one.image is None else result_sha256(one.image)
        scene = None if one.scene is None else json.dumps(one.scene, sort_keys=True)
        digest.update(json.dumps([one.id, one.text, image, scene]).encode())
    return digest.hexdigest()


def _text(path: Path, where: str, row: Any, column: str, with_images: bool) -> Text:
    """A row as a prompt. Raises _Bad."""
    if not isinstance(row, Mapping):
        raise _Bad(f"{shown(row)}: expected an object with {column!r}")
    text = row.get(column)
    if not isinstance(text, str) or not text.strip():
        raise _Bad(f"{column}: {shown(text)}: expected a prompt")
    if HALF.search(text):  # which JSON may escape, and no tokenizer reads
        raise _Bad(f"{column}: {shown(ascii(text))}: expected whole letters")
    name = row.get("id", where.rpartition(":")[2])
    if not isinstance(name, (str, int)) or isinstance(name, bool) or not str(name):
        raise _Bad(f"id: {shown(name)}: expected a text or a number")
    stratum = row.get(STRATUM)
    if stratum is not None and not isinstance(stratum, str):
        raise _Bad(f"{STRATUM}: {shown(stratum)}: expected a text")
    image, scene = _picture(path, row) if with_images else (None, None)
    return Text(str(name), text.strip(), where, image, stratum or None, scene)


def _picture(path: Path, row: Mapping[str, Any]) -> tuple[Path | None, Mapping[str, Any] | None]:
    """The picture, or the scene, of a row. Raises _Bad."""
    from PIL import Image

    name, scene = row.get("image", row.get(FILE_NAME)), row.get(SCENE)
    if not name and isinstance(scene, Mapping):
        return None, scene
    if not isinstance(name, str) or not name:
        raise _Bad(f"image: {shown(name)}: expected the name of a picture")
    image = (path if path.is_dir() else path.parent) / name
    if not image.is_file():
        raise _Bad(f"image: {shown(image)}: expected a file")
    try:
        if is_clip(image):
            frames_of(image, 1)
        else:
            with Image.open(image) as opened:
                opened.load()
    except Exception as error:  # of a damaged picture Pillow says anything
        raise _Bad(f"image: {shown(image)}: {shown(error)}: expected a picture") from error
    return image, None


def is_clip(path: Path) -> bool:
    """Whether a file is a clip, by its name."""
    return path.suffix.lower() in CLIPS


def frames_of(path: Path, count: int) -> list[Any]:
    """So many frames of a clip, evenly spread, the first one among them; of a picture itself.

    Raises:
        ValueError: the clip has fewer.
    """
    from PIL import Image

    if not is_clip(path):
        return [Image.open(path).convert("RGB")] * count
    import cv2

    frames, capture = [], cv2.VideoCapture(str(path))
    while (read := capture.read())[0]:
        frames.append(Image.fromarray(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)))
    capture.release()
    if len(frames) < count or not frames:
        raise ValueError(f"{len(frames)} frames: expected at least {count}")
    return [frames[i * (len(frames) - 1) // max(count - 1, 1)] for i in range(count)]


def _rows(path: Path, column: str) -> Iterator[Row]:
    """The rows of a file or folder. Raises UserError for what is neither."""
    if path.is_dir():
        yield from _folder(path, column)
        return
    if not path.exists():
        raise UserError(f"{path}: missing: expected a file of prompts, {KINDS}")
    reader = {".jsonl": _json_lines, ".csv": _csv, ".txt": _lines}.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: expected {KINDS}")
    yield from reader(path, column)


def _folder(path: Path, column: str) -> Iterator[Row]:
    if (path / METADATA).is_file():
        yield from _json_lines(path / METADATA, column)
        return
    pictures = sorted(one for one in path.iterdir() if one.suffix.lower() in PICTURES + CLIPS)
    for picture in pictures:
        beside, where = picture.with_suffix(".txt"), f"{picture}:1"
        if not beside.is_file():
            yield where, _Bad(f"{beside.name}: missing: expected the prompt there")
            continue
        said = [row for _, row in _lines(beside, column)]
        row = said[0] if said else {column: ""}
        if isinstance(row, Mapping):
            row = {**row, "id": picture.name, "image": picture.name}
        yield where, row


def _json_lines(path: Path, column: str) -> Iterator[Row]:
    for number, line in _decoded(path):
        where = f"{path}:{number}"
        if isinstance(line, _Bad):
            yield where, line
        elif line.strip():
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield where, _Bad(f"{shown(error)}: expected one JSON object")


def _csv(path: Path, column: str) -> Iterator[Row]:
    """Rows, each at the line that it ends on; a line that is no UTF-8 stands in no row."""
    bad: list[Row] = []
    at = 0

    def good() -> Iterator[str]:
        nonlocal at
        for at, line in _decoded(path):
            if isinstance(line, _Bad):
                bad.append((f"{path}:{at}", line))
            else:
                yield f"{line}\n"

    reader = csv.DictReader(good(), strict=True)
    try:
        for row in reader:
            yield from bad
            bad.clear()
            kept = {key: said for key, said in row.items() if key and (said or key == column)}
            yield f"{path}:{at}", kept
    except csv.Error as error:
        bad.append((f"{path}:{at}", _Bad(f"{shown(error)}: expected a row of CSV")))
    yield from bad


def _lines(path: Path, column: str) -> Iterator[Row]:
    for number, line in _decoded(path):
        where = f"{path}:{number}"
        if isinstance(line, _Bad):
            yield where, line
        elif line.strip():
            yield where, {column: line}


def _decoded(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and text of each line; what is no UTF-8 as what is wrong with it. A BOM is dropped."""
    with path.open("rb") as handle:
        for number, raw in enumerate(handle, 1):
            start = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            try:
                yield number, start.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                yield number, _Bad(f"byte {error.start}: expected UTF-8")
