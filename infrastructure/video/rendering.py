"""Rendering: slides are drawn and encoded, each in steps that are recorded, and joined to a video."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from msgspec import Struct
from PIL import Image

from application.handlers import Artifact, GiveUp, PlainJobContext
from application.presentation import VIDEO, Presentation, SlideImages, Video, shown_for, slide_image
from infrastructure.video.captions import captions
from infrastructure.video.film import TICKS, DoNotFit, Shot, encode, join
from infrastructure.video.slides import PIXELS, draw_slide

THUMBNAIL = "thumbnail.jpg"
THUMBNAIL_SIZE = (640, 360)
SHORTEST = 40
"""Ticks for which an image is shown, however many of them a slide goes on on."""
DRAWN = 0.4
"""Of the work on a slide; the rest is to encode it."""
JOINED = 0.95
"""Of all work: what is done when the segments are there."""


class DrawnSlide(Struct, frozen=True):
    """What the step of a slide records: its images, for how many ticks each is shown, and what no font had."""

    images: list[Artifact]
    ticks: list[int]
    missing: list[str]


class Files(Struct, frozen=True):
    """What the last step records."""

    video: Artifact
    thumbnail: Artifact


class Rendering:
    """A deck on its way to a video, and the files of this attempt."""

    def __init__(self, job: PlainJobContext, deck: Presentation, folder: Path) -> None:
        self._job = job
        self._deck = deck
        self._folder = folder

    def video(self) -> Video:
        slides: list[DrawnSlide] = []
        segments: list[Artifact] = []
        for number in range(1, len(self._deck.slides) + 1):
            slide = self._job.step(f"slide-{number:03}", self._draw, number)
            segments.append(self._job.step(f"segment-{number:03}", self._encode, number, slide))
            slides.append(slide)
        files = self._job.step("video", self._join, slides, segments)
        wide, high = PIXELS[self._deck.size]
        return Video(
            video=files.video,
            thumbnail=files.thumbnail,
            slides=[SlideImages(slide.images[0], slide.images[1:]) for slide in slides],
            duration=sum(sum(slide.ticks) for slide in slides) / TICKS,
            width=wide,
            height=high,
            renderer="local",
            missing=sorted({character for slide in slides for character in slide.missing}),
        )

    def _draw(self, number: int) -> DrawnSlide:
        drawn = draw_slide(self._deck, number)
        images = []
        for page, image in enumerate(drawn.images, 1):
            path = self._folder / slide_image(number, page)
            image.save(path)
            self._tell(number, DRAWN * page / len(drawn.images), "drawn")
            images.append(self._job.save_artifact(path.name, path, "image/png"))
        seconds = shown_for(self._deck.slides[number - 1])
        ticks = [max(round(share * seconds * TICKS), SHORTEST) for share in drawn.shares]
        return DrawnSlide(images, ticks, drawn.missing)

    def _encode(self, number: int, slide: DrawnSlide) -> Artifact:
        path = self._folder / f"segment-{number:03}.mp4"
        shots = [Shot(self._file(image), ticks) for image, ticks in zip(slide.images, slide.ticks, strict=True)]
        seconds = sum(slide.ticks) / TICKS

        def told(done: float) -> None:
            self._tell(number, DRAWN + (1 - DRAWN) * done / seconds, f"{done:.0f} of {seconds:.0f} s encoded")

        encode(shots, path, told)
        return self._job.save_artifact(path.name, path, "video/mp4")

    def _join(self, slides: list[DrawnSlide], segments: list[Artifact]) -> Files:
        lengths = [sum(slide.ticks) for slide in slides]
        shots = [Shot(self._file(segment), ticks) for segment, ticks in zip(segments, lengths, strict=True)]
        starts = [0, *accumulate(lengths)]
        spoken = [
            caption
            for slide, start, ticks in zip(self._deck.slides, starts, lengths, strict=False)
            for caption in captions(slide.notes, start, ticks)
        ]
        path = self._folder / VIDEO
        try:
            join(shots, spoken, self._deck.title, path, lambda done: self._tell_joined(done * TICKS / starts[-1]))
        except DoNotFit as error:
            raise GiveUp(f"{error}, by another release; retry the job afresh") from error
        video = self._job.save_artifact(VIDEO, path, "video/mp4")
        return Files(video, self._thumbnail(slides))

    def _thumbnail(self, slides: Sequence[DrawnSlide]) -> Artifact:
        path = self._folder / THUMBNAIL
        with Image.open(self._file(slides[0].images[0])) as image:
            image.resize(THUMBNAIL_SIZE, Image.Resampling.LANCZOS).save(path, quality=90)
        return self._job.save_artifact(THUMBNAIL, path, "image/jpeg")

    def _file(self, artifact: Artifact) -> Path:
        """Where it is in this attempt's folder; one of an earlier attempt is fetched."""
        path = self._folder / artifact.name
        if not path.exists():
            path.write_bytes(self._job.read_artifact(artifact))
        return path

    def _tell(self, number: int, part: float, doing: str) -> None:
        count = len(self._deck.slides)
        self._job.progress(JOINED * (number - 1 + part) / count, f"slide {number} of {count}: {doing}")

    def _tell_joined(self, part: float) -> None:
        self._job.progress(JOINED + (1 - JOINED) * part, "joining the slides")
