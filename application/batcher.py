"""Gathers what callers ask one by one into batches: while one batch is under way, the next one gathers."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from msgspec import Struct

from application.errors import Unavailable

Item = TypeVar("Item")
Answer = TypeVar("Answer")
MOST_WAITING = 50_000


class Asked(Struct, Generic[Item, Answer]):
    """What one caller asked together, and where its answers go."""

    items: Sequence[Item]
    weight: int
    answers: "asyncio.Future[list[Answer | Exception]]"


class Batcher(Generic[Item, Answer]):
    """Runs `execute` on threads of its own, with everything submitted since it last began.

    `execute` takes the items in the order they came and returns, for each, its answer or the exception to raise for
    its caller; what it raises itself is raised for all of them. An idle batcher adds no delay. `weigh` says how much
    of `heaviest` an item takes up; what was submitted together stays together, alone if it is heavier than that. Use
    from one event loop.
    """

    def __init__(
        self,
        execute: Callable[[Sequence[Item]], Sequence[Answer | Exception]],
        *,
        name: str,
        heaviest: int = 5_000,
        weigh: Callable[[Item], int] = lambda _: 1,
        patience: float = 10.0,
        threads: int = 1,
    ) -> None:
        """With more than one of `threads`, as many batches may be under way, and end in any order."""
        self._execute = execute
        self._heaviest = heaviest
        self._weigh = weigh
        self._patience = patience
        self._waiting: deque[Asked[Item, Answer]] = deque()
        self._waiting_items = 0
        self._threads = threads
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)
        self._deadlines: deque[tuple[float, asyncio.Future[list[Answer | Exception]]]] = deque()
        self._watchdog: asyncio.TimerHandle | None = None
        self._under_way = 0

    async def submit(self, item: Item) -> Answer:
        """The answer to `item`. Raises Unavailable when too much waits, or after `patience` seconds."""
        (answer,) = await self.submit_all((item,))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def submit_all(self, items: Sequence[Item]) -> list[Answer | Exception]:
        """For each of `items` its answer, or the exception that says why not; one batch takes them all.

        Raises Unavailable when too much waits, or after `patience` seconds.
        """
        if not items:
            return []
        if self._waiting_items >= MOST_WAITING:
            raise Unavailable("too many requests are waiting for the database; nothing was recorded; try again")
        loop = asyncio.get_running_loop()
        answers: asyncio.Future[list[Answer | Exception]] = loop.create_future()
        self._waiting.append(Asked(items, sum(map(self._weigh, items)), answers))
        self._waiting_items += len(items)
        self._watch(loop, answers)
        if self._under_way < self._threads:
            self._under_way += 1
            loop.call_soon(self._begin, loop)
        return await answers

    def close(self) -> None:
        """Let what is under way end, and take no more."""
        self._pool.shutdown(wait=True)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = self._gather()
        if not batch:
            self._under_way -= 1
            return
        items = [item for asked in batch for item in asked.items]
        try:
            running = loop.run_in_executor(self._pool, self._execute, items)
        except RuntimeError:  # closed meanwhile
            self._under_way -= 1
            _fail(batch, Unavailable("the service is stopping; nothing was recorded"))
            return
        running.add_done_callback(lambda done: self._end(loop, batch, len(items), done))

    def _end(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[Asked[Item, Answer]],
        count: int,
        done: "asyncio.Future[Sequence[Answer | Exception]]",
    ) -> None:
        error = done.exception()
        if isinstance(error, Exception):
            _fail(batch, error)
        elif len(done.result()) != count:
            _fail(batch, RuntimeError("a batch was answered with another number of answers"))
        else:
            _settle(batch, done.result())
        self._forget_answered()
        self._begin(loop)

    def _watch(self, loop: asyncio.AbstractEventLoop, answers: "asyncio.Future[list[Answer | Exception]]") -> None:
        """Answer in time whatever happens. All have the same patience, so the first to come is the first to expire."""
        self._deadlines.append((loop.time() + self._patience, answers))
        if self._watchdog is None:
            self._watchdog = loop.call_at(self._deadlines[0][0], self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._forget_answered()
        while self._deadlines and self._deadlines[0][0] <= loop.time():
            _, answers = self._deadlines.popleft()
            if not answers.done():
                answers.set_exception(_no_answer(self._patience))
        next_look = self._deadlines[0][0] if self._deadlines else None
        self._watchdog = loop.call_at(next_look, self._expire, loop) if next_look else None

    def _forget_answered(self) -> None:
        while self._deadlines and self._deadlines[0][1].done():
            self._deadlines.popleft()

    def _gather(self) -> list[Asked[Item, Answer]]:
        """As much of what waits as one batch holds, without that whose caller has gone."""
        batch: list[Asked[Item, Answer]] = []
        weight = 0
        while self._waiting:
            asked = self._waiting[0]
            if not asked.answers.done():
                weight += asked.weight
                if batch and weight > self._heaviest:
                    break
                batch.append(asked)
            self._waiting.popleft()
            self._waiting_items -= len(asked.items)
        return batch


def _settle(batch: Sequence[Asked[Item, Answer]], answers: Sequence[Answer | Exception]) -> None:
    begin = 0
    for asked in batch:
        end = begin + len(asked.items)
        if not asked.answers.done():
            asked.answers.set_result(list(answers[begin:end]))
        begin = end


def _fail(batch: Sequence[Asked[Item, Answer]], error: Exception) -> None:
    for asked in batch:
        if not asked.answers.done():
            asked.answers.set_exception(error)


def _no_answer(patience: float) -> Unavailable:
    return Unavailable(
        f"the database gave no answer within {patience:g} s; it may still be recorded: look, or repeat "
        "the request with the same Idempotency-Key"
    )
