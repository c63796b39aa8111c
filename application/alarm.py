"""The alarm: tells those who wait for work when the moment of a job has come that is tried again, or was scheduled."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime

import structlog
from msgspec import Struct

from application.errors import Unavailable
from application.news import SOON, News, queue_topic

log = structlog.get_logger()
PERIOD = 1.0
"""Seconds between looks, at most; what comes to wait for a moment sooner than that is told of as SOON."""
PAUSE = 0.02
REST = 3
"""Seconds between looks, at least, or so many times what the last one took."""
LATE = 0.002
"""Seconds to look after a moment, so that it has come by the database's clock."""
WATCHED = 60.0
"""Seconds for which a queue is watched after somebody asked for its jobs."""


class Due(Struct, frozen=True):
    """What is due of some queues: which have jobs that came due since some moment, and the seconds until the next is.

    `now` is when that was so.
    """

    now: datetime
    came: Collection[str]
    next: float | None


Look = Callable[[Collection[str], datetime | None], Awaitable[Due]]
"""What came due in some queues since a moment, if one is given, and what will be next. Raises Unavailable."""


class Alarm:
    """Sleeps until the next moment at which a job of a watched queue is due, looks, and tells of the queues."""

    def __init__(self, look: Look, news: News, tell: Callable[[Collection[str]], None]) -> None:
        """`tell` tells in this process: other nodes have alarms of their own."""
        self._look = look
        self._news = news
        self._tell = tell
        self._watched: dict[str, float] = {}
        self._since: datetime | None = None

    def watch(self, queues: Collection[str]) -> None:
        """Somebody asks for jobs of these queues, and may wait for some."""
        if not self._watched.keys() >= set(queues):
            self._tell([SOON])
        self._watched.update(dict.fromkeys(queues, self._now()))

    async def run(self) -> None:
        """Tell of what is due, until cancelled."""
        with self._news.listen([SOON]) as ear:
            while True:
                begun, wait = self._now(), PERIOD
                try:
                    wait = await self.run_once()
                except Unavailable as away:
                    log.debug("alarm.unavailable", reason=str(away))
                except Exception:
                    log.exception("alarm.failed")
                rest = max(PAUSE, REST * (self._now() - begun))
                await asyncio.sleep(rest)
                await ear.heard(max(wait - rest, 0))

    async def run_once(self) -> float:
        """Tell of the queues that have jobs which came due since the last look; returns the seconds until the next."""
        now = self._now()
        self._watched = {queue: at for queue, at in self._watched.items() if now - at < WATCHED}
        if not self._watched:
            return PERIOD
        due = await self._look(list(self._watched), self._since)
        self._since = due.now
        if due.came:
            self._tell([queue_topic(queue) for queue in due.came])
        return PERIOD if due.next is None else due.next + LATE

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
