"""Threads for what is read one by one: a few of their own, so that a database that hangs holds nothing else up."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from application.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")
THREADS = 8


class Readers:
    """Calls what blocks on one of a few threads; waits for `patience` seconds for one to be free.

    How long a call takes once it has begun is for the store to bound. Use from one event loop.
    """

    def __init__(self, patience: float, threads: int = THREADS) -> None:
        self._patience = patience
        self._free = asyncio.Semaphore(threads)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="readers")

    async def __call__(self, read: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `read` returns. Raises Unavailable when all threads wait for a database that does not answer."""
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError:
            raise Unavailable(f"the database gave no answer within {self._patience:g} s; try again") from None
        try:
            running = asyncio.get_running_loop().run_in_executor(self._threads, lambda: read(*args, **kwargs))
        except RuntimeError:
            self._free.release()
            raise Unavailable("the service is stopping; ask another server") from None
        running.add_done_callback(lambda _: self._free.release())
        return await asyncio.shield(running)  # a caller that hangs up frees no thread

    def close(self) -> None:
        """Let the calls under way end, and take no more."""
        self._threads.shutdown(wait=True)
