"""Slides are laid out and drawn: a title, bullets in the largest size that fits, and as many images as they need."""

from collections.abc import Iterator, Sequence

from msgspec import Struct
from PIL import Image, ImageDraw

from application.presentation import Presentation, Size
from infrastructure.video.fonts import BOLD, REGULAR
from infrastructure.video.text import Style, clean, draw, han_of, is_right_to_left, replaced, width, wrap
from infrastructure.video.themes import LOOKS, Colour, Look

PIXELS: dict[Size, tuple[int, int]] = {"720p": (1280, 720), "1080p": (1920, 1080)}
WIDE, HIGH = 1920, 1080
"""Slides are laid out in these units, whatever their size."""
MARGIN = 140
TOP, BOTTOM = 128, 940
"""Between which the title and the bullets stand; the footer is below."""
INDENT = 52
TITLE_SIZES = (80, 72, 64, 58, 52)
COVER_SIZES = (124, 108, 96, 84, 72)
BODY_SIZES = range(54, 27, -2)
FOOTER_SIZE = 25
MOST_TITLE_LINES = 4
LEADING = 1.36
TITLE_LEADING = 1.18
GAP = 0.68
"""Between bullets, in ems."""


class Drawn(Struct, frozen=True):
    """A slide's images in order, the part of its text on each, 0..1, and the characters that no font had."""

    images: list[Image.Image]
    shares: list[float]
    missing: list[str]


class Line(Struct, frozen=True):
    """A line of a bullet or, of a title too long for its place, the rest. `marked` begins a bullet, `ends` ends one."""

    text: str
    style: Style
    backwards: bool
    bullet: bool
    marked: bool
    ends: bool


class Title(Struct, frozen=True):
    lines: list[str]
    style: Style
    size: int

    @property
    def height(self) -> float:
        return len(self.lines) * self.size * TITLE_LEADING


def draw_slide(deck: Presentation, number: int) -> Drawn:
    """Draw slide `number`, from 1."""
    slide, look = deck.slides[number - 1], LOOKS[deck.theme]
    missing: set[str] = set()
    heading = _text(slide.title, look.headings, BOLD, missing)
    bullets = [_text(bullet, "sans", REGULAR, missing) for bullet in slide.bullets]
    footer = _text(deck.title, "sans", REGULAR, missing)
    if not bullets and (cover := _title(*heading, COVER_SIZES)) is not None:
        pages = [_cover(deck, look, cover, footer, number)]
        return Drawn(pages, [1.0], sorted(missing))
    title, rest = _heading(*heading)
    top = TOP + title.height + 56
    size, laid = _laid(rest, bullets, BOTTOM - top)
    pages = []
    for n, lines in enumerate(laid, 1):
        image, canvas, k = _page(deck, look)
        _draw_title(canvas, k, look, title)
        _draw_body(canvas, k, look, lines, size, top, _spread(lines, size, BOTTOM - top))
        page = f"{number} / {len(deck.slides)}" + (f"   ·   {n} of {len(laid)}" if len(laid) > 1 else "")
        _draw_footer(canvas, k, look, footer, page, (number - 1 + n / len(laid)) / len(deck.slides))
        pages.append(image)
    read = [sum(len(line.text) for line in lines) + len(slide.title) for lines in laid]
    return Drawn(pages, [letters / sum(read) for letters in read], sorted(missing))


def _text(text: str, family: str, weight: int, missing: set[str]) -> tuple[str, Style]:
    """The text as it can be drawn, and its style; what no font has is added to `missing`."""
    cleaned = clean(text)
    style = Style("serif" if family == "serif" else "sans", weight, han_of(cleaned))
    shown, absent = replaced(cleaned, style)
    missing |= absent
    return shown, style


def _title(text: str, style: Style, sizes: Sequence[int]) -> Title | None:
    """In the largest size in which it is short enough, or None."""
    for size in sizes:
        lines = wrap(text, style, (WIDE - 2 * MARGIN) / size)
        if len(lines) <= (2 if size > sizes[-1] else MOST_TITLE_LINES):
            return Title(lines, style, size)
    return None


def _heading(text: str, style: Style) -> tuple[Title, list[tuple[str, Style]]]:
    """The title and, when it is too long for its place, the rest of it, which goes on with the bullets."""
    if (title := _title(text, style, TITLE_SIZES)) is not None:
        return title, []
    size = TITLE_SIZES[-1]
    lines = wrap(text, style, (WIDE - 2 * MARGIN) / size)
    return Title(lines[:MOST_TITLE_LINES], style, size), [(" ".join(lines[MOST_TITLE_LINES:]), style)]


def _laid(rest: list[tuple[str, Style]], bullets: list[tuple[str, Style]], room: float) -> tuple[int, list[list[Line]]]:
    """The size, and the lines of each image: as few images as can be and then as large a size."""
    fewest = len(_paged(rest, bullets, BODY_SIZES[-1], room))
    for size in BODY_SIZES:
        pages = _paged(rest, bullets, size, room)
        if len(pages) <= fewest:
            return size, pages
    raise AssertionError("the smallest size has the fewest images")


def _paged(rest: list[tuple[str, Style]], bullets: list[tuple[str, Style]], size: int, room: float) -> list[list[Line]]:
    pages: list[list[Line]] = [[]]
    used = 0.0
    for line in _lines(rest, bullets, size):
        if pages[-1] and used + size * LEADING > room:
            pages.append([])
            used = 0.0
        pages[-1].append(line)
        used += _height(line, size)
    return pages


def _lines(rest: list[tuple[str, Style]], bullets: list[tuple[str, Style]], size: int) -> Iterator[Line]:
    for bullet, texts in ((False, rest), (True, bullets)):
        for text, style in texts:
            lines = wrap(text, style, (WIDE - 2 * MARGIN - (INDENT if bullet else 0)) / size)
            backwards = is_right_to_left(text)
            for n, line in enumerate(lines):
                yield Line(line, style, backwards, bullet, bullet and n == 0, n == len(lines) - 1)


def _spread(lines: list[Line], size: int, room: float) -> float:
    """What is added between bullets when there is much room for them."""
    left = room - sum(_height(line, size) for line in lines)
    return max(0.0, min(0.8 * size, left / (sum(line.ends for line in lines) + 2)))


def _height(line: Line, size: int) -> float:
    return size * (LEADING + (GAP if line.ends else 0))


def _page(deck: Presentation, look: Look) -> tuple[Image.Image, ImageDraw.ImageDraw, float]:
    """An empty image, what draws on it, and its pixels to a unit."""
    image = Image.new("RGB", PIXELS[deck.size], look.background)
    return image, ImageDraw.Draw(image), image.width / WIDE


def _cover(deck: Presentation, look: Look, title: Title, footer: tuple[str, Style], number: int) -> Image.Image:
    """A slide of nothing but a title, which stands in the middle."""
    image, canvas, k = _page(deck, look)
    backwards = is_right_to_left(title.lines[0])
    top = (HIGH - title.height) / 2 - 20
    _box(canvas, k, (WIDE - MARGIN - 120 if backwards else MARGIN, top - 56, 120, 12), look.accent)
    _draw_lines(canvas, k, title, top, look.text)
    _draw_footer(canvas, k, look, footer, f"{number} / {len(deck.slides)}", number / len(deck.slides))
    return image


def _draw_title(canvas: ImageDraw.ImageDraw, k: float, look: Look, title: Title) -> None:
    left = WIDE - MARGIN - 76 if is_right_to_left(title.lines[0]) else MARGIN
    _box(canvas, k, (left, TOP - 40, 76, 9), look.accent)
    _draw_lines(canvas, k, title, TOP, look.text)


def _draw_lines(canvas: ImageDraw.ImageDraw, k: float, title: Title, top: float, colour: Colour) -> None:
    backwards = is_right_to_left(title.lines[0])
    x = WIDE - MARGIN if backwards else MARGIN
    for n, line in enumerate(title.lines):
        y = top + (n + 0.92) * title.size * TITLE_LEADING
        draw(canvas, (x * k, y * k), line, title.style, round(title.size * k), colour, backwards=backwards)


def _draw_body(
    canvas: ImageDraw.ImageDraw, k: float, look: Look, lines: list[Line], size: int, top: float, spread: float
) -> None:
    y = top + spread / 2
    for line in lines:
        baseline = y + size * 1.05
        indent = INDENT if line.bullet else 0
        x = WIDE - MARGIN - indent if line.backwards else MARGIN + indent
        if line.marked:
            dot, middle = size * 0.24, baseline - size * 0.34
            left = WIDE - MARGIN - dot - 6 if line.backwards else MARGIN + 6
            canvas.ellipse(_pixels(k, (left, middle - dot / 2, dot, dot)), look.accent)
        place = (x * k, baseline * k)
        draw(canvas, place, line.text, line.style, round(size * k), look.text, backwards=line.backwards)
        y += _height(line, size) + (spread if line.ends else 0)


def _draw_footer(
    canvas: ImageDraw.ImageDraw, k: float, look: Look, deck: tuple[str, Style], page: str, part: float
) -> None:
    """The deck's title, as much of it as there is room for, the slide's number, and how far the deck is."""
    text, style = deck
    size, y = round(FOOTER_SIZE * k), 1012 * k
    numbers = Style("sans", REGULAR)
    canvas_right = WIDE - MARGIN - width(page, numbers) * FOOTER_SIZE
    draw(canvas, (canvas_right * k, y), page, numbers, size, look.quiet)
    room = (canvas_right - MARGIN - 80) / FOOTER_SIZE
    [first, *more] = wrap(text, style, room)
    draw(canvas, (MARGIN * k, y), first + (" …" if more else ""), style, size, look.quiet)
    _box(canvas, k, (0, HIGH - 10, WIDE, 10), look.track)
    _box(canvas, k, (0, HIGH - 10, WIDE * part, 10), look.accent)


def _box(canvas: ImageDraw.ImageDraw, k: float, box: tuple[float, float, float, float], colour: Colour) -> None:
    canvas.rectangle(_pixels(k, box), colour)


def _pixels(k: float, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """A box of left, top, width and height in units, as its corners in pixels."""
    left, top, wide, high = box
    return left * k, top * k, (left + wide) * k - 1, (top + high) * k - 1
