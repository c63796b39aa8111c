"""What JSON from outside may be."""

import json

import pytest

from application.errors import Invalid, TooLarge
from application.payload import DEEPEST, LARGEST, check_json, check_size


@pytest.mark.parametrize(
    "text",
    [
        "null",
        '"żółw 🐢"',
        '"\\ud83d\\udc22"',
        "-1.5e3",
        '{"a": [1, {"b": {}}], "": ""}',
        '"a \\\\u0000 that is spelled out"',
        "[" * DEEPEST + "]" * DEEPEST,
        '{"a":' * (DEEPEST - 1) + "[]" + "}" * (DEEPEST - 1),
        json.dumps(["[" * 100, '\\"[' * 100, "{" * 100]),
        json.dumps([[]] * 1000),
    ],
)
def test_json_is_taken(text: str) -> None:
    check_json(text.encode())


@pytest.mark.parametrize(
    "json",
    [
        b"",
        b" ",
        b"{",
        b"[1,]",
        b"{'a': 1}",
        b"nul",
        b"NaN",
        b"Infinity",
        b"01",
        b"1 2",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'"\\udc00 alone"',
        b'"a\x00b"',
        b'"a\nb"',
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_json_in_utf8_is_refused(json: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        check_json(json)
    assert [error.field for error in refused.value.errors] == ["$"]


@pytest.mark.parametrize(
    ("json", "field"),
    [
        (b'"\\u0000"', "$"),
        (b'{"a": {"b": [1, "x\\u0000"]}}', "a.b[1]"),
        (b'{"a\\u0000": 1}', "$"),
        (b'[{"k": {"n\\u0000l": 1}}]', "[0].k"),
        (b'["\\\\u0000", "\\\\\\u0000"]', "[1]"),
    ],
)
def test_a_nul_is_refused_where_it_is(json: bytes, field: str) -> None:
    with pytest.raises(Invalid, match="NUL") as refused:
        check_json(json)
    assert [error.field for error in refused.value.errors] == [field]


@pytest.mark.parametrize(
    "text",
    [
        "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
        '{"a":' * DEEPEST + "[]" + "}" * DEEPEST,
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
    ],
)
def test_what_is_nested_too_deep_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="64 levels"):
        check_json(text.encode())


def test_a_payload_may_have_exactly_the_largest_size() -> None:
    check_size(bytes(LARGEST), "input")
    with pytest.raises(TooLarge, match="result has 262145 bytes"):
        check_size(bytes(LARGEST + 1), "result")
