"""What the processes of a job must share evenly: samples, networks, tokens."""

from __future__ import annotations

from collections.abc import Sequence

from pdmd.config.catalogue import PRETRAINED
from pdmd.config.complaints import refusal
from pdmd.config.sections import Hardware, ReleasedData, Run, tokens_of
from pdmd.errors import UserError

SHARING = ("native", "_native_cudnn", "flash", "flash_hub", "_flash_3_hub")  # attentions


def check_hardware(hardware: Hardware, where: str) -> None:
    """Refuse what cannot be launched. Raises UserError."""
    processes, gpus = hardware.processes, hardware.gpus
    if gpus not in (0, processes):
        raise UserError(
            f"{where}: hardware.gpus: {gpus}: expected 0 or hardware.processes = {processes},"
            " a GPU for each process of a node"
        )


def check_shares(hardware: Hardware, part: str, batch: int, where: str, context: int = 1) -> None:
    """Processes must have a GPU each, or none, and equal shares of a part's batch.

    Args:
        context: how many of them have the same samples, of which each computes some tokens.
    Raises:
        UserError: they have not.
    """
    check_hardware(hardware, where)
    size = hardware.nodes * hardware.processes
    if hardware.processes % context:
        expected = f"a divisor of hardware.processes = {hardware.processes}"
        raise refusal(where, f"{part}.parallel.context", context, expected)
    shares = size // context
    if batch % shares:
        of = f"groups of {context} processes" if context > 1 else "processes"
        expected = f"a multiple of the {shares} {of} of hardware.nodes and hardware.processes"
        raise refusal(where, f"{part}.batch", batch, expected)


def check_context(run: Run, where: str) -> None:
    """Tokens that processes share must divide among them. Raises UserError."""
    context, model, data = run.distill.parallel.context, run.model, run.data
    key = "distill.parallel.context"
    if context == 1:
        return
    if not isinstance(data, ReleasedData):
        raise refusal(where, key, context, "1 but for a pretrained model")
    if model.compile:
        raise refusal(where, key, context, "1 with model.compile: blocks exchange tokens")
    if model.attention not in SHARING:
        expected = f"one of {', '.join(SHARING)} with {key} = {context}"
        raise refusal(where, "model.attention", model.attention, expected)
    for text in data.sizes:
        if (tokens := tokens_of(text)) % context:
            expected = f"a divisor of {tokens}, the tokens of data.sizes {text}"
            raise refusal(where, key, context, expected)


def check_sharded(run: Run, phase_steps: Sequence[int], size: int, where: str) -> None:
    """Processes that share networks must call them alike: the same expert, as many times.

    They gather a network's tensors together: one that calls once more than the others hangs, one
    that calls the other of two experts is given another's tensors.

    Args:
        phase_steps: steps of each phase; size: how many processes there are.
    Raises:
        UserError: some settings let rows decide that, and each process has rows of its own.
    """
    distill, law = run.distill, run.student.exits
    if distill.parallel.shard == "none":
        return
    if run.model.kind != PRETRAINED:
        expected = f"none for model.kind {run.model.kind}, which fits everywhere"
        raise refusal(where, "distill.parallel.shard", distill.parallel.shard, expected)
    if run.model.boundary is not None and distill.region != "update":
        expected = "update for two sharded experts, of which all processes call the same"
        raise refusal(where, "distill.region", distill.region, expected)
    if run.model.offload != "none":
        expected = "none for a sharded network, which its processes gather together"
        raise refusal(where, "model.offload", run.model.offload, expected)
    if run.student.backward == "all" or law in ("last", "update"):
        return
    for steps in phase_steps:
        if size > 1 and steps > 1 and (law == "late" or distill.batch % (steps * size)):
            expected = (
                f"update, or stratified with distill.batch a multiple of {steps * size}: the"
                f" {size} processes of a sharded network leave a phase of {steps} steps together"
            )
            raise refusal(where, "student.exits", law, expected)
