"""Triangles: area, perimeter, and Pythagoras."""

import re
from collections.abc import Callable
from math import sqrt

from infrastructure.language.amounts import Doubt, shown
from infrastructure.language.animation import Animation, Label, Line, Path, Scene, Shape, Tale
from infrastructure.language.measures import Length, squared
from infrastructure.language.reading import Reading
from infrastructure.language.subjects.geometry.given import (
    BEFORE,
    BOTTOM,
    IS,
    LEFT,
    LENGTH,
    RIGHT,
    TOP,
    Measures,
    about,
    animation,
    closed,
    one_of,
    root,
    take_listed,
)
from infrastructure.language.subjects.geometry.rectangles import Rectangle, tale_of_field

LEGS = re.compile(rf"\b(?:legs?|sides?|catheti|lengths)\b[^0-9.?]{{0,40}}?{LENGTH},? and {LENGTH}", re.IGNORECASE)
THREE = re.compile(rf"\bsides?\b[^0-9.?]{{0,40}}?{LENGTH}, {LENGTH},? and {LENGTH}", re.IGNORECASE)
Telling = Callable[[str, str, str], Tale]


def triangle(reading: Reading) -> Animation:
    text = reading.text
    if re.search(r"\bhypotenuse\b|\bright[\s-](?:angled )?triangle|\bright-angled\b|\bpythagor", text, re.IGNORECASE):
        return _right_triangle(reading)
    measures = Measures(text)
    asked = one_of(reading, area=r"\barea\b", perimeter=r"\bperimeter\b")
    three = THREE.search(text)
    if three:
        for at, name in enumerate("abc"):
            take_listed(measures, name, three, at)
        measures.left = measures.left.replace(three[0], " ")
        return _three_sides(asked, measures)
    measures.named("base", "height")
    base, height = measures.need("base", "height")
    if asked != "area":
        raise Doubt
    value, name = base.amount * height.amount / 2, squared(base.unit)
    figure = Rectangle(base, height)
    x, y, r, b = figure.x, figure.y, round(figure.x + figure.w, 1), round(figure.y + figure.h, 1)
    top = round(x + figure.w * 0.36, 1)
    triangle = Path("triangle", f"M{x} {b}H{r}L{top} {y}Z", "now", filled=True)
    line = Line("height", top, y, top, b, "mark", dashed=True)
    labels: list[Shape] = [
        Label("w", 180, b + 18, f"base {base}", "mark"),
        Label("h", top + 6, 135, str(height), "mark", "start"),
    ]
    box = Path("box", f"M{x} {y}H{r}V{b}H{x}Z")
    halves: list[Shape] = [
        Path("left", f"M{x} {y}H{top}L{x} {b}Z", "mark", filled=True),
        Path("right", f"M{top} {y}H{r}V{b}Z", "mark", filled=True),
    ]
    sum_ = f"{shown(base.amount)} × {shown(height.amount)}"
    result = f"{shown(value)} {name}"
    scenes = [
        Scene(
            "Drawn to scale",
            f"A triangle with the base {base} and the height {height}. Where its top stands along the base is not "
            "told, and does not matter for the area.",
            [triangle, line, *labels],
        ),
        Scene(
            "The rectangle around it",
            f"It has the same base and height, and an area of {sum_} = {shown(base.amount * height.amount)} {name}.",
            [box, triangle, line, *labels],
        ),
        Scene(
            "Half of it",
            "The height cuts the rectangle in two; in each part the triangle takes exactly half.",
            [*halves, triangle, line, *labels],
        ),
        Scene(
            f"The area: {result}",
            f"Area = base × height ÷ 2: {sum_} ÷ 2 = {shown(value)} {name}.",
            [box, Path("triangle", triangle.d, "done", filled=True), line, *labels],
        ),
    ]
    tale = Tale(
        title="Half a cloth",
        setting="A tailor's table with one rectangular piece of cloth.",
        text=[
            f"For a sail with a foot of {base} and a height of {height} the tailor takes a rectangle of just that "
            f"size and cuts from the "
            "two lower corners up to one point on the upper edge.",
            f"What falls off left and right can be laid together to the very same sail. So every sail takes half "
            f"of its cloth: {result}, "
            "wherever along the edge the point was.",
        ],
        mapping=[
            ("the cloth", "base × height"),
            ("the two cuts", "the sides of the triangle"),
            ("what falls off", "the other half of the area"),
        ],
    )
    return animation(
        f"The area of a triangle, base {base}, height {height}", scenes, tale, measures.notes, result, value
    )


def _three_sides(asked: str, measures: Measures) -> Animation:
    a, b, c = measures.need("a", "b", "c")
    x, y, z = a.amount, b.amount, c.amount
    if 2 * max(x, y, z) >= x + y + z:
        raise Doubt
    around = x + y + z
    unit = a.unit
    # the longest side lies at the bottom, so that the foot of the height is within it
    low, left, right = sorted((float(x), float(y), float(z)), reverse=True)
    foot = (low * low + left * left - right * right) / (2 * low)
    up = sqrt(left * left - foot * foot)
    scale = min((RIGHT - LEFT) / low, (BOTTOM - TOP) / up)
    x0, y0 = round(180 - low * scale / 2, 1), round(125 + up * scale / 2, 1)
    corners = [(x0, y0), (round(x0 + low * scale, 1), y0), (round(x0 + foot * scale, 1), round(y0 - up * scale, 1))]
    path = "M" + "L".join(f"{p} {q}" for p, q in corners) + "Z"
    names = [str(Length(value, unit)) for value in sorted((x, y, z), reverse=True)]
    labels: list[Shape] = [
        Label("low", 180, y0 + 18, names[0], "mark"),
        Label("left", (corners[0][0] + corners[2][0]) / 2 - 10, (y0 + corners[2][1]) / 2 - 8, names[1], "mark", "end"),
        Label(
            "right", (corners[1][0] + corners[2][0]) / 2 + 10, (y0 + corners[2][1]) / 2 - 8, names[2], "mark", "start"
        ),
    ]
    scenes = [
        Scene(
            "Drawn to scale",
            f"A triangle with the sides {a}, {b} and {c}.",
            [Path("t", path, "", filled=True), *labels],
        )
    ]
    sum_ = f"{shown(x)} + {shown(y)} + {shown(z)} = {shown(around)}"
    if asked == "perimeter":
        value = around
        result = f"{shown(around)} {unit or 'units'}"
        lines: list[Shape] = []
        for at, (start, end) in enumerate(((0, 1), (1, 2), (2, 0))):
            lines = [*lines, Line(f"s{at}", *corners[start], *corners[end], "now")]
            says = "Walk along it; the way adds up." if at < 2 else "And back to where the walk began."
            scenes.append(Scene(f"Side {at + 1}", says, [Path("t", path, "", filled=True), *lines, *labels]))
        scenes.append(
            Scene(
                f"The perimeter: {result}",
                f"{sum_} {unit}".strip() + ": once around.",
                [Path("t", path, "done", filled=True), *lines, *labels],
            )
        )
    else:
        half = around / 2
        under = half * (half - x) * (half - y) * (half - z)
        value = root(under)
        result = f"{about(value)} {squared(unit)}"
        product = f"{shown(half)} × {shown(half - x)} × {shown(half - y)} × {shown(half - z)}"
        scenes.append(
            Scene(
                "Half of the way around",
                f"s = ({shown(x)} + {shown(y)} + {shown(z)}) ÷ 2 = {shown(half)}.",
                [Path("t", path, "now", filled=True), *labels],
            )
        )
        scenes.append(
            Scene(
                f"The area: {result}",
                f"Heron's formula: √({product}) = √{shown(under)} = {about(value)} {squared(unit)}.",
                [Path("t", path, "done", filled=True), *labels],
            )
        )
    return animation(
        f"The {asked} of a triangle with sides {a}, {b} and {c}",
        scenes,
        tale_of_field(asked, str(a), f"{b} and {c}", result),
        measures.notes,
        result,
        value,
    )


def _right_triangle(reading: Reading) -> Animation:
    text = reading.text
    measures = Measures(text)
    legs = LEGS.search(text)
    hypotenuse = BEFORE["hypotenuse"].search(text)
    if legs and not hypotenuse:
        for at, name in enumerate("ab"):
            take_listed(measures, name, legs, at)
        measures.left = measures.left.replace(legs[0], " ")
        a, b = measures.need("a", "b")
        asked = one_of(reading, hypotenuse=r"\bhypotenuse\b|\blongest side\b", area=r"\barea\b")
        if asked == "area":
            raise Doubt
        return _long_side(a, b, measures.notes, "The hypotenuse", _tale_of_squares)
    leg = re.search(
        rf"\b(?:one|a) (?:leg|side)\b{IS}(?:has (?:a )?length )?{LENGTH}|\bleg{IS}{LENGTH}", text, re.IGNORECASE
    )
    if (
        not hypotenuse
        or not leg
        or not re.search(r"\bother (?:leg|side)\b|\bmissing (?:leg|side)\b", reading.asked, re.IGNORECASE)
    ):
        raise Doubt
    measures.take("c", hypotenuse)
    measures.take("a", leg, 1 if leg[1] else 3)
    c, a = measures.need("c", "a")
    return _short_side(c, a, measures.notes, "The other leg", _tale_of_squares)


def ladder(reading: Reading) -> Animation:
    """A ladder against a wall: it is the hypotenuse, its foot and its reach are the legs."""
    text = reading.text
    measures = Measures(text)
    ladder = re.search(
        rf"{LENGTH}(?: long)? ladder|\bladder (?:is |of (?:length )?|that is |which is )?{LENGTH}", text, re.IGNORECASE
    )
    foot = re.search(rf"\b(?:foot|base|bottom)\b[^0-9.?]{{0,40}}{LENGTH} (?:away )?(?:from|out)", text, re.IGNORECASE)
    reach = re.search(rf"\b(?:reaches|touches|rests)\b[^0-9?]{{0,40}}{LENGTH}", text, re.IGNORECASE)
    for name, match in (("ladder", ladder), ("foot", foot), ("reach", reach)):
        if match:
            measures.take(name, match, 1 if match[1] else 3)
    if set(measures.found) == {"ladder", "foot"} and re.search(
        r"\bhow (?:high|far up)\b|\bheight\b", reading.asked, re.I
    ):
        c, a = measures.need("ladder", "foot")
        return _short_side(c, a, measures.notes, "The height it reaches", _tale_of_ladder)
    if set(measures.found) == {"foot", "reach"} and re.search(r"\bhow long\b|\blength\b", reading.asked, re.IGNORECASE):
        a, b = measures.need("foot", "reach")
        return _long_side(a, b, measures.notes, "The ladder", _tale_of_ladder)
    if set(measures.found) == {"ladder", "reach"} and re.search(r"\bhow far\b", reading.asked, re.IGNORECASE):
        c, a = measures.need("ladder", "reach")
        return _short_side(c, a, measures.notes, "How far its foot stands off", _tale_of_ladder)
    raise Doubt


def _long_side(a: Length, b: Length, notes: list[str], name: str, tell: Telling) -> Animation:
    value = root(a.amount**2 + b.amount**2)
    result = f"{about(value)} {a.unit}".strip()
    squares = (
        f"{shown(a.amount)}² + {shown(b.amount)}² = {shown(a.amount**2)} + {shown(b.amount**2)} = "
        f"{shown(a.amount**2 + b.amount**2)}"
    )
    figure = _RightTriangle(float(a.amount), float(b.amount), (str(a), str(b), "?"))
    scenes = [
        Scene(
            "Drawn to scale",
            f"A right triangle with the legs {a} and {b}. The longest side, opposite the right angle, is wanted.",
            figure.shapes(),
        ),
        Scene(
            "A square on each leg",
            f"They have the areas {shown(a.amount**2)} and {shown(b.amount**2)}: each leg times itself.",
            figure.shapes("ab"),
        ),
        Scene(
            "Together they make the third",
            f"The square on the longest side is as large as both: {squares}.",
            figure.shapes("abc"),
        ),
        Scene(
            f"{name}: {result}",
            f"Its side is the root: √{shown(a.amount**2 + b.amount**2)} = {about(value)} {a.unit}".strip() + ".",
            figure.shapes("c", {"c": result}),
        ),
    ]
    return animation(f"{name} over the legs {a} and {b}", scenes, tell(str(a), str(b), result), notes, result, value)


def _short_side(c: Length, a: Length, notes: list[str], name: str, tell: Telling) -> Animation:
    if a.amount >= c.amount:
        raise Doubt
    value = root(c.amount**2 - a.amount**2)
    result = f"{about(value)} {c.unit}".strip()
    figure = _RightTriangle(float(a.amount), float(value), (str(a), "?", str(c)))
    left = shown(c.amount**2 - a.amount**2)
    scenes = [
        Scene(
            "Drawn to scale",
            f"A right triangle: the longest side is {c}, one leg {a}. The other leg is wanted.",
            figure.shapes(),
        ),
        Scene(
            "The squares that are known",
            f"On the longest side {shown(c.amount)}² = {shown(c.amount**2)}, on the leg "
            f"{shown(a.amount)}² = {shown(a.amount**2)}.",
            figure.shapes("ac"),
        ),
        Scene(
            "What is left for the third",
            f"{shown(c.amount**2)} − {shown(a.amount**2)} = {left}: so large is the square on the other leg.",
            figure.shapes("abc"),
        ),
        Scene(
            f"{name}: {result}", f"√{left} = {about(value)} {c.unit}".strip() + ".", figure.shapes("b", {"b": result})
        ),
    ]
    return animation(f"{name}, from {c} and {a}", scenes, tell(str(a), result, str(c)), notes, result, value)


class _RightTriangle:
    """A triangle with its right angle at the lower left, and room around it for the squares on its sides."""

    def __init__(self, a: float, b: float, names: tuple[str, str, str]) -> None:
        # the squares reach from -b to a + b across and from -a to a + b up
        scale = min(330 / (a + 2 * b), 226 / (2 * a + b))
        self.a, self.b = a * scale, b * scale
        self.x, self.y = round(180 - (self.a + 2 * self.b) / 2 + self.b, 1), round(6 + self.a + self.b, 1)
        self.names = dict(zip("abc", names, strict=True))

    def shapes(self, squares: str = "", names: dict[str, str] | None = None) -> list[Shape]:
        a, b, x, y = self.a, self.b, self.x, self.y
        drawn = {
            "a": [(x, y), (x + a, y), (x + a, y + a), (x, y + a)],
            "b": [(x, y), (x, y - b), (x - b, y - b), (x - b, y)],
            "c": [(x + a, y), (x, y - b), (x + b, y - b - a), (x + a + b, y - a)],
        }
        shapes: list[Shape] = [
            Path(f"q{side}", closed(points), "now" if side == "c" else "mark", filled=True)
            for side, points in drawn.items()
            if side in squares
        ]
        shapes.append(Path("triangle", closed([(x, y), (x + a, y), (x, y - b)]), "done", filled=True))
        shapes.append(Path("right", f"M{round(x + 9, 1)} {y}V{round(y - 9, 1)}H{x}"))
        said = {**self.names, **(names or {})}
        shapes.append(Label("a", round(x + a / 2, 1), y + 12, said["a"], "mark"))
        shapes.append(Label("b", x - 6, round(y - b / 2, 1), said["b"], "mark", "end"))
        shapes.append(Label("c", round(x + a / 2 + 8, 1), round(y - b / 2 - 8, 1), said["c"], "mark", "start"))
        return shapes


def _tale_of_squares(a: str, b: str, c: str) -> Tale:
    return Tale(
        title="Three carpets",
        setting="A room in the shape of a right triangle, with a square carpet along each wall.",
        text=[
            f"The three walls are {a}, {b} and {c} long. Along each lies a square carpet, exactly as wide as its wall.",
            "The weaver swears that the two carpets at the right angle take just as much wool as the third, long "
            "one. Cut up, they cover it to the last "
            "thread, in every such room. So two carpets tell the third, and its side is found by asking: what "
            "times itself makes that much?",
        ],
        mapping=[
            ("the two walls at the corner", "the legs a and b"),
            ("the long wall", "the hypotenuse c"),
            ("a carpet", "the square of a side"),
            ("the same wool", "a² + b² = c²"),
        ],
    )


def _tale_of_ladder(a: str, b: str, c: str) -> Tale:
    return Tale(
        title="The window-cleaner's ladder",
        setting="A house wall, level ground, and a ladder.",
        text=[
            f"Wall and ground meet at a right angle, and the ladder closes the triangle: {a} and {b} are the legs, "
            f"{c} is the ladder itself.",
            "Push its foot towards the wall and it reaches higher, pull it away and it sinks; but the square of "
            "the one and the square of the other "
            "always make the square of the ladder, since the ladder never changes.",
        ],
        mapping=[
            ("the ground and the wall", "the legs"),
            ("the ladder", "the hypotenuse"),
            ("a ladder keeps its length", "a² + b² = c²"),
        ],
    )
