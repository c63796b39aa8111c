"""The limits that JSON from outside must keep, checked on the bytes before anything is recorded."""

import re
from typing import Annotated, Any, TypeAlias

from msgspec import Meta, MsgspecError, Raw
from msgspec.json import decode

from application.errors import FieldError, Invalid, TooLarge

LARGEST = 256 * 1024
"""Bytes that a job's input, its result, or a step's output may have."""
DEEPEST = 64
"""Levels of arrays and objects, the outermost being the first."""
Payload: TypeAlias = Annotated[
    Raw,
    Meta(
        description="Any JSON of 256 KiB and 64 levels at most, without NUL in its strings. It is kept as it was sent."
    ),
]
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")


def check_size(json: bytes, field: str) -> None:
    """Raises TooLarge for a payload over 256 KiB."""
    if len(json) > LARGEST:
        raise TooLarge(
            f"{field} has {len(json)} bytes, and at most {LARGEST} are taken; save what is larger as an artifact and "
            "pass its reference"
        )


def check_json(json: bytes) -> None:
    """Raises Invalid for what is no JSON (RFC 8259) in UTF-8, for NUL in a string, and for more than 64 levels."""
    if _opened(json) > DEEPEST and _too_deep(json):
        raise Invalid(FieldError("$", f"is nested more than {DEEPEST} levels deep"))
    try:
        value = decode(json)
    except (MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(FieldError("$", f"is no JSON in UTF-8: {error}")) from error
    if b"\\u0000" in json and (field := _nul(value, "")) is not None:
        raise Invalid(FieldError(field.lstrip(".") or "$", "has a NUL character, which is not taken"))


def _opened(json: bytes) -> int:
    return json.count(b"[") + json.count(b"{")


def _too_deep(json: bytes) -> bool:
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", json)):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEEPEST:
            return True
    return False


def _nul(value: Any, field: str) -> str | None:
    """The path of the first string with a NUL in it, if any; a key counts as its object's."""
    if isinstance(value, str):
        return field if "\0" in value else None
    if isinstance(value, dict):
        if any("\0" in key for key in value):
            return field
        return next((at for key, item in value.items() if (at := _nul(item, f"{field}.{key}")) is not None), None)
    if isinstance(value, list):
        return next((at for n, item in enumerate(value) if (at := _nul(item, f"{field}[{n}]")) is not None), None)
    return None
