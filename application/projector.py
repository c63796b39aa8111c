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
from application.projections import Projection, Recorded, Rows, Stories, Told, Unreadable

log = structlog.get_logger()
PAGE = 2_000
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


class CannotFold(Exception):
    """An event cannot be read by this release."""


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
        """All generations that serve or are built; those of projections nobody knew before begin."""
        ...

    def advance(self, standing: Standing, step: Step) -> bool:
        """Add the rows to the view and move the checkpoint on, in one transaction; False when another was first.

        Raises BatchRefused when the database does not take the rows.
        """
        ...


class Reader:
    """Reads the log for all who are at the same place: what was read last is told again, not read again."""

    def __init__(self, source: Log, page: int = PAGE) -> None:
        self._source = source
        self._page = page
        self._stories = Stories(source.before)
        self._last: tuple[int, list[Told]] | None = None

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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._projections = projections
        self._checkpoints = checkpoints
        self._news = news
        self._clock = clock
        self._reader = Reader(source)
        self._resting: dict[tuple[str, int], float] = {}

    async def run(self) -> None:
        """Follow the log until cancelled."""
        with self._news.listen([LOG]) as ear:
            while True:
                try:
                    folded = await asyncio.to_thread(self.run_all)
                except Unavailable as away:
                    log.warning("projector.unavailable", reason=str(away))
                    folded = 0
                except Exception:
                    log.exception("projector.failed")
                    folded = 0
                if not folded:
                    await ear.heard(POLL_SECONDS)
                if folded < PAGE:
                    await asyncio.sleep(GATHER_SECONDS)

    def run_all(self) -> int:
        """A batch of each projection that serves; how many events the longest of them had. Raises Unavailable."""
        now = self._clock()
        return max(
            (
                self._run(standing)
                for standing in self._checkpoints.standings()
                if standing.state == "live" and self._resting.get((standing.name, standing.generation), 0.0) <= now
            ),
            default=0,
        )

    def run_once(self, name: str) -> int:
        """A batch of the projection that serves under this name; how many events it had. Raises Unavailable."""
        standings = self._checkpoints.standings()
        return max(self._run(standing) for standing in standings if (standing.name, standing.state) == (name, "live"))

    def _run(self, standing: Standing) -> int:
        projection = self._projections.get(standing.name)
        if projection is None or standing.parked or standing.revision != projection.revision:
            return 0
        told = self._reader.after(standing.position)
        return self._advance(standing, projection, told) if told else 0

    def _advance(self, standing: Standing, projection: Projection, told: Sequence[Told]) -> int:
        """Fold and write. Rows that the database refuses are halved until the event at fault stands alone."""
        step = fold(projection, told, standing.position)
        try:
            moved = self._checkpoints.advance(standing, step)
        except BatchRefused as refused:
            if step.events > 1:
                return self._advance(standing, projection, told[: step.events // 2])
            bad = told[0]
            step = Step({}, 0, standing.position, None, Poison(bad.position, bad.job_id, bad.version, str(refused)))
            moved = self._checkpoints.advance(standing, step)
        if not moved:
            self._resting[standing.name, standing.generation] = self._clock() + REST_SECONDS
            return 0
        if step.poison:
            log.error(
                "projection.parked",
                projection=standing.name,
                generation=standing.generation,
                position=step.poison.position,
                job_id=str(step.poison.job_id),
                version=step.poison.version,
                error=step.poison.error,
            )
        return step.events


def fold(projection: Projection, told: Sequence[Told], position: int) -> Step:
    """What a projection makes of events after `position`, up to the first that it cannot fold."""
    rows: Rows = {}
    at: datetime | None = None
    for n, happened in enumerate(told):
        try:
            at = _fold(projection, rows, happened)
        except Exception as failed:
            error = f"{type(failed).__name__}: {failed}"
            return Step(rows, n, position, at, Poison(happened.position, happened.job_id, happened.version, error))
        position = happened.position
    return Step(rows, len(told), position, at, None)


def _fold(projection: Projection, rows: Rows, told: Told) -> datetime:
    """Returns when it happened. Raises CannotFold, and whatever the fold does."""
    if isinstance(told, Unreadable):
        raise CannotFold(told.error)
    projection.fold(rows, told)
    return told.event.at
