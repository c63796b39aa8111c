"""Presentations made by a studio, an outside service: the video is ordered once, watched, and fetched."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import exp
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Protocol, TypeVar

import structlog
from msgspec import Struct

from application.handlers import GiveUp, Handle, JobContext, RetryLater
from application.presentation import VIDEO, Presentation, Renderer, Video

T = TypeVar("T")
log = structlog.get_logger()
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0
"""Seconds between two looks: short videos are soon ready, and long ones are not asked for all the time."""
LONGEST_WAIT = 2 * 3600.0
"""Seconds an attempt waits for a video, from its order to its last byte."""
BUSY_SECONDS = 5.0
"""Before an order is tried again, where the studio names no moment."""
TYPICAL_RENDER = 300.0
"""Seconds, by which progress is estimated: no studio says how far it is."""
WITHDRAWAL_SECONDS = 60.0

State = Literal["draft", "queued", "rendering", "ready", "failed"]
ReportProgress = Callable[[float], Awaitable[None]]


class Film(Struct, frozen=True, kw_only=True):
    """An order as the studio has it: `url` is there once it is ready, and `reason` when it failed."""

    id: str
    state: State
    url: str | None = None
    thumbnail_url: str | None = None
    reason: str | None = None


class Fetched(Struct, frozen=True, kw_only=True):
    """A film that was fetched: its files, and what was seen in them."""

    video: Path
    thumbnail: Path
    thumbnail_type: str
    duration: float
    width: int
    height: int


class StudioRefused(Exception):
    """The studio will not do it however often it is asked; the message names the setting to fix, if one is."""


class StudioLost(Exception):
    """The studio no longer has what was ordered."""


class StudioBusy(Exception):
    """The studio cannot answer now; ask again after `delay` seconds, if it names any."""

    def __init__(self, reason: str, delay: float | None = None) -> None:
        super().__init__(reason)
        self.delay = delay


class Studio(Protocol):
    """Raises `StudioRefused`, `StudioLost` or `StudioBusy`, and nothing of its transport."""

    @property
    def renderer(self) -> Renderer: ...

    async def find(self, key: str) -> str | None:
        """The order that was created under `key`, if the studio has it and it has not failed."""
        ...

    async def create(self, deck: Presentation, key: str) -> str:
        """A new order, which waits to be rendered; its id there."""
        ...

    async def render(self, id: str, key: str) -> None: ...

    async def look(self, id: str) -> Film: ...

    async def fetch(self, film: Film, folder: Path, progress: ReportProgress) -> Fetched:
        """The files of a film that is ready, in constant memory."""
        ...

    async def delete(self, id: str) -> None:
        """Stop rendering and forget the order; one that is gone already is no error."""
        ...


def studio_handler(
    studio: Studio,
    *,
    first_pause: float = FIRST_PAUSE,
    longest_pause: float = LONGEST_PAUSE,
    longest_wait: float = LONGEST_WAIT,
) -> Handle:
    """The handler of presentations that `studio` renders. One order for all attempts: what is recorded is watched."""

    async def present(job: JobContext, deck: Presentation) -> Video:
        id: str | None = None
        try:
            with _for_the_worker():
                await job.progress(0.01, "ordering the video")
                id = await job.submit("video", _order, studio, deck, job.attempt > 1)
                await job.submit("render", _start, studio, id)
                watch = _Watch(job, studio, id, first_pause, longest_pause)
                return await _within(longest_wait, id, job.step("files", _fetch, job, studio, watch))
        except asyncio.CancelledError:
            if job.cancelled:  # and not because the worker stops, whose successor goes on watching
                await _withdraw(job, studio, id)
            raise

    return present


async def _order(studio: Studio, deck: Presentation, again: bool, *, idempotency_key: str) -> str:
    """An attempt before may have died between the order and its record: then the order is there."""
    found = await studio.find(idempotency_key) if again else None
    return found or await studio.create(deck, idempotency_key)


async def _start(studio: Studio, id: str, *, idempotency_key: str) -> str:
    """Have it rendered, unless an attempt before did and died before that was recorded."""
    if (await studio.look(id)).state == "draft":
        await studio.render(id, idempotency_key)
    return id


class _Watch:
    """Looks after an order, ever less often, through any time in which the studio is busy."""

    def __init__(self, job: JobContext, studio: Studio, id: str, first_pause: float, longest_pause: float) -> None:
        self._job = job
        self._studio = studio
        self._id = id
        self._pause = first_pause
        self._longest_pause = longest_pause
        self._began = asyncio.get_running_loop().time()

    async def ready(self) -> Film:
        """The film, once it is ready. Raises GiveUp for one that failed."""
        while True:
            film = await self._studio.look(self._id)
            if film.state == "failed":
                raise GiveUp(f"the studio could not render video {self._id}: {film.reason or 'it does not say why'}")
            if film.state == "ready":
                return film
            waited = asyncio.get_running_loop().time() - self._began
            await self._job.progress(
                0.1 + 0.7 * (1 - exp(-waited / TYPICAL_RENDER)), f"the studio has it: {film.state}"
            )
            await self.rest()

    async def outlast(self, call: Callable[[], Awaitable[T]]) -> T:
        """What comes of `call`, tried again for as long as the studio is busy."""
        while True:
            try:
                return await call()
            except StudioBusy as busy:
                await self._job.progress(0.0, f"waiting: {busy}")
                await self.rest(busy.delay or 0.0)

    async def rest(self, least: float = 0.0) -> None:
        await asyncio.sleep(max(least, self._pause))
        self._pause = min(self._pause * 1.5, self._longest_pause)


async def _fetch(job: JobContext, studio: Studio, watch: _Watch) -> Video:
    """The finished film as the job's files."""

    async def part(fraction: float) -> None:
        await job.progress(0.8 + 0.15 * fraction, "fetching the video")

    async def fetched(folder: Path) -> Fetched:
        return await studio.fetch(await watch.ready(), folder, part)  # looked up each time: its links do not last

    with TemporaryDirectory(prefix="jobledger-studio-") as folder:
        film = await watch.outlast(partial(fetched, Path(folder)))
        video = await job.save_artifact(VIDEO, film.video, "video/mp4")
        thumbnail = await job.save_artifact(film.thumbnail.name, film.thumbnail, film.thumbnail_type)
    return Video(
        video=video,
        thumbnail=thumbnail,
        slides=[],
        duration=film.duration,
        width=film.width,
        height=film.height,
        renderer=studio.renderer,
    )


async def _within(seconds: float, id: str, wait: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(seconds) as limit:
            return await wait
    except TimeoutError:
        if not limit.expired():
            raise
        raise GiveUp(f"video {id} was not there within {seconds:g} s; retry the job to go on waiting for it") from None


async def _withdraw(job: JobContext, studio: Studio, id: str | None) -> None:
    """Delete the order of a cancelled job, also one that has just been created and is not recorded yet."""
    try:
        async with asyncio.timeout(WITHDRAWAL_SECONDS):
            while True:
                try:
                    if order := id or await studio.find(f"{job.id}:video"):
                        await studio.delete(order)
                except StudioBusy as busy:
                    await asyncio.sleep(busy.delay or FIRST_PAUSE)
                else:
                    return
    except (TimeoutError, StudioRefused) as error:
        log.warning("studio.not-withdrawn", job_id=str(job.id), reason=str(error) or "the studio does not answer")


@contextmanager
def _for_the_worker() -> Iterator[None]:
    try:
        yield
    except StudioRefused as refused:
        raise GiveUp(str(refused)) from refused
    except StudioLost as lost:
        raise GiveUp(f"{lost}; retry the job afresh to order it again") from lost
    except StudioBusy as busy:
        raise RetryLater(BUSY_SECONDS if busy.delay is None else busy.delay, str(busy)) from busy
