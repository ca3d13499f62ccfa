"""Files that are whole or not there: safetensors, JSON and text, written beside, renamed once.

Whatever the disk or a damaged file has to say becomes one line that names the file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdmd.errors import UserError
from pdmd.files.digests import check_recorded
from pdmd.files.digests import sha256 as sha256

if TYPE_CHECKING:
    from torch import Tensor


SHOWN = 100  # characters of another library's reason, and of a value, that a message repeats


def shown(value: object) -> str:
    """A value, or what an error says of itself, in one line that is not long."""
    text = " ".join(str(value).split())
    if isinstance(value, OSError) and value.strerror:
        text = value.strerror  # without the number, and without the path once more
    elif isinstance(value, KeyError):
        text = f"no {text}"
    elif isinstance(value, Exception) and not text:
        text = type(value).__name__
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


@contextmanager
def reading(path: Path | str, expected: str) -> Iterator[None]:
    """Around the parsing of a file and the look-ups in it, and around nothing else.

    Raises:
        UserError: names the file, what a parser or a look-up said, and what was expected.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # parsers of damaged files raise anything
        raise UserError(f"{path}: {shown(error)}: expected {expected}") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around the writing of a file: no room, no right or no such folder are one line.

    Raises:
        UserError: names the file, or the folder above it that is none.
    """
    try:
        yield
    except OSError as error:
        where = path if error.filename is None else Path(os.fsdecode(error.filename))
        if where not in path.parents and where.parent != path.parent:
            raise  # another file's, which the error names
        place = where if where in path.parents else path
        raise UserError(
            f"{place}: {shown(error)}: expected room, and the right, to write {path.name}"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it and rename it once.

    Raises:
        UserError: the disk or its rights do not allow it; what was there before stays.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.touch()
            mode = beside.stat().st_mode  # safetensors would keep others out, whatever the umask
            yield beside
            beside.chmod(mode)
            with beside.open("rb+") as handle:
                os.fsync(handle.fileno())
            os.replace(beside, path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):  # where nothing could be written nothing can be removed
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, as UTF-8."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole, keys sorted."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path, kind: type | None = None, keys: Iterable[str] = ()) -> Any:
    """Read a JSON file.

    Args:
        kind: dict or list, what it must hold; keys: what a mapping must have, at least.
    Raises:
        UserError: names the file, and the key that is missing.
    """
    check_recorded(path)
    with reading(path, "a readable JSON file"):
        value = json.loads(path.read_text(encoding="utf-8"))
    if kind is not None and not isinstance(value, kind):
        what = "a mapping" if kind is dict else "a list"
        raise UserError(f"{path}: {shown(json.dumps(value))}: expected {what}")
    for key in keys:
        if key not in value:
            raise UserError(f"{path}: no key {key!r}: expected {', '.join(keys)}")
    return value


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file whole; tensors are made contiguous and moved to the CPU.

    Metadata goes into one key as sorted JSON: the library writes several in no fixed order, and
    equal tensors must give equal bytes.
    """
    save_for_others(path, tensors, "pdmd", json.dumps(dict(metadata or {}), sort_keys=True))


def save_for_others(path: Path, tensors: Mapping[str, Tensor], key: str, text: str) -> None:
    """The same with one key of metadata as another program reads it."""
    from safetensors.torch import save_file

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as beside, _as_os_error():
        save_file(ready, beside, {key: text})


@contextmanager
def _as_os_error() -> Iterator[None]:
    """What safetensors says of a full disk, as Python says it."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def save_pickled(path: Path, value: Any) -> None:
    """Write what `torch.load` reads, whole; equal values give equal bytes.

    It goes through memory: torch names the archive after the file that it writes to, which is a
    temporary one, and of a full disk it says "unexpected pos".
    """
    import torch

    saved = io.BytesIO()
    torch.save(value, saved)
    with replacing(path) as beside:
        beside.write_bytes(saved.getbuffer())


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises UserError that names the file."""
    from safetensors.torch import load_file

    check_recorded(path)
    with reading(path, "a whole safetensors file"):
        path.open("rb").close()  # of any file that it cannot open safetensors says it is not there
        return load_file(path)


def load_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file. Raises UserError that names the file."""
    from safetensors import safe_open

    check_recorded(path)
    with reading(path, "a whole safetensors file"), safe_open(path, "pt") as handle:
        metadata = json.loads((handle.metadata() or {}).get("pdmd", "{}"))
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata that are no texts")
        return dict(metadata)


def fingerprint(value: Any) -> str:
    """Hex digest of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
