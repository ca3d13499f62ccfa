"""What sbatch makes of a request."""

import shlex

import pytest
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from snakemake_executor_plugin_submitit import ExecutorSettings
from snakemake_executor_plugin_submitit.resources import Request
from snakemake_executor_plugin_submitit.runner import SnakemakeJob
from snakemake_executor_plugin_submitit.slurm import NotSubmitted, Slurm
from snakemake_executor_plugin_submitit.task import Task


class Submitter:
    """Submits jobs that begin in an hour, and says what Slurm has noted of them."""

    def __init__(self, cluster, folder, **settings):
        self.cluster, self.folder, self.settings = cluster, folder, ExecutorSettings(**settings)
        self.slurm = Slurm(self.settings)

    def tasks(self, wishes, count=1):
        found = []
        for i in range(count):
            request = Request.of("rule", 1, wishes, self.settings)
            info, call = SubmittedJobInfo(None), SnakemakeJob("true", str(self.folder))
            task = Task(info, request, call, "rule", f"k{i}", "f", self.folder)
            task.token = "the-token"
            found.append(task)
        return found

    def shown(self, extra="", **wishes):
        """The words of scontrol show job."""
        wishes["slurm_extra"] = f"--begin=now+1hour {extra}"
        (task,) = self.tasks(wishes)
        self.slurm.submit([task])
        show = ("scontrol", "--oneliner", "show", "job", task.id)
        words = self.cluster.run(*show).stdout.split()
        self.cluster.run("scancel", task.id)
        return dict(word.split("=", 1) for word in words if "=" in word)


@pytest.fixture
def submitter(cluster, tmp_path, monkeypatch):
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    return lambda **settings: Submitter(cluster, tmp_path, **settings)


@pytest.mark.parametrize(
    ("wishes", "noted"),
    [
        ({}, {"Comment": "the-token", "Requeue": "1", "Partition": "gpu", "TimeLimit": "01:00:00"}),
        ({"extra": "--no-requeue"}, {"Requeue": "0", "Comment": "the-token"}),
        ({"extra": "-n2 -N2 -c3"}, {"NumNodes": "2-2", "NumTasks": "2", "CPUs/Task": "3"}),
        ({"extra": "-G 2"}, {"TresPerNode": "gres:gpu:2"}),
        ({"extra": "-x n2 -p small -t 3:30"}, {"ExcNodeList": "n2", "TimeLimit": "00:04:00"}),
        ({"extra": "--mem=2G"}, {"MinMemoryNode": "2G"}),
        ({"extra": "-H"}, {"Priority": "0"}),
        ({"mem_mb": 0}, {"MinMemoryNode": "0"}),
        ({"mem_mb": 700}, {"MinMemoryNode": "700M"}),
        ({"mem_mb_per_gpu": 300, "gpu": 2, "mem_mb": 9}, {"MemPerTres": "gres:gpu:300"}),
        ({"gpu": 1, "ntasks_per_gpu": 2, "cpus_per_gpu": 2}, {"NtasksPerTRES": "2"}),
        ({"gpus_per_task": 1, "tasks": 2}, {"TresPerTask": "gres:gpu:1", "NumTasks": "2"}),
        ({"nodelist": "n1"}, {"ReqNodeList": "n1"}),
        ({"slurm_partition": "gpu, small", "runtime": 4}, {"Partition": "gpu,small"}),
    ],
)
def test_slurm_notes_what_was_asked_for(submitter, wishes, noted):
    found = submitter().shown(**wishes)
    assert {name: found.get(name) for name in noted} == noted


def test_quotes_and_spaces_reach_the_job_whole(submitter, tmp_path):
    odd, own = "a 'b' \"c\" $HOME `d` #e", submitter()
    (task,) = own.tasks({"slurm_extra": f"--export=ALL,ODD={shlex.quote(odd)}"})
    task.call.command = 'printf %s "$ODD" > odd.new; mv odd.new odd'
    own.slurm.submit([task])
    own.cluster.wait((tmp_path / "odd").exists, 30, "the job")
    assert (tmp_path / "odd").read_text() == odd


def test_variables_of_sbatch_do_not_overrule_a_job(submitter, monkeypatch):
    monkeypatch.setenv("SBATCH_PARTITION", "small")
    monkeypatch.setenv("SBATCH_NO_REQUEUE", "1")
    monkeypatch.setenv("SBATCH_ARRAY_INX", "0-3")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "2")
    assert submitter().shown(runtime=4)["Partition"] == "small", "the control: sbatch reads them"
    found = submitter().shown(slurm_partition="gpu", runtime=9)
    assert (found["Partition"], found["Requeue"]) == ("gpu", "1")
    assert found["TimeLimit"] == "00:09:00"
    assert "ArrayJobId" not in found


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("--from-the-future=3", "unrecognized option '--from-the-future=3'"),
        ("--hint=x", "unrecognized --hint argument"),
        ("--reservation 'my own'", "Requested reservation is invalid"),
    ],
)
def test_a_flag_that_this_slurm_does_not_know_is_refused_for_good(submitter, extra, words):
    with pytest.raises(NotSubmitted) as caught:
        submitter().shown(extra)
    assert words in str(caught.value)
    assert caught.value.final


@pytest.mark.parametrize(("count", "sizes"), [(3, [3]), (4, [4]), (5, [4, 1]), (9, [4, 4, 1])])
def test_arrays_of_any_number_of_jobs(short_arrays, tmp_path, monkeypatch, count, sizes):
    for name, value in short_arrays.env.items():
        monkeypatch.setenv(name, value)
    own = Submitter(short_arrays, tmp_path, arrays=True)
    batches = own.slurm.batches(own.tasks({"slurm_extra": "--begin=now+1hour"}, count))
    assert [len(batch) for batch in batches] == sizes
    for batch in batches:
        own.slurm.submit(batch)
    assert len({task.id for batch in batches for task in batch}) == count
    assert len(short_arrays.queue()) == count


def test_an_array_that_is_too_long_is_refused_and_made_shorter(short_arrays, tmp_path, monkeypatch):
    """The control of the one above: where scontrol does not answer, by sbatch's refusal."""
    for name, value in short_arrays.env.items():
        monkeypatch.setenv(name, value)
    own = Submitter(short_arrays, tmp_path, arrays=True)
    own.slurm._most = 100
    some = own.tasks({"slurm_extra": "--begin=now+1hour"}, 9)
    with pytest.raises(NotSubmitted, match="Invalid job array specification") as caught:
        own.slurm.submit(own.slurm.batches(some)[0])
    assert not caught.value.final
    assert [len(batch) for batch in own.slurm.batches(some)] == [4, 4, 1]
