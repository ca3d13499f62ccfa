"""The tests that Snakemake ships for executor plugins, on this one: local and debug clusters.

tests/slurm/test_executor.py has the same on a SLURM.
"""

import pytest
from snakemake.common.tests import TestWorkflowsLocalStorageBase
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit import ExecutorSettings


class Suite(TestWorkflowsLocalStorageBase):
    """Snakemake's own cases: a simple workflow and one with groups."""

    cluster = ""

    def get_executor(self):
        return "submitit"

    def get_executor_settings(self):
        return ExecutorSettings(cluster=self.cluster, poll=0.5)


@pytest.mark.long
class TestLocal(Suite):
    __test__ = True
    cluster = "local"


@pytest.mark.long
class TestDebug(Suite):
    __test__ = True
    cluster = "debug"


class TestUnknown(Suite):
    """The control: a cluster that does not exist is refused."""

    __test__ = True
    cluster = "lsf"
    expect_exception = WorkflowError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The folder that the executor keeps is relative to where Snakemake was started."""
    monkeypatch.chdir(tmp_path)
