"""The lengths that a question gives, and how a figure's answer is written."""

import re
from fractions import Fraction
from math import isqrt, pi, sqrt

from infrastructure.language.amounts import Doubt, shown
from infrastructure.language.animation import Animation, Scene, Tale
from infrastructure.language.measures import LENGTH_UNIT, NUMBER, Length, amount, in_one_unit, unit_named
from infrastructure.language.reading import Reading

LENGTH = rf"({NUMBER})(?:[\s-]?({LENGTH_UNIT}))?(?![\w%°²³/])"
BY = re.compile(rf"{LENGTH}(?:\s?(?:by|x|×)\s?){LENGTH}(?:(?:\s?(?:by|x|×)\s?){LENGTH})?", re.IGNORECASE)
IS = r"(?: of (?:its|the|an?) (?:right )?[a-z]{1,12})?(?: of| is| are| =|:| measures?)? (?:both )?"
BEFORE = {
    name: re.compile(rf"\b{name}{IS}{LENGTH}", re.IGNORECASE)
    for name in (
        "length",
        "width",
        "breadth",
        "height",
        "base",
        "radius",
        "diameter",
        "sides?",
        "depth",
        "hypotenuse",
        "edges?",
    )
}
AFTER = {
    name: re.compile(rf"{LENGTH} {word}\b", re.IGNORECASE)
    for name, word in (("length", "long"), ("width", "wide"), ("height", "(?:high|tall)"), ("depth", "deep"))
}
PI = re.compile(r"(?:\bpi|π)\b.{0,20}?\b(3\.14(?:159?)?)\b|\b(3\.14(?:159?)?) (?:for|as) (?:pi|π)\b", re.IGNORECASE)
LEFT, RIGHT, TOP, BOTTOM = 62, 298, 34, 216
"""What a figure is scaled into."""


def pi_in(text: str) -> tuple[Fraction, str]:
    """π as the question wants it, and how that is written."""
    named = PI.search(text)
    written = (named[1] or named[2]) if named else ""
    return (Fraction(written), written) if written else (Fraction(pi), "π")


class Measures:
    """The lengths a question gives, each under its name; all of its numbers must be among them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.found: dict[str, Length] = {}
        self.notes: list[str] = []
        self.left = PI.sub(" ", text)

    def take(self, name: str, match: re.Match[str] | None, group: int = 1) -> None:
        if match and name not in self.found:
            unit = unit_named(match[group + 1] or "")
            self.found[name] = Length(amount(match[group]), unit)
            self.left = self.left.replace(match[0], " ")

    def named(self, *names: str) -> None:
        """Looks for each by name, `radius 5 cm` or `5 cm wide`."""
        for name in names:
            pattern = BEFORE.get(name) or BEFORE[f"{name}s?"]
            found = list(pattern.finditer(self.text)) + (list(AFTER[name].finditer(self.text)) if name in AFTER else [])
            if len(found) > 1:
                raise Doubt
            self.take(name, found[0] if found else None)

    def need(self, *names: str) -> list[Length]:
        """These lengths in one unit, if the question gives just these and no number besides."""
        if set(names) != set(self.found) or re.search(r"[0-9]", self.left):
            raise Doubt
        lengths, said = in_one_unit([self.found[name] for name in names])
        if any(not length.amount for length in lengths):
            raise Doubt
        self.notes += said
        return lengths


def one_of(reading: Reading, **signs: str) -> str:
    """The one quantity that is asked for. Raises Doubt for none and for several."""
    asked = [name for name, sign in signs.items() if re.search(sign, reading.asked, re.IGNORECASE)]
    if len(asked) != 1:
        raise Doubt
    return asked[0]


def take_by(measures: Measures, by: re.Match[str], *names: str) -> None:
    """`4 by 6 cm` means centimetres both times."""
    last = by[2 * len(names)]
    for at, name in enumerate(names):
        unit = by[2 * at + 2] or last or ""
        measures.found[name] = Length(amount(by[2 * at + 1]), unit_named(unit))
    measures.left = measures.left.replace(by[0], " ")


def take_listed(measures: Measures, name: str, match: re.Match[str], at: int) -> None:
    """One of several lengths of which only the last may have the unit: `3, 4 and 5 cm`."""
    last = match[match.re.groups] or ""
    measures.found[name] = Length(amount(match[2 * at + 1]), unit_named(match[2 * at + 2] or last))


def root(square: Fraction) -> Fraction:
    """Exact where the root is a fraction."""
    top, bottom = isqrt(square.numerator), isqrt(square.denominator)
    if top * top == square.numerator and bottom * bottom == square.denominator:
        return Fraction(top, bottom)
    return Fraction(sqrt(square))


def about(value: Fraction) -> str:
    """Two decimals of what has no end, and all of what has."""
    return shown(value) if not shown(value).startswith("about") else f"about {float(value):,.2f}"


def closed(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{round(x, 1)} {round(y, 1)}" for x, y in points) + "Z"


def animation(name: str, scenes: list[Scene], tale: Tale, notes: list[str], result: str, value: Fraction) -> Animation:
    return Animation(
        type="maths",
        subject="geometry",
        name=name,
        scenes=scenes,
        tale=tale,
        result=result,
        value=value,
        notes=notes,
    )
