"""Measured amounts: numbers with units of length, time and speed, and how they convert."""

from fractions import Fraction

import msgspec

from infrastructure.language.amounts import Doubt, shown

NUMBER = r"(?<![\w.,])[0-9]{1,7}(?:,[0-9]{3})*(?:\.[0-9]{1,6})?"
LENGTHS = {
    "mm": Fraction(1, 1000),
    "cm": Fraction(1, 100),
    "m": Fraction(1),
    "km": Fraction(1000),
    "in": Fraction(254, 10000),
    "ft": Fraction(3048, 10000),
    "yd": Fraction(9144, 10000),
    "mi": Fraction(1609344, 1000),
}
"""Metres of each; inch, foot, yard and mile as fixed in 1959."""
TIMES = {"s": Fraction(1), "min": Fraction(60), "h": Fraction(3600), "d": Fraction(86400)}
WORDS = {
    "millimetre": "mm", "millimeter": "mm", "centimetre": "cm", "centimeter": "cm", "metre": "m", "meter": "m",
    "kilometre": "km", "kilometer": "km", "inch": "in", "foot": "ft", "feet": "ft", "yard": "yd", "mile": "mi",
    "second": "s", "sec": "s", "minute": "min", "hour": "h", "hr": "h", "day": "d", "units": "", "unit": "",
}  # fmt: skip
LENGTH_UNIT = r"(?:milli|centi|kilo)?met(?:re|er)s?|inch(?:es)?|foot|feet|yards?|miles?|mm|cm|km|m|in|ft|yd|mi"
TIME_UNIT = r"seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|s|h"
SPEED_UNIT = (
    rf"km/h|kmh|kph|km per hour|mph|m/s|ft/s|(?:{LENGTH_UNIT}) (?:per|an?) "
    rf"(?:second|minute|hour)|(?:{LENGTH_UNIT})/(?:h|min|s)"
)


class Length(msgspec.Struct, frozen=True):
    """An amount as it is written, in a unit; an empty unit measures in units of its own."""

    amount: Fraction
    unit: str

    def __str__(self) -> str:
        return f"{shown(self.amount)} {self.unit}".strip()


def amount(written: str) -> Fraction:
    return Fraction(written.replace(",", ""))


def unit_named(word: str) -> str:
    """`cm` for `centimetres` and the like."""
    word = word.lower()
    if word in LENGTHS or word in TIMES or not word:
        return word
    name = WORDS.get(word) if word in WORDS else WORDS.get(word.removesuffix("s"), WORDS.get(word.removesuffix("es")))
    if name is None:
        raise Doubt
    return name


def in_one_unit(lengths: list[Length]) -> tuple[list[Length], list[str]]:
    """Lengths in the unit of the first, and what was converted. Raises Doubt where only some have a unit."""
    unit = lengths[0].unit
    if len({bool(length.unit) for length in lengths}) > 1:
        raise Doubt
    converted, said = [], []
    for length in lengths:
        if length.unit != unit:
            same = Length(length.amount * LENGTHS[length.unit] / LENGTHS[unit], unit)
            said.append(f"{length} = {same}")
            length = same
        converted.append(length)
    return converted, said


def squared(unit: str) -> str:
    return f"{unit}²" if unit else "square units"


def cubed(unit: str) -> str:
    return f"{unit}³" if unit else "cubic units"
