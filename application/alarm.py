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
    """By queue, the seconds until the first job after some moment is due: none or fewer when it is. `now` is when."""

    now: datetime
    seconds: dict[str, float]


Look = Callable[[Collection[str], datetime | None], Awaitable[Due]]
"""The next jobs of some queues that are due after a moment, or after now. Raises Unavailable."""


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
        if passed := [queue_topic(queue) for queue, seconds in due.seconds.items() if seconds <= 0]:
            self._tell(passed)
        return min((seconds + LATE for seconds in due.seconds.values() if seconds > 0), default=PERIOD)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
