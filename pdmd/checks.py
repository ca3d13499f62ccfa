"""What a schema cannot say of a run: values that must fit one another, refused in one line each."""

from __future__ import annotations

from typing import Any

from pdmd.catalogue import LATENT, PROMPTED, TRANSFORMERS
from pdmd.errors import UserError
from pdmd.launch import check_hardware

Config = dict[str, Any]

DATA_KEYS = {
    "atoms": {"positions"},
    "grid": {"per_side", "std", "least_weight", "seed"},
    "digits": {"heldout", "copies", "components", "whitening", "seed"},
    "emoji": {"px", "copies", "heldout", "codec", "seed"},
    "moving": {"px", "objects", "cameras", "heldout", "codec", "seed", "image"},
}
OPTIONAL = {"image"}
MODELS = {
    "atoms": "mlp",
    "grid": "mlp",
    "digits": "conditional-mlp",
    "emoji": "qwen",
    "moving": "wan",
}


def check_together(run: Config, where: str) -> None:
    """What a schema cannot say: values that must fit one another. Raises UserError."""
    _check_data(run, where)
    student, teacher, save = run["student"], run["teacher"], run["save"]
    if save["checkpoint_every"] % save["log_every"]:
        raise UserError(
            f"{where}: save.checkpoint_every: {save['checkpoint_every']}: expected a multiple of"
            f" save.log_every = {save['log_every']}"
        )
    boundaries = student["boundaries"]
    if boundaries != sorted(set(boundaries)) or boundaries[-1] != student["steps"]:
        raise UserError(
            f"{where}: student.boundaries: {boundaries}: expected rising step counts that end at"
            f" student.steps = {student['steps']}"
        )
    raw = 1 - boundaries[0] / student["steps"]
    last = student["shift"] * raw / (1 + (student["shift"] - 1) * raw)
    if last + student["margin"] >= 1 - student["margin"]:
        raise UserError(
            f"{where}: student.margin: {student['margin']}: expected room for re-noising between"
            f" the first phase's end, t = {last:.4f}, and 1"
        )
    if run["kind"] == "distill" and run["distill"]["updates"] < len(boundaries):
        raise UserError(
            f"{where}: distill.updates: {run['distill']['updates']}: expected at least one for"
            f" each of {len(boundaries)} phases"
        )
    if student["lora"] is not None and run["model"]["kind"] not in TRANSFORMERS:
        raise UserError(
            f"{where}: student.lora: {student['lora']}: expected null for model.kind"
            f" {run['model']['kind']}"
        )
    if teacher["guidance"] != 1 and run["model"]["kind"] == "mlp":
        raise UserError(
            f"{where}: teacher.guidance: {teacher['guidance']}: expected 1 for model.kind"
            f" {run['model']['kind']}, which has no null condition"
        )


def check_shares(hardware: dict[str, int], part: str, batch: int, where: str) -> None:
    """Processes must have a GPU each, or none, and equal shares of a part's batch.

    Raises:
        UserError: they have not.
    """
    check_hardware(hardware, where)
    size = hardware["nodes"] * hardware["processes"]
    if batch % size:
        raise UserError(
            f"{where}: {part}.batch: {batch}: expected a multiple of the {size} processes of"
            " hardware.nodes and hardware.processes"
        )


def _check_data(run: Config, where: str) -> None:
    """Values that must fit the kind of data."""
    data, kind = run["data"], run["data"]["kind"]
    missing = DATA_KEYS[kind] - OPTIONAL - set(data)
    unknown = set(data) - DATA_KEYS[kind] - {"kind"}
    if missing or unknown:
        raise UserError(
            f"{where}: data: {sorted(set(data) - {'kind'})}: expected"
            f" {sorted(DATA_KEYS[kind])} for data.kind {kind}"
        )
    if kind == "digits" and not 100 <= data["heldout"] <= 900:
        raise UserError(f"{where}: data.heldout: {data['heldout']}: expected 100 to 900")
    if run["model"]["kind"] != MODELS[kind]:
        raise UserError(
            f"{where}: model.kind: {run['model']['kind']!r}: expected {MODELS[kind]!r} for"
            f" data.kind {kind}"
        )
    if kind in LATENT and run["fit"].get("target", "flow") != "flow":
        raise UserError(
            f"{where}: fit.target: {run['fit']['target']!r}: expected 'flow' for data.kind {kind},"
            " which has no exact velocity"
        )
    if kind in LATENT and run["teacher"]["kind"] == "exact":
        raise UserError(
            f"{where}: teacher.kind: 'exact': expected 'fitted' for data.kind {kind}, whose"
            " velocity has no closed form"
        )
    if kind != "atoms" and not run["tables"]["levels"]:
        raise UserError(
            f"{where}: tables.levels: []: expected at least one fidelity for data.kind {kind}"
        )
    if kind in PROMPTED:
        _check_codec(data["codec"], where)
        _check_transformer(run, where)


def _check_codec(codec: Config, where: str) -> None:
    """A codec is fitted patches, or the named VAE of a real model."""
    patches = codec["kind"] == "patches"
    wanted = {"patch", "channels", "whitening"} if patches else {"weights"}
    if set(codec) - {"kind"} != wanted:
        raise UserError(
            f"{where}: data.codec: {sorted(set(codec) - {'kind'})}: expected {sorted(wanted)} for"
            f" data.codec.kind {codec['kind']}"
        )


def _check_transformer(run: Config, where: str) -> None:
    """Values that must fit a Qwen-Image or Wan network."""
    model = run["model"]
    if "heads" not in model or model["width"] % (2 * model["heads"]):
        raise UserError(
            f"{where}: model.heads: {model.get('heads')}: expected a divisor of half of model.width"
            f" = {model['width']}"
        )
    if run["together"]:
        raise UserError(
            f"{where}: together: true: expected false for model.kind {model['kind']}, which holds"
            " one seed a job"
        )
