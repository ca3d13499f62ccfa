"""The files that a call reads."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path

_watching = []  # (folder, files that were read below it); a hook cannot be taken away again


def _hook(event, arguments):
    if event != "open" or not _watching:
        return
    path, mode, flags = arguments
    writes = (mode and set(mode) & set("wax+")) or (flags or 0) & (os.O_WRONLY | os.O_RDWR)
    for folder, files in _watching:
        if not writes and isinstance(path, str | os.PathLike):
            whole = Path(os.path.abspath(path))
            if whole.is_relative_to(folder):
                files.add(whole)


sys.addaudithook(_hook)


@contextmanager
def read_below(folder):
    """A set that the files below a folder are added to as they are opened to be read."""
    entry = (Path(os.path.abspath(folder)), set())
    _watching.append(entry)
    try:
        yield entry[1]
    finally:
        _watching.remove(entry)
