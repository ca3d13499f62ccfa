"""A model's folder is checked from its small files; what is wrong is one line."""

import json
import os
import shutil
import struct

import pytest

from pdmd import cli
from pdmd.errors import UserError
from pdmd.files.digests import sha256
from pdmd.models.families import FAMILIES
from pdmd.models.source import check_folder, check_manifest, fetch, locate, write_manifest

FAMILY = FAMILIES["wan2.2-i2v-a14b"]


def weights(path, values=4):
    header = {"w": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4 * values))


def edit(path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


@pytest.fixture
def model(tmp_path):
    """A Wan2.2 I2V folder in the hub's layout, its second expert in two shards."""
    root = tmp_path / "model"
    parts = {
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "transformer_2": ["diffusers", "WanTransformer3DModel"],
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    for name, (_, kind) in parts.items():
        (root / name).mkdir(parents=True)
        if name in ("scheduler", "tokenizer"):
            (root / name / f"{name}_config.json").write_text("{}")
            continue
        config = {"_class_name": kind, "in_channels": 36, "out_channels": 16}
        if name == "text_encoder":
            config = {"architectures": [kind]}
        (root / name / "config.json").write_text(json.dumps(config))
        if name != "transformer_2":
            weights(root / name / "model.safetensors")
    shards = {"a": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"}
    for name in shards.values():
        weights(root / "transformer_2" / name)
    index = root / "transformer_2" / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    whole = {"_class_name": FAMILY.pipeline, "boundary_ratio": 0.9, **parts}
    (root / "model_index.json").write_text(json.dumps(whole))
    return root


def test_a_whole_folder_passes_and_its_manifest_is_checked_by_size(model, tmp_path):
    files = check_folder(model, FAMILY)
    assert {file.parent.name for file in files} >= {"transformer_2", "tokenizer", "vae"}
    manifest = tmp_path / "manifest.json"
    write_manifest(model, "wan2.2-i2v-a14b", files, "main", manifest)
    entries = json.loads(manifest.read_text())["files"]
    assert len(entries) == len(files)
    assert all(len(entry["sha256"]) == 64 for entry in entries.values())
    assert check_manifest(manifest) == model
    weights(model / "vae" / "model.safetensors", values=5)
    with pytest.raises(UserError, match=r"vae/model.safetensors: bytes: \d+: expected \d+"):
        check_manifest(manifest)
    (model / "vae" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"vae/model.safetensors: missing: expected it by"):
        check_manifest(manifest)


def test_fetch_says_what_it_found(model, tmp_path, capsys):
    output = tmp_path / "manifest.json"
    command = ["fetch", "wan2.2-i2v-a14b", "--source", str(model), "--output", str(output)]
    assert cli.main(command) == 0
    assert json.loads(output.read_text())["family"] == "wan2.2-i2v-a14b"
    assert "wan2.2-i2v-a14b, " in capsys.readouterr().out
    for wrong, said in (
        (["wan3", "--source", str(model)], "family: wan3: expected one of qwen-image, wan2.1"),
        (["qwen-image", "--source", str(model)], "expected QwenImagePipeline"),
    ):
        assert cli.main(["fetch", *wrong, "--output", str(tmp_path / "none.json")]) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "none.json").exists()


def cut(model):
    path = model / "transformer_2" / "m-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-3])


WRONG = {
    "no index": (
        lambda m: (m / "model_index.json").unlink(),
        "no model_index.json: expected a folder in diffusers' layout",
    ),
    "another pipeline": (
        lambda m: edit(m / "model_index.json", _class_name="WanPipeline"),
        "model_index.json: _class_name: WanPipeline: expected WanImageToVideoPipeline",
    ),
    "one expert": (
        lambda m: edit(m / "model_index.json", transformer_2=[None, None]),
        "model_index.json: transformers: 1: expected 2",
    ),
    "no boundary": (
        lambda m: edit(m / "model_index.json", boundary_ratio=None),
        "boundary_ratio: None: expected a number for two experts",
    ),
    "another class": (
        lambda m: edit(m / "transformer" / "config.json", _class_name="FluxTransformer2DModel"),
        "transformer/config.json: _class_name: FluxTransformer2DModel: expected WanTrans",
    ),
    "text to video": (
        lambda m: edit(m / "transformer" / "config.json", in_channels=16),
        "in_channels beyond out_channels: 0: expected 20",
    ),
    "a missing shard": (
        lambda m: (m / "transformer_2" / "m-00001-of-00002.safetensors").unlink(),
        "m-00001-of-00002.safetensors: missing: expected it by m.safetensors.index.json",
    ),
    "a cut shard": (
        cut,
        "m-00002-of-00002.safetensors: Error while deserializing header: incomplete metadata",
    ),
    "no weights": (
        lambda m: (m / "vae" / "model.safetensors").unlink(),
        "vae: no *.safetensors: expected the weights there",
    ),
    "no folder": (
        lambda m: shutil.rmtree(m / "text_encoder"),
        "text_encoder: missing: expected the folder of a UMT5EncoderModel",
    ),
    "no encoder": (
        lambda m: edit(m / "model_index.json", text_encoder=[None, None]),
        "model_index.json: text_encoder: none: expected one",
    ),
    "no config": (
        lambda m: (m / "vae" / "config.json").unlink(),
        "vae/config.json: ",
    ),
    "no tokenizer": (
        lambda m: (m / "tokenizer" / "tokenizer_config.json").unlink(),
        "tokenizer: empty: expected the files of a T5TokenizerFast",
    ),
    "no header": (
        lambda m: (m / "vae" / "model.safetensors").write_bytes(b"\xff" * 40),
        "vae/model.safetensors: Error while deserializing header: header too large",
    ),
    "no map": (
        lambda m: (m / "transformer_2" / "m.safetensors.index.json").write_text(
            '{"weight_map": 3}'
        ),
        "m.safetensors.index.json: 'int' object has no attribute 'values': expected weight_map",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_folder_is_one_line(model, case):
    break_it, said = WRONG[case]
    break_it(model)
    with pytest.raises(UserError) as caught:
        check_folder(model, FAMILY)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", ["boundary without two experts", "two experts"])
def test_a_folder_of_one_expert_has_no_second(model, case):
    index = model / "model_index.json"
    edit(index, _class_name="WanPipeline")
    if case == "boundary without two experts":
        edit(index, transformer_2=[None, None])
    said = {"two experts": "transformers: 2: expected 1"}.get(case, "expected none for one expert")
    with pytest.raises(UserError, match=said):
        check_folder(model, FAMILIES["wan2.1-t2v-14b"])


def test_a_source_is_a_folder_or_a_name_of_the_hub(model, monkeypatch):
    import huggingface_hub

    assert locate(str(model)) == model
    for wrong in ("/nowhere/model", "model", "../model", "a/b/c"):
        with pytest.raises(UserError, match="expected a folder, or a name of the hub"):
            locate(wrong)
    asked = []

    def there(name, revision, ignore_patterns):
        asked.append((name, revision))
        return str(model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", there)
    assert locate("Wan-AI/Wan2.2", "abc") == model
    assert asked == [("Wan-AI/Wan2.2", "abc")]

    def gone(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gone)
    with pytest.raises(UserError, match=r"Wan-AI/Wan2.2: no route to host: expected a folder"):
        locate("Wan-AI/Wan2.2")


# -- bytes that have changed ---------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def snapshot(model, tmp_path):
    """The same as the hub's cache has it: links to blobs, large ones named by their sha256."""
    root = tmp_path / "models--Wan-AI--Wan2.2"
    (root / "blobs").mkdir(parents=True)
    folder = root / "snapshots" / COMMIT
    for number, file in enumerate(sorted(p for p in model.rglob("*") if p.is_file())):
        large = file.suffix == ".safetensors"
        name = sha256(file) if large else f"{number:040x}"
        (root / "blobs" / name).write_bytes(file.read_bytes())
        link = folder / file.relative_to(model)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(root / "blobs" / name, link.parent))
    return folder


def flip(path, place=-1):
    content = bytearray(path.read_bytes())
    content[place] ^= 0x40
    path.write_bytes(bytes(content))


def test_a_copy_of_the_hubs_is_known_by_its_commit(snapshot, tmp_path):
    manifest = tmp_path / "manifest.json"
    fetch("wan2.2-i2v-a14b", str(snapshot), "main", manifest)
    found = json.loads(manifest.read_text())
    assert (found["revision"], found["commit"]) == ("main", COMMIT)
    assert check_manifest(manifest) == snapshot


def test_a_plain_folder_has_no_commit(model, tmp_path):
    manifest = tmp_path / "manifest.json"
    fetch("wan2.2-i2v-a14b", str(model), None, manifest)
    assert json.loads(manifest.read_text())["commit"] is None


def test_a_blob_of_the_hubs_cache_is_what_its_name_says(snapshot, tmp_path):
    manifest = tmp_path / "manifest.json"
    flip((snapshot / "vae" / "model.safetensors").resolve())
    with pytest.raises(UserError, match=r"model\.safetensors: sha256: \w+: expected \w{64}"):
        fetch("wan2.2-i2v-a14b", str(snapshot), None, manifest)
    assert not manifest.exists()


def test_verify_hashes_every_file_again(model, tmp_path, capsys):
    manifest = tmp_path / "manifest.json"
    fetch("wan2.2-i2v-a14b", str(model), None, manifest)
    assert cli.main(["fetch", "--verify", str(manifest)]) == 0
    assert "13 files, 0.00 GiB: as in" in capsys.readouterr().out
    flip(model / "transformer" / "model.safetensors")
    check_manifest(manifest)  # the size is the same, which is all that jobs look at
    assert cli.main(["fetch", "--verify", str(manifest)]) == 2
    assert "transformer/model.safetensors: sha256: " in capsys.readouterr().err


def test_fetch_without_a_family_or_a_manifest_is_one_line(capsys):
    assert cli.main(["fetch"]) == 2
    assert "expected both, or --verify MANIFEST" in capsys.readouterr().err
