"""The batcher: what is asked while it is busy goes together, and each caller gets its own answer."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from application.batcher import Batcher
from application.errors import NotFound, Unavailable


class Gate:
    """Answers items with their doubles, batch by batch, each when it is let through; -1 is refused."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self._room = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)

    def let(self, count: int = 1) -> None:
        self._room.release(count)

    def __call__(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(items))
        self.threads.add(threading.current_thread().name)
        self.entered.release()
        assert self._room.acquire(timeout=30)
        if 666 in items:
            raise RuntimeError("the whole batch")
        return [NotFound("no such item") if item == -1 else 2 * item for item in items]


@contextmanager
def batching(gate: Gate, **options: Any) -> Iterator[Batcher[int, int]]:
    batcher = Batcher[int, int](gate, name="test", **options)
    try:
        yield batcher
    finally:
        gate.let(100)
        batcher.close()


async def first_under_way(gate: Gate, batcher: Batcher[int, int], item: int) -> "asyncio.Task[int]":
    """Submit an item and return once its batch has begun."""
    task = asyncio.create_task(batcher.submit(item))
    assert await asyncio.to_thread(gate.entered.acquire, timeout=30)
    return task


async def submitted(batcher: Batcher[int, int], *items: int) -> "list[asyncio.Task[int]]":
    """Submit items, in order, without waiting for their answers."""
    tasks = [asyncio.create_task(batcher.submit(item)) for item in items]
    await asyncio.sleep(0)
    return tasks


def test_what_comes_while_a_batch_is_under_way_goes_together_in_the_next() -> None:
    async def story() -> None:
        gate = Gate()
        with batching(gate) as batcher:
            first = await first_under_way(gate, batcher, 1)
            rest = await submitted(batcher, 2, 3, 4)
            gate.let(2)
            assert await asyncio.gather(first, *rest) == [2, 4, 6, 8]
        assert gate.batches == [[1], [2, 3, 4]]
        assert len(gate.threads) == 1

    asyncio.run(story())


def test_with_two_threads_a_second_batch_may_be_under_way_and_end_first() -> None:
    async def story() -> None:
        gate = Gate()
        with batching(gate, threads=2) as batcher:
            first = await first_under_way(gate, batcher, 1)
            second = await first_under_way(gate, batcher, 2)
            third = await submitted(batcher, 3, 4)
            gate.let(3)
            assert await asyncio.gather(first, second, *third) == [2, 4, 6, 8]
        assert gate.batches == [[1], [2], [3, 4]]
        assert len(gate.threads) == 2

    asyncio.run(story())


def test_what_is_asked_in_one_go_is_one_batch() -> None:
    async def story() -> None:
        gate = Gate()
        gate.let(1)
        with batching(gate) as batcher:
            assert await asyncio.gather(*(batcher.submit(n) for n in range(50))) == [2 * n for n in range(50)]
        assert gate.batches == [list(range(50))]

    asyncio.run(story())


def test_a_refusal_is_raised_for_its_own_caller_only() -> None:
    async def story() -> None:
        gate = Gate()
        gate.let(1)
        with batching(gate) as batcher:
            answers = await asyncio.gather(*(batcher.submit(n) for n in (1, -1, 2)), return_exceptions=True)
        assert (answers[0], answers[2]) == (2, 4)
        assert isinstance(answers[1], NotFound)

    asyncio.run(story())


def test_a_batch_that_breaks_is_raised_for_all_its_callers_and_the_next_goes_on() -> None:
    async def story() -> None:
        gate = Gate()
        gate.let(2)
        with batching(gate) as batcher:
            answers = await asyncio.gather(*(batcher.submit(n) for n in (1, 666, 2)), return_exceptions=True)
            assert [str(answer) for answer in answers] == ["the whole batch"] * 3
            assert await batcher.submit(3) == 6

    asyncio.run(story())


def test_batches_keep_within_their_weight_and_the_heaviest_item_goes_alone() -> None:
    async def story() -> None:
        gate = Gate()
        with batching(gate, heaviest=10, weigh=lambda item: item) as batcher:
            first = await first_under_way(gate, batcher, 1)
            rest = await submitted(batcher, 4, 6, 1, 25, 9, 1, 1)
            gate.let(100)
            await asyncio.gather(first, *rest)
        assert gate.batches == [[1], [4, 6], [1], [25], [9, 1], [1]]

    asyncio.run(story())


def test_a_caller_that_left_is_not_asked_for() -> None:
    async def story() -> None:
        gate = Gate()
        with batching(gate) as batcher:
            first = await first_under_way(gate, batcher, 1)
            leaving, staying = await submitted(batcher, 2, 3)
            leaving.cancel()
            await asyncio.wait([leaving])
            gate.let(2)
            assert (await first, await staying) == (2, 6)
        assert gate.batches == [[1], [3]]

    asyncio.run(story())


def test_no_answer_in_time_is_unavailable_and_the_batcher_goes_on() -> None:
    async def story() -> None:
        gate = Gate()
        with batching(gate, patience=0.05) as batcher:
            with pytest.raises(Unavailable, match="may still be recorded"):
                await batcher.submit(1)
            with pytest.raises(Unavailable):
                await batcher.submit(2)
            gate.let(100)
            assert await batcher.submit(3) == 6
        assert gate.batches == [[1], [3]]

    asyncio.run(story())


def test_too_many_waiting_is_unavailable_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.batcher.MOST_WAITING", 2)

    async def story() -> None:
        gate = Gate()
        with batching(gate) as batcher:
            first = await first_under_way(gate, batcher, 1)
            rest = await submitted(batcher, 2, 3)
            with pytest.raises(Unavailable, match="too many"):
                await batcher.submit(4)
            gate.let(2)
            assert await asyncio.gather(first, *rest) == [2, 4, 6]

    asyncio.run(story())


def test_closing_lets_the_batch_under_way_end_and_refuses_what_waits() -> None:
    async def story() -> None:
        gate = Gate()
        batcher = Batcher[int, int](gate, name="test")
        first = await first_under_way(gate, batcher, 1)
        (waiting,) = await submitted(batcher, 2)
        gate.let(1)
        batcher.close()  # on the event loop, which therefore learns of the batch's end only afterwards
        assert await first == 2
        with pytest.raises(Unavailable, match="stopping"):
            await waiting
        with pytest.raises(Unavailable, match="stopping"):
            await batcher.submit(3)
        assert gate.batches == [[1]]

    asyncio.run(story())
