"""Is a job done? The rules, apart from every cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

LIVE = frozenset(
    "PENDING RUNNING CONFIGURING COMPLETING SUSPENDED REQUEUED RESIZING REQUEUE_HOLD REQUEUE_FED"
    " STAGE_OUT SIGNALING STOPPED".split()
)
LOST = frozenset({"NODE_FAIL", "PREEMPTED", "BOOT_FAIL"})  # Slurm puts these back into the queue

# Reasons to wait that pass by themselves; any other is named to the user.
PASSING = frozenset(
    "None Priority Resources Dependency BeginTime Cleaning Prolog Reservation Licenses"
    " JobArrayTaskLimit SchedDefer RaisedSignal WaitingForScheduling JobLaunch Resuming NodeReboot"
    " StagingIn BurstBufferResources BurstBufferStageIn FedJobLock MaxPoweredUpNodes MpiPortsBusy"
    " InactiveLimit".split()
) | {""}

HINTS = {
    "PartitionConfig": "it asks for more than the partition has",
    "PartitionNodeLimit": "it asks for more nodes than the partition allows",
    "PartitionTimeLimit": "it asks for more time (resource runtime) than the partition allows",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive",
    "ReqNodeNotAvail": "a node that it asks for is down, drained, reserved or does not exist",
    "Constraints": "no node that is free satisfies its constraints",
    "BadConstraints": "no node satisfies its constraints",
    "AccountingPolicy": "a limit of the account or quality of service stands against it",
    "AccountNotAllowed": "the account may not use the partition",
    "QOSNotAllowed": "the quality of service may not be used here",
    "QOSUsageThreshold": "the account has used more than its share for this quality of service",
    "InvalidAccount": "there is no such account",
    "InvalidQOS": "there is no such quality of service",
    "JobHeldUser": "it is held: scontrol release",
    "JobHeldAdmin": "an administrator holds it",
    "JobHoldMaxRequeue": "it was requeued too often and is held: scontrol release",
    "DependencyNeverSatisfied": "a job that it depends on failed",
    "DeadLine": "it cannot end before its deadline",
    "ReservationDeleted": "the reservation that it asks for is no more",
    "MaxMemPerLimit": "it asks for more memory for a node or CPU than the partition allows",
    "NodeDown": "a node that it needs is down",
    "FrontEndDown": "no front end is up",
    "BurstBufferOperation": "its burst buffer failed: scontrol show burstbuffer",
    "JobLaunchFailure": "its start failed: scontrol release",
    "SystemFailure": "Slurm, the network or a file system failed: scontrol release",
    "NonZeroExitCode": "it ended with an error and is held: scontrol release",
    "TimeLimit": "its walltime passed and it is held: scontrol release",
    "OutOfMemory": "it used more memory than it asked for and is held: scontrol release",
    "launch failed requeued held": "its start failed: scontrol release",
    "launch failure limit exceeded requeued held": "its start failed too often: scontrol release",
    "job requeued in held state": "it was requeued and is held: scontrol release",
}


def hint(reason: str) -> str:
    """What a reason to wait means, in words."""
    if reason in HINTS:
        return HINTS[reason]
    if reason.startswith("ReqNodeNotAvail"):  # with what is not available behind it
        return HINTS["ReqNodeNotAvail"]
    who = re.match(r"(QOS|Assoc)|Max\w*PerAccount$", reason)
    if who is None:
        return "see JOB REASON CODES in man squeue"
    of = "account" if who[1] == "Assoc" else "quality of service"
    if re.match(r"QOSMin", reason):
        return f"it asks for less than the {of} wants of a job"
    alone = re.search(r"PerJob|PerNode|WallDuration", reason)
    which = "its own request" if alone else "others' too"
    return f"a limit of the {of} stands against it ({which})"


ENDINGS = {
    "TIMEOUT": "its walltime of {minutes} min (resource runtime) passed",
    "OUT_OF_MEMORY": "it used more memory than it asked for (resources mem_mb, mem_mb_per_cpu)",
    "CANCELLED": "someone cancelled it",
    "NODE_FAIL": "its node failed, and Slurm did not put it back into the queue",
    "PREEMPTED": "it was preempted, and Slurm did not put it back into the queue",
    "DEADLINE": "its deadline passed",
}


@dataclass(frozen=True)
class Patience:
    """Seconds to wait before a verdict.

    Attributes:
        result: for the result file of an ended job; requeue: for Slurm to requeue what it lost;
        leaving: for a job that has failed to leave; gone: for a job that nobody knows.
    """

    result: float = 5.0
    requeue: float = 20.0
    leaving: float = 30.0
    gone: float = 30.0


class Verdict(NamedTuple):
    """A job has ended: with success or not, and why."""

    success: bool
    why: str = ""


def judge(
    result: tuple[bool, str] | None,
    state: str | None,
    waited: float,
    minutes: int = 0,
    patience: Patience = Patience(),
) -> Verdict | None:
    """The verdict on a job, None while there is none.

    Only a success is believed at once. A job says "error" too where its node dies under it, or
    where it is requeued; what the queue says decides.

    Args:
        result: (success, message) that the job left; state: what the queue says, None if it does
        not know the job; waited: seconds for which that has been so; minutes: of walltime.
    """
    if result and result[0]:
        return Verdict(True)
    error = result[1] if result else ""
    if state is None:
        if waited < patience.gone:
            return None
        return Verdict(False, error or "the queue does not know it and it left no result")
    if state in LIVE:
        over = state == "COMPLETING" and result is not None and waited >= patience.leaving
        return Verdict(False, error) if over else None
    if state == "COMPLETED":
        if error:
            return Verdict(False, error)
        return Verdict(True) if waited >= patience.result else None
    if state in LOST and waited < patience.requeue:
        return None
    if not error and waited < patience.result:
        return None
    ending = ENDINGS.get(state, "").format(minutes=minutes)
    return Verdict(False, ": ".join(filter(None, (state, ending or error))))
