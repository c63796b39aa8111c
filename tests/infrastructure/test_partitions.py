"""Months are made ahead while writers append, and events from the future are neither lost nor in the way."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg
import pytest
from eventsourcing.persistence import StoredEvent

from domain.ids import first_id, job_ids
from infrastructure.postgres import schema
from infrastructure.postgres.database import Database
from infrastructure.postgres.recorder import EventRecorder
from infrastructure.postgres.schema import MONTHS_AHEAD, add_partitions, migrate
from tests.infrastructure.nodes import Node, ask, new_job
from tests.waiting import eventually

LONGEST_APPEND = 1.0
"""Seconds that an append may take while a month is made; half of it is the wait for the table."""
PARTITIONS = "SELECT name, low, high FROM event_partitions"
EVENTS = "SELECT tableoid::regclass::text, xmin::text, ctid::text, * FROM events ORDER BY originator_id"
LAST_ID = UUID(int=2**128 - 1)


@pytest.fixture
def database(own: str) -> Iterator[Database]:
    database = Database(own)
    yield database
    database.close()


def month(ahead: int) -> datetime:
    """The beginning of the month that is `ahead` months from now."""
    now = datetime.now(UTC)  # and not that of when the tests began: the month may have ended since
    years, n = divmod(now.month - 1 + ahead, 12)
    return datetime(now.year + years, n + 1, 1, tzinfo=UTC)


def name(first: int, last: int | None = None) -> str:
    until = f"_to_{month(last):%Y_%m}" if last is not None else ""
    return f"events_{month(first):%Y_%m}{until}"


def put(dsn: str, *ids: UUID) -> None:
    """Events of jobs with ids of any time."""
    database = Database(dsn)
    EventRecorder(database).insert_events([StoredEvent(id, 1, "job.created", b"{}") for id in ids])
    database.close()


def id_in(ahead: int) -> UUID:
    (id,) = job_ids(1, month(ahead))
    return id


def names(dsn: str) -> list[str]:
    return [row[0] for row in ask(dsn, PARTITIONS)]


def add(dsn: str, ahead: int) -> int:
    ((added,),) = ask(dsn, "SELECT add_event_partitions(%s)", [ahead])
    return int(added)


def check_whole(dsn: str) -> None:
    """Every id has one place, and every partition guards its history and its positions."""
    partitions = ask(dsn, PARTITIONS)
    assert partitions[0][1] is None
    assert partitions[-1][0] == "events_after"
    assert partitions[-1][2] is None
    for (_, _, high), (_, low, _) in pairwise(partitions):
        assert high == low
    names = [row[0] for row in partitions]
    indexes = {row[0] for row in ask(dsn, "SELECT indexname FROM pg_indexes")}
    assert {f"{name}_{index}" for name in names for index in ("position", "recorded_at")} <= indexes
    guards = """
        SELECT tgrelid::regclass::text, count(*) FROM pg_trigger
        WHERE tgenabled = 'O' AND tgrelid::regclass::text LIKE 'events%' GROUP BY 1
    """
    assert dict(ask(dsn, guards)) == dict.fromkeys([*names, "events"], 2)
    for name in names[-5:]:
        for statement in ("UPDATE {} SET topic = 'x'", "DELETE FROM {}", "TRUNCATE {}"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                ask(dsn, statement.format(name))


class Writers:
    """Two servers that create jobs as fast as they can."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._stop = threading.Event()
        self.ids: list[UUID] = []
        self.longest = 0.0

    def write(self) -> None:
        with Node(self._dsn) as node:
            while not self._stop.is_set():
                began = time.monotonic()
                created = node.create(new_job())
                self.longest = max(self.longest, time.monotonic() - began)
                self.ids += created

    def wait_for_more(self) -> None:
        had = len(self.ids)
        eventually(lambda: len(self.ids) > had + 4)

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def writing(dsn: str) -> Iterator[Writers]:
    writers = Writers(dsn)
    with ThreadPoolExecutor(2) as threads:
        running: list[Future[None]] = [threads.submit(writers.write) for _ in range(2)]
        try:
            writers.wait_for_more()
            yield writers
        finally:
            writers.stop()
        for each in running:
            each.result(60)


class TestWhileWritersAppend:
    def test_months_are_made_without_losing_or_holding_up_an_append(self, own: str) -> None:
        with writing(own) as writers:
            for more in range(1, 7):
                eventually(partial(tried, own, MONTHS_AHEAD + more))
                writers.wait_for_more()
        assert names(own)[-2:] == [name(MONTHS_AHEAD + 6), "events_after"]
        assert [row[0] for row in ask(own, "SELECT originator_id FROM events ORDER BY 1")] == sorted(writers.ids)
        assert writers.longest < LONGEST_APPEND
        check_whole(own)

    def test_a_reader_that_takes_long_puts_it_off_and_holds_up_nobody(
        self, own: str, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(schema, "MONTHS_AHEAD", MONTHS_AHEAD + 1)
        before = names(own)
        with psycopg.connect(own) as reader, writing(own) as writers:
            reader.execute("SELECT 1 FROM events LIMIT 1")
            assert add_partitions(database) == 0
            assert migrate(database) == []
            writers.wait_for_more()
            assert names(own) == before
        assert writers.longest < LONGEST_APPEND
        assert capsys.readouterr().out.count("partitions.not_added") == 2
        assert add_partitions(database) == 1
        assert names(own) == [*before[:-1], name(MONTHS_AHEAD + 1), "events_after"]

    def test_an_append_from_the_future_that_is_under_way_is_not_dropped_with_the_split(self, own: str) -> None:
        id = id_in(MONTHS_AHEAD + 2)
        with psycopg.connect(own) as writer, ThreadPoolExecutor(1) as thread:
            writer.execute(
                "INSERT INTO events VALUES (%s, 1, 'x', '', decode(repeat('00', 32), 'hex'), 1, now())", [id]
            )
            adding = thread.submit(add, own, MONTHS_AHEAD + 1)
            waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
            eventually(lambda: ask(own, waiting) or adding.done())
            writer.commit()
            assert adding.result(30) == 1
        assert ask(own, "SELECT originator_id FROM events") == [(id,)]
        check_whole(own)


def tried(dsn: str, ahead: int) -> bool:
    """Whether there was a moment for it."""
    try:
        return add(dsn, ahead) == 1
    except psycopg.errors.LockNotAvailable:
        return False


class TestTheClockRunsAhead:
    def test_five_years_of_months_are_made_at_once(self, own: str) -> None:
        assert add(own, 60) == 60 - MONTHS_AHEAD
        assert names(own) == ["events_before", *(name(n) for n in range(61)), "events_after"]
        assert add(own, 60) == add(own, MONTHS_AHEAD) == 0
        check_whole(own)


class TestEventsFromTheFuture:
    def test_beyond_the_new_months_they_stay_where_they_are(self, own: str) -> None:
        ids = [id_in(40), LAST_ID]
        put(own, *ids)
        before = stored(own)
        assert add(own, 39) == 39 - MONTHS_AHEAD
        assert names(own) == ["events_before", *(name(n) for n in range(40)), "events_after"]
        assert stored(own) == before
        assert places(own) == ["events_after", "events_after"]
        check_whole(own)

    def test_within_them_they_have_their_month(self, own: str) -> None:
        put(own, id_in(27))
        before = stored(own)
        assert add(own, 30) == 30 - MONTHS_AHEAD
        assert names(own) == ["events_before", *(name(n) for n in range(31)), "events_after"]
        assert stored(own) == before
        assert places(own) == [name(27)]
        assert ask(own, "SELECT low, high FROM event_partitions WHERE name = %s", [name(27)]) == [
            (first_bound(27), first_bound(28))
        ]
        check_whole(own)

    def test_of_several_months_they_share_a_partition_among_months(self, own: str) -> None:
        put(own, id_in(27), id_in(28), id_in(31))
        before = stored(own)
        assert add(own, 33) == 2 + 1 + 2
        expected = [*(name(n) for n in range(27)), name(27, 31), name(32), name(33)]
        assert names(own) == ["events_before", *expected, "events_after"]
        assert stored(own) == before
        assert places(own) == [name(27, 31)] * 3
        put(own, id_in(29), id_in(32), id_in(50))
        assert places(own) == [name(27, 31)] * 4 + [name(32), "events_after"]
        assert add(own, 33) == 0
        assert add(own, 34) == 1
        check_whole(own)

    def test_that_reach_beyond_the_new_months_are_left_behind_by_events_after(self, own: str) -> None:
        put(own, id_in(26), id_in(60))
        assert add(own, 30) == 1 + 1
        assert names(own)[-3:] == [name(25), name(26, 60), "events_after"]
        assert add(own, 60) == 0
        assert add(own, 61) == 1
        assert names(own)[-2:] == [name(61), "events_after"]
        check_whole(own)

    def test_at_the_end_of_time_they_keep_events_after_as_it_is(self, own: str) -> None:
        put(own, id_in(27), LAST_ID)
        before = stored(own)
        for _ in range(2):
            add(own, 30)
            assert names(own) == ["events_before", *(name(n) for n in range(27)), "events_after"]
            assert stored(own) == before
        check_whole(own)

    def test_are_read_and_added_to_as_before(self, own: str) -> None:
        with Node(own) as node:
            id = id_in(27)
            put(own, id)
            add(own, 30)
            recorder = node.log.recorder
            recorder.insert_events([StoredEvent(id, 2, "job.started", b"{}")])
            assert [e.originator_version for e in recorder.select_events(id)] == [1, 2]
            eventually(lambda: len(recorder.select_notifications(None, 10)) == 2)

    def test_are_no_reason_for_a_server_not_to_start(
        self, own: str, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(own, id_in(27), LAST_ID)
        monkeypatch.setattr(schema, "MONTHS_AHEAD", 40)
        assert migrate(database) == []
        assert add_partitions(database) == 0
        with Node(own) as node:
            assert node.create(new_job())


class TestAMonthThatCannotBeMade:
    def test_is_a_warning_and_no_reason_for_a_server_not_to_start(
        self,
        own: str,
        database: Database,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(schema, "MONTHS_AHEAD", MONTHS_AHEAD + 2)
        before = ask(own, PARTITIONS)
        ask(own, f"CREATE TABLE {name(MONTHS_AHEAD + 2)} ()")
        assert migrate(database) == []
        assert add_partitions(database) == 0
        assert capsys.readouterr().out.count("partitions.not_added") == 2
        assert ask(own, PARTITIONS) == before
        check_whole(own)

    def test_of_a_new_log_is_a_reason(self, new_database: Callable[[], str]) -> None:
        dsn = new_database()
        ask(dsn, f"CREATE TABLE {name(3)} ()")
        database = Database(dsn)
        with pytest.raises(psycopg.errors.DuplicateTable):
            migrate(database)
        database.close()
        assert ask(dsn, "SELECT to_regclass('events')") == [(None,)]


def stored(dsn: str) -> list[tuple[Any, ...]]:
    """All events, with what tells that a row was written anew."""
    return [row[1:] for row in ask(dsn, EVENTS)]


def places(dsn: str) -> list[str]:
    return [row[0] for row in ask(dsn, EVENTS)]


def first_bound(ahead: int) -> UUID:
    """A partition begins with the milliseconds of its month, and zeros."""
    return UUID(int=first_id(month(ahead)).int >> 80 << 80)
