"""Following: what happens to a job, or in the whole log, as it happens, for any number of followers.

One tail per process serves all its followers: a follower sleeps until its job moved, and what followers then read is
read in batches, so that a piece of news costs one query and a sleeping follower neither a query nor a connection.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import takewhile
from typing import Protocol
from uuid import UUID

import structlog
from msgspec import Raw, Struct

from application.batcher import Batcher
from application.errors import Unavailable
from application.jobs import READ_PATIENCE, EventView, Jobs, JobView
from application.news import ANY, LOG, News, job_topic
from application.readers import Readers

log = structlog.get_logger()
LOOK_SECONDS = 1.0
"""How often the versions of all followed jobs are looked at, in one query, for news that got lost."""
PAGE = 50
"""Events a follower takes at a time: one that reads nothing keeps so many in memory, of 256 KiB at the most."""
LOG_PAGE = 200
"""Events of the whole log that are read at a time for all its followers."""
KEPT = 5_000
KEPT_BYTES = 32 * 1024 * 1024
"""Events of the whole log that are kept for followers near its end."""
CATCH_UP_SECONDS = 0.005
"""How soon to look again while the safe position lags behind the newest event."""


class History(Struct, frozen=True):
    """A wish for the events of a job with versions above `after`, `limit` at the most."""

    job_id: UUID
    after: int
    limit: int = PAGE


class LogFilter(Struct, frozen=True, kw_only=True):
    """Which events of the whole log: each field's values are alternatives, the fields all hold. Empty means any."""

    namespace: str | None = None
    type: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()
    actor: tuple[str, ...] = ()
    begin: datetime | None = None
    end: datetime | None = None

    def takes(self, entry: "LogEntry") -> bool:
        event = entry.event
        return (
            self.namespace in (None, entry.namespace)
            and (not self.type or event.type in self.type)
            and (not self.kind or entry.kind in self.kind)
            and (not self.actor or event.by in self.actor)
            and (self.begin is None or event.at >= self.begin)
            and (self.end is None or event.at < self.end)
        )


class LogEntry(Struct, frozen=True):
    """An event of the whole log, with what filters ask of its job."""

    position: int
    namespace: str
    kind: str
    event: EventView


class Histories(Protocol):
    """The port to what followers read. Calls block; run them on a thread."""

    def histories(self, wanted: Sequence[History]) -> list[list[EventView]]:
        """For each wish its events, in one query."""
        ...

    def versions(self, ids: Collection[UUID]) -> dict[UUID, int]:
        """The versions of these jobs, in one query."""
        ...

    def log(self, after: int, limit: int, wanted: LogFilter | None) -> list[LogEntry]:
        """Events of the whole log above a position, in order, below the safe position only."""
        ...

    def log_end(self) -> tuple[int, bool]:
        """The last position that is safe to read, and whether newer events are not safe yet."""
        ...


class Old(Protocol):
    """The port to a replica, which may lack the newest. Calls raise Unavailable when it is to be passed over."""

    def histories(self, wanted: Sequence[History]) -> list[list[EventView]]: ...

    def log(self, after: int, limit: int, wanted: LogFilter | None) -> list[LogEntry]: ...


class Following:
    """Hands events to followers as they are recorded, on whichever server."""

    def __init__(self, jobs: Jobs, histories: Histories, news: News, old: Old | None = None) -> None:
        """`old`: where pages of history are read that need not be the newest."""
        self._jobs = jobs
        self._histories = histories
        self._old = old
        self._news = news
        self._reads: Batcher[History, list[EventView]] = Batcher(
            histories.histories, name="histories", heaviest=500, patience=READ_PATIENCE
        )
        self._followed: dict[UUID, int] = {}
        self._stopped = False
        self.log = LogTail(histories, news, jobs.read, old)

    async def run(self, tell: Callable[[Collection[str]], None]) -> None:
        """Look for lost news until cancelled, and `tell` the followers of what moved."""
        await asyncio.gather(self._look_for_lost_news(tell), self.log.run())

    async def events(self, job_id: UUID, after: int, heartbeat: float) -> AsyncIterator[list[EventView]]:
        """A job's events with versions above `after`, as they come, until it has finished.

        An empty list says, every `heartbeat` seconds, that nothing happened. While the database is away it waits.
        """
        with self._follow(job_id) as moved:
            while not self._stopped:
                try:
                    page = await self._reads.submit(History(job_id, after))
                except Unavailable:
                    page = []
                if page:
                    after = page[-1].version
                    yield page
                if len(page) == PAGE:
                    continue
                if await self.has_ended(job_id, after):
                    return
                if not await moved(heartbeat):
                    yield []

    async def changed(
        self, job_id: UUID, known: tuple[int, ...] | None, seconds: float, namespace: str | None = None
    ) -> JobView:
        """The job once it is at none of the `known` versions, or has finished; as it is after `seconds`."""
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        with self._follow(job_id) as moved:
            while True:
                view = await self._jobs.get(job_id, namespace)
                there = view.version not in known if known is not None else view.finished_at is not None
                left = until - clock()
                if there or left <= 0 or self._stopped:
                    return view
                await moved(left)

    async def page(self, job_id: UUID, after: int, limit: int) -> list[EventView]:
        """A job's events with versions above `after`, `limit` at the most."""
        return await self._reads.submit(History(job_id, after, limit))

    async def history(self, job_id: UUID, after: int, limit: int, known: int) -> list[EventView]:
        """The same, from the replica if it has them: all up to `limit`, or to the version that is `known`."""
        if self._old is not None:
            try:
                [page] = await self._jobs.read(self._old.histories, [History(job_id, after, limit)])
            except Unavailable:
                page = []
            if page and page[-1].version >= min(after + limit, known):
                return page
        return await self.page(job_id, after, limit)

    async def log_page(self, after: int, limit: int, wanted: LogFilter) -> list[LogEntry]:
        """Events of the whole log above a position."""
        return await self._jobs.read(log_page, self._old, self._histories, after, limit, wanted)

    def stop(self, tell: Callable[[Collection[str]], None]) -> None:
        """Let all followers go, so that they can follow on from another server."""
        self._stopped = self.log.stopped = True
        tell([ANY])

    def close(self) -> None:
        self._reads.close()

    @contextmanager
    def _follow(self, job_id: UUID) -> Iterator["Moved"]:
        self._followed[job_id] = self._followed.get(job_id, 0) + 1
        try:
            with self._news.listen([job_topic(job_id)]) as ear:
                yield ear.heard
        finally:
            self._followed[job_id] -= 1
            if not self._followed[job_id]:
                del self._followed[job_id]

    async def has_ended(self, job_id: UUID, after: int) -> bool:
        """Whether the job has finished, and nothing of it comes after a version."""
        try:
            view = await self._jobs.get(job_id)
        except Unavailable:
            return False
        return view.finished_at is not None and view.version <= after

    async def _look_for_lost_news(self, tell: Callable[[Collection[str]], None]) -> None:
        seen: dict[UUID, int] = {}
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self._followed:
                continue
            try:
                found = await self._jobs.read(self._histories.versions, list(self._followed))
            except Unavailable:
                continue
            except Exception:
                log.exception("look.failed")
                continue
            if moved := [job_topic(id) for id, version in found.items() if seen.get(id) != version]:
                tell(moved)
            seen = found


def log_page(old: Old | None, histories: Histories, after: int, limit: int, wanted: LogFilter | None) -> list[LogEntry]:
    """A page of the whole log, from the replica if it has any of it.

    None there says nothing: it may be behind, and who took it for the end would pass over what it lacks.
    """
    if old is not None:
        try:
            if page := old.log(after, limit, wanted):
                return page
        except Unavailable:
            pass
    return histories.log(after, limit, wanted)


class Moved(Protocol):
    async def __call__(self, seconds: float) -> bool: ...


class LogTail:
    """The end of the whole log, read once for all who follow it; it reads nothing while nobody does."""

    def __init__(self, histories: Histories, news: News, read: Readers, old: Old | None = None) -> None:
        self._histories = histories
        self._old = old
        self._read_by = read
        self._news = news
        self._kept: deque[LogEntry] = deque()
        self._kept_bytes = 0
        self._begin = 0
        self._end = 0
        self._followers = 0
        self._grew = asyncio.Condition()
        self.stopped = False

    async def run(self) -> None:
        """Follow the log, while anybody does, until cancelled."""
        with self._news.listen([LOG]) as ear:
            while True:
                if not self._followers:
                    self._kept.clear()
                    self._kept_bytes = 0
                    self._begin = self._end = 0
                    await ear.heard(LOOK_SECONDS)
                    continue
                try:
                    lagging = await self._read()
                except Unavailable:
                    lagging = False
                except Exception:
                    log.exception("tail.failed")
                    lagging = False
                await ear.heard(CATCH_UP_SECONDS if lagging else LOOK_SECONDS)

    async def follow(self, after: int, wanted: LogFilter, heartbeat: float) -> AsyncIterator[list[LogEntry]]:
        """The events above a position as they come; an empty list after every `heartbeat` seconds of silence."""
        clock = asyncio.get_running_loop().time
        self._followers += 1
        try:
            spoke = clock()
            while not self.stopped:
                page, after = await self._page(after, wanted)
                if page:
                    yield page
                    spoke = clock()
                    continue
                left = spoke + heartbeat - clock()
                if left <= 0:
                    yield []
                    spoke = clock()
                    continue
                await self._wait(after, min(left, LOOK_SECONDS))
        finally:
            self._followers -= 1

    async def _page(self, after: int, wanted: LogFilter) -> tuple[list[LogEntry], int]:
        """What comes after a position, from what is kept if it reaches back that far, and the position reached."""
        begin = self._begin
        if begin and begin <= after:
            newer = list(takewhile(lambda entry: entry.position > after, reversed(self._kept)))
            return [entry for entry in reversed(newer) if wanted.takes(entry)], max(after, self._end)
        try:
            page = await self._read_by(log_page, self._old, self._histories, after, PAGE, wanted)
        except Unavailable:
            return [], after
        return page, page[-1].position if page else max(after, begin)

    async def _wait(self, after: int, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds), self._grew:
                await self._grew.wait_for(lambda: self._end > after or self.stopped)
        except TimeoutError:
            return

    async def _read(self) -> bool:
        """Take up what is new; whether there is more that is not safe to read yet."""
        if not self._begin:
            end, lagging = await self._read_by(self._histories.log_end)
            self._begin = self._end = max(end, 1)
            return lagging
        while True:
            page = await self._read_by(self._histories.log, self._end, LOG_PAGE, None)
            if page:
                self._kept.extend(page)
                self._kept_bytes += sum(map(_payload, page))
                while len(self._kept) > KEPT or self._kept_bytes > KEPT_BYTES:
                    dropped = self._kept.popleft()
                    self._kept_bytes -= _payload(dropped)
                    self._begin = dropped.position
                self._end = page[-1].position  # at once: a follower that finds the one must find the other
                async with self._grew:
                    self._grew.notify_all()
            if len(page) < LOG_PAGE:
                _, lagging = await self._read_by(self._histories.log_end)
                return lagging


def _payload(entry: LogEntry) -> int:
    """Bytes of JSON that an event carries."""
    return sum(len(bytes(value)) for value in entry.event.data.values() if isinstance(value, Raw))
