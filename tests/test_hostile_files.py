"""Every kind of file that a stage reads, under every damage: refused in one line that names it.

What cannot be told from the file alone, such as another finite number in a tensor's place, is
listed as such: a digest that was taken when the file was written is what finds it.
"""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_precompute import parts_of, prepare
from test_record import finished

from pdmd.config.experiment import Experiment, merge, read_yaml
from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.data.bank import INDEX, read_bank
from pdmd.data.codec import load_codec
from pdmd.data.prompts import read_prompts
from pdmd.data.sources import build_conditions, build_data, load_samples
from pdmd.errors import UserError
from pdmd.files import assets, digests
from pdmd.files.contents import load_finite
from pdmd.files.storage import (
    load_tensors,
    read_json,
    save_pickled,
    save_tensors,
    sha256,
    write_json,
    write_text,
)
from pdmd.metrics.alignment import load_clip
from pdmd.models.base import Space
from pdmd.models.build import build, load_snapshots, warm_start
from pdmd.networks.judge import load_judge
from pdmd.networks.small_clip import SIZES
from pdmd.report.claims import read_recorded
from pdmd.report.record import keep_record
from pdmd.scenarios.digits import pictures as digits
from pdmd.stages import fit as fitting
from pdmd.stages.decode import load_decoded
from pdmd.stages.judge import train_judge
from pdmd.stages.outputs import CONDITIONS
from pdmd.stages.precompute import load_pictures
from pdmd.stages.stage import Stage

Read = Callable[[Path], object]
LONGEST = 300  # characters of a message, beside the path


class Kind(NamedTuple):
    """A kind of file: its name here, where one lies, and the public way to read it."""

    name: str
    path: Path
    read: Read


# --- one file of every kind -----------------------------------------------------------------------


def digit_files(repository: Path, folder: Path) -> Iterator[Kind]:
    """The files of the digits' data."""
    settings = read_yaml(repository / "config" / "config.yaml")
    small = {"data": {"copies": 1, "components": 8}, "classifier": {"updates": 1}, "seeds": [1]}
    small |= {"methods": ["dmd2"]}
    own = {"results": str(folder), "scenarios": ["digits"], "overrides": {"digits": small}}
    parts = Experiment(repository, merge(settings, own)).parts("digits")
    config = parts["config/data.json"]
    digits.encode(config)
    digits.train_classifier(parts["config/classifier.json"])
    data = Paths(read_run(config)).data
    train = data("train.safetensors")
    _, space = build_conditions(read_run(config).data, train.parent, None)
    yield Kind("digits train", train, lambda path: build_data(read_run(config).data, path, space))
    yield Kind("digits train, scored", train, digits.load_split)
    yield Kind("digits heldout", data("heldout.safetensors"), digits.load_split)
    yield Kind("digits codec", data("codec.safetensors"), digits.load_codec)
    yield Kind("classifier", data("classifier.safetensors"), digits.load_classifier)


def clip_files(repository: Path, folder: Path) -> Iterator[Kind]:
    """The files of the moving clips' data, of image-to-video, and a network kept."""
    diff = {"data": {"heldout": 700}, "classifier": {"updates": 1}}
    parts = parts_of(repository, folder, "movingi2v", diff)
    paths, prompts = prepare(parts)
    train_judge(parts["config/classifier.json"])
    base = parts["config/base.json"]
    pictures = paths.data("pictures.safetensors")
    yield Kind("pictures", pictures, lambda path: load_pictures(path, "moving", len(prompts)))
    yield Kind("prompts", paths.data("prompts.json"), read_prompts)
    yield Kind("codec", paths.data("codec.safetensors"), load_codec)
    yield Kind("judge", paths.data("judge.safetensors"), load_judge)
    train = paths.data("train.safetensors")
    store, space = build_conditions(read_run(base).data, train.parent, TEXT)
    yield Kind("latents", train, lambda path: build_data(read_run(base).data, path, space))
    every = torch.arange(len(prompts))

    def conditions(_: Path) -> object:
        store, _ = build_conditions(read_run(base).data, train.parent, TEXT)
        return store.values(every), store.values(store.evaluation)

    yield Kind("embeddings", paths.data("prompts.safetensors"), conditions)
    yield Kind("conditions", paths.data(CONDITIONS), conditions)
    condition = store.evaluation[:6]
    samples = folder / "clips.safetensors"
    x = torch.randn(6, *space.shape)
    save_tensors(samples, {"x": x, "condition": condition})
    yield Kind("samples of clips", samples, lambda path: load_samples(path, space, 6))
    pictures = folder / "decoded.safetensors"
    save_tensors(pictures, {"x": torch.randn(6, 3, 3, 8, 8), "condition": condition})
    yield Kind("decoded clips", pictures, lambda path: load_decoded(path, space, 6))
    features = folder / "features.safetensors"
    save_tensors(features, {"ends": torch.randn(6, 4), "i3d": torch.randn(6, 5)})
    yield Kind("features", features, load_finite)
    yield from kept_files(base, space, folder)


def kept_files(base: dict[str, Any], space: Space, folder: Path) -> Iterator[Kind]:
    """A fitted network, what says so beside it, and the same as a smaller relative."""
    fitting.fit_base(base)
    paths = Paths(read_run(base))
    kept = folder / "kept.safetensors"
    fitting.keep(base, kept)
    again = copy.deepcopy(base)
    again["fit"]["kept"] = str(kept)
    fitting.fit_base(again)
    yield Kind("kept network", kept, lambda _: fitting.use_kept(again))
    yield Kind("kept recipe", kept.with_suffix(".json"), lambda _: fitting.use_kept(again))
    for name in ("metrics.json", "provenance.json"):
        yield Kind(name, paths.base(name), lambda _: fitting.keep(base, folder / "other"))

    def start(path: Path) -> None:
        warm_start(build(read_run(base).model, space, 1, 0), load_tensors(path), str(path))

    relative = folder / "relative.safetensors"
    shutil.copy(kept, relative)
    yield Kind("relative", relative, start)


def mixture_files(results: Path, tiny: Any) -> Iterator[Kind]:
    """The files of training and sampling."""
    parts = tiny(results)
    stage = Stage(parts["phased2/config/distill.json"])
    paths, first = stage.paths, stage.phases[:1]
    yield Kind("base", paths.base("model.safetensors"), lambda _: stage.network(2))
    expert = paths.phase(2, 1, "expert.safetensors")
    yield Kind("expert", expert, lambda _: stage.experts([1, 2], first))

    def last_snapshot(path: Path) -> object:
        found = load_snapshots(path)
        return [stage.trained([state], [path], "snapshot") for state in found.values()]

    yield Kind("snapshots", paths.phase(2, 1, "snapshots.safetensors"), last_snapshot)
    bank, rows = paths.bank(2, 2), parts["phased2/config/bank.json"]["bank"]["rows"]

    def read(_: Path) -> object:
        return read_bank(bank, stage.space, 2, rows)

    yield Kind("index of a bank", bank / INDEX, read)
    yield Kind("shard", bank / "shard-00001.safetensors", read)

    def read_signed(path: Path) -> object:  # as who changes both
        index = json.loads((bank / INDEX).read_text())
        if path.is_file():
            index["shards"][1]["sha256"] = sha256(path)
        write_json(bank / INDEX, index)
        return read(path)

    yield Kind("shard and its digest", bank / "shard-00001.safetensors", read_signed)
    samples = results / "samples.safetensors"
    save_tensors(samples, {"x": torch.randn(20, 2)})
    yield Kind("samples", samples, lambda path: load_samples(path, stage.space, 20))


def other_files(folder: Path, repository: Path) -> Iterator[Kind]:
    """Frozen networks, and what a record is made from."""
    from clip.model import CLIP

    save_pickled(folder / "small_clip.pt", CLIP(**{**SIZES, "vocab_size": 60}).state_dict())
    yield Kind("small CLIP", folder / "small_clip.pt", lambda p: load_clip.__wrapped__(str(p)))
    weights = assets.folder_of("lite0") / "lite0.safetensors"
    save_tensors(weights, {"x": torch.zeros(2)})
    index = weights.with_name("index.json")
    write_json(index, {weights.name: sha256(weights)})
    yield Kind("index of an asset", index, lambda _: assets.asset("lite0", weights.name))
    yield Kind("asset", weights, lambda _: assets.asset("lite0", weights.name))
    docs, results = folder / "docs", finished(folder / "r", "c0ffee")
    write_json(docs / "provenance.json", {"mixture2d": {"commit": "c0ffee"}})

    def record(_: Path) -> None:
        keep_record(results, docs)

    tables = results / "science" / "grids" / "emoji" / "tables"
    yield Kind("provenance of tables", tables / "provenance.json", record)
    yield Kind("provenance of the record", docs / "provenance.json", record)
    scores = docs / "science" / "grids" / "emoji" / "scores.csv"
    write_text(scores, "method,seed,coverage\ndmd2,1,0.25\nphased2,1,0.5\n")
    yield Kind("record of scores", scores, lambda path: read_recorded(path, "dmd2", "coverage"))


@pytest.fixture(scope="module")
def kinds(
    repository: Path, chain: Path, tiny: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Kind]]:
    """One whole file of every kind."""
    folder = tmp_path_factory.mktemp("hostile")
    shutil.copytree(chain, folder / "chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PDMD_CACHE", str(folder / "cache"))
        yield [
            *digit_files(repository, folder / "digits"),
            *clip_files(repository, folder / "clips"),
            *mixture_files(folder / "chain", tiny),
            *other_files(folder, repository),
        ]


# --- every damage ---------------------------------------------------------------------------------

Damage = Callable[[Path], None]


def rewrite(change: Callable[[bytearray], bytes]) -> Damage:
    def damage(path: Path) -> None:
        path.write_bytes(change(bytearray(path.read_bytes())))

    return damage


def flip(place: Callable[[int], int]) -> Damage:
    def change(content: bytearray) -> bytes:
        content[place(len(content))] ^= 0x10
        return bytes(content)

    return rewrite(change)


def folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


BYTES: dict[str, Damage] = {
    "missing": Path.unlink,
    "empty": rewrite(lambda _: b""),
    "half": rewrite(lambda content: content[: len(content) // 2]),
    "without its last byte": rewrite(lambda content: content[:-1]),
    "zeros": rewrite(lambda content: bytes(len(content))),
    "noise": rewrite(lambda _: bytes(range(256)) * 4),
    "no UTF-8": rewrite(lambda _: b'{"a": "\xff\xfe"}'),
    "folder": folder_in_its_place,
    "dangling link": dangling_link,
    "a bit of byte 0": flip(lambda size: 0),
    "a bit of byte 7": flip(lambda size: min(7, size - 1)),
    "a bit of byte 12": flip(lambda size: min(12, size - 1)),
    "a bit of byte 40": flip(lambda size: min(40, size - 1)),
    "a bit of the middle": flip(lambda size: size // 2),
    "a bit of the end": flip(lambda size: size - 2),
}
VALUES = ("{}", "[]", "null", "3", '"x"', "[[]]", "[3]", '{"x": 1}', "NaN", "[" * 100_000)


def json_damages(path: Path) -> Iterator[tuple[str, Damage]]:
    """Other values in the place of the whole, of a key, and of the first item of a list."""
    for text in VALUES:
        yield text[:9], lambda path, text=text: path.write_text(text)  # type: ignore[misc]
    whole = json.loads(path.read_text())
    first = whole[0] if isinstance(whole, list) else whole
    for key in first:
        for name, value in (("gone", ...), ("null", None), ("a list", [[]]), ("a map", {"x": {}})):

            def damage(path: Path, key: str = key, value: object = value) -> None:
                changed = copy.deepcopy(whole)
                place = changed[0] if isinstance(changed, list) else changed
                if value is ...:
                    del place[key]
                else:
                    place[key] = value
                path.write_text(json.dumps(changed))

            yield f"{key}: {name}", damage


Change = Callable[[torch.Tensor], torch.Tensor]


def put(value: float) -> Change:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(-1)[-1] = value
        return tensor

    return change


ANY: dict[str, Change] = {
    "float64": torch.Tensor.double,
    "half": torch.Tensor.half,
    "int32": torch.Tensor.int,
    "a row missing": lambda tensor: tensor[1:],
    "a row more": lambda tensor: torch.cat([tensor, tensor[-1:]]),
    "no rows": lambda tensor: tensor[:0],
    "turned": lambda tensor: tensor.transpose(0, -1),
    "an axis more": lambda tensor: tensor[None],
}
FLOATING: dict[str, Change] = {
    "NaN": put(float("nan")),
    "infinite": put(-float("inf")),
    "int64": torch.Tensor.long,
    "another number": put(0.125),
}
WHOLE: dict[str, Change] = {"negative": put(-7), "huge": put(2**40), "float32": torch.Tensor.float}
METADATA = (None, "", "{}", "[]", "null", "3", '{"kind": 3}', '{"null": "x", "rows": "x"}')


def store(path: Path, tensors: dict[str, torch.Tensor], metadata: Any) -> None:
    save_file({name: t.contiguous() for name, t in tensors.items()}, path, metadata)


def tensor_damages(path: Path) -> Iterator[tuple[str, Damage]]:
    """Other tensors, names and metadata, in files that are whole as such."""
    whole = load_file(path)
    with safe_open(path, "pt") as handle:
        metadata = handle.metadata()
    names = sorted(whole)
    for name in dict.fromkeys([*names[:4], *names[-2:]]):
        yield (
            f"{name}: gone",
            lambda path, name=name: store(  # type: ignore[misc]
                path, {n: t for n, t in whole.items() if n != name}, metadata
            ),
        )
        yield (
            f"{name}: renamed",
            lambda path, name=name: store(  # type: ignore[misc]
                path, {f"{n}x" if n == name else n: t for n, t in whole.items()}, metadata
            ),
        )
        kind = FLOATING if whole[name].is_floating_point() else WHOLE
        for damage, change in {**ANY, **kind}.items():
            if whole[name].dtype == torch.uint8 and damage in ("negative", "huge"):
                continue
            if whole[name].ndim == 0 and damage in ("turned", *(d for d in ANY if "row" in d)):
                continue
            changed = change(whole[name].clone())
            same = (changed.shape, changed.dtype) == (whole[name].shape, whole[name].dtype)
            if same and changed.equal(whole[name]):
                continue

            def write(path: Path, name: str = name, changed: torch.Tensor = changed) -> None:
                store(path, {**whole, name: changed}, metadata)

            yield f"{name}: {damage}", write
    for text in METADATA:
        told = None if text is None else {"pdmd": text}
        yield f"metadata {text}", lambda path, told=told: store(path, whole, told)  # type: ignore[misc]
    yield "a tensor more", lambda path: store(path, {**whole, "zz": torch.zeros(2)}, metadata)


def pickle_damages(path: Path) -> Iterator[tuple[str, Damage]]:
    """Other values that torch saved, and states of another kind."""
    state = torch.load(path)
    key = "visual.class_embedding"
    yield "a list", lambda path: torch.save([1, 2], path)
    yield "no state", lambda path: torch.save({}, path)
    for name, change in {**ANY, **FLOATING}.items():
        if name in ("turned", "half", "float64"):  # one axis; clip reads halves by design
            continue
        changed = change(state[key].clone())
        yield (
            name,
            lambda path, changed=changed: torch.save(  # type: ignore[misc]
                {**state, key: changed}, path
            ),
        )
    yield "gone", lambda path: torch.save({n: t for n, t in state.items() if n != key}, path)


def damages(path: Path) -> dict[str, Damage]:
    """Every damage of a file, by name."""
    special = {
        ".json": json_damages,
        ".safetensors": tensor_damages,
        ".pt": pickle_damages,
    }.get(path.suffix)
    return {**BYTES, **(dict(special(path)) if special else {})}


# --- what becomes of it ---------------------------------------------------------------------------

WHOLE_JSON = ["without its last byte"]  # which ends the line
TEXT = 14  # token rows that prompts are padded to
UNREAD = ["metadata *", "a tensor more"]  # nobody asks for them
FOREIGN = ["metadata *"]  # of weights nobody asks for them, and a tensor more is refused

# Damages that change nothing for the reader, by kind.
HARMLESS: dict[str, list[str]] = {
    "digits train": [*UNREAD, "picture*", "styles*"],  # what trains reads neither
    "digits train, scored": UNREAD,
    "digits heldout": UNREAD,
    "digits codec": UNREAD,
    "classifier": FOREIGN,
    "pictures": UNREAD,
    "prompts": WHOLE_JSON,
    "codec": ["a tensor more"],
    "latents": UNREAD,
    "embeddings": ["a tensor more"],
    "conditions": ["a tensor more"],
    "samples of clips": UNREAD,
    "decoded clips": UNREAD,
    "features": [*UNREAD, "*: gone", "*: renamed"],  # they are made again
    "kept recipe": [*WHOLE_JSON, "commit: *", "packages: *", "seconds: gone", "a bit of byte*"],
    "metrics.json": [*WHOLE_JSON, "commit: *", "packages: *", "recipe: *", "sha256: *"],
    "provenance.json": [
        *(*WHOLE_JSON, "config: *", "dirty: *", "inputs_sha256: *"),
        *("machine: *", "outputs_sha256: *", "python: *", "seeds: *", "a bit of the middle"),
    ],
    "relative": FOREIGN,
    "base": FOREIGN,
    "expert": FOREIGN,
    "snapshots": FOREIGN,
    "index of a bank": WHOLE_JSON,
    "shard and its digest": UNREAD,
    "samples": UNREAD,
    "small CLIP": ["a bit of byte 7", "a bit of byte 12", "a bit of the end"],  # of the archive
    "index of an asset": WHOLE_JSON,
    "provenance of tables": WHOLE_JSON,
    "provenance of the record": ["missing", "dangling link", "*"],  # it is renewed
    "record of scores": WHOLE_JSON,
}
# Times, commits and machines stand in these, so what lies at a byte differs from run to run.
VARIED = ("kept recipe", "metrics.json", "provenance.json", "provenance of tables")
FLIPS = ["a bit of the middle", "a bit of the end", "*: another number"]

# Damages that the file alone does not show: a digest from when it was written would.
NEEDS_DIGEST: dict[str, list[str]] = {
    "digits train": FLIPS,
    "digits train, scored": FLIPS,
    "digits heldout": FLIPS,
    "digits codec": FLIPS,
    "classifier": FLIPS,
    "pictures": FLIPS[:2],
    "prompts": ["truth: a map"],
    "codec": FLIPS,
    "judge": FLIPS,
    "latents": FLIPS,
    "embeddings": FLIPS,
    "conditions": [*FLIPS, "evaluation: a row *", "images: a row more"],
    "samples of clips": FLIPS,
    "decoded clips": FLIPS,
    "features": [
        *FLIPS,
        "*: a row *",
        "*: turned",
        "*: an axis more",
        "a bit of byte 40",
        "*: float64",
        "*: half",
    ],
    "kept recipe": ["last: a map"],
    "metrics.json": ["last: a map", "a bit of *"],
    "provenance.json": ["commit: *", "packages: *", "a bit of *"],
    "relative": [*FLIPS, "*: turned"],  # as wide as it is high
    "base": [*FLIPS, "a bit of byte 40"],  # in the metadata
    "expert": [*FLIPS, "a bit of byte 40"],
    "snapshots": [*FLIPS, "a bit of byte 40"],
    "shard and its digest": FLIPS[1:],
    "samples": FLIPS,
    "small CLIP": ["another number"],
    "provenance of tables": ["commit: *", "packages: *", "python: *", "a bit of *"],
    "record of scores": ["half", "a bit of *"],
}
NAMES = (
    *("digits train", "digits train, scored", "digits heldout", "digits codec", "classifier"),
    *("pictures", "prompts", "codec", "judge", "latents", "embeddings", "conditions"),
    *("samples of clips", "decoded clips"),
    *("features", "kept network", "kept recipe", "metrics.json", "provenance.json", "relative"),
    *("base", "expert", "snapshots", "index of a bank", "shard", "shard and its digest"),
    *("samples", "small CLIP", "index of an asset", "asset"),
    *("provenance of tables", "provenance of the record", "record of scores"),
)


def refusal(kind: Kind) -> str | None:
    """What a reader says in one line that names the file; None if it takes it; else it raises."""
    try:
        kind.read(kind.path)
    except UserError as error:
        text = str(error)
        assert str(kind.path.parent) in text, f"{kind.path} is not named: {text}"
        assert kind.path.name in text, f"{kind.path} is not named: {text}"
        assert "\n" not in text
        assert "expected" in text
        assert len(text.replace(str(kind.path.parent), "")) < LONGEST, text
        return text
    return None


@contextmanager
def put_back(kind: Kind) -> Iterator[bytes]:
    """Restore a file, and the JSON files beside it, whatever became of them; yield its bytes."""
    beside = {path: path.read_bytes() for path in kind.path.parent.glob("*.json")}
    content = kind.path.read_bytes()
    try:
        yield content
    finally:
        if kind.path.is_dir():
            kind.path.rmdir()
        kind.path.unlink(missing_ok=True)
        for path, whole in {**beside, kind.path: content}.items():
            path.write_bytes(whole)


def test_every_kind_is_tried(kinds: list[Kind]) -> None:
    assert [kind.name for kind in kinds] == list(NAMES)
    assert HARMLESS.keys() | NEEDS_DIGEST.keys() <= set(NAMES)


def recorded(path: Path) -> bool:
    """Whether a record beside a file lists its digest."""
    records = (path.with_name(name) for name in digests.RECORDS if name != path.name)
    return any(path.name in read_json(r).get(digests.OUTPUTS, {}) for r in records if r.is_file())


UNRECORDED = {  # made here without a stage, kept by hand, a record itself, or with its own digests
    *(
        "embeddings",
        "samples of clips",
        "decoded clips",
        "features",
        "kept network",
        "kept recipe",
        "provenance.json",
        "relative",
    ),
    *("index of a bank", "shard", "shard and its digest", "samples", "small CLIP"),
    *("index of an asset", "asset", "provenance of tables", "provenance of the record"),
    "record of scores",
}
RECORDED = [name for name in NAMES if name not in UNRECORDED]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_recorded_is_known(kinds: list[Kind], name: str) -> None:
    kind = next(kind for kind in kinds if kind.name == name)
    assert recorded(kind.path) == (name in RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_file_is_refused_under_every_damage(kinds: list[Kind], name: str) -> None:
    kind = next(kind for kind in kinds if kind.name == name)
    assert refusal(kind) is None  # control: whole
    taken = []
    for damage, apply in damages(kind.path).items():
        with put_back(kind) as whole:
            apply(kind.path)
            changed = not kind.path.is_file() or kind.path.read_bytes() != whole
            if changed and refusal(kind) is None:
                taken.append(damage)
    assert taken == []


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_refused_in_one_line_that_names_it(
    kinds: list[Kind], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a file alone can tell, where no record is beside it."""
    monkeypatch.setattr(digests, "RECORDS", ())
    kind = next(kind for kind in kinds if kind.name == name)
    assert refusal(kind) is None  # control: whole
    taken, refused = [], 0
    for damage, apply in damages(kind.path).items():
        with put_back(kind) as whole:
            apply(kind.path)
            if kind.path.is_file() and kind.path.read_bytes() == whole:
                continue
            if refusal(kind) is None:
                taken.append(damage)
            else:
                refused += 1
    known = [*HARMLESS.get(name, []), *NEEDS_DIGEST.get(name, [])]
    assert [one for one in taken if not any(fnmatchcase(one, each) for each in known)] == []
    known = [each for each in known if not (name in VARIED and each.startswith("a bit of "))]
    unused = [each for each in known if not any(fnmatchcase(one, each) for one in taken)]
    assert unused == []  # a list that says no more than is so
    assert refused >= 10
