"""TensorBoard shows what training recorded, and reads nothing that is half-written."""

import io
import json
import struct

import pytest
import torch
from PIL import Image

from pdmd import cli
from pdmd.files.storage import save_tensors, write_json
from pdmd.report.board import write_board

RECORDS = [
    {"step": 5, "seconds": 1.5, "fake_loss": 0.25, "seconds_by_role": {"fake": 1.0}},
    {"step": 10, "seconds": 3.0, "fake_loss": 0.125, "seconds_by_role": {"fake": 2.0}},
]


def log(path, records=RECORDS, end=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + end)
    return path


def events(folder):
    """The events of a run's one file: TFRecords, a length, its checksum, the data, a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = folder.glob("events.*")
    data, found = path.read_bytes(), []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    return found


def values(folder):
    """Tag -> step -> number."""
    found = {}
    for event in events(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


@pytest.fixture
def results(tmp_path):
    log(tmp_path / "results/wan/phased2/seed1/phase1/stats.jsonl")
    log(tmp_path / "results/wan/phased2/seed1/phase2/stats.jsonl")
    write_json(tmp_path / "results/wan/phased2/seed1/metrics.json", {"flow": 2.5, "lpips": None})
    log(tmp_path / "results/.state/wan/dmd2/phase1-seed3/stats.jsonl", end='{"step": 15, "sec')
    return tmp_path / "results"


def test_records_and_scores_are_those_of_training(results, tmp_path):
    assert write_board(results, tmp_path / "board") == 3
    first, last = (values(tmp_path / "board/wan/phased2/seed1" / f"phase{n}") for n in (1, 2))
    assert first["fake_loss"] == {5: 0.25, 10: 0.125}
    assert first["seconds/fake"] == {5: 1.0, 10: 2.0}
    assert "scores/flow" not in first
    assert last["scores/flow"] == {10: 2.5}
    assert "scores/lpips" not in last


def test_a_line_that_is_being_written_waits(results, tmp_path):
    write_board(results, tmp_path / "board")
    assert list(values(tmp_path / "board/wan/dmd2/seed3/phase1")["fake_loss"]) == [5, 10]


def test_only_what_changed_is_written_again(results, tmp_path):
    def files():
        return {str(path) for path in (tmp_path / "board").rglob("events.*")}

    write_board(results, tmp_path / "board")
    inodes = {path: (tmp_path / path).stat().st_ino for path in files()}
    write_board(results, tmp_path / "board")
    assert {path: (tmp_path / path).stat().st_ino for path in files()} == inodes
    more = [*RECORDS, {"step": 15, "seconds": 4.0, "fake_loss": 0.5}]
    log(results / ".state/wan/dmd2/phase1-seed3/stats.jsonl", more)
    write_board(results, tmp_path / "board")
    assert values(tmp_path / "board/wan/dmd2/seed3/phase1")["fake_loss"][15] == 0.5
    assert len({*inodes} & files()) == 2  # the other two stayed


@pytest.mark.parametrize(("frames", "kind"), [(1, "PNG"), (5, "GIF")])
def test_pictures_of_snapshots_are_shown(frames, kind, results, tmp_path):
    pictures = torch.randint(0, 256, (5, 3, frames, 8, 12), dtype=torch.uint8)
    path = results / "wan/phased2/seed1/previews.safetensors"
    save_tensors(path, {"phase1/5": pictures, "phase2/10": pictures.clone()})
    write_board(results, tmp_path / "board")
    folder = tmp_path / "board/wan/phased2/seed1/phase1"
    (event,) = [e for e in events(folder) if e.summary.value and e.summary.value[0].image.width]
    image = Image.open(io.BytesIO(event.summary.value[0].image.encoded_image_string))
    assert (event.step, image.format, image.size) == (5, kind, (48, 16))
    assert getattr(image, "n_frames", 1) == frames


def test_a_damaged_log_leaves_the_others_alone(results, tmp_path, capsys):
    (results / "wan/phased2/seed1/phase1/stats.jsonl").write_text("[1]\nx\n")
    assert write_board(results, tmp_path / "board") == 2
    assert "left out: wan/phased2/seed1/phase1" in capsys.readouterr().out


def test_the_command_says_what_it_wrote(results, tmp_path, capsys):
    arguments = ["--results", str(results), "--output", str(tmp_path / "board")]
    assert not cli.main(["board", *arguments])
    assert capsys.readouterr().out == f"{tmp_path / 'board'}: 3 runs\n"
    assert cli.main(["board", "--results", str(tmp_path / "no"), *arguments[2:]]) == 2
