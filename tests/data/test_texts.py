"""Prompts that users bring: what is good is kept, what is wrong is one line with its place."""

import json
import tracemalloc

import pytest
from PIL import Image

from pdmd.data.texts import read_texts, texts_hash
from pdmd.errors import UserError


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(found):
    return [one.text for one in found[0]]


def test_every_kind_of_file_gives_the_same_prompts(tmp_path):
    lines = write(tmp_path / "a.jsonl", {"prompt": "a fox"}, {"prompt": "two, boats"})
    table = tmp_path / "a.csv"
    table.write_text('prompt,other\na fox,1\n"two, boats",2\n')
    plain = tmp_path / "a.txt"
    plain.write_text("a fox\n\ntwo, boats\n")
    for path in (lines, table, plain):
        assert texts(read_texts(path)) == ["a fox", "two, boats"]
    assert [one.where for one in read_texts(plain)[0]] == [f"{plain}:1", f"{plain}:3"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
def test_a_byte_order_mark_and_windows_lines_are_no_part_of_a_prompt(name, tmp_path):
    body = {"a.jsonl": '{"prompt": "a fox"}', "a.csv": "prompt\r\na fox", "a.txt": "a fox"}[name]
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + body.encode() + b"\r\n")
    assert texts(read_texts(path)) == ["a fox"]


def test_a_folder_of_pictures_with_their_prompts(tmp_path):
    for name in ("one", "two"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{name}.png")
    (tmp_path / "one.txt").write_text("a red square\n")
    good, bad = read_texts(tmp_path, with_images=True)
    assert [(one.text, one.image.name) for one in good] == [("a red square", "one.png")]
    assert bad == [f"{tmp_path / 'two.png'}:1: two.txt: missing: expected the prompt there"]
    write(tmp_path / "metadata.jsonl", {"file_name": "two.png", "prompt": "red, too"})
    good, bad = read_texts(tmp_path, with_images=True)
    assert [(one.text, one.image.name, bad) for one in good] == [("red, too", "two.png", [])]


BAD = [
    ('{"prompt": ""}', "prompt: : expected a prompt"),
    ('{"prompt": 3}', "prompt: 3: expected a prompt"),
    (
        '{"prompt": "b", "id": "x", "image": "one.png"}',
        "id: x: expected another than that of {path}:1",
    ),
    ('{"prompt": "b"', "expected one JSON object"),
    ("[1]", "expected an object with 'prompt'"),
    ('{"prompt": "b", "id": []}', "id: []: expected a text or a number"),
    ('{"prompt": "b", "id": true}', "id: True: expected a text or a number"),
    ('{"prompt": "b \\ud800"}', "expected whole letters"),
    ('{"prompt": "b", "stratum": 1}', "stratum: 1: expected a text"),
    ('{"prompt": "b", "image": "no.png"}', "no.png: expected a file"),
    ('{"prompt": "b"}', "image: None: expected the name of a picture"),
    ('{"prompt": "b", "image": "half.png"}', "half.png: "),
]


@pytest.mark.parametrize(("line", "said"), BAD)
def test_a_bad_row_is_told_with_its_line_and_the_good_ones_are_kept(line, said, tmp_path):
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "one.png")
    whole = (tmp_path / "one.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    path = tmp_path / "a.jsonl"
    first = '{"prompt": "a", "id": "x", "image": "one.png"}'
    path.write_text(f"{first}\n{line}\n{first.replace('x', 'y')}\n")
    good, bad = read_texts(path, with_images=True)
    assert [one.id for one in good] == ["x", "y"]
    (complaint,) = bad
    assert complaint.startswith(f"{path}:2: ")
    assert said.format(path=path) in complaint


def test_bytes_that_are_no_text_are_told(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"a fox\nb\xff\nc\n")
    good, bad = read_texts(path)
    assert texts((good, bad)) == ["a fox", "c"]
    assert bad == [f"{path}:2: byte 1: expected UTF-8"]


def test_rows_of_a_table_keep_their_lines_whatever_stands_before_them(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'prompt\na fox\nb\xff\n\n"two,\nboats"\nc\n')
    good, bad = read_texts(path)
    assert [(one.text, one.where, one.id) for one in good] == [
        ("a fox", f"{path}:2", "2"),
        ("two,\nboats", f"{path}:6", "6"),
        ("c", f"{path}:7", "7"),
    ]
    assert bad == [f"{path}:3: byte 1: expected UTF-8"]


def test_a_quotation_that_never_ends_is_told_and_the_rows_before_it_are_kept(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('prompt\na fox\n"two\nc\n')
    good, bad = read_texts(path)
    assert texts((good, bad)) == ["a fox"]
    assert bad == [f"{path}:4: unexpected end of data: expected a row of CSV"]


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("a.xml", "<a/>", "expected .jsonl, .csv or .txt"),
        ("a.jsonl", '{"text": "a"}\n', "no column 'prompt': expected it among text"),
        ("a.csv", "caption,id\na,1\n", "no column 'prompt': expected it among caption, id"),
        ("a.txt", "\n\n", "no rows: expected prompts"),
        ("a.jsonl", "[]\n", r"a\.jsonl:1: \[\]: expected an object"),
    ],
)
def test_a_file_without_a_good_row_is_refused(name, body, said, tmp_path):
    (tmp_path / name).write_text(body)
    with pytest.raises(UserError, match=said):
        read_texts(tmp_path / name)


@pytest.mark.parametrize("name", ["none.jsonl", "none"])
def test_a_missing_file_is_told(name, tmp_path):
    with pytest.raises(UserError, match="missing: expected a file of prompts"):
        read_texts(tmp_path / name)


def test_the_hash_is_of_prompts_and_pictures(tmp_path):
    path = write(tmp_path / "a.jsonl", {"prompt": "a fox", "image": "one.png"})
    Image.new("RGB", (8, 8), "red").save(tmp_path / "one.png")
    before = texts_hash(read_texts(path, with_images=True)[0])
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "one.png")
    assert texts_hash(read_texts(path, with_images=True)[0]) != before
    assert texts_hash(read_texts(path)[0]) == texts_hash(read_texts(path)[0])


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_hundred_thousand_prompts_take_little_more_than_their_own_room(name, tmp_path):
    path, words = tmp_path / name, "word " * 20
    with path.open("w") as handle:
        handle.write("prompt\n" if name == "a.csv" else "")
        for number in range(100_000):
            prompt = f"{words}{number}"
            handle.write((prompt if name == "a.csv" else json.dumps({"prompt": prompt})) + "\n")
    tracemalloc.start()
    good, _ = read_texts(path)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(good) == 100_000
    assert peak - kept < 0.5 * path.stat().st_size  # a reader of the whole file holds all of it
