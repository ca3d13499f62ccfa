"""YAML files that mean what they say: each key once, plain values, nothing guessed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pdmd.config.complaints import CONTROL, complaint, refusal, shown, word

LARGEST = 2**20  # bytes of a file
DEEPEST, MOST = 30, 100_000  # nested mappings and lists; values in all, aliases written out
LETTERS = 1000  # of a text
DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)")
TAG = "tag:yaml.org,2002:"


def read_yaml(path: Path) -> Any:
    """Parse a YAML file of plain values; every key is a word and is given once.

    Raises:
        UserError: names the file, the line where there is one, and what is wrong.
    """
    try:
        with path.open("rb") as handle:
            content = handle.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise refusal(path, "the file", f"more than {LARGEST} bytes", "a configuration")
        content_read = _parse(content.decode("utf-8-sig"))
    except OSError as error:
        raise complaint(
            f"{word(path, 150)}: {error.strerror}: expected a readable YAML file"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise complaint(f"{word(path, 150)}: {_reason(error)}: expected valid YAML") from error
    return plain(content_read, path)


def _parse(text: str) -> Any:
    """The values of a YAML text, by libyaml where it is there, which is ten times as fast.

    What libyaml stumbles over is read once more by PyYAML, whose messages are clearer, and whose
    errors do not depend on the machine.
    """
    if _Fast is not None:
        try:
            _check_depth(text)
            return yaml.load(text, _Fast)
        except (yaml.YAMLError, UnicodeError):
            pass
    return yaml.load(text, _Loader)


def _check_depth(text: str) -> None:
    """Refuse what would go to the end of the stack. Raises YAMLError."""
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError("too many levels")


def read_mapping(path: Path) -> dict[str, Any]:
    """Parse a YAML file that holds a mapping. Raises UserError, for an empty file too."""
    mapping = read_yaml(path)
    if not isinstance(mapping, dict):
        raise refusal(path, "the file", mapping, "a mapping")
    return mapping


def plain(value: Any, where: Any) -> Any:
    """A deep copy of mappings, lists, texts, numbers and truths; nothing in it is shared.

    Raises:
        UserError: names the key of anything else: of a date, a key that is no word, a number of
            more than 64 bits or none at all, a text of several lines, an endless nesting.
    """
    left = iter(range(MOST))

    def copy(value: Any, at: tuple[str, ...]) -> Any:
        key = ".".join(at) or "the file"
        if next(left, None) is None:
            raise refusal(where, key, value, f"at most {MOST} values in all")
        if len(at) > DEEPEST:
            raise refusal(where, key, value, f"at most {DEEPEST} levels")
        if isinstance(value, Mapping):
            _check_keys(value, where, key)
            return {name: copy(each, (*at, name)) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [copy(each, (*at, str(number))) for number, each in enumerate(value)]
        _check_scalar(value, where, key)
        return value

    return copy(value, ())


def _check_keys(value: Mapping[Any, Any], where: Any, key: str) -> None:
    for name in value:
        if not isinstance(name, str):
            raise refusal(where, key, name, "words as keys: this one is none, unless in quotes")
        if not name or CONTROL.search(name) or len(name) > LETTERS:
            raise refusal(where, key, name, f"keys of one line and 1 to {LETTERS} letters")


def _check_scalar(value: Any, where: Any, key: str) -> None:
    if isinstance(value, str):
        if CONTROL.search(value) or len(value) > LETTERS:
            raise refusal(where, key, value, f"a text of one line and at most {LETTERS} letters")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise refusal(where, key, value, "a finite number")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise refusal(where, key, value, "an integer of at most 64 bits")
    elif value is not None:
        raise refusal(where, key, value, "a text, a number or a truth; a text goes in quotes")


def _reason(error: Exception) -> str:
    """What a parser stumbled over, and in which line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {word(error.problem, 90)}"
    return word(" ".join(str(error).split()), 90)


class _Strict(yaml.constructor.SafeConstructor):
    """PyYAML's safe constructor without what it passes over in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping with words as keys, each given once."""
        known: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            scalar, mark = isinstance(key, yaml.ScalarNode), key.start_mark
            text = shown(key.value) if scalar else "of several values"
            if key.tag == f"{TAG}merge":
                raise _wrong("key <<: write the keys out", mark)
            if not scalar or key.tag != f"{TAG}str":
                raise _wrong(f"key {text} is no word: write it in quotes", mark)
            if key.value in known:
                raise _wrong(f"key {text} is given twice", mark)
            known.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Any value; what cannot be one is an error of its line."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            what = node.tag.removeprefix(TAG)
            raise _wrong(f"{shown(node.value)} is no {what}", node.start_mark) from error

    def construct_decimal(self, node: yaml.ScalarNode) -> int:
        """An integer, unless YAML would read 010 as 8 or 1:30 as 90."""
        if not DECIMAL.fullmatch(node.value):
            raise _wrong(f"{shown(node.value)} is no decimal number", node.start_mark)
        return int(self.construct_yaml_int(node))

    def construct_finite(self, node: yaml.ScalarNode) -> float:
        """A float, unless YAML would read 1:30.0 as 90.0."""
        if ":" in node.value:
            raise _wrong(f"{shown(node.value)} is no decimal number", node.start_mark)
        return float(self.construct_yaml_float(node))


class _Loader(_Strict, yaml.SafeLoader):
    """YAML as PyYAML reads it, so that its own messages say what is wrong and in which line."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose what may be nested; PyYAML would go on to the end of Python's stack."""
        self.depth += 1
        if self.depth > DEEPEST:
            mark = self.peek_event().start_mark
            raise _wrong("too many levels", mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Fast: type[yaml.CSafeLoader] | None = None
if hasattr(yaml, "CSafeLoader"):

    class _Libyaml(_Strict, yaml.CSafeLoader):
        """The same values as libyaml reads them."""

    _Fast = _Libyaml

_every: list[Any] = [_Loader, *([_Fast] if _Fast else [])]
for _loader in _every:
    _loader.add_constructor(f"{TAG}int", _Strict.construct_decimal)
    _loader.add_constructor(f"{TAG}float", _Strict.construct_finite)


def _wrong(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
