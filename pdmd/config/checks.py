"""What a schema cannot say of a run: values that must fit one another, refused in one line each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pdmd.config.catalogue import PRETRAINED, TRANSFORMERS
from pdmd.config.complaints import refusal
from pdmd.config.score_checks import check_judge, check_scores
from pdmd.config.sections import AUTO, Data, PromptedData, Run, Student, Teacher
from pdmd.config.times import phase_has_room, step_times
from pdmd.config.typed import keys, required
from pdmd.scenarios.kind import kind_of, kinds

Config = dict[str, Any]

STUDENTS = ("teacher", "distill")
VAE_SIDE = 8  # pixels of a latent's side
MODEL_KEYS = {  # kind of model -> keys it must have, keys it may have
    "mlp": ({"width", "depth"}, {"waves"}),
    "conditional-mlp": ({"width", "depth"}, set[str]()),
    "qwen": ({"width", "depth", "heads"}, set[str]()),
    "wan": ({"width", "depth", "heads", "text_length"}, {"feedforward", "boundary"}),
    PRETRAINED: (
        {"family", "source"},
        {
            *("revision", "boundary", "dtype", "deterministic", "offload"),
            *("attention", "compile"),
        },
    ),
}
BESIDE_SCENARIOS = ("clip",)  # folders that are taken: beside those of scenarios,
BESIDE_METHODS = ("data", "config", "tables", "figures")  # and of methods


def check_together(run: Run, config: Config, where: str) -> None:
    """What a schema cannot say: values that must fit one another.

    Args:
        config: the run as it is written.
    Raises:
        UserError: names the run, the key, the value and what was expected.
    """
    kinds = kind_of(run.data).methods
    if run.kind not in kinds:
        expected = f"{' or '.join(kinds)} for data.kind {run.data.kind}"
        raise refusal(where, "kind", run.kind, expected)
    _check_data(run.data, config["data"], where)
    _check_model(run, config["model"], where)
    fitted = run.model.kind != PRETRAINED
    if fitted != ("fit" in config):
        expected = "how the base network is fitted" if fitted else "no such key: it was trained"
        raise refusal(where, "fit", config.get("fit"), expected)
    _check_velocity(run, where)
    if fitted:
        _check_fit(run, where)
    _check_student(run, where)
    _check_length(run, where)
    check_judge(run, config, where)
    check_scores(run, config["evaluate"], where)
    check_run = kind_of(run.data).check_run
    if check_run is not None:
        check_run(run, where)


def check_base(run: Run, where: str) -> None:
    """A base network is fitted on the whole interval: students start from it. Raises UserError."""
    fit = run.fit
    if fit.start:
        raise refusal(where, "fit.start", fit.start, "0 for the base network")
    if fit.target in ("biased", "unbiased"):
        expected = "flow or teacher for the base network, which is fitted from 0 on"
        raise refusal(where, "fit.target", fit.target, expected)
    if fit.kept and fit.start_from:
        expected = "null beside fit.kept, which is taken as it is"
        raise refusal(where, "fit.start_from", fit.start_from, expected)


def check_name(name: str, taken: Sequence[str], where: str) -> None:
    """A method or a scenario must not take a folder that others have. Raises UserError."""
    if name in taken:
        expected = f"another name than {', '.join(taken)}: that folder is taken"
        raise refusal(where, name, name, expected)


def check_validated(
    names: Sequence[str], scenarios: Sequence[str], settings: Callable[[str], Config]
) -> None:
    """Metrics are tried on scenarios that run, of pictures or clips. Raises UserError."""
    for name in names:
        if name not in scenarios:
            expected = f"scenarios that run: some of {', '.join(scenarios)}"
            raise refusal("config", "validate", name, expected)
        kind = settings(name)["data"]["kind"]
        if not kinds()[kind].prompted:
            prompted = " or ".join(name for name, one in kinds().items() if one.prompted)
            expected = f"scenarios of data.kind {prompted}, not {kind}"
            raise refusal("config", "validate", name, expected)


def check_keys(
    section_values: Mapping[str, Any],
    wanted: set[str],
    allowed: set[str],
    where: str,
    section: str,
    of: str,
) -> None:
    """A section has the keys that its kind wants, and none that it has no use for.

    Args:
        of: the kind, in words. Raises UserError.
    """
    for key in sorted(wanted - set(section_values)):
        raise refusal(where, f"{section}.{key}", None, f"a value for {of}")
    for key in sorted(set(section_values) - wanted - allowed):
        expected = (
            f"no such key for {of}, which takes {', '.join(sorted(wanted | allowed)) or 'none'}"
        )
        raise refusal(where, f"{section}.{key}", section_values[key], expected)


def _check_data(data: Data, written: Config, where: str) -> None:
    """Values that must fit the kind of data."""
    brings = kind_of(data)
    wanted, every = set(required(brings.data)), {key.name for key in keys(brings.data)}
    check_keys(written, wanted - {"kind"}, every, where, "data", f"data.kind {data.kind}")
    if brings.check is not None:
        brings.check(data, where)
    if brings.prompted is not None and isinstance(data, PromptedData):
        frames = getattr(data, "frames", brings.prompted.frames)
        _check_codec(data, written["codec"], frames, where)


def _check_codec(data: PromptedData, written: Config, frames: int, where: str) -> None:
    """A codec is fitted patches, or the named VAE of a real model; networks halve its latents."""
    codec, kind = data.codec, data.codec.kind
    present, patches = sorted(set(written) - {"kind"}), kind == "patches"
    wanted = ["channels", "patch", "whitening"] if patches else ["weights"]
    if present != wanted:
        raise refusal(where, "data.codec", present, f"{wanted} for data.codec.kind {kind}")
    if not patches and (frames - 1) % 4:
        expected = f"'patches': a VAE of video takes 4 k + 1 frames, and these clips have {frames}"
        raise refusal(where, "data.codec.kind", kind, expected)
    patch = codec.patch or (1, VAE_SIDE, VAE_SIDE)
    if frames % patch[0]:
        expected = f"a divisor of {frames} frames first"
        raise refusal(where, "data.codec.patch", list(patch), expected)
    for side in patch[1:]:
        if data.px % (2 * side):
            expected = f"a multiple of {2 * side}, two latents of {side} px"
            raise refusal(where, "data.px", data.px, expected)
    if codec.channels and codec.channels > (most := 3 * patch[0] * patch[1] * patch[2]):
        expected = f"at most {most}, the numbers of a patch"
        raise refusal(where, "data.codec.channels", codec.channels, expected)


def _check_model(run: Run, written: Config, where: str) -> None:
    """Values that must fit the kind of network."""
    model, kind, brings = run.model, run.model.kind, kind_of(run.data)
    fitting = (brings.model,) if isinstance(brings.model, str) else brings.model
    if kind not in fitting:
        expected = f"{' or '.join(map(repr, fitting))} for data.kind {brings.name}"
        raise refusal(where, "model.kind", kind, expected)
    wanted, allowed = MODEL_KEYS[kind]
    allowed = allowed | {"kind"}
    check_keys(written, wanted, allowed, where, "model", f"model.kind {kind}")
    if kind not in TRANSFORMERS:
        return
    if kind != PRETRAINED and model.width % (2 * model.heads):
        expected = f"a divisor of half of model.width = {model.width}"
        raise refusal(where, "model.heads", model.heads, expected)
    if run.together:
        expected = f"false for model.kind {kind}, which holds one seed a job"
        raise refusal(where, "together", True, expected)


def _check_velocity(run: Run, where: str) -> None:
    """The teacher, and what is exact."""
    teacher, kind, data = run.teacher, run.model.kind, run.data.kind
    if kind_of(run.data).latent and teacher.kind == "exact":
        expected = f"'fitted' for data.kind {data}, whose velocity has no closed form"
        raise refusal(where, "teacher.kind", "exact", expected)
    if kind == PRETRAINED:
        return
    if teacher.shift is None or teacher.guidance_low is not None:
        name = "shift" if teacher.shift is None else "guidance_low"
        expected = "a number" if teacher.shift is None else f"none for model.kind {kind}"
        raise refusal(where, f"teacher.{name}", getattr(teacher, name), expected)
    if teacher.guidance != 1:
        if kind == "mlp":
            expected = f"1 for model.kind {kind}, which has no null condition"
            raise refusal(where, "teacher.guidance", teacher.guidance, expected)
        if not run.fit.null_share:
            expected = "1 where fit.null_share is 0: the null condition is not trained"
            raise refusal(where, "teacher.guidance", teacher.guidance, expected)
    exact = run.kind == "fit" or run.fit.target == "teacher"
    exact |= teacher.kind == "exact" and run.kind in STUDENTS
    if exact and run.flow != "rectified":
        expected = "'rectified' where the exact velocity is used, which is of that schedule"
        raise refusal(where, "flow", run.flow, expected)


def _check_fit(run: Run, where: str) -> None:
    """What is fitted to data."""
    fit, data = run.fit, run.data.kind
    target, start = fit.target, fit.start
    if kind_of(run.data).latent and target != "flow":
        expected = f"'flow' for data.kind {data}, which has no exact velocity"
        raise refusal(where, "fit.target", target, expected)
    if target == "flow" and start:
        expected = "0 for fit.target flow: from later on the target is unbiased, biased or teacher"
        raise refusal(where, "fit.start", start, expected)
    if run.model.kind == "mlp" and fit.null_share:
        expected = "0 for model.kind mlp, which has no null condition"
        raise refusal(where, "fit.null_share", fit.null_share, expected)
    if run.kind == "fit" and fit.kept:
        expected = "null for a method of kind fit: base networks alone are kept"
        raise refusal(where, "fit.kept", fit.kept, expected)
    if run.kind == "fit" and fit.seed:
        expected = "0 for a method of kind fit, which has the scenario's seeds"
        raise refusal(where, "fit.seed", fit.seed, expected)


def _check_student(run: Run, where: str) -> None:
    """Steps, phases and the room of their re-noising times."""
    student, model = run.student, run.model
    boundaries, phases = student.boundaries, student.phases
    _check_grid(run.teacher, "teacher", run, where)
    _check_grid(student, "student", run, where)
    if (boundaries == AUTO) != (phases is not None):
        chosen = boundaries == AUTO
        expected = "their number with boundaries: auto" if chosen else "none without it"
        raise refusal(where, "student.phases", phases, expected)
    if phases is not None and phases > student.steps:
        expected = f"at most student.steps = {student.steps}"
        raise refusal(where, "student.phases", phases, expected)
    rises = list(student.ends) == sorted(set(student.ends))
    if boundaries != AUTO and (not rises or boundaries[-1] != student.steps):
        expected = f"rising step counts that end at student.steps = {student.steps}"
        raise refusal(where, "student.boundaries", list(boundaries), expected)
    if (model.boundary or 0) >= 1 - student.margin:
        expected = f"less than 1 - student.margin = {1 - student.margin:g}"
        raise refusal(where, "model.boundary", model.boundary, expected)
    law = student.renoise
    if law.at is not None and law.range is not None:
        expected = f"none beside student.renoise.at = {law.at:g}, which is one level"
        raise refusal(where, "student.renoise.range", law.range, expected)
    _check_room(student, model.boundary or 0, where)
    if student.backward == "all" and student.exits != "stratified":
        expected = "'stratified' for student.backward all, which has no exits"
        raise refusal(where, "student.exits", student.exits, expected)
    lora = student.lora
    if lora is not None and model.kind not in TRANSFORMERS:
        expected = f"null for model.kind {model.kind}"
        raise refusal(where, "student.lora", dataclasses.asdict(lora), expected)
    if lora is None and run.kind == "distill" and model.kind == PRETRAINED:
        expected = f"a rank and an alpha for model.kind {PRETRAINED}"
        raise refusal(where, "student.lora", None, expected)
    if lora is not None and model.kind != PRETRAINED and lora.rank > model.width:
        expected = f"at most model.width = {model.width}"
        raise refusal(where, "student.lora.rank", lora.rank, expected)
    _check_roles(run, where)


def _check_roles(run: Run, where: str) -> None:
    """What is trained, and which of two experts an update concerns."""
    distill, model = run.distill, run.model
    if run.kind == "distill" and distill.fake.mode == "lora" and run.student.lora is None:
        expected = "full without student.lora, whose base and rank the fake's adapter shares"
        raise refusal(where, "distill.fake.mode", "lora", expected)
    if distill.region == "update" and model.boundary is None:
        expected = "row without model.boundary, which divides the noise levels of two experts"
        raise refusal(where, "distill.region", "update", expected)
    if distill.microbatch and distill.normaliser == "batch" and distill.gradient != "literal":
        expected = "none with distill.normaliser batch, which looks at all rows at once"
        raise refusal(where, "distill.microbatch", distill.microbatch, expected)
    prompts = kind_of(run.data).prompted
    if distill.balance.by == "stratum" and (prompts is None or prompts.stratum is None):
        expected = f"'band' for data.kind {run.data.kind}, whose prompts have no strata"
        raise refusal(where, "distill.balance.by", "stratum", expected)
    if distill.checkpointing and model.kind not in TRANSFORMERS:
        expected = f"false for model.kind {model.kind}, which has no blocks to make again"
        raise refusal(where, "distill.checkpointing", True, expected)


def _check_room(student: Student, boundary: float, where: str) -> None:
    """Re-noising times of every phase must lie in its range, and vary where they are drawn."""
    times, margin, law, first = step_times(student), student.margin, student.renoise, 0
    if times is None or student.boundaries == AUTO:
        return  # the choice of a grid keeps room
    for number, last in enumerate(student.ends, start=1):
        above = "1" if student.interval == "nested" or number == 1 else "its start"
        what = f"phase {number}'s end, t = {times[last]:.4f}, and {above}"
        if not phase_has_room(student, boundary, times, first, last):
            if law.at is not None:
                expected = f"a noise level at least student.margin = {margin:g} between {what}"
                raise refusal(where, "student.renoise.at", law.at, expected)
            of = f"student.shift = {student.shift}" if student.grid is None else "student.grid"
            expected = f"room for re-noising between {what} ({of})"
            raise refusal(where, "student.margin", margin, expected)
        first = last


def _check_grid(spec: Student | Teacher, section: str, run: Run, where: str) -> None:
    """Noise levels fall from 1 to 0, one more than steps; chosen ones are of measured levels."""
    grid, steps = spec.grid, spec.steps
    if grid is None:
        return
    if not isinstance(grid, tuple):
        if steps >= run.measure.levels:
            expected = f"less than measure.levels = {run.measure.levels} for {section}.grid auto"
            raise refusal(where, f"{section}.steps", steps, expected)
        return
    falls = list(grid) == sorted(set(grid), reverse=True)
    if len(grid) != steps + 1 or grid[0] != 1 or grid[-1] != 0 or not falls:
        expected = f"{steps + 1} levels that fall from 1 to 0, as {section}.steps = {steps} has"
        raise refusal(where, f"{section}.grid", list(grid), expected)


def check_measured(run: Run, shared: Run, where: str) -> None:
    """What is chosen from the scenario's measurement is of its own teacher. Raises UserError.

    Args:
        shared: the scenario's run without a method.
    """
    for name in ("kind", "guidance", "guidance_low"):
        value, measured = getattr(run.teacher, name), getattr(shared.teacher, name)
        if value != measured:
            expected = f"{measured}, as of the scenario's teacher, whose steps are measured"
            raise refusal(where, f"teacher.{name}", value, expected)


def _check_length(run: Run, where: str) -> None:
    """How long training is, and how often it writes."""
    save, phases = run.save, len(run.student.ends)
    if save.checkpoint_every % save.log_every:
        expected = f"a multiple of save.log_every = {save.log_every}"
        raise refusal(where, "save.checkpoint_every", save.checkpoint_every, expected)
    if run.kind == "distill" and run.distill.updates < phases:
        expected = f"at least one for each of {phases} phases"
        raise refusal(where, "distill.updates", run.distill.updates, expected)
