"""What a schema refuses is said in words that mend it."""

import pytest
from configs import one_line

from pdmd.config.complaints import LONGEST, refusal, shown
from pdmd.config.schema import check, partial
from pdmd.errors import UserError

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "pattern": "[a-z]+"},
        "rate": {"type": "number", "exclusiveMinimum": 0},
        "count": {"type": "integer", "multipleOf": 4},
        "inner": {"type": "object", "required": ["x"], "properties": {"x": {"type": "integer"}}},
    },
}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            {"name": "a", "rate": "1e-3"},
            "rate: '1e-3': expected a value of type number: write 1.0e-3",
        ),
        ({"name": "a", "rate": "5E4"}, "type number: write 5.0e+4"),
        ({"name": "a", "rate": "1.5e3"}, "type number: write 1.5e+3"),
        ({"name": "a", "rate": "-.5e-3"}, "type number: write -0.5e-3"),
        ({"name": "a", "rate": "0.1"}, "type number: write 0.1 without quotes"),
        ({"name": "a", "count": "1e4"}, "type integer: write 10000"),
        ({"name": "a", "count": "12"}, "type integer: write 12 without quotes"),
        ({"name": "a", "count": 5}, "count: 5: expected a multiple of 4"),
        ({"name": "a\n"}, "name: 'a\\n': expected a name that matches [a-z]+"),
        ({"rate": 1}, "the file: {'rate': 1}: expected the key name"),
        ({"name": "a", "inner": {}}, "inner: {}: expected the key x"),
        (
            {"name": "a", "more": 1},
            "more: 1: expected a known key, one of count, inner, name, rate",
        ),
    ],
)
def test_the_line_names_key_value_and_what_was_expected(value, said):
    with pytest.raises(UserError) as caught:
        check(value, SCHEMA, "here")
    assert one_line(caught.value).startswith("here: ")
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["many", "", ".", "e3", "1e", "1_0x", "--1"])
def test_a_text_that_is_no_number_gets_no_advice(text):
    with pytest.raises(UserError, match=r"expected a value of type number$"):
        check({"name": "a", "rate": text}, SCHEMA, "here")


def test_a_right_value_passes():
    check({"name": "a", "rate": 1.0e-3, "count": 8, "inner": {"x": 1}}, SCHEMA, "here")


def test_a_diff_needs_nothing_and_is_checked_all_the_same():
    check({"inner": {}}, partial(SCHEMA), "here")
    check({}, partial(SCHEMA), "here")
    with pytest.raises(UserError):
        check({"inner": {"x": "1"}}, partial(SCHEMA), "here")
    assert "required" in SCHEMA["properties"]["inner"]


@pytest.mark.parametrize(
    "value",
    [
        "x" * 5000,
        "\x1b[2J\n\r\u2028",
        list(range(5000)),
        dict.fromkeys(range(99), "x" * 99),
        [16**5000],
    ],
)
def test_any_value_is_shown_short_and_on_one_line(value):
    assert len(shown(value)) <= 80
    assert shown(value).isprintable()
    line = str(refusal("f" * 500, "k\n" * 500, value, "e" * 500))
    assert len(line) <= LONGEST
    assert line.isprintable()


def test_values_are_shown_as_yaml_has_them():
    assert [shown(value) for value in (None, True, False, 1.5, "x")] == [
        *("null", "true", "false", "1.5", "'x'")
    ]
