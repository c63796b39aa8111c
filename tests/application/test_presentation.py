"""A deck says which renderer makes it, and the worker runs that one's handler."""

from msgspec.json import decode, encode

from application.handlers import PlainJobContext, handler_for
from application.presentation import KIND, Presentation, Slide, Video, absent, presentation_handler, slide_image


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
