"""One line for bad input: where, key, value, what was expected; short, whatever the value is."""

from __future__ import annotations

import re
import reprlib
from typing import Any

from pdmd.errors import UserError

LONGEST = 290  # letters of a line, which a program still puts its name before
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # what would break a line


class _Shown(reprlib.Repr):
    """Short forms of values: long texts lose their middle, long lists their end."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 70
        self.maxlevel, self.maxlist, self.maxdict = 3, 6, 4

    def repr_int(self, x: int, level: int) -> str:
        """An integer, or how large it is: Python refuses to print the largest."""
        return str(x) if x.bit_length() <= 64 else f"an integer of {x.bit_length()} bits"

    def repr_bool(self, x: bool, level: int) -> str:
        """As YAML has it."""
        return "true" if x else "false"

    def repr_NoneType(self, x: None, level: int) -> str:
        """As YAML has it."""
        return "null"


def shown(value: Any) -> str:
    """A value on one line of at most 80 letters, control characters escaped."""
    text = CONTROL.sub(lambda match: ascii(match[0])[1:-1], _Shown().repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def word(name: Any, longest: int = 60) -> str:
    """A key or the name of a file on one line, its middle left out where it is long."""
    text = CONTROL.sub(lambda match: ascii(match[0])[1:-1], str(name))
    side = (longest - 3) // 2
    return text if len(text) <= longest else f"{text[:side]}...{text[-side:]}"


def refusal(where: Any, key: str, value: Any, expected: str) -> UserError:
    """The error to raise for a wrong value.

    Args:
        where: a file, a run; key: of the value; expected: in words.
    """
    return complaint(f"{word(where, 150)}: {word(key)}: {shown(value)}: expected {expected}")


def complaint(line: str) -> UserError:
    """An error of one line, cut where it is too long."""
    line = CONTROL.sub(lambda match: ascii(match[0])[1:-1], line)
    return UserError(line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}...")
