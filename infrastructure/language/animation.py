"""What is drawn of a question: scenes of shapes, each with words that say what happens and why."""

from fractions import Fraction
from typing import Literal

import msgspec

from application.language import QuestionType

WIDTH = 360
"""Units across the stage: about a pixel each on a small telephone."""

Tone = Literal["", "now", "done", "off", "mark", "warn"]
"""What a shape stands for: plain, looked at now, settled, out of play, worth noting, not as wanted."""


class Box(msgspec.Struct, frozen=True, omit_defaults=True, tag="box"):
    """A rectangle around its middle; `size` is its text's height."""

    id: str
    x: float
    y: float
    w: float
    h: float
    text: str = ""
    tone: Tone = ""
    size: float = 15


class Disc(msgspec.Struct, frozen=True, omit_defaults=True, tag="disc"):
    """A circle; `paint` is a colour of its own, for what has one in the question."""

    id: str
    x: float
    y: float
    r: float
    text: str = ""
    tone: Tone = ""
    size: float = 15
    paint: str = ""


class Line(msgspec.Struct, frozen=True, omit_defaults=True, tag="line"):
    id: str
    x1: float
    y1: float
    x2: float
    y2: float
    tone: Tone = ""
    arrow: bool = False
    dashed: bool = False


class Path(msgspec.Struct, frozen=True, omit_defaults=True, tag="path"):
    """SVG path data: an area where it is filled, else a stroke, which may end in an arrow."""

    id: str
    d: str
    tone: Tone = ""
    filled: bool = False


class Label(msgspec.Struct, frozen=True, omit_defaults=True, tag="label"):
    id: str
    x: float
    y: float
    text: str
    tone: Tone = ""
    anchor: Literal["middle", "start", "end"] = "middle"
    size: float = 14


Shape = Box | Disc | Line | Path | Label


class Scene(msgspec.Struct, frozen=True):
    """One step: shapes keep their `id` from scene to scene, so that they move instead of jumping."""

    title: str
    says: str
    shapes: list[Shape]


class Tale(msgspec.Struct, frozen=True, kw_only=True):
    """The metaphor of an animation: each element of it stands for a concept."""

    title: str
    setting: str
    text: list[str]
    mapping: list[tuple[str, str]]


class Animation(msgspec.Struct, frozen=True, kw_only=True):
    """A question of a known subject, played step by step.

    `result` answers what the question asks, and is empty where that was not computed; `value` is the result as a
    number. `notes` say what had to be assumed.
    """

    type: QuestionType
    subject: str
    name: str
    scenes: list[Scene]
    tale: Tale
    result: str = ""
    value: Fraction | None = None
    notes: list[str] = []


def columns(text: str) -> int:
    """How wide a text is, in Latin letters; an East Asian character takes two."""
    return sum(2 if character >= "\u1100" else 1 for character in text)


def clipped(text: str, most: int) -> str:
    """At most `most` columns, the last of them an ellipsis where something was left out."""
    if columns(text) <= most:
        return text
    while columns(text) > most - 1:
        text = text[:-1]
    return text + "…"


def size_within(text: str, width: float, largest: float = 15) -> float:
    """The height at which a text fits into a width; small text is still readable at 9."""
    return round(max(min(largest, width / (0.62 * max(columns(text), 1))), 9), 1)


def listed(items: list[str]) -> str:
    """`A, B and C`."""
    return ", ".join(items[:-1]) + f" and {items[-1]}" if len(items) > 1 else "".join(items)


def counted(number: int, noun: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
