"""Circles: area and circumference."""

from infrastructure.language.amounts import shown
from infrastructure.language.animation import Animation, Label, Line, Path, Scene, Shape, Tale
from infrastructure.language.measures import Length, squared
from infrastructure.language.reading import Reading
from infrastructure.language.subjects.geometry.given import Measures, about, animation, one_of, pi_in


def circle(reading: Reading) -> Animation:
    measures = Measures(reading.text)
    asked = one_of(reading, area=r"\barea\b", circumference=r"\bcircumference\b|\bperimeter\b")
    measures.named("radius", "diameter")
    given = "diameter" if "diameter" in measures.found else "radius"
    pi, named = pi_in(reading.text)
    (length,) = measures.need(given)
    radius = length.amount / 2 if given == "diameter" else length.amount
    unit, r = length.unit, Length(radius, length.unit)
    x, y, drawn = 180, 122, 92
    disc = f"M{x - drawn} {y}A{drawn} {drawn} 0 1 1 {x + drawn} {y}A{drawn} {drawn} 0 1 1 {x - drawn} {y}Z"
    line = Line("r", x, y, x + drawn, y, "mark")
    label = Label("rl", x + drawn / 2, y - 12, f"r = {r}", "mark")
    scenes = []
    if given == "diameter":
        scenes.append(
            Scene(
                "Half of the diameter",
                f"The radius is {length} ÷ 2 = {r}.",
                [Path("disc", disc, "", filled=True), Line("d", x - drawn, y, x + drawn, y, "now"), label],
            )
        )
    scenes.append(
        Scene(
            "The circle",
            f"Every point of its edge is {r} away from the middle.",
            [Path("disc", disc, "", filled=True), line, label],
        )
    )
    if asked == "area":
        value = pi * radius**2
        square = f"M{x} {y}H{x + drawn}V{y - drawn}H{x}Z"
        scenes.append(
            Scene(
                "The square on the radius",
                f"{shown(radius)} × {shown(radius)} = {shown(radius**2)} {squared(unit)}. Four of them "
                "would reach over the edge; a little more than three, π = 3.14159…, are just the circle.",
                [Path("disc", disc, "", filled=True), Path("sq", square, "now", filled=True), line, label],
            )
        )
        result = f"{about(value)} {squared(unit)}"
        says = (
            f"Area = π × r² = {named} × {shown(radius**2)} = {about(value)} {squared(unit)}. Exactly: "
            f"{shown(radius**2)}π."
        )
        shapes: list[Shape] = [Path("disc", disc, "done", filled=True), line, label]
    else:
        value = pi * 2 * radius
        scenes.append(
            Scene(
                "Once across",
                f"The diameter is 2 × {shown(radius)} = {shown(2 * radius)} {unit}".strip()
                + ". Laid along the edge, it fits "
                "a little more than three times, π = 3.14159…, whatever the size of the circle.",
                [Path("disc", disc, "", filled=True), Line("d", x - drawn, y, x + drawn, y, "now"), label],
            )
        )
        result = f"{about(value)} {unit or 'units'}"
        says = (
            f"Circumference = 2 × π × r = 2 × {named} × {shown(radius)} = {about(value)} {unit}".strip()
            + f". Exactly: {shown(2 * radius)}π."
        )
        shapes = [Path("disc", disc, "", filled=True), Path("edge", disc, "done"), line, label]
    scenes.append(Scene(f"The {asked}: {result}", says, shapes))
    tale = Tale(
        title="The goat on the rope",
        setting="A meadow, a peg, and a goat on a rope.",
        text=[
            f"The rope is {r} long, so the goat gets just that far in every direction: it grazes a circle. Were "
            f"the meadow cut into squares as long "
            "and as wide as the rope, the goat would eat a little more than three of them bare.",
            f"And walking once around at the end of the rope it goes a little more than six ropes. That “little "
            f"more” is always the same, for a goat as "
            f"for a planet: the number π. Here the {asked} is {result}.",
        ],
        mapping=[
            ("the peg", "the centre"),
            ("the rope", "the radius"),
            ("the meadow grazed bare", "the area π r²"),
            ("the walk at the end of the rope", "the circumference 2 π r"),
        ],
    )
    return animation(f"The {asked} of a circle with {given} {length}", scenes, tale, measures.notes, result, value)
