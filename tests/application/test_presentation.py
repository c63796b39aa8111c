"""A deck says which renderer makes it, and the worker runs that one's handler."""

import pytest
from msgspec.json import decode, encode

from application.handlers import PlainJobContext, handler_for
from application.presentation import (
    KIND,
    Presentation,
    Slide,
    Video,
    absent,
    presentation_handler,
    shown_for,
    slide_image,
)


def drawn(job: PlainJobContext, deck: Presentation) -> Video:
    raise AssertionError("nobody calls it here")


def test_deck_is_handled_by_the_renderer_that_it_names() -> None:
    local, elai = handler_for(KIND, drawn), absent("elai")
    handler = presentation_handler({"local": local, "elai": elai})
    assert handler.choose is not None
    assert handler.choose(Presentation("t", [Slide("s")])) is local
    assert handler.choose(Presentation("t", [Slide("s")], renderer="elai")) is elai


def test_continued_images_are_named_after_their_slide() -> None:
    assert [slide_image(7), slide_image(7, 2), slide_image(100)] == [
        "slide-007.png",
        "slide-007-2.png",
        "slide-100.png",
    ]


def test_deck_survives_being_recorded() -> None:
    deck = Presentation("t", [Slide("s", ["a"], "n", 3.5)], "paper", "720p", "elai")
    assert decode(encode(deck), type=Presentation) == deck


@pytest.mark.parametrize(
    ("slide", "seconds"),
    [
        (Slide("s", notes="x" * 1500, seconds=7.5), 7.5),
        (Slide("s", ["bullet"], notes="x" * 150), 12),
        (Slide("title", ["x" * 144]), 12),
        (Slide("s", notes="日" * 50), 12),
        (Slide("s"), 4),
        (Slide("s", notes="x" * 10_000), 600),
    ],
)
def test_slide_is_shown_for_as_long_as_it_says_or_takes(slide: Slide, seconds: float) -> None:
    assert shown_for(slide) == pytest.approx(seconds)
