"""Which GPUs of this machine there are to hand out."""

from __future__ import annotations

import os
import re
import subprocess
from itertools import pairwise
from typing import NamedTuple

NONE = ("", "NoDevFiles")  # how Slurm and CUDA say that there is none
EXPECTED = "expected indices such as 0,1,2,3, or UUIDs such as GPU-8f2a... or MIG-..., each once"


class Gpus(NamedTuple):
    """GPUs to hand out, as CUDA_VISIBLE_DEVICES names them, and who named them."""

    names: tuple[str, ...]
    source: str


def visible_gpus(setting: object) -> Gpus:
    """GPUs to hand out: those of the setting, else of CUDA_VISIBLE_DEVICES, else of nvidia-smi.

    As for CUDA, a -1 ends a list, so that -1 alone names none.

    Raises:
        ValueError: neither indices nor UUIDs, or one GPU twice.
    """
    if setting is not None:
        return Gpus(_parse("submitit-gpus", str(setting)), "submitit-gpus")
    text = os.environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return Gpus(_installed(), "nvidia-smi")
    return Gpus(_parse("CUDA_VISIBLE_DEVICES", text), f"CUDA_VISIBLE_DEVICES={text}")


def _parse(source: str, text: str) -> tuple[str, ...]:
    words = [word.strip() for word in text.split(",")]
    if "-1" in words:
        words = words[: words.index("-1")]
    if not words or text.strip() in NONE:
        return ()
    if all(re.fullmatch(r"\d{1,4}", word, re.ASCII) for word in words):
        found = [str(int(word)) for word in words]
        again = len(set(found)) < len(found)
    elif all(re.fullmatch(r"(GPU|MIG)-[\w/-]+", word, re.ASCII) for word in words):
        found = words
        # CUDA takes the beginning of a UUID too.
        again = any(long.startswith(short) for short, long in pairwise(sorted(words)))
    else:
        again = True
    if again:
        shown = text if len(text) < 100 else f"{text[:97]}..."
        raise ValueError(f"{source}: {shown!r}: {EXPECTED}")
    return tuple(found)


def _installed() -> tuple[str, ...]:
    """The GPUs that nvidia-smi lists; of one in MIG mode, its instances."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"],
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ()
    found: list[list[str]] = []
    for line in done.stdout.splitlines():
        if named := re.match(r"GPU \d+: .*\(UUID: (GPU-[^)]+)\)", line):
            found.append([named[1]])
        elif (named := re.match(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)", line)) and found:
            found[-1].append(named[1])
    if all(len(names) == 1 for names in found):
        return tuple(str(i) for i in range(len(found)))
    return tuple(name for names in found for name in (names[1:] or names))
