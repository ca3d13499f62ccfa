"""A file means what it says, or is refused in one line."""

import random
from collections import Counter

import pytest
from configs import ROOT, one_line

from pdmd.config.yaml_files import plain, read_mapping, read_yaml
from pdmd.errors import UserError

BOMB = "\n".join(
    ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    + [
        f"{y}: &{y} [{', '.join([f'*{x}'] * 9)}]"
        for x, y in zip("abcdefgh", "bcdefghi", strict=True)
    ]
)

# What is wrong -> the file, and what the line says of it.
WRONG = {
    "a key twice": ("a: 1\nb: 2\na: 3\n", "line 3: key 'a' is given twice"),
    "a key twice, far within": ("a: {b: [{c: 1, c: 2}]}\n", "line 1: key 'c' is given twice"),
    "a key twice, once in quotes": ('a: 1\n"a": 2\n', "line 2: key 'a' is given twice"),
    "an integer as key": ("1: x\n", "line 1: key '1' is no word: write it in quotes"),
    "a truth as key": ("a: 1\nyes: x\n", "line 2: key 'yes' is no word: write it in quotes"),
    "a date as key": ("2026-01-01: x\n", "key '2026-01-01' is no word"),
    "nothing as key": ("~: x\n", "key '~' is no word"),
    "a list as key": ("? [a]\n: b\n", "key of several values is no word"),
    "a merge key": ("a: &a {x: 1}\nb: {<<: *a}\n", "line 2: key <<: write the keys out"),
    "a date": ("a: 2026-01-01\n", "a: datetime.date(2026, 1, 1): expected a text, a number"),
    "a date that is none": ("a: 2026-13-01\n", "'2026-13-01' is no timestamp"),
    "an octal number": ("a: 010\n", "line 1: '010' is no decimal number"),
    "a sexagesimal number": ("a: 1:30\n", "line 1: '1:30' is no decimal number"),
    "a sexagesimal fraction": ("a: 1:30.5\n", "line 1: '1:30.5' is no decimal number"),
    "no number": ("a: .nan\n", "a: nan: expected a finite number"),
    "an infinite number": ("a: -.inf\n", "a: -inf: expected a finite number"),
    "an integer of 401 digits": (f"a: 1{'0' * 400}\n", "an integer of 1329 bits: expected"),
    "an integer of 5000 digits": (f"a: 1{'0' * 5000}\n", "is no int"),
    "an integer of 5000 hexadecimal digits": (f"a: 0x1{'0' * 5000}\n", "an integer of 20001 bits"),
    "3000 nested mappings": ("{a: " * 3000 + "1" + "}" * 3000, "too many levels"),
    "3000 nested lists": ("[" * 3000 + "]" * 3000, "too many levels"),
    "3000 nested blocks": ("- " * 3000 + "1\n", "too many levels"),
    "31 levels": ("[" * 31 + "]" * 31, "too many levels"),
    "aliases that grow without end": (BOMB, "expected at most 100000 values in all"),
    "a value that holds itself": ("a: &a [*a]\n", "expected at most 30 levels"),
    "a line break in a text": ('a: "x\\ny"\n', "a: 'x\\ny': expected a text of one line"),
    "a NUL in a text": ('a: "x\\0y"\n', "a: 'x\\x00y': expected a text of one line"),
    "a line break in a key": ('"x\\ny": 1\n', "'x\\ny': expected keys of one line"),
    "a text of 5000 letters": (f"a: {'x' * 5000}\n", "at most 1000 letters"),
    "a bare NUL": (b"a: \0\n", "unacceptable character #x0000"),
    "a tab": ("a:\n\tb: 1\n", "line 2: found character '\\t'"),
    "Latin-1": ("a: é\n".encode("latin-1"), "codec can't decode byte 0xe9"),
    "UTF-16": ("a: b\n".encode("utf-16"), "codec can't decode byte 0xff"),
    "a tag of Python's": ("a: !!python/name:os.system x\n", "could not determine a constructor"),
    "a truth that is none": ("a: !!bool x\n", "line 1: 'x' is no bool"),
    "a number that is none": ("a: !!int x\n", "line 1: 'x' is no decimal number"),
    "a timestamp that is none": ("a: !!timestamp x\n", "line 1: 'x' is no timestamp"),
    "a set": ("a: !!set {x}\n", "a: {'x'}: expected a text"),
    "bytes": ("a: !!binary eHg=\n", "a: b'xx': expected a text"),
    "two documents": ("a: 1\n---\nb: 1\n", "line 2: but found another document"),
    "an alias of nothing": ("a: *b\n", "line 1: found undefined alias"),
    "a file of 2 MB": ("# " + "x" * 2**21, "expected a configuration"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_yaml_would_pass_over_is_refused_in_one_line(tmp_path, what):
    content, said = WRONG[what]
    path = tmp_path / "own.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    line = one_line(caught.value)
    assert line.startswith(f"{path}: ")
    assert said in line


RIGHT = {
    "words": (
        "a: {b: [x, 1, 1.5, true, null, off]}\n",
        {"a": {"b": ["x", 1, 1.5, True, None, False]}},
    ),
    "the same key in two mappings": ("a: {c: 1}\nb: {c: 2}\n", {"a": {"c": 1}, "b": {"c": 2}}),
    "a number in quotes as key": ('"1": x\n', {"1": "x"}),
    "aliases": ("a: &a [1, 2]\nb: *a\n", {"a": [1, 2], "b": [1, 2]}),
    "numbers": ("[0, -1, 1_000, 0x10, 1.0e-3, .5]", [0, -1, 1000, 16, 0.001, 0.5]),
    "a float that YAML has as a text": ("a: 1e-3\n", {"a": "1e-3"}),
    "30 levels": ("[" * 29 + "]" * 29, None),
    "a mark of the byte order": ("\ufeffa: 1\n", {"a": 1}),
    "letters of all languages": ("a: é 文 🍎\n", {"a": "é 文 🍎"}),
    "an empty file": ("", None),
    "a list at the top": ("- 1\n", [1]),
}


@pytest.mark.parametrize("what", RIGHT)
def test_what_means_one_thing_is_read(tmp_path, what):
    """The controls."""
    content, meant = RIGHT[what]
    path = tmp_path / "own.yaml"
    path.write_text(content, encoding="utf-8")
    found = read_yaml(path)
    assert found == meant or what == "30 levels"


def test_aliases_are_copies(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("a: &a [1]\nb: *a\n")
    found = read_yaml(path)
    found["a"].append(2)
    assert found["b"] == [1]


@pytest.mark.parametrize("content", ["", "- a\n", "word\n"])
def test_a_mapping_is_asked_for(tmp_path, content):
    path = tmp_path / "own.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match="expected a mapping"):
        read_mapping(path)
    path.write_text("a: 1\n")
    assert read_mapping(path) == {"a": 1}


@pytest.mark.parametrize("name", ["absent.yaml", ".", "x" * 300])
def test_what_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(UserError) as caught:
        read_yaml(tmp_path / name)
    assert "expected a readable YAML file" in one_line(caught.value)


def test_values_of_other_origin_are_held_to_the_same():
    value = {"a": [{"b": 1}], "c": (1, 2)}
    assert plain(value, "config") == {"a": [{"b": 1}], "c": [1, 2]}
    for wrong in ({1: 2}, {"a": {None: 1}}, {"a": 10**400}, {"a": object()}, {"a": float("nan")}):
        with pytest.raises(UserError) as caught:
            plain(wrong, "config")
        one_line(caught.value)


def damaged(content, draw):
    """A file with some bytes changed, added, left out, or its end missing."""
    found, place = bytearray(content), draw.randrange(len(content))
    how = draw.randrange(5)
    if how == 0:
        found[place] ^= 1 << draw.randrange(8)
    elif how == 1:
        found[place:place] = draw.randbytes(draw.randrange(1, 4))
    elif how == 2:
        del found[place : place + draw.randrange(1, 9)]
    elif how == 3:
        found[place:place] = draw.choice(
            [b"\t", b"\n", b": ", b"{", b"[", b"&a ", b"*a", b"!!x ", b"'"]
        )
    else:
        del found[place:]
    return bytes(found)


def test_any_damage_gives_one_line_or_values(tmp_path):
    """Bytes of every file of the configuration are changed at random."""
    draw, counts = random.Random(0), Counter()
    files = sorted((ROOT / "config").rglob("*.yaml"))
    for number in range(600):
        path = tmp_path / "damaged.yaml"
        path.write_bytes(damaged(files[number % len(files)].read_bytes(), draw))
        try:
            read_yaml(path)
            counts["read"] += 1
        except UserError as error:
            one_line(error)
            counts["refused in one line"] += 1
    print(dict(counts))
    assert min(counts["read"], counts["refused in one line"]) > 100
