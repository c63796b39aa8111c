"""News within this process: an asyncio side for what comes from threads."""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from application.news import ANY, JOBS, LOG, is_of_job


class _Ear:
    """See the port, `application.news.Listening`."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()

    async def heard(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class LocalNews:
    """Tells the ears of a topic. Make it in the event loop; `tell` may be called from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ears: dict[str, set[_Ear]] = {}

    @contextmanager
    def listen(self, topics: Collection[str]) -> Iterator[_Ear]:
        ear = _Ear()
        for topic in topics:
            self._ears.setdefault(topic, set()).add(ear)
        try:
            yield ear
        finally:
            for topic in topics:
                self._forget(topic, ear)

    def tell(self, topics: Collection[str]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, topics)

    def _tell(self, topics: Collection[str]) -> None:
        if ANY in topics:
            topics = list(self._ears)
        elif JOBS in topics:
            topics = {*topics, *filter(is_of_job, self._ears)}
        for topic in (*topics, LOG):
            for ear in self._ears.get(topic, ()):
                ear.tell()

    def _forget(self, topic: str, ear: _Ear) -> None:
        ears = self._ears.get(topic, set())
        ears.discard(ear)
        if not ears:
            self._ears.pop(topic, None)
