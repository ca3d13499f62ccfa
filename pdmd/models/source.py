"""Where a released model lies: a folder in diffusers' layout, checked before it is loaded.

Nothing here imports torch or diffusers: a wrong folder is said before any job starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pdmd.config.sections import Model
from pdmd.errors import UserError
from pdmd.files.digests import sha256
from pdmd.files.storage import read_json, reading, shown, write_json
from pdmd.models.families import FAMILIES, Family

DEPTH = "num_layers"  # of an architecture: its blocks

PARTS = ("scheduler", "text_encoder", "tokenizer", "vae")  # beside the transformers
WEIGHTLESS = ("scheduler", "tokenizer")
UNUSED = ("*.md", "*.png", "*.jpg", "*.mp4", "*.bin", "*.pth")  # of a hub repository


def is_tiny(source: str, results: str) -> bool:
    """Whether a model's source is a tiny random one, which a rule writes below the results."""
    return Path(source).parent == Path(results) / "models"


def locate(source: str, revision: str | None = None) -> Path:
    """The folder of a model: `source` itself, or the hub's copy here, fetched if need be.

    Raises:
        UserError: it is neither a folder nor to be had from the hub.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if source.count("/") != 1 or source[0] in "/.~":
        raise UserError(f"model.source: {source}: expected a folder, or a name of the hub")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, revision=revision, ignore_patterns=list(UNUSED)))
    except Exception as error:  # of the hub's library, of requests, of the disk
        raise UserError(
            f"model.source: {source}: {shown(error)}: expected a folder, or a name of the hub that"
            " this machine can reach"
        ) from None


def fetch(family: str, source: str | None, revision: str | None, output: Path) -> None:
    """Find a released model, check its folder, and write its manifest.

    Args:
        source: a folder or a name of the hub; the family's own repository where it is None.
    """
    if family not in FAMILIES:
        raise UserError(f"family: {family}: expected one of {', '.join(FAMILIES)}")
    folder = locate(source or FAMILIES[family].hub, revision).absolute()
    files = check_folder(folder, FAMILIES[family])
    write_manifest(folder, family, files, revision, output)
    size = sum(file.stat().st_size for file in files)
    print(f"{folder}: {family}, {len(files)} files, {size / 2**30:.2f} GiB: {output}")


def check_folder(folder: Path, family: Family, parts: Iterable[str] = PARTS) -> list[Path]:
    """The files of a model that a family's jobs read, all of them there and as long as they say.

    Raises:
        UserError: not diffusers' layout, another class, a missing or cut file, experts that the
            family has not; names the file.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(f"{folder}: no model_index.json: expected a folder in diffusers' layout")
    content = read_json(index, dict, ["_class_name"])
    _expect(index, "_class_name", content["_class_name"], family.pipeline)
    has = sum(_present(content, name) for name in ("transformer", "transformer_2"))
    _expect(index, "transformers", has, family.experts)
    boundary = content.get("boundary_ratio")
    if (boundary is not None) != (family.experts == 2):
        wanted = "a number for two experts" if family.experts == 2 else "none for one expert"
        raise UserError(f"{index}: boundary_ratio: {shown(boundary)}: expected {wanted}")
    files = [index]
    for name in family.transformers:
        files += _weighted(folder / name, family.transformer)
        config = read_json(folder / name / "config.json", dict, ["in_channels", "out_channels"])
        if family.kind == "wan":
            more = config["in_channels"] - config["out_channels"]
            where = folder / name / "config.json"
            _expect(where, "in_channels beyond out_channels", more, family.image_channels)
    for name in parts:
        if not _present(content, name):
            raise UserError(f"{index}: {name}: none: expected one")
        files += _weighted(folder / name, content[name][1])
    return files


def write_manifest(
    folder: Path, family: str, files: Iterable[Path], revision: str | None, path: Path
) -> None:
    """Record what a model's files are; everything that reads them depends on this file instead.

    The manifest holds, for each file, its size in bytes and its sha256, taken here once, and of a
    copy of the hub's the commit that the revision stood for.

    Raises:
        UserError: a file of the hub's cache is not what the hub says that it is.
    """
    entries = {}
    for file in sorted(files):
        entries[str(file.relative_to(folder))] = entry = {
            "bytes": file.stat().st_size,
            "sha256": sha256(file),
        }
        _expect(file, "sha256", entry["sha256"], _of_hub(file) or entry["sha256"])
    commit = folder.name if folder.parent.name == "snapshots" else None
    found = {"family": family, "folder": str(folder), "revision": revision, "commit": commit}
    write_json(path, {**found, "files": entries})


def _of_hub(file: Path) -> str | None:
    """The sha256 that the hub's cache knows a large file by: its links lead to blobs of that name.

    Small files are named by git's digest, which is of 40 digits.
    """
    blob = file.resolve()
    named = file.is_symlink() and blob.parent.name == "blobs"
    return blob.name if named and re.fullmatch("[0-9a-f]{64}", blob.name) else None


def verify(path: Path) -> None:
    """Hash every file of a manifest again. Raises UserError that names one that has changed."""
    folder, manifest = check_manifest(path), read_json(path, dict, ["files"])
    for name, entry in manifest["files"].items():
        _expect(folder / name, "sha256", sha256(folder / name), entry["sha256"])
    size = sum(entry["bytes"] for entry in manifest["files"].values())
    print(f"{folder}: {len(manifest['files'])} files, {size / 2**30:.2f} GiB: as in {path}")


def file_of(folder: Path, tensor: str) -> Path:
    """The file of a transformer's folder that a tensor lies in; the folder where none says."""
    for index in folder.glob("*.safetensors.index.json"):
        name = read_json(index, dict, ["weight_map"])["weight_map"].get(tensor)
        if name is not None:
            return folder / str(name)
    whole = sorted(folder.glob("*.safetensors"))
    return whole[0] if len(whole) == 1 else folder


def check_manifest(path: Path) -> Path:
    """The folder of a manifest, whose files are all there with their sizes; none is hashed again.

    Raises:
        UserError: names the file that is gone or of another size.
    """
    manifest = read_json(path, dict, ["folder", "files"])
    folder = Path(manifest["folder"])
    for name, entry in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file}: missing: expected it by {path}")
        _expect(file, "bytes", file.stat().st_size, entry["bytes"])
    return folder


def _expect(where: Path, key: str, value: object, wanted: object) -> None:
    if value != wanted:
        raise UserError(f"{where}: {key}: {shown(value)}: expected {wanted}")


def _present(index: dict[str, Any], name: str) -> bool:
    value = index.get(name)
    return isinstance(value, list) and len(value) == 2 and value[1] is not None


def _weighted(folder: Path, kind: str) -> Iterator[Path]:
    """The files of one component. Raises UserError for one that is missing or cut."""
    if not folder.is_dir():
        raise UserError(f"{folder}: missing: expected the folder of a {kind}")
    if folder.name not in WEIGHTLESS:
        config = folder / "config.json"
        content = read_json(config, dict)
        with reading(config, "the name of a class"):
            named = (
                content["_class_name"] if "_class_name" in content else content["architectures"][0]
            )
        _expect(config, "_class_name", named, kind)
        for name in _shards(folder):
            check_length(folder / name)
    elif not any(folder.iterdir()):
        raise UserError(f"{folder}: empty: expected the files of a {kind}")
    yield from sorted(file for file in folder.iterdir() if file.is_file())


def weight_files(folder: Path) -> list[Path]:
    """The files of a component's weights. Raises UserError where there are none."""
    return [folder / name for name in _shards(folder)]


def _shards(folder: Path) -> list[str]:
    """Names of the files of weights."""
    for index in sorted(folder.glob("*.safetensors.index.json")):
        if index.name.count(".") > 3:  # of a variant, such as fp16
            continue
        content = read_json(index, dict, ["weight_map"])
        with reading(index, "weight_map: names of tensors and of their files"):
            names = sorted({str(name) for name in content["weight_map"].values()})
        for name in names:
            if not (folder / name).is_file():
                raise UserError(f"{folder / name}: missing: expected it by {index.name}")
        return names
    whole = sorted(file.name for file in folder.glob("*.safetensors"))
    if not whole:
        raise UserError(f"{folder}: no *.safetensors: expected the weights there")
    return whole


def check_length(path: Path) -> None:
    """Raise UserError unless a safetensors file is as long as its header says.

    A download that was cut, and only that, is found without reading the weights.
    """
    from safetensors import safe_open

    with reading(path, "a whole safetensors file"), safe_open(path, "numpy"):
        pass


def architecture_of(spec: Model, results: str) -> dict[str, Any]:
    """A released model's transformer, as its folder's config.json has it, where there is one.

    Args:
        spec: the `model` section; results: the folder of everything, below which tiny models lie.
    """
    family, source = FAMILIES[str(spec.family)], str(spec.source)
    path = Path(source).expanduser() / family.transformers[0] / "config.json"
    if path.is_file():
        kept = {**read_json(path, dict, [DEPTH])}
        return {name: kept.get(name, value) for name, value in family.architecture.items()}
    if is_tiny(source, results):
        from pdmd.models.tiny import tiny_architecture

        return tiny_architecture(family)
    return dict(family.architecture)
