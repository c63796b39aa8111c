"""Gathers what callers ask one by one into batches: while one batch is under way, the next one gathers."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from application.errors import Unavailable

Item = TypeVar("Item")
Answer = TypeVar("Answer")
MOST_WAITING = 50_000


class Batcher(Generic[Item, Answer]):
    """Runs `execute` on a thread of its own, with everything submitted since it last began.

    `execute` takes the items in the order they came and returns, for each, its answer or the exception to raise for
    its caller; what it raises itself is raised for all of them. An idle batcher adds no delay. `weigh` says how much
    of `heaviest` an item takes up; an item heavier than that runs alone. Use from one event loop.
    """

    def __init__(
        self,
        execute: Callable[[Sequence[Item]], Sequence[Answer | Exception]],
        *,
        name: str,
        heaviest: int = 5_000,
        weigh: Callable[[Item], int] = lambda _: 1,
        patience: float = 10.0,
    ) -> None:
        self._execute = execute
        self._heaviest = heaviest
        self._weigh = weigh
        self._patience = patience
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._deadlines: deque[tuple[float, asyncio.Future[Answer]]] = deque()
        self._watchdog: asyncio.TimerHandle | None = None
        self._busy = False

    async def submit(self, item: Item) -> Answer:
        """The answer to `item`. Raises Unavailable when too much waits, or after `patience` seconds."""
        if len(self._waiting) >= MOST_WAITING:
            raise Unavailable("too many requests are waiting for the database; nothing was recorded; try again")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, answer))
        self._watch(loop, answer)
        if not self._busy:
            self._busy = True
            loop.call_soon(self._begin, loop)
        return await answer

    def close(self) -> None:
        """Let the batch under way end, and take no more."""
        self._thread.shutdown(wait=True)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = self._gather()
        if not batch:
            self._busy = False
            return
        try:
            running = loop.run_in_executor(self._thread, self._execute, [item for item, _ in batch])
        except RuntimeError:  # closed meanwhile
            self._busy = False
            self._settle(batch, [Unavailable("the service is stopping; nothing was recorded")] * len(batch))
            return
        running.add_done_callback(lambda done: self._end(loop, batch, done))

    def _end(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[tuple[Item, asyncio.Future[Answer]]],
        done: "asyncio.Future[Sequence[Answer | Exception]]",
    ) -> None:
        error = done.exception()
        if isinstance(error, Exception):
            self._settle(batch, [error] * len(batch))
        elif len(done.result()) != len(batch):
            self._settle(batch, [RuntimeError("a batch was answered with another number of answers")] * len(batch))
        else:
            self._settle(batch, done.result())
        self._forget_answered()
        self._begin(loop)

    def _watch(self, loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[Answer]") -> None:
        """Answer in time whatever happens. All have the same patience, so the first to come is the first to expire."""
        self._deadlines.append((loop.time() + self._patience, answer))
        if self._watchdog is None:
            self._watchdog = loop.call_at(self._deadlines[0][0], self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._forget_answered()
        while self._deadlines and self._deadlines[0][0] <= loop.time():
            _, answer = self._deadlines.popleft()
            if not answer.done():
                answer.set_exception(_no_answer(self._patience))
        next_look = self._deadlines[0][0] if self._deadlines else None
        self._watchdog = loop.call_at(next_look, self._expire, loop) if next_look else None

    def _forget_answered(self) -> None:
        while self._deadlines and self._deadlines[0][1].done():
            self._deadlines.popleft()

    def _gather(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        """As many of the waiting items as one batch holds, without those whose caller has gone."""
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        weight = 0
        while self._waiting:
            item, answer = self._waiting[0]
            if answer.done():
                self._waiting.popleft()
                continue
            weight += self._weigh(item)
            if batch and weight > self._heaviest:
                break
            batch.append((item, answer))
            self._waiting.popleft()
        return batch

    @staticmethod
    def _settle(batch: list[tuple[Item, asyncio.Future[Answer]]], answers: Sequence[Answer | Exception]) -> None:
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)


def _no_answer(patience: float) -> Unavailable:
    return Unavailable(
        f"the database gave no answer within {patience:g} s; it may still be recorded: look, or repeat "
        "the request with the same Idempotency-Key"
    )
