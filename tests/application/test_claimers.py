"""Claimers are noticed by the way, and written down now and then."""

import asyncio
from collections.abc import Collection

from application.claimers import Claimer, Claimers
from application.claims import Claim
from application.errors import Unavailable
from infrastructure.postgres.claimers import forget_old_claimers, write_claimers
from infrastructure.postgres.database import Database
from tests.infrastructure.nodes import ask

ALL = Claim(worker="w1", queues=["q"])
SOME = Claim(worker="w1", queues=["q"], kinds=["b", "a"])


def test_one_that_asks_again_and_again_is_written_down_once_in_a_while() -> None:
    written: list[Collection[Claimer]] = []

    async def story() -> None:
        claimers = Claimers(written.append)
        for _ in range(3):
            claimers.notice(ALL, "database")
            claimers.notice(SOME, "http")
        await claimers.run_once()
        claimers.notice(SOME, "http")
        await claimers.run_once()

    asyncio.run(story())
    assert written == [{Claimer("w1", ("q",), None, "database"), Claimer("w1", ("q",), ("a", "b"), "http")}, set()]


def test_one_that_could_not_be_written_down_is_when_it_asks_again() -> None:
    written: list[Collection[Claimer]] = []

    def write(claimers: Collection[Claimer]) -> None:
        written.append(claimers)
        if len(written) == 1:
            raise Unavailable

    async def story() -> None:
        claimers = Claimers(write)
        for _ in range(2):
            claimers.notice(ALL, "database")
            await claimers.run_once()

    asyncio.run(story())
    assert written == [{Claimer("w1", ("q",), None, "database")}] * 2


def test_a_claimer_is_kept_from_when_it_was_first_seen_until_a_day_after_the_last_time(dsn: str) -> None:
    database = Database(dsn)
    wide = Claimer("w2", tuple("x" * 190 + str(n) for n in range(100)), None, "http")
    for _ in range(2):
        write_claimers(database, [Claimer("w1", ("q",), ("a", "b"), "http"), wide])
    rows = "SELECT worker, queues, kinds, via, first_seen_at < last_seen_at FROM claimers ORDER BY worker"
    assert ask(dsn, rows) == [
        ("w1", ["q"], ["a", "b"], "http", True),
        ("w2", list(wide.queues), None, "http", True),
    ]
    ask(dsn, "UPDATE claimers SET last_seen_at = last_seen_at - interval '25 hours' WHERE worker = 'w2'")
    assert forget_old_claimers(database) == 1
    assert ask(dsn, "SELECT worker FROM claimers") == [("w1",)]
    database.close()
