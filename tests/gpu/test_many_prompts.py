"""Memory does not grow with the number of prompts: 5,000, in five shards."""

import json
import subprocess
import sys

import pytest
from configs import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.long]

PROMPTS = 5000


def measured(*options):
    """In a process of its own: the peak is of it alone."""
    command = [sys.executable, str(ROOT / "tests/gpu/many_prompts.py"), str(PROMPTS), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def growth(found):
    """MB behind the third shard: by then the heap is as large as a shard makes it."""
    return found["shards_mb"][-1] - found["shards_mb"][2]


def test_memory_does_not_grow_with_shards():
    found = measured()
    assert found["rows"] == PROMPTS + 3  # two of evaluation, and the negative one
    others = 0.4 * found["bytes"] / 1e6  # two shards of five
    held = measured("--hold")  # control
    assert growth(found) < others / 2 < growth(held)
