"""The networks stage: what scores are made with is found, and loaded once, before days of training.

DINOv3 is behind terms that somebody has to accept, and machines differ in what they reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pdmd.config.sections import ALONG, Networks
from pdmd.errors import UserError
from pdmd.files.storage import write_json


def find_networks(wanted: Networks, output: Path) -> None:
    """Load each network that does not come along, and write which it is: name, and hub commit.

    Raises:
        UserError: one is not to be had; names the key, and what comes along in its place.
    """
    found = {role: _find(role, name) for role, name in wanted.fetched.items()}
    write_json(output, found)
    print(f"{output}: {', '.join(f'{role} {name}' for role, name in wanted.fetched.items())}")


def _find(role: str, name: str) -> dict[str, Any]:
    try:
        return {"name": name, **LOADERS[role](name)}
    except UserError as error:
        raise UserError(
            f"{error}; {ALONG[role]} comes along in its place, and needs neither network nor terms"
        ) from None


def _features(name: str) -> Mapping[str, Any]:
    from huggingface_hub import try_to_load_from_cache

    from pdmd.networks.dino import load_dino

    load_dino(name)
    cached = None if Path(name).is_dir() else try_to_load_from_cache(name, "config.json")
    return {"commit": Path(cached).parent.name if isinstance(cached, str) else None}


def _flow(name: str) -> Mapping[str, Any]:
    from pdmd.metrics.motion import raft_flow

    raft_flow(name, "large")
    return {}


def _clip(name: str) -> Mapping[str, Any]:
    from pdmd.metrics.alignment import load_clip

    load_clip(name)
    return {}


LOADERS = {"features": _features, "flow": _flow, "clip": _clip}
