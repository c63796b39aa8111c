"""The values that a question lists, or example values where it lists none, and how a row of them is drawn."""

import re
from collections.abc import Sequence
from fractions import Fraction

import msgspec

from infrastructure.language.amounts import Doubt
from infrastructure.language.animation import WIDTH, Box, Label, Shape, Tone, size_within
from infrastructure.language.reading import Reading

EXAMPLE = "Example values, since the question gives none."
MOST = 12
"""Values in a row; more would be too small to read on a telephone."""

ITEM = r"-?[0-9]{1,9}(?:\.[0-9]{1,6})?"
BRACKETS = re.compile(r"[\[{]([^\[\]{}\n]{1,300})[\]}]")
RUN = re.compile(
    rf"(?<![\w.,-]){ITEM}(?:(?:\s?,\s?(?:and\s)?|\sand\s|\s?(?:-?->|→|⟶)\s?){ITEM}){{2,}}(?![\w%])", re.IGNORECASE
)
ARROWS = re.compile(r"(?<![\w-])\w{1,8}(?:\s?(?:-?->|→|⟶)\s?\w{1,8})+", re.IGNORECASE)
WORDS = re.compile(
    r"\b(?:words|names|letters|cities|fruits|animals|titles|books):?\s((?:[a-z]{1,12}, ){1,11}[a-z]{1,12}"
    r"(?:,? and [a-z]{1,12})?)\b",
    re.IGNORECASE,
)
PARTED = re.compile(r"\s*(?:,\s*(?:and\s+)?|\band\b|-?->|→|⟶)\s*", re.IGNORECASE)
NO_VALUE = re.compile(r"O\([^()\n]{1,20}\)|\b[A-H]\)|\bnull\b|\bNone\b|\bNULL\b|\b[0-9]+-(?:based|indexed)\b")


class Values(msgspec.Struct, frozen=True):
    """Values as the question writes them, two to `MOST`; `note` says where they are examples."""

    items: list[str]
    note: str = ""

    @property
    def notes(self) -> list[str]:
        return [self.note] if self.note else []

    @property
    def numeric(self) -> bool:
        return all(re.fullmatch(ITEM, item) for item in self.items)

    @property
    def numbers(self) -> list[Fraction]:
        if not self.numeric:
            raise Doubt
        return [Fraction(item) for item in self.items]

    def keys(self) -> Sequence[Fraction | str]:
        """What the values are compared by: size, or place in the alphabet."""
        return self.numbers if self.numeric else [item.casefold() for item in self.items]


def values(reading: Reading, example: str, used: Sequence[str] = ()) -> Values:
    """The one list of the question. `used` are pieces of its text whose numbers are accounted for already.

    Raises Doubt for several lists, for a list that cannot be drawn, and where numbers are left that no list explains.
    """
    text = reading.text
    for piece in used:
        text = text.replace(piece, " ", 1)
    lists = _lists(text) or _lists(reading.code)
    if len({tuple(found) for found in lists}) > 1:
        raise Doubt
    if lists:
        return _checked(lists[0])
    if re.search(r"[0-9]", NO_VALUE.sub("", text)):
        raise Doubt
    return Values(example.split(), EXAMPLE)


def without_values(text: str) -> str:
    """The text around its lists, where single numbers can be looked for."""
    for pattern in (BRACKETS, RUN, ARROWS):
        text = pattern.sub(" ", text)
    return text


def _lists(text: str) -> list[list[str]]:
    for pattern, group in ((BRACKETS, 1), (RUN, 0), (ARROWS, 0), (WORDS, 1)):
        found = [_items(match[group]) for match in pattern.finditer(text)]
        if found := [items for items in found if len(items) > 1]:
            return found
    return []


def _items(text: str) -> list[str]:
    items = [item.strip().strip("'\"") for item in PARTED.split(text)]
    return [item for item in items if item and item.lower() not in ("null", "none")]


def _checked(items: list[str]) -> Values:
    if not 2 <= len(items) <= MOST or any(not re.fullmatch(r"-?\w[\w.]{0,11}", item) for item in items):
        raise Doubt
    return Values(items)


def row_place(count: int, at: float) -> float:
    """The middle of the place `at` in a row of `count`."""
    return round(WIDTH / 2 + (at - (count - 1) / 2) * row_step(count), 1)


def row_step(count: int) -> float:
    return min(48.0, (WIDTH - 12) / count)


def cell(id: str, x: float, y: float, text: str, count: int, tone: Tone = "", height: float = 36) -> Box:
    """A value of a row of `count`."""
    width = row_step(count) - 5
    return Box(id, x, y, round(width, 1), height, text, tone, size_within(text, width - 4, 17))


def indices(count: int, y: float) -> list[Shape]:
    return [Label(f"i{at}", row_place(count, at), y, str(at), "off", size=11) for at in range(count)]


def pointers(named: dict[str, float], y: float) -> list[Shape]:
    """Names above what they point at; those which would touch stand one above the other."""
    shapes: list[Shape] = []
    rows: list[list[float]] = []
    for name, x in named.items():
        row = next((row for row in rows if all(abs(x - other) > 52 for other in row)), None)
        if row is None:
            rows.append(row := [])
        row.append(x)
        shapes.append(Label(f"p{name}", x, y - 16 * rows.index(row), f"{name} ▾", "mark", size=13))
    return shapes


def written(items: Sequence[str]) -> str:
    return ", ".join(items)
