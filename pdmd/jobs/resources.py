"""What each job asks of a cluster: minutes, memory, nodes and GPUs, out of its config alone.

A request is a bound, not a forecast: a job that passes it is started again with twice as much, and
a training job then goes on from its last checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from pdmd.config.budget import phase_updates
from pdmd.config.experiment import Experiment
from pdmd.config.sections import Hardware, ReleasedData, Run
from pdmd.jobs.estimates import (
    fit_work,
    looking_work,
    measuring_work,
    network_size,
    phase_work,
    ranging_work,
    released_weights,
    sampling_work,
)
from pdmd.models.families import FAMILIES
from pdmd.models.source import is_tiny
from pdmd.planning import store
from pdmd.training.launch import prefix

# Rows times weights a second of one thread; the demo's jobs reach 2.5e10 to 8e10 on two cores.
SPEED = 1e10
GPU_SPEED = 1e14  # the same of a GPU with a released model: 2e14 operations a second, assumed
READING = 2e8  # bytes a second of a disk that others use, too
PREPARING_MINUTES, ENCODER_MB = 240, 40_000  # of text encoders of up to 8 billion weights
SEEN = 2e8  # of a small sample by frozen networks, or a decoder: 20 ms of one thread
LOOKING, GPU_LOOKING = 2e10, 1e13  # operations a second in float32: of a thread, of a GPU (assumed)
LOADING_MB = 8000  # of CLIP ViT-L/14, twice in float32
START_MINUTES = 10  # Python, torch, a cold file system
LIGHT_MINUTES, LIGHT_MB = 20, 3000  # of jobs that draw, score or plot
START_MB = 1500  # the demo's jobs stay under 1,000 with torch loaded
STEP_MINUTES, STEP_MB = 10, 500  # rounded up to these: jobs that ask for the same share an array
COPIES = 12  # of the weights, in float32: three roles, two with gradients and Adam's moments

Asked = int | str | Callable[..., int | str]
Request = dict[str, Asked]


def minutes(work: float, attempt: int = 1, speed: float = SPEED) -> int:
    """Walltime for some work, doubled at each further attempt."""
    steps = math.ceil((START_MINUTES + work / speed / 60) / STEP_MINUTES)
    return 2 ** (attempt - 1) * STEP_MINUTES * steps


def training_mb(run: Run, runs: int, batch: int, attempt: int = 1) -> int:
    """Memory of a process that trains `runs` runs in one network."""
    model = run.model
    if isinstance(run.data, ReleasedData):
        return released_mb(run, attempt, trains=True)
    weights = 4 * COPIES * network_size(run) * runs
    calls = run.student.steps if run.student.backward == "all" else 1
    rows = 4 * batch * runs * model.width * 8 * (model.depth + 1) * (calls + 2)
    steps = math.ceil((START_MB + (weights + rows) / 2**20) / STEP_MB)
    return 2 ** (attempt - 1) * STEP_MB * steps


def released_mb(run: Run, attempt: int = 1, trains: bool = False) -> int:
    """Memory of a process's own machine that holds a released model on its way to the GPU.

    Its experts in bfloat16, which stay there with `model.offload: idle`, a full fake score in
    float32 with gradients and moments, and adapters.

    Args:
        trains: whether it distils, for which alone there is a fake score, and sharded networks, of
            which a process reads its own rows.
    """
    experts = FAMILIES[str(run.model.family)].experts
    each = 2.0 if run.model.dtype == "bfloat16" else 4.0
    distill = getattr(run, "distill", None) if trains else None
    if distill is not None and distill.fake.mode == "full":
        each += 16
    mb = each * released_weights(run) / 2**20
    if distill is not None and distill.parallel.shard == "full":
        mb /= run.hardware.nodes * run.hardware.processes
    if run.model.offload == "idle":  # pinned memory comes in powers of two
        mb = 2 ** math.ceil(math.log2(mb))
    steps = math.ceil((START_MB + experts * mb) / STEP_MB)
    return 2 ** (attempt - 1) * STEP_MB * steps


def light() -> Request:
    """Jobs that draw, score or plot: one node and no GPU."""
    return {
        "runtime": lambda wildcards, attempt: 2 ** (attempt - 1) * LIGHT_MINUTES,
        "mem_mb": lambda wildcards, attempt: 2 ** (attempt - 1) * LIGHT_MB,
    }


def bundled() -> Request:
    """The same beside jobs that may have several processes, in one group with them.

    Snakemake takes what is not said for 0, and refuses a group in which a text is not the same.
    """
    return {**light(), "launch": ""}


def speed_of(run: Run) -> float:
    """Rows times weights a second of a process."""
    return GPU_SPEED if run.hardware.gpus and isinstance(run.data, ReleasedData) else SPEED


def sample_work(run: Run, stage: str) -> float:
    """Work of decoding a sample (`decode`), or of looking at it (`features`), as `speed_of` is."""
    if not isinstance(run.data, ReleasedData):
        return SEEN
    rate = GPU_LOOKING if run.hardware.gpus else LOOKING
    return looking_work(run, stage) / rate * speed_of(run)


class Requests:
    """The requests of an experiment's training jobs, as functions of a rule's wildcards.

    What all of its jobs agree in is no function: Snakemake calls those again for every job.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self._plans: dict[tuple[str, str], list[store.Kept] | None] = {}

    def base(self) -> Request:
        """Fitting the base network of a scenario, in one run."""

        def run(wildcards: Any) -> Run:
            return self.experiment.shared(wildcards.scenario)

        return self._training(
            run, lambda wildcards: fit_work(run(wildcards), 1), lambda _: 1, "fit"
        )

    def of(self, stage: str, seeds: Callable[[Any], Sequence[int]]) -> Request:
        """Fitting one velocity a seed (`fit`), or distilling one phase (`distill`).

        Args:
            seeds: of a job, by its wildcards.
        """

        def run(wildcards: Any) -> Run:
            return self.experiment.runs[wildcards.scenario, wildcards.method]

        def work(wildcards: Any) -> float:
            runs = len(seeds(wildcards))
            if stage == "fit":
                return fit_work(run(wildcards), runs)
            return phase_work(run(wildcards), runs, int(wildcards.phase))

        request = self._training(run, work, lambda wildcards: len(seeds(wildcards)), stage)
        estimated = request["runtime"]
        assert callable(estimated)

        def least(wildcards: Any, attempt: int) -> int:
            seconds = self._planned(run(wildcards), wildcards) if stage == "distill" else None
            if seconds is None:
                return int(estimated(wildcards, attempt))
            return minutes(len(seeds(wildcards)) * seconds, attempt, speed=1.0)

        return {**request, "runtime": least}

    def _planned(self, run: Run, wildcards: Any) -> float | None:
        """Seconds of a phase of a released model on GPUs, where such a method was planned."""
        if not isinstance(run.data, ReleasedData) or not run.hardware.gpus:
            return None
        name = run.scenario, run.method
        if name not in self._plans:
            self._plans[name] = store.planned(self.experiment.configs[name], self.experiment.root)
        phases, number = self._plans[name], int(wildcards.phase)
        if phases is None:
            return None
        return phase_updates(run, number) * store.update_seconds(phases[number - 1].flops)

    def drawing(self, stage: str, seeds: Callable[[Any], Sequence[int]]) -> Request:
        """Drawing a bank (`bank`) or samples of record (`sample`), on what the method trains on.

        Samples are decoded and seen by frozen networks (`decode`, `features`) there, too.

        Args:
            seeds: of a job, by its wildcards.
        """

        def run(wildcards: Any) -> Run:
            return self.experiment.runs[wildcards.scenario, wildcards.method]

        def work(wildcards: Any) -> float:
            config, runs = run(wildcards), len(seeds(wildcards))
            if stage == "bank":
                rows, number = config.bank.rows, int(wildcards.phase)
                return sampling_work(config, runs, rows, number)
            if stage in ("decode", "features"):
                return runs * config.evaluate.samples * sample_work(config, stage)
            return sampling_work(config, runs, config.evaluate.samples)

        def share(wildcards: Any) -> int:
            hardware = run(wildcards).hardware
            return int(hardware.nodes * hardware.processes)

        def least(wildcards: Any, attempt: int) -> int:
            speed = speed_of(run(wildcards))
            return max(
                2 ** (attempt - 1) * LIGHT_MINUTES,
                minutes(work(wildcards) / share(wildcards), attempt, speed),
            )

        def memory(wildcards: Any, attempt: int) -> int:
            config = run(wildcards)
            experts = 1 + len(config.student.ends)  # the base, and each phase's
            if isinstance(config.data, ReleasedData):
                return int(config.hardware.processes * max(LIGHT_MB, released_mb(config, attempt)))
            weights = 4 * experts * network_size(config) * len(seeds(wildcards)) / 2**20
            mb = max(LIGHT_MB, STEP_MB * math.ceil((START_MB + weights) / STEP_MB))
            return 2 ** (attempt - 1) * int(config.hardware.processes * mb)

        return {"runtime": least, "mem_mb": memory, **self._hardware(run)}

    def fetching(self) -> Request:
        """Hashing a released model, or fetching it first: its reading at 200 MB a second."""

        def least(wildcards: Any, attempt: int) -> int:
            run = self.experiment.shared(wildcards.scenario)
            experts = FAMILIES[str(run.model.family)].experts
            seconds = 2 * experts * released_weights(run) / READING
            return 2 ** (attempt - 1) * (LIGHT_MINUTES + math.ceil(seconds / 60))

        return light() | {"runtime": least}

    def finding(self) -> Request:
        """Loading the networks that samples are looked at by, one after the other."""
        return light() | {"mem_mb": lambda wildcards, attempt: 2 ** (attempt - 1) * LOADING_MB}

    def preparing(self) -> Request:
        """Encoding prompts, or first frames, on what the scenario trains on; resumable."""

        def run(wildcards: Any) -> Run:
            return self.experiment.shared(wildcards.scenario)

        def memory(wildcards: Any, attempt: int) -> int:
            tiny = is_tiny(str(run(wildcards).model.source), run(wildcards).results)
            mb = LIGHT_MB if tiny else ENCODER_MB
            return 2 ** (attempt - 1) * run(wildcards).hardware.processes * mb

        return {
            "runtime": lambda wildcards, attempt: 2 ** (attempt - 1) * PREPARING_MINUTES,
            "mem_mb": memory,
            "resumable": 1,
            **self._hardware(run),
        }

    def measuring(self) -> Request:
        """Measuring the teacher's errors, on what the scenario trains on."""

        def run(wildcards: Any) -> Run:
            return self.experiment.shared(wildcards.scenario)

        return self._measuring(run, measuring_work)

    def ranging(self) -> Request:
        """Measuring how far a method's untrained student is off, on what the method trains on."""

        def run(wildcards: Any) -> Run:
            return self.experiment.runs[wildcards.scenario, wildcards.method]

        return self._measuring(run, ranging_work)

    def _measuring(self, run: Callable[[Any], Run], work_of: Callable[[Run], float]) -> Request:
        def least(wildcards: Any, attempt: int) -> int:
            config = run(wildcards)
            share = config.hardware.nodes * config.hardware.processes
            work = work_of(config) / share
            return max(2 ** (attempt - 1) * LIGHT_MINUTES, minutes(work, attempt, speed_of(config)))

        def memory(wildcards: Any, attempt: int) -> int:
            config, least_mb = run(wildcards), 2 ** (attempt - 1) * LIGHT_MB
            if isinstance(config.data, ReleasedData):
                least_mb = max(least_mb, released_mb(config, attempt))
            return config.hardware.processes * least_mb

        return {"runtime": least, "mem_mb": memory, **self._hardware(run)}

    def _hardware(self, run: Callable[[Any], Run]) -> Request:
        """Nodes and GPUs, and what starts a process on each."""
        # `launch` is not a parameter: other hardware runs no finished job again.
        totals: dict[str, Callable[[Hardware], int | str]] = {
            "nodes": lambda hardware: hardware.nodes,
            "gpu": lambda hardware: hardware.nodes * hardware.gpus,
            "launch": prefix,
        }
        every = {one.hardware for one in self.experiment.runs.values()}
        every |= {self.experiment.shared(name).hardware for name in self.experiment.scenarios}
        if len(every) == 1:
            return {name: of(*every) for name, of in totals.items()}
        return {name: _by_job(of, run) for name, of in totals.items()}

    def _training(
        self,
        run: Callable[[Any], Run],
        work: Callable[[Any], float],
        runs: Callable[[Any], int],
        part: str,
    ) -> Request:
        """A training job: it saves when it is told to stop, hence resumable."""

        def share(wildcards: Any) -> int:
            hardware = run(wildcards).hardware
            return int(hardware.nodes * hardware.processes)

        def memory(wildcards: Any, attempt: int) -> int:
            config = run(wildcards)
            batch = getattr(config, part).batch // share(wildcards)
            return config.hardware.processes * training_mb(config, runs(wildcards), batch, attempt)

        return {
            "runtime": lambda wildcards, attempt: minutes(
                work(wildcards) / share(wildcards), attempt, speed_of(run(wildcards))
            ),
            "mem_mb": memory,
            "resumable": 1,
            **self._hardware(run),
        }


def _by_job(of: Callable[[Hardware], int | str], run: Callable[[Any], Run]) -> Asked:
    return lambda wildcards: of(run(wildcards).hardware)
