"""Waking what waits for work in this process: an asyncio side for news that comes from threads."""

import asyncio
from collections.abc import Sequence

ANY_QUEUE = "*"


class LocalWakeups:
    """Wakes the waiters of a queue. Make it in the event loop; `wake` may be called from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, set[asyncio.Event]] = {}

    async def wait(self, queues: Sequence[str], seconds: float) -> None:
        """Return when one of the queues may have work, and at the latest after `seconds`."""
        woken = asyncio.Event()
        for queue in queues:
            self._waiting.setdefault(queue, set()).add(woken)
        try:
            async with asyncio.timeout(seconds):
                await woken.wait()
        except TimeoutError:
            pass
        finally:
            for queue in queues:
                self._forget(queue, woken)

    def wake(self, queues: set[str]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, queues)

    def _wake(self, queues: set[str]) -> None:
        for queue in set(self._waiting) if ANY_QUEUE in queues else queues:
            for woken in self._waiting.get(queue, ()):
                woken.set()

    def _forget(self, queue: str, woken: asyncio.Event) -> None:
        waiting = self._waiting.get(queue, set())
        waiting.discard(woken)
        if not waiting:
            self._waiting.pop(queue, None)
