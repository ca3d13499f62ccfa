"""Snakemake's resources as what sbatch is asked for."""

import random
import shlex

import pytest
from submitit.slurm.slurm import _make_sbatch_string

from snakemake_executor_plugin_submitit import ExecutorSettings, flags, resources
from snakemake_executor_plugin_submitit.resources import Request, slurm_parameters

SETTINGS = ExecutorSettings(partition="gpu", account="lab", qos="normal", runtime=7)


def asked(threads=1, **resources):
    """The parameters that submitit gets."""
    request = Request.of("rule", threads, resources, SETTINGS)
    return slurm_parameters(request, SETTINGS, "token")


def test_without_wishes_the_settings_hold():
    found = asked(threads=3)
    assert found["cpus_per_task"] == 3
    assert found["time"] == 7
    assert (found["partition"], found["account"], found["qos"]) == ("gpu", "lab", "normal")
    assert found["nodes"] == found["ntasks_per_node"] == 1
    assert not {"gres", "mem_per_cpu", "constraint"} & found.keys()
    assert "gpus-per-node" not in found["additional_parameters"]


def test_a_job_s_own_wishes_go_before_the_settings():
    found = asked(slurm_partition="long", slurm_account="a", qos="q", constraint="ib", runtime=90)
    assert (found["partition"], found["account"], found["qos"]) == ("long", "a", "q")
    assert (found["constraint"], found["time"]) == ("ib", 90)


def test_gpus_and_tasks_are_totals_shared_by_the_nodes():
    found = asked(nodes=2, gpu=4, tasks=4, cpus_per_task=5, gpu_model="a100")
    assert found["additional_parameters"]["gpus-per-node"] == "a100:2"
    assert (found["nodes"], found["ntasks_per_node"], found["cpus_per_task"]) == (2, 2, 5)


def test_gres_stands_for_itself():
    found = asked(gpu=2, gres="gpu:h100:2")
    assert found["gres"] == "gpu:h100:2"
    assert "gpus-per-node" not in found["additional_parameters"]


def test_memory_of_a_node_or_of_a_cpu():
    assert asked(mem_mb=900)["additional_parameters"]["mem"] == "900M"
    found = asked(mem_mb=900, mem_mb_per_cpu=100)
    assert found["additional_parameters"]["mem-per-cpu"] == "100M"
    assert "mem" not in found["additional_parameters"]
    assert asked(mem_mb=0)["additional_parameters"]["mem"] == "0M", "all that a node has"
    assert "mem" not in asked()["additional_parameters"], "the control: none where none is asked"


def test_only_a_resumable_job_is_signalled():
    assert asked(resumable=1)["additional_parameters"]["signal"] == "B:USR2@120"
    assert asked(resumable=0)["additional_parameters"]["signal"] == "B:CONT@1"
    assert asked(resumable="0")["additional_parameters"]["signal"] == "B:CONT@1"
    assert asked(resumable=2)["additional_parameters"]["signal"] == "B:USR2@120", "of a group"


def test_further_flags_in_each_spelling():
    found = asked(slurm_extra="--exclude=n7 --exclusive --reservation 'my own'")
    flags = found["additional_parameters"]
    assert flags["exclude"] == "n7"
    assert flags["exclusive"] is True
    assert flags["reservation"] == "my own"


@pytest.mark.parametrize(
    ("extra", "parameters", "flags"),
    [
        ("-x n7", {}, {"exclude": "n7"}),
        ("-xn7 -H", {}, {"exclude": "n7", "hold": True}),
        ("-n2", {"ntasks_per_node": 2}, {}),
        ("-n 4 -N 2", {"nodes": 2, "ntasks_per_node": 2}, {}),
        ("-G 1", {}, {"gpus-per-node": "1"}),
        ("-G a100:4 --nodes=2", {"nodes": 2}, {"gpus-per-node": "a100:2"}),
        ("--gpus-per-node=2 -N2", {"nodes": 2}, {"gpus-per-node": "2"}),
        ("--gpus-per-task 2 -n 3", {"ntasks_per_node": 3}, {"gpus-per-task": "2"}),
        ("-p long", {"partition": "long"}, {}),
        ("-A other -q high", {"account": "other", "qos": "high"}, {}),
        ("-C 'ib&gpu'", {"constraint": "ib&gpu"}, {}),
        ("-c 3", {"cpus_per_task": 3}, {}),
        ("-t 90", {"time": 90}, {}),
        ("-t 1:30:00", {"time": 90}, {}),
        ("--time=2-12", {"time": 3600}, {}),
        ("--time 10:30", {"time": 11}, {}),
        ("--mem=5G", {}, {"mem": "5120M"}),
        ("--mem=1500K", {}, {"mem": "2M"}),
        ("--mem=0", {}, {"mem": "0M"}),
        ("--mem-per-cpu=2000", {}, {"mem-per-cpu": "2000M"}),
        ("-L matlab:2,ansys", {}, {"licenses": "matlab:2,ansys"}),
        ("--no-requeue", {}, {"no-requeue": True}),
        ("--requeue", {}, {"requeue": True}),
        ("--nice=-5", {}, {"nice": "-5"}),
        ("--exclusive=user", {}, {"exclusive": "user"}),
        ("--exclusive --contiguous", {}, {"exclusive": True, "contiguous": True}),
        ("--export=ALL,A=1", {}, {"export": "ALL,A=1"}),
        ("-d afterok:17 -b now+1hour", {}, {"dependency": "afterok:17", "begin": "now+1hour"}),
        ("--mail_user=me", {}, {"mail-user": "me"}),
        ("--from-the-future=3", {}, {"from-the-future": "3"}),
        ("--exclude='n[1-3],n7' --prefer \"a b\"", {}, {"exclude": "n[1-3],n7", "prefer": "a b"}),
    ],
)
def test_a_flag_is_read_as_sbatch_would_read_it(extra, parameters, flags):
    found = asked(slurm_extra=extra)
    assert {name: found[name] for name in parameters} == parameters
    assert {name: found["additional_parameters"][name] for name in flags} == flags


def test_no_requeue_takes_the_place_of_ours():
    assert "requeue" not in asked(slurm_extra="--no-requeue")["additional_parameters"]
    assert asked()["additional_parameters"]["requeue"] is True, "the control"


OURS = ["--comment=x", "--comm=x", "--job-name=x", "-J x", "-o x", "--output=x", "-e x", "-a 0-3"]
OURS += ["--array=1", "--signal=TERM@60", "--parsable", "--wrap=ls", "--test-only", "-W", "-D /x"]
OURS += ["--chdir=/x", "--open-mode=truncate", "--quiet", "-h", "--uid=1", "-M other", "-V"]
OURS += ["--export=NONE", "--export=A=1", "--export-file=x", "--no_requ", "--requ"]


@pytest.mark.parametrize("extra", OURS)
def test_what_the_executor_needs_itself_is_refused_by_name(extra):
    with pytest.raises(ValueError, match=r"^resource slurm_extra: '-.*: expected ") as caught:
        asked(slurm_extra=extra)
    assert "\n" not in str(caught.value)


WRONG = [
    "exclude",
    "--exclude",
    "-x",
    "--hold=1",
    "--hold yes",
    "--exclusive user",
    "-Z",
    "-",
    "--",
]
WRONG += ["--exclude=a --exclude=b", "-xa --exclude b", "--requeue --no-requeue", "--nodes=1-2"]
WRONG += ["--nodes=0", "-G a:b:2", "-G x", "--mem=lots", "--mem=5X", "-t 0", "-t 1:2:3:4"]
WRONG += ["-t UNLIMITED", "--new-flag", "--new-flag --x=1", "'", "--prefer='a\nb'", "--prefer=a\0b"]
WRONG += ["--x='", "--=3", "---x", "-n2 --ntasks-per-node=2", "--mem-per-cpu=1G --mem-per-gpu=1G"]
WRONG += ["--ntasks-per-gpu=2", "--exclude --prefer=a", "--prefer='a\\b'", "-x --hold"]


@pytest.mark.parametrize("extra", WRONG)
def test_a_flag_that_sbatch_would_not_understand_is_refused_in_one_line(extra):
    with pytest.raises(ValueError, match=r"^resource .*: expected ") as caught:
        asked(slurm_extra=extra)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("extra", "wishes", "says"),
    [
        ("--mem=5G", {"mem_mb": 3000}, "mem_mb, which says 3000"),
        ("-t 5", {"runtime": 20}, "runtime, which says 20"),
        ("-p a", {"partition": "b"}, "partition, which says 'b'"),
        ("-G 2", {"gpu": 1}, "gpu, which says 1"),
        ("-G h100:1", {"gpu_model": "a100"}, "gpu_model, which says 'a100'"),
        ("--exclude=a", {"slurm_exclude": "b"}, "slurm_exclude, which says 'b'"),
    ],
)
def test_a_flag_beside_the_resource_that_says_the_same_is_refused(extra, wishes, says):
    with pytest.raises(ValueError, match=r"^resource slurm_extra: '--") as caught:
        asked(**wishes, slurm_extra=extra)
    assert str(caught.value).endswith(f"expected this in resource {says}")
    asked(**wishes)
    asked(slurm_extra=extra)  # the controls: each alone


def test_resources_that_are_flags_of_sbatch():
    found = asked(reservation="r", exclude="n1, n2", nodelist="n3", licenses="a:1")
    flags = found["additional_parameters"]
    assert flags["reservation"] == "r"
    assert flags["exclude"] == "n1,n2"
    assert flags["nodelist"] == "n3"
    assert flags["licenses"] == "a:1"
    assert asked(slurm_reservation="r")["additional_parameters"]["reservation"] == "r"


def test_what_is_asked_for_by_gpu_or_by_task():
    found = asked(gpu=2, ntasks_per_gpu=3, cpus_per_gpu=4, mem_mb_per_gpu=500, mem_mb=1000)
    flags = found["additional_parameters"]
    assert flags["gpus-per-node"] == "2"
    assert (flags["ntasks-per-gpu"], flags["cpus-per-gpu"]) == (3, 4)
    assert not {"ntasks_per_node", "cpus_per_task"} & found.keys(), "sbatch takes one of each"
    assert flags["mem-per-gpu"] == "500M"
    assert "mem" not in flags
    found = asked(tasks=4, gpus_per_task=1, gpu_model="a100")
    assert found["additional_parameters"]["gpus-per-task"] == "a100:1"
    assert found["ntasks_per_node"] == 4
    assert asked(tasks_per_gpu=2, gpu=1)["additional_parameters"]["ntasks-per-gpu"] == 2


def test_gpus_stay_beside_a_gres_of_another_kind():
    flags = asked(gpu=2, gres="nvme:1")["additional_parameters"]
    assert flags["gpus-per-node"] == "2"


def test_partitions_may_be_written_with_spaces():
    assert asked(slurm_partition="gpu, small")["partition"] == "gpu,small"


def test_no_key_of_submitit_s_own_is_sent():
    """A cluster that enforces them refuses one that it does not know."""
    assert asked()["wckey"] is None


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"gpu": 3, "nodes": 2}, "resource gpu: 3: expected a multiple of nodes = 2"),
        ({"tasks": 3, "nodes": 2}, "resource tasks: 3: expected a multiple of nodes = 2"),
        ({"gpu": "two"}, "resource gpu: 'two': expected a whole number"),
        ({"runtime": -1}, "resource runtime: -1: expected a whole number"),
        ({"runtime": 0}, "resource runtime: 0: expected a whole number of at least 1"),
        ({"runtime": float("nan")}, "resource runtime: nan: expected a whole number"),
        ({"nodes": 0}, "resource nodes: 0: expected a whole number of at least 1"),
        ({"gpu": 1.5}, "resource gpu: 1.5: expected a whole number"),
        ({"gpu": True}, "resource gpu: True: expected a whole number"),
        ({"mem_mb": "lots"}, "resource mem_mb: 'lots': expected a whole number"),
        (
            {"mem_mb_per_cpu": 0},
            "resource mem_mb_per_cpu: 0: expected a whole number of at least 1",
        ),
        ({"resumable": "yes"}, "resource resumable: 'yes': expected 0 or 1"),
        ({"slurm_account": 83}, "resource slurm_account: 83: expected a string: in quotes, since"),
        ({"slurm_partition": "a b"}, "resource slurm_partition: 'a b': expected a name"),
        ({"constraint": "a\nb"}, "resource constraint: 'a\\nb': expected a name"),
        ({"slurm_partion": "a"}, "resource slurm_partion: 'a': expected slurm_partition; flags"),
        ({"slurm_nice": 1}, "resource slurm_nice: 1: expected "),
        ({"clusters": "b"}, "resource clusters: 'b': expected none: start Snakemake where"),
        ({"slurm_cluster": "b"}, "resource slurm_cluster: 'b': expected none"),
        ({"partition": "a", "slurm_partition": "b"}, "resource partition: 'a': expected the same"),
        ({"gpu": 1, "gpus_per_task": 1}, "resource gpus_per_task: 1: expected none beside"),
        ({"mem_mb_per_gpu": 100}, "resource mem_mb_per_gpu: 100: expected resource gpu beside it"),
        ({"slurm_extra": "exclude"}, "resource slurm_extra: 'exclude': expected --flag"),
        (
            {"slurm_extra": "--no-requeue", "resumable": 1},
            "resource slurm_extra: '--no-requeue': expected none with resource resumable",
        ),
    ],
)
def test_a_wish_that_makes_no_sense_is_told_in_one_line(wishes, message):
    with pytest.raises(ValueError, match=r"^resource ") as caught:
        asked(**wishes)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_name_that_sbatch_takes():
    assert Request.of("a b/c:d", 1, {}, SETTINGS).name == "a_b_c_d"


def test_amounts_are_rounded_up_and_numbers_may_be_text():
    assert asked(runtime=90.2)["time"] == 91
    assert asked(mem_mb=1000.5)["additional_parameters"]["mem"] == "1001M"
    assert asked(gpu="2", nodes=1.0)["additional_parameters"]["gpus-per-node"] == "2"


def test_other_resources_are_the_workflow_s_own():
    """Snakemake's, and those that a workflow counts itself, are none of Slurm's."""
    own = {"disk_mb": 1, "tmpdir": "/tmp", "_cores": 1, "mem": "1 GB", "launch": "x -- ", "io": 3}
    assert asked(**own) == asked()


def test_a_setting_that_is_no_string_is_named():
    with pytest.raises(ValueError, match=r"^submitit-account: 83: expected a string: in quotes"):
        Request.of("rule", 1, {}, ExecutorSettings(account=83))


NAMES = [name for names in resources.NAMES.values() for name in names]
VALUES = [None, "", 0, 1, 2, 4, -1, 1.5, 2.0, 1e18, float("inf"), True, "2", "-2", "gpu", "a, b"]
VALUES += ["a b", "gpu:2", "a100:1", "n[1-3]", "x\ny", "'", "\u00e9", "--mem=1G", [], {}, 10**30]
WORDS = [f"--{name}" for name in sorted(flags.KNOWN)] + [f"-{letter}" for letter in flags.SHORT]
WORDS += ["--no_requeue", "--comm", "-Z", "-", "--", "x", "'", '"', "\\", "#", "-n2", "-HO"]
ENDS = ["", "=1", "=a", "=", " 1", " a", " 5G", "=5G", "=1:00", "=ALL", "='a b'", "=a100:2", " -x"]


def random_wishes(dice):
    """Resources of which some make sense."""
    wishes = {name: dice.choice(VALUES) for name in dice.sample(NAMES, dice.randint(0, 3))}
    if dice.random() < 0.2:
        wishes[dice.choice(["slurm_x", "slurm_partion", "disk_mb", "own"])] = dice.choice(VALUES)
    if dice.random() < 0.7:
        picked = (dice.choice(WORDS) + dice.choice(ENDS) for _ in range(dice.randint(1, 3)))
        wishes["slurm_extra"] = " ".join(picked)
    return wishes


@pytest.fixture(scope="session")
def outcomes():
    """(accepted, refused) of random wishes: with what submitit writes, and with the line."""
    dice, accepted, refused = random.Random(5), [], []
    for _ in range(6000):
        wishes = random_wishes(dice)
        try:
            request = Request.of("rule", 1, wishes, SETTINGS)
        except ValueError as error:
            refused.append((wishes, str(error)))
            continue
        parameters = slurm_parameters(request, SETTINGS, "the-token")
        accepted.append((wishes, _make_sbatch_string("python", "/folder", **parameters)))
    return accepted, refused


def test_random_wishes_are_accepted_or_refused_in_one_line(outcomes):
    accepted, refused = outcomes
    assert len(accepted) > 500
    assert len(refused) > 2000
    for _, line in refused:
        assert line.startswith(("resource ", "submitit-")), line
        assert ": expected " in line
        assert "\n" not in line
        assert len(line) < 300


def test_an_accepted_wish_keeps_what_the_executor_needs(outcomes):
    for wishes, script in outcomes[0]:
        lines = [line for line in script.splitlines() if line.startswith("#SBATCH")]
        names = [line.split("--", 1)[1].partition("=")[0] for line in lines]
        assert len(set(names)) == len(names), wishes
        assert "#SBATCH --comment=the-token" in lines, wishes
        assert {"requeue"} <= set(names) or "no-requeue" in names
        assert not {"requeue", "no-requeue"} <= set(names)
        assert len({"mem", "mem-per-cpu", "mem-per-gpu"} & set(names)) <= 1
        assert script.splitlines()[0] == "#!/bin/bash"
        for word in shlex.split(wishes.get("slurm_extra") or ""):
            if word.startswith("--") and word[2:].partition("=")[0] in flags.OTHERS:
                assert word[2:].partition("=")[0] in names, "nothing is dropped"
