"""Files that are whole or not there: safetensors, JSON and text, written beside, renamed once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdmd.digests import check_recorded
from pdmd.digests import sha256 as sha256
from pdmd.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it and rename it once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.touch()
        mode = beside.stat().st_mode  # safetensors would keep others out, whatever the umask says
        yield beside
        beside.chmod(mode)
        with beside.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(beside, path)
        sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with replacing(path) as beside:
        beside.write_text(text)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole, keys sorted."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises UserError that names the file."""
    check_recorded(path)
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}: expected a readable JSON file") from error


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file whole; tensors are made contiguous and moved to the CPU.

    Metadata goes into one key as sorted JSON: the library writes several in no fixed order, and
    equal tensors must give equal bytes.
    """
    from safetensors.torch import save_file

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as beside:
        save_file(ready, beside, {"pdmd": json.dumps(dict(metadata or {}), sort_keys=True)})


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises UserError that names the file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_recorded(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: {error}: expected a whole safetensors file") from error


def load_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, "pt") as handle:
        return dict(json.loads((handle.metadata() or {}).get("pdmd", "{}")))


def fingerprint(value: Any) -> str:
    """Hex digest of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
