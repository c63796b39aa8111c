"""Geometry: rectangles, triangles, circles, boxes and cylinders, drawn to scale."""

import re
from collections.abc import Callable

from infrastructure.language.amounts import Doubt
from infrastructure.language.animation import Animation
from infrastructure.language.reading import Reading
from infrastructure.language.subjects.geometry.circles import circle
from infrastructure.language.subjects.geometry.rectangles import rectangle
from infrastructure.language.subjects.geometry.solids import box, cylinder
from infrastructure.language.subjects.geometry.triangles import ladder, triangle

OTHER = re.compile(
    r"\bcones?\b|\bspheres?\b|\bpyramid|\bprism\b|\btrapez|\brhombus|\bparallelogram|\bpentagon|\bhexagon|\bsectors?\b|\barc\b|"
    r"\bsemi-?circ|\bhalf\b|\bquarter|\btwice\b|\bdouble|\bdegrees?\b|°|\bangles?\b(?! "
    r"triangle)|\bsimilar\b|\bequilateral|"
    r"\bisosceles|\bshaded|\bpath\b|\bborder\b|\bcosts?\b|[$€£]|\bper\b|\bliters?|\blitres?|\btiles?\b|\bmore "
    r"than\b|\bless than\b|"
    r"\blonger\b|\bshorter\b|\btimes\b|\bratio\b|\bincreas|\bdecreas|%|\bpercent|\bspeed\b|\bsmaller\b|\blarger\b|\binscribed|"
    r"\bcircumscribed|\btwo "
    r"(?:rect|tri|circ|squ)|\bcoordinates?\b|\bfence\b.*\bgate|\barray\b|\bmatrix\b|\bremain|\bcut\b|\bhow many\b",
    re.IGNORECASE,
)
FIGURES: list[tuple[str, Callable[[Reading], Animation]]] = [
    (r"\bladder\b", ladder),
    (r"\bcylind\w+\b", cylinder),
    (r"\bcubes?\b|\bcuboid\b|\bbox\b|\brectangular (?:solid|tank|prism)|\btank\b|\baquarium\b", box),
    (r"\btriangle\b|\bhypotenuse\b", triangle),
    (r"\bcircle\b|\bcircular\b", circle),
    (r"\brectang\w+\b|\bsquare\b(?! root)", rectangle),
]


def recognise(reading: Reading) -> Animation:
    text = reading.text
    if OTHER.search(re.sub(r"\bright[\s-]angled?\b", "right", text, flags=re.IGNORECASE)):
        raise Doubt
    for sign, play in FIGURES:
        if re.search(sign, text, re.IGNORECASE):
            return play(reading)
    raise Doubt
