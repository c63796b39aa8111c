"""Slides are drawn whatever their text: nothing is cut in silence, and what no font has is said."""

import time
from itertools import product

import pytest
from PIL import Image, ImageChops, ImageDraw

from application.presentation import Presentation, Size, Slide, Theme
from infrastructure.video import slides
from infrastructure.video.fonts import BOLD, JAPANESE, KOREAN, REGULAR, SERIF, SIMPLIFIED, faces, found
from infrastructure.video.slides import PIXELS, draw_slide
from infrastructure.video.text import Style, clean, draw, han_of, is_right_to_left, replaced, width, wrap
from infrastructure.video.themes import LOOKS, contrast

SANS = Style("sans", REGULAR)
SCRIPTS = {
    "Latin": "Zażółć gęślą jaźń, ætt, ß",
    "Greek": "Γειά σου Κόσμε",
    "Cyrillic": "Съешь же ещё этих мягких французских булок",
    "Hebrew": "שלום עולם",
    "Arabic": "السلام عليكم",
    "Devanagari": "नमस्ते दुनिया",
    "Thai": "สวัสดีชาวโลก",
    "Chinese": "事件溯源",
    "Japanese": "イベントソーシング",
    "Korean": "이벤트 소싱",
    "Georgian": "გამარჯობა",
    "emoji": "😀🚀👩‍👩‍👧🇩🇪👍🏽",
    "signs": "→ ≤ ∑ ∞ € ₽ ½ ²",
}
HOSTILE = {
    "a bullet of 10 000 characters": Slide("Long", ["word " * 2000]),
    "a word of 10 000 characters": Slide("Long", ["x" * 10_000]),
    "50 bullets": Slide("Many", [f"bullet {n}" for n in range(50)]),
    "a title of 300 wide characters": Slide("﷽" * 300, ["bullet"]),
    "a title of 300 words and no bullets": Slide("ab " * 100),
    "control characters": Slide("\x01a\x02\x1b[31m", ["\u202egnp.exe\u202c", "a\u0000b\ud800", "\ufeff\u200b\u2066"]),
    "nothing that can be seen": Slide("\u200b", ["\u200d", "\u0301"]),
    "marks upon marks": Slide("Z̸̢̛" + "\u0301" * 200, ["e" + "\u0323" * 500]),
    "flags and families": Slide("🇩🇪" * 40, ["👩‍👩‍👧" * 200, "\U0001f1e6", "\u200d\u200d"]),
    "both directions": Slide("(עברית) English [العربية] 123", ["١٢٣ + 45 = ١٦٨ (مجموع)", "א1ב2ג3"]),
    "unknown signs": Slide("\U0010fffd\ue000", ["\U000e0041\U000e007f", "\u0378"]),
}


def deck(*of: Slide, theme: Theme = "light", size: Size = "720p", title: str = "A deck") -> Presentation:
    return Presentation(title, list(of), theme, size)


def ink(image: Image.Image) -> tuple[int, int, int, int]:
    """The box of what is drawn, without the footer."""
    above = image.crop((0, 0, image.width, image.height * 940 // 1080))
    box = ImageChops.difference(above, Image.new("RGB", above.size, image.getpixel((0, 0)))).getbbox()
    assert box is not None
    return box


@pytest.mark.parametrize("theme", LOOKS)
def test_all_text_of_a_theme_stands_out(theme: Theme) -> None:
    look = LOOKS[theme]
    assert min(contrast(colour, look.background) for colour in (look.text, look.quiet, look.accent)) >= 4.5


def test_contrast_is_that_of_the_recommendation() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize(("theme", "size"), list(product(LOOKS, PIXELS)))
def test_every_theme_is_drawn_in_every_size(theme: Theme, size: Size) -> None:
    slide = Slide("Title", ["one", "two"])
    drawn = draw_slide(deck(slide, slide, theme=theme, size=size), 1)
    [image] = drawn.images
    assert image.size == PIXELS[size]
    assert image.getpixel((0, 0)) == LOOKS[theme].background
    colours = {colour for _, colour in image.getcolors(1 << 20) or ()}
    assert {LOOKS[theme].text, LOOKS[theme].accent, LOOKS[theme].track} <= colours


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_is_drawn_with_its_own_letters(script: str) -> None:
    text = SCRIPTS[script]
    drawn = draw_slide(deck(Slide(text, [text])), 1)
    assert drawn.missing == []
    shown, absent = replaced(clean(text), Style("sans", BOLD, han_of(text)))
    assert (shown, absent) == (clean(text), set())


def test_character_that_no_font_has_is_said_and_marked() -> None:
    drawn = draw_slide(deck(Slide("Private \ue000", ["\U000ffffd and \ue000"]), title="Deck \ue001"), 1)
    assert drawn.missing == ["\ue000", "\ue001", "\U000ffffd"]
    assert replaced("a\ue000", SANS)[0] == "a\ufffd"
    assert faces("sans", SIMPLIFIED)[0].has("\ufffd")


def test_fonts_come_with_the_package() -> None:
    names = found()
    assert {"SourceSerif4[opsz,wght].ttf", "NotoSans[wght].ttf", "NotoEmoji[wght].ttf"} <= set(names)
    assert "NotoSansCJK-VF.otf.ttc" in names


def test_a_home_that_is_out_of_reach_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a unit with ProtectHome. Root is refused no folder, but everybody a name that is too long."""
    monkeypatch.setenv("HOME", "/" + "h" * 300)
    faces.cache_clear()
    assert SERIF in found()


@pytest.mark.parametrize("slide", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("size", PIXELS)
def test_hostile_slide_is_drawn_within_its_margins(slide: Slide, size: Size) -> None:
    drawn = draw_slide(deck(slide, size=size), 1)
    wide, high = PIXELS[size]
    assert sum(drawn.shares) == pytest.approx(1)
    for image in drawn.images:
        left, top, right, bottom = ink(image)
        assert left > wide * 0.03
        assert right < wide * 0.97
        assert slide is HOSTILE["marks upon marks"] or (top > high * 0.03 and bottom < high * 0.9)


def test_long_text_goes_on_on_further_images_and_loses_no_word() -> None:
    words = [f"word{n}" for n in range(1500)]
    title, rest = slides._heading("Title", Style("sans", BOLD))
    size, pages = slides._laid(rest, [(" ".join(words), SANS)], slides.BOTTOM - slides.TOP - title.height)
    assert len(pages) > 1
    assert [word for page in pages for line in page for word in line.text.split()] == words
    assert size >= slides.BODY_SIZES[-1]
    drawn = draw_slide(deck(Slide("Title", [" ".join(words)])), 1)
    assert len(drawn.images) == len(drawn.shares) == len(pages)


def test_title_too_long_for_its_place_goes_on_below_it() -> None:
    words = [f"word{n}" for n in range(60)]
    title, rest = slides._heading(" ".join(words), Style("sans", BOLD))
    assert " ".join(title.lines).split() + rest[0][0].split() == words


def test_short_text_is_large_and_long_text_small() -> None:
    sizes = [slides._laid([], [("word " * count, SANS)], 700)[0] for count in (5, 150, 400)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


def test_lines_are_as_wide_as_they_may_be_and_no_wider() -> None:
    lines = wrap("the quick brown fox jumps over the lazy dog " * 20, SANS, 20)
    assert all(width(line, SANS) <= 20 for line in lines)
    assert all(width(line, SANS) > 14 for line in lines[:-1])


def test_a_few_lines_are_about_equally_long() -> None:
    one, other = wrap("Whoever has an old signature can check the whole log against it", SANS, 29)
    assert width(other, SANS) > width(one, SANS) / 2


def test_japanese_lines_do_not_begin_with_a_full_stop() -> None:
    text = "日本語の文。" * 30
    for room in (7, 8, 9, 10, 11):
        lines = wrap(text, Style("sans", REGULAR, JAPANESE), room)
        assert len(lines) > 1
        assert not any(line.startswith("。") for line in lines)
        assert "".join(lines) == text


def test_marks_stay_with_their_letters_and_emoji_are_not_taken_apart() -> None:
    for cluster in ("e\u0323\u0301", "👩‍👩‍👧", "🇩🇪", "👍🏽", "नि"):
        lines = wrap(cluster * 50, SANS, 5)
        assert len(lines) > 1
        assert all(len(line) % len(cluster) == 0 for line in lines)


def test_chinese_characters_have_the_forms_of_their_country() -> None:
    assert [han_of(text) for text in ("直接", "直接です", "직접 直接")] == [SIMPLIFIED, JAPANESE, KOREAN]


def test_text_is_cleaned_of_what_is_not_to_be_seen() -> None:
    assert clean(" a\x00\x1b[0m \n\t b\u202e\ufe0f ") == "a[0m b"
    assert clean("e\u0301") == "é"


def test_direction_is_that_of_the_first_letter() -> None:
    assert [is_right_to_left(text) for text in ("abc שלום", "שלום abc", "(123) ابج", "123", "")] == [
        *(False, True, True, False, False)
    ]


def drawn_line(text: str, *, backwards: bool) -> Image.Image:
    image = Image.new("RGB", (900, 100), "white")
    place = (890, 70) if backwards else (10, 70)
    draw(ImageDraw.Draw(image), place, text, SANS, 40, (0, 0, 0), backwards=backwards)
    return image


def test_hebrew_and_arabic_read_from_right_to_left_with_numbers_and_latin_inside() -> None:
    """The first word is at the right; the words of the other direction keep their own."""
    whole = drawn_line("שלום abc 123", backwards=True)
    assert ink(whole)[2] > 880
    first = drawn_line("שלום", backwards=True)
    right = (890 - int(width("שלום", SANS) * 40), 0, 900, 100)
    assert ImageChops.difference(whole.crop(right), first.crop(right)).getbbox() is None
    latin = width("123", SANS) * 40
    numbers = ink(whole)[0] - 3, 0, int(ink(whole)[0] + latin), 100
    assert (
        ImageChops.difference(
            whole.crop(numbers), drawn_line("123", backwards=False).crop((7, 0, int(10 + latin), 100))
        ).getbbox()
        is None
        or ink(whole)[0] > 10
    )


def test_arabic_letters_join() -> None:
    joined, apart = width("سلام", SANS), sum(width(letter, SANS) for letter in "سلام")
    assert joined < apart * 0.8


def test_a_full_deck_is_laid_out_in_seconds() -> None:
    text = "نص عربي 日本語 word " * 120
    started = time.process_time()
    drawn = draw_slide(deck(Slide("Mixed", [text, text, text])), 1)
    assert len(drawn.images) > 1
    assert time.process_time() - started < 60  # it never ends when it grows with the square of the text
