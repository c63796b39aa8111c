"""The fonts of slides: Noto Sans and Source Serif from their wheels, then what the system adds, by what they carry."""

from collections.abc import Iterator
from contextlib import suppress
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Literal, TypeAlias

from fontTools.ttLib import TTFont
from msgspec import Struct
from PIL import ImageFont, features
from PIL.ImageFont import Axis

Family: TypeAlias = Literal["sans", "serif"]
SHAPES = features.check("raqm")
"""Whether text can be shaped: without, letters that join or stand in reverse order cannot be drawn."""
SERIF = "SourceSerif4[opsz,wght].ttf"
SANS = "NotoSans[wght].ttf"
WITHOUT_SHAPING = (SANS, "NotoSansArmenian[wght].ttf", "NotoSansGeorgian[wght].ttf", "NotoSansEthiopic[wght].ttf")
SYMBOLS = ("NotoSansSymbols[wght].ttf", "NotoEmoji[wght].ttf")
CJK = "NotoSansCJK-VF.otf.ttc"
JAPANESE, KOREAN, SIMPLIFIED, TRADITIONAL = range(4)
"""The faces of its collection: all have all characters, each in the forms of its own country."""
SYSTEM_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts", "/Library/Fonts")
SYSTEM_FONTS = ("DejaVuSans.ttf", "FreeSans.ttf", "NotoSansMath-Regular.ttf", "NotoSansSymbols2-Regular.ttf")
REGULAR, BOLD = 400, 700


class Face(Struct, frozen=True):
    """One face of a font file."""

    path: str
    index: int = 0

    def has(self, text: str) -> bool:
        return all(ord(character) in _characters(self) for character in text)


@cache
def faces(family: Family, han: int) -> tuple[Face, ...]:
    """In the order to look in; `han` is the face for Chinese, Japanese and Korean."""
    return tuple(_faces(family, han))


@lru_cache(256)
def font(face: Face, size: int, weight: int) -> ImageFont.FreeTypeFont:
    """The face in a size, in pixels; in a weight, if it has any but its own."""
    engine = ImageFont.Layout.RAQM if SHAPES else ImageFont.Layout.BASIC
    loaded = ImageFont.truetype(face.path, size, face.index, layout_engine=engine)
    try:
        axes = loaded.get_variation_axes()
    except OSError:  # it has none
        return loaded
    loaded.set_variation_by_axes([_setting(axis, size, weight) for axis in axes])
    return loaded


def found() -> list[str]:
    """The names of the font files that slides are drawn with."""
    return [Path(face.path).name for face in faces("serif", SIMPLIFIED)]


def _faces(family: Family, han: int) -> Iterator[Face]:
    if family == "serif":
        yield Face(str(files("fontpkg_source_serif_4") / "files" / SERIF))
    wheel = Path(str(files("manimgx_fonts")))
    yield Face(str(wheel / SANS))
    for path in sorted(wheel.glob("*.ttf")):
        if "Italic" not in path.name and path.name not in (SANS, *SYMBOLS) and (SHAPES or path.name in WITHOUT_SHAPING):
            yield Face(str(path))
    yield from (Face(str(wheel / name)) for name in SYMBOLS)
    yield Face(str(files("manimgx_fonts_cjk") / CJK), han)
    folders = list(_system_folders())
    for name in SYSTEM_FONTS if SHAPES else ():
        yield from (Face(str(path)) for folder in folders for path in sorted(folder.rglob(name))[:1])


def _system_folders() -> Iterator[Path]:
    for name in SYSTEM_FOLDERS:
        with suppress(OSError, RuntimeError):  # the home is out of reach, as in a hardened unit, or there is none
            if (folder := Path(name).expanduser()).is_dir():
                yield folder


def _setting(axis: Axis, size: int, weight: int) -> float:
    wanted = {b"Weight": weight, b"Optical Size": size}.get(axis["name"] or b"", axis["default"] or 0)
    return min(max(wanted, axis["minimum"] or 0), axis["maximum"] or 0)


@cache
def _characters(face: Face) -> frozenset[int]:
    with TTFont(face.path, fontNumber=face.index, lazy=True) as opened:
        return frozenset(opened.getBestCmap())
