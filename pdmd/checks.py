"""What a schema cannot say of a run: values that must fit one another, refused in one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pdmd.catalogue import LATENT, PROMPTED, TRANSFORMERS
from pdmd.complaints import refusal
from pdmd.launch import check_hardware
from pdmd.score_checks import check_scores

Config = dict[str, Any]

KINDS = {"atoms": ("fit",)}  # of methods; all other data have samples of teachers and students
STUDENTS = ("teacher", "distill")
DATA_KEYS = {
    "atoms": {"positions"},
    "grid": {"per_side", "std", "least_weight", "seed"},
    "digits": {"heldout", "copies", "components", "whitening", "seed"},
    "emoji": {"px", "copies", "heldout", "codec", "seed"},
    "moving": {"px", "objects", "cameras", "heldout", "codec", "seed", "image"},
}
OPTIONAL = {"image"}
FRAMES = {"emoji": 1, "moving": 8}  # of a picture, of a clip
VAE_SIDE = 8  # pixels of a latent's side
MODELS = {
    "atoms": "mlp",
    "grid": "mlp",
    "digits": "conditional-mlp",
    "emoji": "qwen",
    "moving": "wan",
}
MODEL_KEYS = {  # kind of model -> keys it must have, keys it may have
    "mlp": (set[str](), {"waves"}),
    "conditional-mlp": (set[str](), set[str]()),
    "qwen": ({"heads"}, set[str]()),
    "wan": ({"heads"}, {"feedforward", "boundary"}),
}
CONSTANT = 56  # components that single copies of the digits surely have: some pixels are constant
ROOM = 0.1  # of the re-noising draws that must lie inside of their interval
BESIDE_SCENARIOS = ("clip",)  # folders that are taken: beside those of scenarios,
BESIDE_METHODS = ("data", "config", "tables", "figures")  # and of methods


def check_together(run: Config, where: str) -> None:
    """What a schema cannot say: values that must fit one another. Raises UserError."""
    kinds = KINDS.get(run["data"]["kind"], STUDENTS)
    if run["kind"] not in kinds:
        expected = f"{' or '.join(kinds)} for data.kind {run['data']['kind']}"
        raise refusal(where, "kind", run["kind"], expected)
    _check_data(run, where)
    _check_model(run, where)
    _check_velocity(run, where)
    _check_fit(run, where)
    _check_student(run, where)
    _check_length(run, where)
    check_scores(run, where)


def check_base(run: Config, where: str) -> None:
    """A base network is fitted on the whole interval: students start from it. Raises UserError."""
    fit = run["fit"]
    if fit.get("start", 0):
        raise refusal(where, "fit.start", fit["start"], "0 for the base network")
    if fit.get("target") in ("biased", "unbiased"):
        expected = "flow or teacher for the base network, which is fitted from 0 on"
        raise refusal(where, "fit.target", fit["target"], expected)
    if fit.get("kept") and fit.get("start_from"):
        expected = "null beside fit.kept, which is taken as it is"
        raise refusal(where, "fit.start_from", fit["start_from"], expected)


def check_name(name: str, taken: Sequence[str], where: str) -> None:
    """A method or a scenario must not take a folder that others have. Raises UserError."""
    if name in taken:
        expected = f"another name than {', '.join(taken)}: that folder is taken"
        raise refusal(where, name, name, expected)


def check_shares(hardware: dict[str, int], part: str, batch: int, where: str) -> None:
    """Processes must have a GPU each, or none, and equal shares of a part's batch.

    Raises:
        UserError: they have not.
    """
    check_hardware(hardware, where)
    size = hardware["nodes"] * hardware["processes"]
    if batch % size:
        expected = f"a multiple of the {size} processes of hardware.nodes and hardware.processes"
        raise refusal(where, f"{part}.batch", batch, expected)


def check_validated(
    names: Sequence[str], scenarios: Sequence[str], settings: Callable[[str], Config]
) -> None:
    """Metrics are tried on scenarios that run, of pictures or clips. Raises UserError."""
    for name in names:
        if name not in scenarios:
            expected = f"scenarios that run: some of {', '.join(scenarios)}"
            raise refusal("config", "validate", name, expected)
        kind = settings(name)["data"]["kind"]
        if kind not in PROMPTED:
            expected = f"scenarios of data.kind {' or '.join(PROMPTED)}, not {kind}"
            raise refusal("config", "validate", name, expected)


def check_keys(
    found: Mapping[str, Any], wanted: set[str], allowed: set[str], where: str, section: str, of: str
) -> None:
    """A section has the keys that its kind wants, and none that it has no use for.

    Args:
        of: the kind, in words. Raises UserError.
    """
    for key in sorted(wanted - set(found)):
        raise refusal(where, f"{section}.{key}", None, f"a value for {of}")
    for key in sorted(set(found) - wanted - allowed):
        expected = (
            f"no such key for {of}, which takes {', '.join(sorted(wanted | allowed)) or 'none'}"
        )
        raise refusal(where, f"{section}.{key}", found[key], expected)


def _check_data(run: Config, where: str) -> None:
    """Values that must fit the kind of data."""
    data, kind = run["data"], run["data"]["kind"]
    wanted, optional = DATA_KEYS[kind] - OPTIONAL, {"kind"} | DATA_KEYS[kind] & OPTIONAL
    check_keys(data, wanted, optional, where, "data", f"data.kind {kind}")
    if kind == "digits":
        if not 100 <= data["heldout"] <= 900:
            raise refusal(where, "data.heldout", data["heldout"], "100 to 900")
        if data["copies"] == 1 and data["components"] > CONSTANT:
            expected = f"at most {CONSTANT} for data.copies 1: some pixels are constant"
            raise refusal(where, "data.components", data["components"], expected)
    if kind == "atoms" and len(set(data["positions"])) < len(data["positions"]):
        raise refusal(where, "data.positions", data["positions"], "no entry twice")
    if kind in PROMPTED:
        _check_codec(data, where)


def _check_codec(data: Config, where: str) -> None:
    """A codec is fitted patches, or the named VAE of a real model; networks halve its latents."""
    codec, kind, frames = data["codec"], data["codec"]["kind"], FRAMES[data["kind"]]
    patches = kind == "patches"
    wanted = {"patch", "channels", "whitening"} if patches else {"weights"}
    if set(codec) - {"kind"} != wanted:
        expected = f"{sorted(wanted)} for data.codec.kind {kind}"
        raise refusal(where, "data.codec", sorted(set(codec) - {"kind"}), expected)
    if not patches and (frames - 1) % 4:
        expected = f"'patches': a VAE of video takes 4 k + 1 frames, and these clips have {frames}"
        raise refusal(where, "data.codec.kind", kind, expected)
    patch = codec["patch"] if patches else [1, VAE_SIDE, VAE_SIDE]
    if frames % patch[0]:
        expected = f"a divisor of {frames} frames first"
        raise refusal(where, "data.codec.patch", patch, expected)
    for side in patch[1:]:
        if data["px"] % (2 * side):
            expected = f"a multiple of {2 * side}, two latents of {side} px"
            raise refusal(where, "data.px", data["px"], expected)
    if patches and codec["channels"] > (most := 3 * patch[0] * patch[1] * patch[2]):
        expected = f"at most {most}, the numbers of a patch"
        raise refusal(where, "data.codec.channels", codec["channels"], expected)


def _check_model(run: Config, where: str) -> None:
    """Values that must fit the kind of network."""
    model, kind, data = run["model"], run["model"]["kind"], run["data"]["kind"]
    if kind != MODELS[data]:
        raise refusal(where, "model.kind", kind, f"{MODELS[data]!r} for data.kind {data}")
    wanted, allowed = MODEL_KEYS[kind]
    allowed = allowed | {"kind", "width", "depth"}
    check_keys(model, wanted, allowed, where, "model", f"model.kind {kind}")
    if kind not in TRANSFORMERS:
        return
    if model["width"] % (2 * model["heads"]):
        expected = f"a divisor of half of model.width = {model['width']}"
        raise refusal(where, "model.heads", model["heads"], expected)
    if run["together"]:
        expected = f"false for model.kind {kind}, which holds one seed a job"
        raise refusal(where, "together", True, expected)


def _check_velocity(run: Config, where: str) -> None:
    """The teacher, and what is exact."""
    teacher, kind, data = run["teacher"], run["model"]["kind"], run["data"]["kind"]
    if data in LATENT and teacher["kind"] == "exact":
        expected = f"'fitted' for data.kind {data}, whose velocity has no closed form"
        raise refusal(where, "teacher.kind", "exact", expected)
    if teacher["guidance"] != 1:
        if kind == "mlp":
            expected = f"1 for model.kind {kind}, which has no null condition"
            raise refusal(where, "teacher.guidance", teacher["guidance"], expected)
        if not run["fit"].get("null_share"):
            expected = "1 where fit.null_share is 0: the null condition is not trained"
            raise refusal(where, "teacher.guidance", teacher["guidance"], expected)
    exact = run["kind"] == "fit" or run["fit"].get("target") == "teacher"
    exact |= teacher["kind"] == "exact" and run["kind"] in STUDENTS
    if exact and run["flow"] != "rectified":
        expected = "'rectified' where the exact velocity is used, which is of that schedule"
        raise refusal(where, "flow", run["flow"], expected)


def _check_fit(run: Config, where: str) -> None:
    """What is fitted to data."""
    fit, data = run["fit"], run["data"]["kind"]
    target, start = fit.get("target", "flow"), fit.get("start", 0)
    if data in LATENT and target != "flow":
        expected = f"'flow' for data.kind {data}, which has no exact velocity"
        raise refusal(where, "fit.target", target, expected)
    if target == "flow" and start:
        expected = "0 for fit.target flow: from later on the target is unbiased, biased or teacher"
        raise refusal(where, "fit.start", start, expected)
    if run["model"]["kind"] == "mlp" and fit.get("null_share"):
        expected = "0 for model.kind mlp, which has no null condition"
        raise refusal(where, "fit.null_share", fit["null_share"], expected)
    if run["kind"] == "fit" and fit.get("kept"):
        expected = "null for a method of kind fit: base networks alone are kept"
        raise refusal(where, "fit.kept", fit["kept"], expected)


def _check_student(run: Config, where: str) -> None:
    """Steps, phases and the room of their re-noising times."""
    student, model = run["student"], run["model"]
    boundaries = student["boundaries"]
    if boundaries != sorted(set(boundaries)) or boundaries[-1] != student["steps"]:
        expected = f"rising step counts that end at student.steps = {student['steps']}"
        raise refusal(where, "student.boundaries", boundaries, expected)
    if model.get("boundary", 0) >= 1 - student["margin"]:
        expected = f"less than 1 - student.margin = {1 - student['margin']:g}"
        raise refusal(where, "model.boundary", model["boundary"], expected)
    _check_room(student, model.get("boundary", 0), where)
    if student["backward"] == "all" and student["exits"] != "stratified":
        expected = "'stratified' for student.backward all, which has no exits"
        raise refusal(where, "student.exits", student["exits"], expected)
    lora = student["lora"]
    if lora is not None and model["kind"] not in TRANSFORMERS:
        expected = f"null for model.kind {model['kind']}"
        raise refusal(where, "student.lora", lora, expected)
    if lora is not None and lora["rank"] > model["width"]:
        expected = f"at most model.width = {model['width']}"
        raise refusal(where, "student.lora.rank", lora["rank"], expected)


def _check_room(student: Config, boundary: float, where: str) -> None:
    """Re-noising times of every phase must vary: what is outside of a phase's room is clamped."""
    steps, shift, margin = student["steps"], student["shift"], student["margin"]
    first = 0
    for number, last in enumerate(student["boundaries"], start=1):
        end, before = (_shifted(1 - step / steps, shift) for step in (last, last - 1))
        low = max(end + margin, boundary if before >= boundary else 0)
        raw_low, raw_high = 1 - last / steps, 1 - first / steps
        if student["interval"] == "nested":
            raw_high = 1.0
        high = min(1 - margin, _shifted(raw_high, shift))
        room = _raw(high, shift) - _raw(low, shift) if high > low else 0.0
        if room < ROOM * (raw_high - raw_low):
            top = "1" if student["interval"] == "nested" or number == 1 else "its start"
            expected = (
                f"room for re-noising between phase {number}'s end, t = {end:.4f}, and {top}"
                f" (student.shift = {shift})"
            )
            raise refusal(where, "student.margin", margin, expected)
        first = last


def _shifted(raw: float, shift: float) -> float:
    """A raw time as student.shift warps it."""
    return shift * raw / (1 + (shift - 1) * raw)


def _raw(time: float, shift: float) -> float:
    """The raw time that is warped to some time."""
    return time / (shift - (shift - 1) * time)


def _check_length(run: Config, where: str) -> None:
    """How long training is, and how often it writes."""
    save, phases = run["save"], len(run["student"]["boundaries"])
    if save["checkpoint_every"] % save["log_every"]:
        expected = f"a multiple of save.log_every = {save['log_every']}"
        raise refusal(where, "save.checkpoint_every", save["checkpoint_every"], expected)
    if run["kind"] == "distill" and run["distill"]["updates"] < phases:
        expected = f"at least one for each of {phases} phases"
        raise refusal(where, "distill.updates", run["distill"]["updates"], expected)
