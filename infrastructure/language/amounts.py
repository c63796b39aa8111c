"""Amounts, exactly: how they are read, how they are written, and how one comes about."""

import re
from fractions import Fraction

import msgspec


class Step(msgspec.Struct, frozen=True):
    """What is done, in words, and the sum that does it."""

    words: str
    sum: str


class Bar(msgspec.Struct, frozen=True):
    """An amount to be drawn; `share` is its part, 0..1, of the longest one."""

    label: str
    share: float


class Operation(msgspec.Struct, frozen=True):
    """A sum of two terms, which are known by their places; each is written as it stands there."""

    left: int
    sign: str
    right: int
    result: int
    left_written: str
    right_written: str
    result_written: str


class Working(msgspec.Struct, frozen=True):
    """How the result comes about, and what had to be assumed about the words."""

    steps: list[Step]
    value: Fraction
    result: str
    assumption: str = ""
    bars: list[Bar] = []
    operations: list[Operation] = []


class Doubt(Exception):
    """The question cannot be worked out by these few rules."""


class Money(msgspec.Struct, frozen=True):
    """Writes amounts as the question does: with its sign before, or its unit after."""

    sign: str
    unit: str | None

    def __call__(self, value: Fraction) -> str:
        has_cents = self.sign not in ("", "¥") or self.unit not in (None, "cents")
        cents = has_cents and value.denominator != 1 and (value * 100).denominator == 1
        written = f"{float(value):,.2f}" if cents else shown(value)
        return f"{self.sign}{written}{f' {self.unit}' if self.unit else ''}"


def shown(value: Fraction) -> str:
    """Exact where a decimal of up to six places is; else about how much it is."""
    if value.denominator == 1:
        return f"{value.numerator:,}"
    if (value * 10**6).denominator == 1:
        return f"{float(value):,.6f}".rstrip("0")
    return f"about {float(value):,.4f}"


def fraction(value: Fraction) -> str:
    about = shown(value)
    return f"{value.numerator:,}/{value.denominator:,} ({about})" if about.startswith("about") else about


def number(written: str) -> Fraction:
    if len(written) > 15 or re.match(r"0[0-9]", written):  # `05` belongs to a date, not to a sum
        raise Doubt
    return Fraction(written.replace(",", ""))
