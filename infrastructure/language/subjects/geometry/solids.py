"""Solids: boxes and cylinders."""

import re
from fractions import Fraction

from infrastructure.language.amounts import Doubt, shown
from infrastructure.language.animation import Animation, Label, Line, Path, Scene, Shape, Tale, Tone, size_within
from infrastructure.language.measures import Length, cubed, squared
from infrastructure.language.reading import Reading
from infrastructure.language.subjects.geometry.given import (
    AFTER,
    BOTTOM,
    BY,
    LEFT,
    RIGHT,
    TOP,
    Measures,
    about,
    animation,
    closed,
    one_of,
    pi_in,
    take_by,
)


def box(reading: Reading) -> Animation:
    measures = Measures(reading.text)
    asked = one_of(reading, volume=r"\bvolume\b|\bcapacity\b", surface=r"\bsurface area\b")
    if re.search(r"\bcube\b", reading.text, re.IGNORECASE):
        measures.named("side", "edge")
        names = list(measures.found)
        if len(names) != 1:
            raise Doubt
        (w,) = measures.need(names[0])
        d = h = w
    else:
        by = BY.search(reading.text)
        if by and by[5]:
            take_by(measures, by, "length", "width", "height")
            w, d, h = measures.need("length", "width", "height")
        else:
            measures.named("length", "width", "breadth", "height", "depth")
            names = list(measures.found)
            if len(names) != 3:
                raise Doubt
            w, d, h = measures.need(*names)
    x, y, z, unit = w.amount, d.amount, h.amount, w.unit
    figure = _Box(float(x), float(y), float(z), (str(w), str(d), str(h)))
    floor = f"{shown(x)} × {shown(y)} = {shown(x * y)}"
    scenes = [Scene("Drawn to scale", f"A box, {w} by {d} by {h}.", figure.shapes())]
    if asked == "volume":
        value = x * y * z
        result = f"{shown(value)} {cubed(unit)}"
        scenes.append(
            Scene(
                "The floor",
                f"It has an area of {floor} {squared(unit)}: so many unit cubes cover it in one layer.",
                figure.shapes(0.0),
            )
        )
        if z.denominator == 1 and z <= 12:
            for layer in range(1, int(z) + 1):
                scenes.append(
                    Scene(
                        f"Layer {layer} of {shown(z)}",
                        f"{shown(x * y)} × {layer} = {shown(x * y * layer)} {cubed(unit)} so far.",
                        figure.shapes(layer / float(z)),
                    )
                )
        says = f"Volume = length × width × height: {shown(x)} × {shown(y)} × {shown(z)} = {shown(value)} {cubed(unit)}."
        scenes.append(Scene(f"The volume: {result}", says, figure.shapes(1.0, done=True)))
    else:
        value = 2 * (x * y + x * z + y * z)
        result = f"{shown(value)} {squared(unit)}"
        scenes.append(
            Scene(
                "Top and bottom",
                f"{floor}, and that twice: {shown(2 * x * y)} {squared(unit)}.",
                figure.shapes(face="top"),
            )
        )
        scenes.append(
            Scene(
                "Front and back",
                f"{shown(x)} × {shown(z)} = {shown(x * z)}, twice: {shown(2 * x * z)} {squared(unit)}.",
                figure.shapes(face="front"),
            )
        )
        scenes.append(
            Scene(
                "Left and right",
                f"{shown(y)} × {shown(z)} = {shown(y * z)}, twice: {shown(2 * y * z)} {squared(unit)}.",
                figure.shapes(face="side"),
            )
        )
        says = (
            f"{shown(2 * x * y)} + {shown(2 * x * z)} + {shown(2 * y * z)} = {shown(value)} {squared(unit)}, "
            f"all six faces."
        )
        scenes.append(Scene(f"The surface: {result}", says, figure.shapes(face="all")))
    tale = Tale(
        title="Packing sugar cubes",
        setting="A kitchen, an empty box, and a sack of sugar cubes of one size.",
        text=[
            f"The box measures {w} by {d} by {h}. First the floor is covered with cubes, row by row; that is one "
            f"layer, {shown(x * y)} of them if each "
            f"has a side of 1 {unit or 'unit'}.",
            f"All layers are alike, and there are {shown(z)} of them, whole or in part. Whoever knows the floor "
            f"and the height need not count a single "
            "cube inside."
            + (f" The box holds {result}." if asked == "volume" else f" To paper its outside takes {result}."),
        ],
        mapping=[
            ("one sugar cube", f"1 {cubed(unit)}" if unit else "a unit cube"),
            ("the first layer", "length × width"),
            ("how many layers", "the height"),
            ("the full box", "the volume"),
        ],
    )
    return animation(
        f"The {asked}{'' if asked == 'volume' else ' area'} of a box, {w} by {d} by {h}",
        scenes,
        tale,
        measures.notes,
        result,
        value,
    )


class _Box:
    """A box seen from the front and above, at 45 degrees, with depths drawn half as long."""

    def __init__(self, w: float, d: float, h: float, names: tuple[str, str, str]) -> None:
        slant = 0.38 * d
        scale = min((RIGHT - LEFT) / (w + slant), (BOTTOM - TOP) / (h + slant))
        self.w, self.h, self.s = max(w * scale, 4), max(h * scale, 4), max(slant * scale, 3)
        self.x, self.y = round(180 - (self.w + self.s) / 2, 1), round(125 + (self.h + self.s) / 2, 1)
        self.names = names

    def shapes(self, full: float | None = None, done: bool = False, face: str = "") -> list[Shape]:
        x, y, w, h, s = self.x, self.y, self.w, self.h, self.s
        shapes: list[Shape] = []
        if full is not None:
            shapes += self._faces("f", h * full, "done" if done else "now")
        for name in ("top", "front", "side"):
            if face in (name, "all"):
                shapes.append(Path(f"face{name}", self._face(name, h), "done" if face == "all" else "now", filled=True))
        top = y - h
        shapes.append(
            Path(
                "edges",
                f"M{x} {y}h{w}v{-h}h{-w}zM{x} {top}l{s} {-s}h{w}l{-s} {s}M{x + w} {y}l{s} {-s}v{-h}",
            )
        )
        shapes.append(Label("w", round(x + w / 2, 1), y + 18, self.names[0], "mark"))
        shapes.append(
            Label(
                "h",
                x - 8,
                round(y - h / 2, 1),
                self.names[2],
                "mark",
                "end",
                size_within(self.names[2], max(x - 12, 30), 14),
            )
        )
        shapes.append(
            Label(
                "d",
                round(x + w + s / 2 + 8, 1),
                round(y - s / 2 + 8, 1),
                self.names[1],
                "mark",
                "start",
                size_within(self.names[1], max(352 - x - w - s / 2, 30), 14),
            )
        )
        return shapes

    def _faces(self, id: str, high: float, tone: Tone) -> list[Shape]:
        return [Path(f"{id}{name}", self._face(name, high), tone, filled=True) for name in ("top", "front", "side")]

    def _face(self, name: str, high: float) -> str:
        x, y, w, s = self.x, self.y, self.w, self.s
        top = y - high
        points = {
            "top": [(x, top), (x + w, top), (x + w + s, top - s), (x + s, top - s)],
            "front": [(x, y), (x + w, y), (x + w, top), (x, top)],
            "side": [(x + w, y), (x + w + s, y - s), (x + w + s, top - s), (x + w, top)],
        }
        return closed(points[name])


def cylinder(reading: Reading) -> Animation:
    measures = Measures(reading.text)
    one_of(reading, volume=r"\bvolume\b|\bcapacity\b")
    measures.named("radius", "diameter", "height")
    if "height" not in measures.found and (
        deep := AFTER["depth"].search(reading.text) or AFTER["length"].search(reading.text)
    ):
        measures.take("height", deep)
    given = "diameter" if "diameter" in measures.found else "radius"
    pi, named = pi_in(reading.text)
    length, height = measures.need(given, "height")
    radius = length.amount / 2 if given == "diameter" else length.amount
    unit = length.unit
    r = Length(radius, unit)
    value = pi * radius**2 * height.amount
    result = f"{about(value)} {cubed(unit)}"
    scale = min((RIGHT - LEFT) / float(2 * radius), (BOTTOM - TOP) / float(height.amount + radius * Fraction(3, 5)))
    rx, h = round(float(radius) * scale, 1), round(float(height.amount) * scale, 1)
    ry = round(rx * 0.3, 1)
    x, low = 180, round(125 + h / 2, 1)
    top = round(low - h, 1)

    def shapes(full: float | None, tone: Tone) -> list[Shape]:
        drawn: list[Shape] = []
        if full is not None:
            up = round(low - h * full, 1)
            drawn.append(
                Path("body", f"M{x - rx} {low}A{rx} {ry} 0 0 0 {x + rx} {low}V{up}H{x - rx}Z", tone, filled=True)
            )
            drawn.append(Path("top", _ellipse(x, up, rx, ry), tone, filled=True))
        drawn.append(
            Path("edges", f"{_ellipse(x, top, rx, ry)}M{x - rx} {top}V{low}A{rx} {ry} 0 0 0 {x + rx} {low}V{top}")
        )
        drawn.append(Line("r", x, low, x + rx, low, "mark"))
        drawn.append(Label("rl", x, round(low + ry + 16, 1), f"r = {r}", "mark"))
        drawn.append(
            Label("h", x - rx - 8, 125, str(height), "mark", "end", size_within(str(height), max(x - rx - 12, 30), 14))
        )
        return drawn

    base = pi * radius**2
    scenes = [Scene("Drawn to scale", f"A cylinder with the radius {r} and the height {height}.", shapes(None, ""))]
    if given == "diameter":
        scenes.append(Scene("Half of the diameter", f"The radius is {length} ÷ 2 = {r}.", shapes(None, "")))
    scenes.append(
        Scene(
            "The floor is a circle",
            f"π × r² = {named} × {shown(radius**2)} = {about(base)} {squared(unit)}.",
            shapes(0.0, "now"),
        )
    )
    scenes.append(
        Scene(
            "Fill it up",
            "At every height the water has the same surface, so each unit of height holds as much as any other.",
            shapes(0.5, "now"),
        )
    )
    scenes.append(
        Scene(
            f"The volume: {result}",
            f"Volume = floor × height: {named} × {shown(radius**2)} × {shown(height.amount)} = {about(value)} "
            f"{cubed(unit)}. "
            f"Exactly: {shown(radius**2 * height.amount)}π.",
            shapes(1.0, "done"),
        )
    )
    tale = Tale(
        title="The rain barrel",
        setting="A round barrel under a gutter.",
        text=[
            f"The barrel has a radius of {r} and stands {height} high. When the water is 1 {unit or 'unit'} deep, "
            f"it is a round pancake, "
            f"and covers the floor: {about(base)} {cubed(unit)}.",
            f"Every further hand's breadth adds another such pancake, for the barrel is as wide above as below. "
            f"Full to the brim it holds {result}.",
        ],
        mapping=[
            ("the floor of the barrel", "the circle π r²"),
            ("one pancake of water", "floor × 1"),
            ("how high it stands", "the height"),
            ("full to the brim", "the volume π r² h"),
        ],
    )
    return animation(
        f"The volume of a cylinder, {given} {length}, height {height}", scenes, tale, measures.notes, result, value
    )


def _ellipse(x: float, y: float, rx: float, ry: float) -> str:
    return f"M{x - rx} {y}A{rx} {ry} 0 1 1 {x + rx} {y}A{rx} {ry} 0 1 1 {x - rx} {y}Z"
