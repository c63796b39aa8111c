"""Rectangles and squares: area, perimeter and diagonal."""

import re
from fractions import Fraction

from infrastructure.language.amounts import Doubt, shown
from infrastructure.language.animation import Animation, Label, Line, Path, Scene, Shape, Tale, size_within
from infrastructure.language.measures import Length, squared
from infrastructure.language.reading import Reading
from infrastructure.language.subjects.geometry.given import (
    BOTTOM,
    BY,
    LEFT,
    RIGHT,
    TOP,
    Measures,
    about,
    animation,
    one_of,
    root,
    take_by,
)


def rectangle(reading: Reading) -> Animation:
    measures = Measures(reading.text)
    square = bool(
        re.search(r"\bsquare\b(?! (?:met|cent|kilo|inch|feet|foot|units|m\b|cm\b))", reading.text, re.IGNORECASE)
    )
    asked = one_of(reading, area=r"\barea\b", perimeter=r"\bperimeter\b", diagonal=r"\bdiagonal\b")
    if square:
        measures.named("side")
        (width,) = measures.need("side")
        height = width
    else:
        by = BY.search(reading.text)
        if by and by[5] is None:
            take_by(measures, by, "width", "height")
        else:
            measures.named("length", "width", "breadth", "height", "depth")
        first, second = _two_names(measures)
        width, height = measures.need(first, second)
    w, h, unit = width.amount, height.amount, width.unit
    figure = Rectangle(width, height)
    scenes = [
        Scene("Drawn to scale", f"A {'square' if square else 'rectangle'}, {width} by {height}.", figure.shapes())
    ]
    if asked == "area":
        value, name = w * h, squared(unit)
        if w.denominator == h.denominator == 1 and w * h <= 150:
            scenes.append(
                Scene(
                    "One row",
                    f"One row holds {shown(w)} squares of 1 {name}.",
                    figure.shapes(rows=1),
                )
            )
            scenes.append(
                Scene(
                    f"{shown(h)} rows",
                    f"There are {shown(h)} such rows, one above the other.",
                    figure.shapes(rows=int(h)),
                )
            )
        sum_ = f"{shown(w)} × {shown(h)} = {shown(value)}"
        says = f"Area = length × width: {sum_} {name}. So many squares with a side of 1 {unit or 'unit'} cover it."
        result, last = f"{shown(value)} {name}", figure.shapes(filled=True)
    elif asked == "perimeter":
        value, name = 2 * (w + h), unit or "units"
        walked = Fraction(0)
        for at, side in enumerate((w, h, w, h)):
            before, walked = walked, walked + side
            scenes.append(
                Scene(
                    f"Side {at + 1}: {shown(side)}",
                    f"Walking along it makes {shown(before)} + {shown(side)} = {shown(walked)}.",
                    figure.shapes(sides=at + 1),
                )
            )
        says = f"Perimeter = 2 × (length + width) = 2 × ({shown(w)} + {shown(h)}) = {shown(value)} {name}: once around."
        result, last = f"{shown(value)} {name}", figure.shapes(sides=4)
    else:
        value, name = root(w * w + h * h), unit
        scenes.append(
            Scene(
                "The diagonal makes a right triangle",
                "Its legs are the length and the width, so Pythagoras applies.",
                figure.shapes(diagonal=True),
            )
        )
        says = f"√({shown(w)}² + {shown(h)}²) = √{shown(w * w + h * h)} = {about(value)} {name}".strip() + "."
        result, last = f"{about(value)} {name}".strip(), figure.shapes(diagonal=True)
    scenes.append(Scene(f"The {asked}: {result}", says, last))
    return animation(
        f"The {asked} of a {'square' if square else 'rectangle'}, {width} by {height}",
        scenes,
        tale_of_field(asked, str(width), str(height), result),
        measures.notes,
        result,
        value,
    )


def _two_names(measures: Measures) -> tuple[str, str]:
    names = list(measures.found)
    if len(names) != 2:
        raise Doubt
    return names[0], names[1]


class Rectangle:
    def __init__(self, width: Length, height: Length) -> None:
        self.width, self.height = width, height
        scale = min((RIGHT - LEFT) / float(width.amount), (BOTTOM - TOP) / float(height.amount))
        self.w, self.h = max(float(width.amount) * scale, 3), max(float(height.amount) * scale, 3)
        self.x, self.y = round(180 - self.w / 2, 1), round(125 - self.h / 2, 1)

    def shapes(self, rows: int = 0, sides: int = 0, filled: bool = False, diagonal: bool = False) -> list[Shape]:
        x, y, r, b = self.x, self.y, round(self.x + self.w, 1), round(self.y + self.h, 1)
        shapes: list[Shape] = [Path("area", f"M{x} {y}H{r}V{b}H{x}Z", "done" if filled else "", filled=True)]
        if rows:
            each, across = self.h / float(self.height.amount), self.w / float(self.width.amount)
            top = round(b - rows * each, 1)
            shapes.append(Path("rows", f"M{x} {top}H{r}V{b}H{x}Z", "now", filled=True))
            lines = "".join(f"M{round(x + across * at, 1)} {top}V{b}" for at in range(1, int(self.width.amount)))
            lines += "".join(f"M{x} {round(b - each * at, 1)}H{r}" for at in range(1, rows))
            shapes.append(Path("grid", lines or f"M{x} {top}", "now"))
        corners = [(x, b), (r, b), (r, y), (x, y), (x, b)]
        for at in range(sides):
            (x1, y1), (x2, y2) = corners[at], corners[at + 1]
            shapes.append(Line(f"s{at}", x1, y1, x2, y2, "now" if at == sides - 1 else "done"))
        if diagonal:
            shapes.append(Line("diagonal", x, b, r, y, "now"))
        shapes.append(Label("w", 180, b + 18, str(self.width), "mark"))
        shapes.append(
            Label("h", x - 8, 125, str(self.height), "mark", "end", size_within(str(self.height), max(x - 12, 30), 14))
        )
        return shapes


def tale_of_field(asked: str, first: str, second: str, result: str) -> Tale:
    if asked == "area":
        return Tale(
            title="The tiled floor",
            setting="An empty room and a stack of square tiles.",
            text=[
                f"The floor measures {first} and {second}. A tiler does not count tile by tile: he lays one row, "
                f"counts that, and then counts the rows.",
                f"Every row is like the first, so the number of tiles is the one times the other. The whole floor "
                f"takes {result}.",
            ],
            mapping=[
                ("one tile", "one square unit"),
                ("a row", "the length"),
                ("the number of rows", "the width"),
                ("the floor", "the area"),
            ],
        )
    if asked == "perimeter":
        return Tale(
            title="Once around the field",
            setting="A field with straight edges, and a farmer with a roll of wire.",
            text=[
                f"The field has edges of {first} and {second}. The farmer starts at a corner and walks along every "
                f"edge, unrolling the wire, until he stands "
                "where he began.",
                f"It does not matter how much grows inside, only how far it is around: {result} of wire.",
            ],
            mapping=[
                ("an edge", "a side"),
                ("the roll of wire", "the sum so far"),
                ("back at the first corner", "the perimeter"),
            ],
        )
    return Tale(
        title="Straight across",
        setting="A lawn with paths along its edges, and someone in a hurry.",
        text=[
            f"Along the paths it is {first} and then {second}. Straight across the grass it is shorter, and "
            f"Pythagoras knows how much.",
            f"The two paths meet at a right angle, so the squares on them make the square on the way across: {result}.",
        ],
        mapping=[("the two paths", "length and width"), ("the way across", "the diagonal")],
    )
