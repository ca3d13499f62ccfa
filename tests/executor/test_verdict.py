"""When a job counts as ended, and how."""

import pytest

from snakemake_executor_plugin_submitit.verdict import PASSING, hint, judge

OK, ERROR = (True, ""), (False, "exit status 3")


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETING", "NODE_FAIL", None])
def test_a_success_is_believed_at_once(state):
    assert judge(OK, state, 0) == (True, "")


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING"])
def test_an_error_is_not_believed_while_the_job_lives(state):
    """Where a node dies, or a job is requeued, it says so too."""
    assert judge(ERROR, state, 0) is None


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "COMPLETED"])
def test_an_error_is_believed_once_the_job_has_ended(state):
    verdict = judge(ERROR, state, 0)
    assert verdict is not None
    assert not verdict.success


@pytest.mark.parametrize("state", ["NODE_FAIL", "PREEMPTED"])
def test_slurm_is_given_time_to_requeue_what_it_lost(state):
    assert judge(ERROR, state, 10) is None
    verdict = judge(ERROR, state, 21)
    assert verdict is not None
    assert "did not put it back" in verdict.why


def test_a_job_that_completed_without_a_result_had_no_place_to_write_it():
    assert judge(None, "COMPLETED", 1) is None
    assert judge(None, "COMPLETED", 6) == (True, "")


def test_a_job_that_nobody_knows_is_given_up():
    assert judge(None, None, 29) is None
    verdict = judge(None, None, 31)
    assert verdict is not None
    assert verdict.why == "the queue does not know it and it left no result"
    verdict = judge(ERROR, None, 31)
    assert verdict is not None
    assert verdict.why == "exit status 3"


def test_an_ending_is_told_in_words():
    verdict = judge(None, "TIMEOUT", 6, minutes=5)
    assert verdict is not None
    assert verdict.why == "TIMEOUT: its walltime of 5 min (resource runtime) passed"
    verdict = judge(ERROR, "FAILED", 0)
    assert verdict is not None
    assert verdict.why == "FAILED: exit status 3"


def test_a_job_that_has_failed_and_does_not_leave():
    assert judge(ERROR, "COMPLETING", 29) is None
    assert judge(ERROR, "COMPLETING", 31) == (False, "exit status 3")
    assert judge(None, "COMPLETING", 31) is None


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("PartitionTimeLimit", "more time"),
        ("QOSMaxCpuPerJobLimit", "quality of service"),
        ("AssocGrpGRES", "account"),
        ("SomethingNew", "man squeue"),
        ("JobHoldMaxRequeue", "requeued too often"),
        ("ReservationDeleted", "reservation"),
        ("MaxMemPerLimit", "more memory"),
        ("DeadLine", "deadline"),
        ("QOSMinGRES", "asks for less"),
        ("QOSMaxWallDurationPerJobLimit", "(its own request)"),
        ("QOSMaxGRESPerUser", "(others' too)"),
        ("MaxGRESPerAccount", "quality of service"),
        ("MaxJobsPerAccount", "quality of service"),
        ("AssocGrpBilling", "account"),
        ("ReqNodeNotAvail, UnavailableNodes:n7", "a node that it asks for"),
        ("job requeued in held state", "scontrol release"),
    ],
)
def test_a_reason_is_told_in_words(reason, words):
    assert reason not in PASSING
    assert words in hint(reason)


def test_reasons_that_pass_are_not_told():
    assert {"Resources", "Priority", "BeginTime", "None", ""} <= PASSING


# Of Slurm's page of job reason codes, but the families QOS..., Assoc... and Max...PerAccount.
CODES = """AccountingPolicy AccountNotAllowed BadConstraints BeginTime BurstBufferOperation
BurstBufferResources BurstBufferStageIn Cleaning Constraints DeadLine Dependency
DependencyNeverSatisfied FedJobLock FrontEndDown InactiveLimit InvalidAccount InvalidQOS
JobArrayTaskLimit JobHeldAdmin JobHeldUser JobHoldMaxRequeue JobLaunchFailure Licenses
MaxMemPerLimit MaxPoweredUpNodes MpiPortsBusy NodeDown None NonZeroExitCode OutOfMemory
PartitionConfig PartitionDown PartitionInactive PartitionNodeLimit PartitionTimeLimit Priority
Prolog QOSNotAllowed QOSUsageThreshold RaisedSignal ReqNodeNotAvail Reservation
ReservationDeleted Resources SchedDefer SystemFailure TimeLimit"""


def test_every_reason_that_slurm_gives_passes_or_has_its_words():
    for reason in CODES.split():
        assert (reason in PASSING) != (hint(reason) != "see JOB REASON CODES in man squeue"), reason
