"""Text on slides: cleaned, split by the fonts that carry it, broken into lines, and drawn in either direction."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

from bidi import algorithm as bidi
from msgspec import Struct
from PIL import ImageDraw

from infrastructure.video.fonts import (
    JAPANESE,
    KOREAN,
    REGULAR,
    SIMPLIFIED,
    TRADITIONAL,
    Face,
    Family,
    faces,
    font,
)
from infrastructure.video.themes import Colour

EM = 100
"""Pixels of the size in which text is measured; widths are in ems, since they grow with the size."""
MOST_EVEN = 3
SLACK = 0.97
"""In small sizes letters are a part of a pixel wider than measured."""
ZERO_WIDTH_JOINER, ZERO_WIDTH_NON_JOINER = "\u200d", "\u200c"
REPLACEMENT = "\ufffd"
_DROPPED = {"Cc", "Cf", "Cs"}
_PRESENTATION = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_JOINED = re.compile(
    "[\U0001f1e6-\U0001f1ff]{2}|"  # the letters of a flag
    "(?:.[\U0001f3fb-\U0001f3ff]?(?:\u200d.[\U0001f3fb-\U0001f3ff]?)*)",
    re.DOTALL,
)
_NOT_BEFORE = frozenset("、。，．・：；？！）」』】〕〉》”’…ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ,.;:?!)]}%")
_NOT_AFTER = frozenset("（「『【〔〈《“‘([{")
_RIGHT_TO_LEFT = {"R", "AL", "AN"}


class Style(Struct, frozen=True):
    family: Family
    weight: int
    han: int = SIMPLIFIED


class Run(Struct, frozen=True):
    """Characters that one face draws in one direction."""

    text: str
    face: Face
    level: int


def clean(text: str) -> str:
    """The text as it is drawn: composed, in one paragraph, without what is not to be seen."""
    composed = unicodedata.normalize("NFC", " ".join(text.split()))
    kept = (c for c in composed if unicodedata.category(c) not in _DROPPED or c in "\u200c\u200d")
    return _PRESENTATION.sub("", "".join(kept)).strip()


def han_of(text: str) -> int:
    """Which country's forms its Chinese characters have, by the letters beside them."""
    if any("\u3040" <= c <= "\u30ff" for c in text):
        return JAPANESE
    if any("\uac00" <= c <= "\ud7af" or "\u1100" <= c <= "\u11ff" for c in text):
        return KOREAN
    return TRADITIONAL if any("\u3100" <= c <= "\u312f" for c in text) else SIMPLIFIED


def replaced(text: str, style: Style) -> tuple[str, set[str]]:
    """The text with U+FFFD for each character that no font has, and these characters."""
    missing = {c for c in set(text) if _face(c, style) is None and c not in "\u200c\u200d"}
    return "".join(REPLACEMENT if c in missing else c for c in text), missing


def is_right_to_left(text: str) -> bool:
    """Whether its first letter says so (UAX #9, P2 and P3)."""
    strong = (unicodedata.bidirectional(c) for c in text)
    return next((kind for kind in strong if kind in ("L", "R", "AL")), "L") != "L"


@lru_cache(50_000)
def width(text: str, style: Style) -> float:
    """In ems."""
    return sum(font(run.face, EM, style.weight).getlength(run.text) for run in _runs(text, style, 0)) / EM


def wrap(text: str, style: Style, room: float) -> list[str]:
    """The text in lines of `room` ems; what is longer and has no place to break is broken anywhere.

    A few lines are made about equally long. There is always one, if only an empty one.
    """
    room *= SLACK
    atoms = list(_atoms(text, style, room))
    lines = _filled(atoms, style, room)
    if 1 < len(lines) <= MOST_EVEN:
        for part in (0.55, 0.65, 0.75, 0.85, 0.92):
            if len(even := _filled(atoms, style, room * part)) == len(lines):
                return even
    return lines


def _filled(atoms: Sequence[tuple[str, bool]], style: Style, room: float) -> list[str]:
    lines: list[str] = []
    line, used = "", 0.0
    blank = width(" ", style)
    for atom, spaced in atoms:
        needed = width(atom, style)
        gap = blank if spaced and line else 0.0
        if line and used + gap + needed > room:
            lines.append(line)
            line, used, gap = "", 0.0, 0.0
        line += (" " if gap else "") + atom
        used += gap + needed
    return [*lines, line] if line or not lines else lines


def draw(
    canvas: ImageDraw.ImageDraw,
    place: tuple[float, float],
    line: str,
    style: Style,
    size: int,
    colour: Colour,
    *,
    backwards: bool = False,
) -> None:
    """Draw a line from where it begins on its baseline: at its right end when it is of a text that reads backwards."""
    x, y = place
    if backwards:
        x -= width(line, style) * size
    for run in _in_visual_order(_runs(line, style, int(backwards))):
        used = font(run.face, size, style.weight)
        direction = ("rtl" if run.level % 2 else "ltr") if used.layout_engine else None
        try:
            canvas.text((x, y), run.text, colour, used, anchor="ls", direction=direction)
        except OSError:  # FreeType has no room for the most intricate ligatures in bold
            used = font(run.face, size, REGULAR)
            canvas.text((x, y), run.text, colour, used, anchor="ls", direction=direction)
        x += used.getlength(run.text, direction=direction)


def _atoms(text: str, style: Style, room: float) -> Iterator[tuple[str, bool]]:
    """What is not broken, and whether a blank stands before it."""
    for word in text.split(" "):
        spaced = True
        for part in _parts(word):
            for piece in [part] if width(part, style) <= room else _broken(part, style, room):
                yield piece, spaced
                spaced = False


def _parts(word: str) -> Iterator[str]:
    """A word, between whose Chinese or Japanese characters a line may end, and behind hyphens and slashes."""
    part = ""
    for cluster in _clusters(word):
        wide = _is_wide(cluster) or (part and _is_wide(part[-1]))
        after_hyphen = len(part) > 2 and part[-1] in "-/–—"
        if part and (wide or after_hyphen) and cluster[0] not in _NOT_BEFORE and part[-1] not in _NOT_AFTER:
            yield part
            part = ""
        part += cluster
    if part:
        yield part


def _broken(part: str, style: Style, room: float) -> Iterator[str]:
    piece, used = "", 0.0
    for cluster in _clusters(part):
        needed = width(cluster, style)
        if piece and used + needed > room:
            yield piece
            piece, used = "", 0.0
        piece += cluster
        used += needed
    yield piece


def _clusters(text: str) -> Iterator[str]:
    """Characters with the marks on them, and emoji that are joined into one."""
    cluster = ""
    for found in _JOINED.findall(text):
        if cluster and (unicodedata.category(found[0]).startswith("M") or found[0] in "\u200c\u200d"):
            cluster += found
        else:
            if cluster:
                yield cluster
            cluster = found
    if cluster:
        yield cluster


def _is_wide(cluster: str) -> bool:
    return unicodedata.east_asian_width(cluster[0]) in "WF" and not "\uac00" <= cluster[0] <= "\ud7af"


@lru_cache(50_000)
def _face(cluster: str, style: Style) -> Face | None:
    seen = cluster.replace(ZERO_WIDTH_JOINER, "").replace(ZERO_WIDTH_NON_JOINER, "")
    return next((face for face in faces(style.family, style.han) if face.has(seen)), None)


def _runs(text: str, style: Style, base: int) -> list[Run]:
    levels = _levels(text, base)
    runs: list[Run] = []
    at = 0
    for cluster in _clusters(text):
        for part in [cluster] if _face(cluster, style) else cluster:
            face = _face(part, style) or faces(style.family, style.han)[0]
            level = levels[at]
            at += len(part)
            if runs and runs[-1].face == face and runs[-1].level == level:
                runs[-1] = Run(runs[-1].text + part, face, level)
            else:
                runs.append(Run(part, face, level))
    return runs


def _levels(text: str, base: int) -> list[int]:
    """The embedding level of each character (UAX #9)."""
    if base == 0 and not any(unicodedata.bidirectional(c) in _RIGHT_TO_LEFT for c in text):
        return [0] * len(text)
    storage = bidi.get_empty_storage()
    storage["base_level"], storage["base_dir"] = base, "R" if base else "L"
    bidi.get_embedding_levels(text, storage, False, False)
    bidi.explicit_embed_and_overrides(storage, False)
    bidi.resolve_weak_types(storage, False)
    bidi.resolve_neutral_types(storage, False)
    bidi.resolve_implicit_levels(storage, False)
    resolved = iter(storage["chars"])
    levels: list[int] = []
    for character in text:
        neutral = unicodedata.bidirectional(character) == "BN"  # taken out by rule X9
        levels.append((levels[-1] if levels else base) if neutral else next(resolved)["level"])
    return levels


def _in_visual_order(runs: list[Run]) -> list[Run]:
    """From left to right (UAX #9, L2)."""
    ordered = list(runs)
    for level in range(max((run.level for run in runs), default=0), 0, -1):
        start = 0
        while start < len(ordered):
            end = start
            while end < len(ordered) and ordered[end].level >= level:
                end += 1
            ordered[start:end] = reversed(ordered[start:end])
            start = end + 1
    return ordered
