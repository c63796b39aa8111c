"""What slides look like: colours and typefaces."""

from typing import Literal, TypeAlias

from msgspec import Struct

from application.presentation import Theme

Colour: TypeAlias = tuple[int, int, int]


class Look(Struct, frozen=True, kw_only=True):
    """A theme. All colours but `background` and `track` are for text, and stand out from it by 4.5 to 1 at least."""

    background: Colour
    text: Colour
    quiet: Colour
    accent: Colour
    track: Colour
    headings: Literal["sans", "serif"]


LOOKS: dict[Theme, Look] = {
    "light": Look(
        background=(255, 255, 255),
        text=(23, 32, 51),
        quiet=(91, 103, 125),
        accent=(37, 99, 235),
        track=(228, 233, 242),
        headings="sans",
    ),
    "dark": Look(
        background=(15, 20, 33),
        text=(236, 240, 248),
        quiet=(150, 162, 186),
        accent=(94, 198, 255),
        track=(36, 44, 64),
        headings="sans",
    ),
    "paper": Look(
        background=(251, 246, 236),
        text=(48, 36, 27),
        quiet=(112, 92, 72),
        accent=(166, 58, 32),
        track=(235, 224, 204),
        headings="serif",
    ),
}


def contrast(one: Colour, other: Colour) -> float:
    """From 1 to 21 (WCAG 2.2, contrast ratio)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Colour) -> float:
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
