"""The projector: follows the log and keeps the views of projections, each in batches of fold, rows and checkpoint.

Any number of projectors may run. A projection's checkpoint is a row, and whoever has it locked writes the next batch;
who comes second writes nothing, and rests. What is folded is read before the lock, so that the transaction is short: an
open one holds back all readers of the whole log.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

import structlog
from msgspec import Struct

from application.errors import BatchRefused, Unavailable
from application.news import LOG, News
from application.projections import Happened, Projection, Recorded, Rows, Stories, Told, Unreadable

log = structlog.get_logger()
PAGE = 2_000
BUILD_PAGE = 10_000
POLL_SECONDS = 1.0
GATHER_SECONDS = 0.05
"""Between two rounds while there is news: what comes in meanwhile is one batch."""
REST_SECONDS = 0.5
"""For a projection that another projector was first at."""


class Standing(Struct, frozen=True):
    """How far a generation of a projection has got."""

    name: str
    generation: int
    revision: int
    state: str
    position: int
    verified: bool
    parked: bool


class Poison(Struct, frozen=True):
    """The event that a projection cannot fold, and why."""

    position: int
    job_id: UUID
    version: int
    error: str


class Step(Struct, frozen=True):
    """What one batch of a generation came to: its rows, its last event, and the one it stops before, if any."""

    rows: Rows
    events: int
    position: int
    at: datetime | None
    poison: Poison | None


class Log(Protocol):
    """The port to the whole log. Calls block; run them on a thread."""

    def page(self, after: int, limit: int) -> list[Recorded]:
        """Events above a position in order, below the safe position only."""
        ...

    def before(self, versions: Mapping[UUID, int]) -> Sequence[Recorded]:
        """See `application.projections.Load`."""
        ...


class Checkpoints(Protocol):
    """The port to what is kept. Calls block; run them on a thread."""

    def standings(self) -> list[Standing]:
        """All generations that serve or are built."""
        ...

    def advance(self, standing: Standing, step: Step) -> bool:
        """Add the rows to the view and move the checkpoint on, in one transaction; False when another was first.

        Raises BatchRefused when the database does not take the rows.
        """
        ...

    def begin(self, name: str, revision: int) -> None:
        """Have a generation built, unless one is."""
        ...

    def ask_to_verify(self, standing: Standing) -> None:
        """Have a generation that has caught up compared with a fresh fold, unless that is under way."""
        ...

    def swap(self, standing: Standing) -> bool:
        """Let a verified generation serve that has got as far as the one that does; False when it has not."""
        ...

    def sweep(self) -> int:
        """Remove some rows of generations that no longer serve; how many."""
        ...


class Reader:
    """Reads the log for all who are at the same place: what was read last is told again, not read again."""

    def __init__(self, source: Log, page: int = PAGE) -> None:
        self._source = source
        self._page = page
        self._stories = Stories(source.before)
        self._last: tuple[int, list[Told]] | None = None

    def forget(self) -> None:
        """Read again what was read last."""
        self._last = None

    def after(self, position: int) -> list[Told]:
        """What comes next after a position; perhaps not all there is by now, but nothing only if there is nothing."""
        if self._last is None or self._last[0] != position:
            told = self._stories.tell(self._source.page(position, self._page))
            if not told:
                return told
            self._last = (position, told)
        return self._last[1]


class Projector:
    """Keeps the views of `projections`, by their names."""

    def __init__(
        self,
        projections: Mapping[str, Projection],
        source: Log,
        checkpoints: Checkpoints,
        news: News,
        *,
        clock: Callable[[], float] = time.monotonic,
        build_page: int = BUILD_PAGE,
    ) -> None:
        self._projections = projections
        self._checkpoints = checkpoints
        self._news = news
        self._clock = clock
        self._source = source
        self._reader = Reader(source)
        self._build_page = build_page
        self._builders: dict[tuple[str, int], Reader] = {}
        self._resting: dict[tuple[str, int], float] = {}

    async def run(self) -> None:
        """Follow the log, and build what is to be built, until cancelled."""
        await asyncio.gather(self._follow(), self._build())

    async def _follow(self) -> None:
        with self._news.listen([LOG]) as ear:
            while True:
                folded = await _patiently(self.run_all)
                if not folded:
                    await ear.heard(POLL_SECONDS)
                if folded < PAGE:
                    await asyncio.sleep(GATHER_SECONDS)

    async def _build(self) -> None:
        while True:
            if not await _patiently(self.build):
                await asyncio.sleep(REST_SECONDS)

    def run_all(self) -> int:
        """A batch of each projection that serves; how many events the longest of them had. Raises Unavailable."""
        now = self._clock()
        return max(
            (
                self._run(standing, self._reader)
                for standing in self._checkpoints.standings()
                if standing.state == "live" and self._resting.get((standing.name, standing.generation), 0.0) <= now
            ),
            default=0,
        )

    def run_once(self, name: str) -> int:
        """A batch of the projection that serves under this name; how many events it had. Raises Unavailable."""
        standings = [s for s in self._checkpoints.standings() if (s.name, s.state) == (name, "live")]
        return max((self._run(standing, self._reader) for standing in standings), default=0)

    def build(self) -> int:
        """A batch of each generation that is built, and what follows when it has caught up. Raises Unavailable.

        Returns how much there was to do. What comes when is kept with the generation, so that whoever is there goes
        on: built, then compared with a fresh fold, then put in the place of the one that serves.
        """
        standings = self._checkpoints.standings()
        building = {(s.name, s.generation): s for s in standings if s.state == "building"}
        self._builders = {key: self._builders.get(key) or Reader(self._source, self._build_page) for key in building}
        done = sum(self._build_on(standing, self._builders[key]) for key, standing in building.items())
        for standing in standings:
            projection = self._projections.get(standing.name)
            if projection and standing.state == "live" and standing.revision < projection.revision:
                self._checkpoints.begin(standing.name, projection.revision)
        return done + self._checkpoints.sweep()

    def _build_on(self, standing: Standing, reader: Reader) -> int:
        folded = self._run(standing, reader)
        if folded >= self._build_page or standing.parked:
            return folded
        if not standing.verified:
            self._checkpoints.ask_to_verify(standing)
        elif self._checkpoints.swap(standing):
            log.info("projection.rebuilt", projection=standing.name, generation=standing.generation)
        return folded

    def _run(self, standing: Standing, reader: Reader) -> int:
        projection = self._projections.get(standing.name)
        if projection is None or standing.parked or standing.revision != projection.revision:
            return 0
        told = reader.after(standing.position)
        if not told:
            return 0
        step = self._advance(standing, projection, told)
        if step is None:
            self._resting[standing.name, standing.generation] = self._clock() + REST_SECONDS
            return 0
        if step.poison:
            reader.forget()
            log.error(
                "projection.parked",
                projection=standing.name,
                generation=standing.generation,
                position=str(step.poison.position),
                job_id=str(step.poison.job_id),
                version=step.poison.version,
                error=step.poison.error,
            )
        return step.events

    def _advance(self, standing: Standing, projection: Projection, told: Sequence[Told]) -> Step | None:
        """Fold and write what there is; None when another was first.

        Rows that the database refuses are halved until the event at fault stands alone.
        """
        step = fold(projection, told, standing.position)
        try:
            return step if self._checkpoints.advance(standing, step) else None
        except BatchRefused as refused:
            if step.events > 1:
                return self._advance(standing, projection, told[: step.events // 2])
            bad = told[0]
            poison = Poison(bad.position, bad.job_id, bad.version, str(refused))
            step = Step({}, 0, standing.position, None, poison)
            return step if self._checkpoints.advance(standing, step) else None


async def _patiently(work: Callable[[], int]) -> int:
    """How much was done; nothing while the database is away."""
    try:
        return await asyncio.to_thread(work)
    except Unavailable as away:
        log.warning("projector.unavailable", reason=str(away))
    except Exception:
        log.exception("projector.failed")
    return 0


def fold(projection: Projection, told: Sequence[Told], position: int) -> Step:
    """What a projection makes of events after `position`, up to the first that it cannot fold."""
    rows: Rows = {}
    at: datetime | None = None
    for n, happened in enumerate(told):
        if error := cannot_fold(projection, rows, happened):
            return Step(rows, n, position, at, Poison(happened.position, happened.job_id, happened.version, error))
        position = happened.position
        at = happened.event.at if isinstance(happened, Happened) else at
    return Step(rows, len(told), position, at, None)


def cannot_fold(projection: Projection, rows: Rows, told: Told) -> str | None:
    """Add an event to `rows`; or why that cannot be done."""
    if isinstance(told, Unreadable):
        return told.error
    try:
        projection.fold(rows, told)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
