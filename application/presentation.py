"""Presentations: slides become a video, drawn by the renderer that the deck names."""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias
from unicodedata import east_asian_width

from msgspec import Meta, Struct
from msgspec.json import Decoder

from application.handlers import Artifact, GiveUp, Handler, JobContext, handler_for
from application.language import NOT_BLANK

KIND = "presentation"
VIDEO = "video.mp4"
HEARTBEAT_SECONDS = 10.0
MOST_SLIDES = 100
SHORTEST, LONGEST = 4.0, 600.0
"""Seconds for which a slide is shown."""

Renderer: TypeAlias = Literal["local", "elai"]
Theme: TypeAlias = Literal["light", "dark", "paper"]
Size: TypeAlias = Literal["720p", "1080p"]
Heading: TypeAlias = Annotated[str, Meta(max_length=300, pattern=NOT_BLANK)]
Bullet: TypeAlias = Annotated[str, Meta(max_length=10_000, pattern=NOT_BLANK)]


class Slide(Struct, frozen=True, forbid_unknown_fields=True):
    """One slide. `notes` are what is said to it: the video's captions.

    Without `seconds` it is shown for as long as its notes take to say or, when it has none, its text to read: 2 s and
    one more for every 15 characters, a Chinese, Japanese or Korean one counting three times; 4 s at least.
    """

    title: Heading
    bullets: Annotated[list[Bullet], Meta(max_length=50)] = []
    notes: Annotated[str, Meta(max_length=10_000)] = ""
    seconds: Annotated[float, Meta(ge=0.5, le=LONGEST)] | None = None


class Presentation(Struct, frozen=True, forbid_unknown_fields=True):
    """What becomes a video. A slide whose text is too long for one image goes on on further ones."""

    title: Heading
    slides: Annotated[list[Slide], Meta(min_length=1, max_length=MOST_SLIDES)]
    theme: Theme = "light"
    size: Size = "1080p"
    renderer: Renderer = "local"


class SlideImages(Struct, frozen=True):
    """The images of one slide: the first and, of a long one, those it goes on on."""

    image: Artifact
    continued: list[Artifact] = []


class Video(Struct, frozen=True, kw_only=True):
    """The result: the job's files, and of the video its `duration` in seconds, `width` and `height` in pixels.

    `slides` has an entry for each slide, or none when the renderer gives out no images; `missing` are the characters
    that no font had.
    """

    video: Artifact
    thumbnail: Artifact
    slides: list[SlideImages]
    duration: float
    width: int
    height: int
    renderer: Renderer
    missing: list[str] = []


def slide_image(number: int, page: int = 1) -> str:
    """The name of a slide's image, or of one it goes on on; both are counted from 1."""
    return f"slide-{number:03}.png" if page == 1 else f"slide-{number:03}-{page}.png"


def shown_for(slide: Slide) -> float:
    """For how many seconds a slide is shown; see Slide."""
    if slide.seconds is not None:
        return slide.seconds
    text = slide.notes.strip() or " ".join([slide.title, *slide.bullets])
    characters = sum(3 if east_asian_width(character) in "WF" else 1 for character in text)
    return min(max(2 + characters / 15, SHORTEST), LONGEST)


def presentation_handler(renderers: Mapping[Renderer, Handler]) -> Handler:
    """The handler of presentation jobs: each renderer is one of its own, async or plain, and takes the decks that
    name it.
    """

    def choose(deck: Presentation) -> Handler:
        return renderers[deck.renderer]

    return Handler(KIND, choose, Presentation, Video, Decoder(Presentation).decode, choose=choose)


def absent(renderer: Renderer, remedy: str = "choose another") -> Handler:
    """Refuses for good the decks of a renderer that this worker does not have."""

    async def refuse(job: JobContext, deck: Presentation) -> Video:
        raise GiveUp(f"the renderer {renderer!r} is not there: {remedy}")

    return handler_for(KIND, refuse)
