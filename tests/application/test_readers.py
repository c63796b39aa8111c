"""Readers: a few threads of their own, and an answer in time when none is free."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from application.errors import Unavailable
from application.readers import Readers

PATIENCE = 0.2
BOUND = 20.0


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def test_it_answers_what_was_read_and_raises_what_was_raised() -> None:
    def fail() -> None:
        raise ValueError("unreadable")

    async def ask() -> None:
        readers = Readers(PATIENCE)
        assert await readers(sum, [1, 2], start=3) == 6
        with pytest.raises(ValueError, match="unreadable"):
            await readers(fail)
        readers.close()

    asyncio.run(ask())


def test_who_finds_no_thread_free_is_refused_and_the_next_is_served(gate: threading.Event) -> None:
    async def ask() -> None:
        readers = Readers(PATIENCE, threads=1)
        stuck = asyncio.create_task(readers(gate.wait, BOUND))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await readers(int)
        gate.set()
        assert await stuck
        assert await readers(int) == 0
        readers.close()

    asyncio.run(ask())


def test_a_caller_that_hangs_up_frees_no_thread(gate: threading.Event) -> None:
    async def ask() -> None:
        readers = Readers(PATIENCE, threads=1)
        gone = asyncio.create_task(readers(gate.wait, BOUND))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        with pytest.raises(Unavailable):
            await readers(int)
        gate.set()
        readers.close()

    asyncio.run(ask())


def test_once_closed_it_refuses() -> None:
    async def ask() -> None:
        readers = Readers(PATIENCE)
        readers.close()
        with pytest.raises(Unavailable):
            await readers(int)

    asyncio.run(ask())
