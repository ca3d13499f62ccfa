"""The configuration in the repository, with something changed; files are read once."""

import copy
from functools import cache
from pathlib import Path

import pytest

from pdmd.config.experiment import Experiment, merge
from pdmd.config.sections import Save
from pdmd.config.yaml_files import read_mapping, read_yaml
from pdmd.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS = sorted(path.stem for path in (ROOT / "config" / "scenarios").glob("*.yaml"))
LONGEST = 300  # letters of a message


@cache
def settings():
    """config.yaml."""
    return read_yaml(ROOT / "config" / "config.yaml")


def own(scenario, /, **diff):
    """Settings that run one scenario, with a diff over it."""
    return {"scenarios": [scenario], "overrides": {scenario: diff}}


def accepted(diff, root=ROOT):
    """The experiment of config.yaml and a diff."""
    return Experiment(root, merge(copy.deepcopy(settings()), diff))


def refused(diff, root=ROOT):
    """The one line that a diff over config.yaml is refused with."""
    with pytest.raises(UserError) as caught:
        accepted(diff, root)
    return one_line(caught.value)


def one_line(error):
    """The text of an error, which is short and stands on one line."""
    line = str(error)
    assert len(line) < LONGEST
    assert line.isprintable()
    assert "expected" in line or line.endswith("...")
    return line


def read_once(patch):
    """Read the repository's files once for many experiments, which leave them as they are."""
    patch.setattr("pdmd.config.experiment.read_yaml", cache(read_yaml))
    patch.setattr("pdmd.config.experiment.read_mapping", cache(read_mapping))


def saving(log_every, checkpoint_every, snapshots):
    """A `save` section."""
    return Save(log_every=log_every, checkpoint_every=checkpoint_every, snapshots=snapshots)
