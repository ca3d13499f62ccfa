"""Digests of files, and the records beside them that say what they must be.

Every stage ends with a record of the digests of what it wrote. Whoever reads such a file compares:
half a file, or one with a byte flipped, is refused by name.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from pdmd.errors import UserError

# Names of records; a file is covered by the one of them, beside it, that lists it.
RECORDS = (
    *("provenance.json", "evaluation.json", "pictures.json", "embedding.json", "judging.json"),
    *("frontier.json", "exits.json", "boundaries.json", "experts.json", "features.json"),
    *("decoding.json", "previews.json", "measuring.json", "choosing.json", "ranging.json"),
)
OUTPUTS = "outputs_sha256"  # their key: name beside the record -> digest


def file_sha256(path: Path) -> str:
    """Hex digest of a file. Raises OSError."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256(path: Path) -> str:
    """Hex digest of a file. Raises UserError that names the file."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: expected a file that can be read") from error


def result_sha256(path: Path) -> str:
    """The same of a stage's result: taken once in a process while the file stays as it is.

    Results are replaced whole, so that a changed one is another file.
    """
    try:
        stat = path.stat()
    except OSError:
        return sha256(path)
    return _sha256(path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _sha256(path: Path, *identity: int) -> str:
    return sha256(path)


def check_recorded(path: Path) -> None:
    """Compare a file with the record beside it that lists it, if one does.

    Raises:
        UserError: its digest is another; names both files.
    """
    for name in RECORDS:
        record = path.with_name(name)
        if name == path.name or not record.is_file():
            continue
        wanted = _outputs(record).get(path.name)
        there = result_sha256(path) if wanted is not None and path.is_file() else wanted
        if wanted is not None and there != wanted:
            raise UserError(
                f"{path}: sha256 {str(there)[:12]}: expected {wanted[:12]}, as {name} beside it"
                " says; delete it to have it made again"
            )


def _outputs(record: Path) -> dict[str, str]:
    stat = record.stat()
    return _parse(str(record), stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _parse(record: str, *identity: int) -> dict[str, str]:
    try:
        outputs = json.loads(Path(record).read_text(encoding="utf-8")).get(OUTPUTS, {})
        return {str(name): str(digest) for name, digest in outputs.items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{record}: {error}: expected a record of what a stage wrote") from error
