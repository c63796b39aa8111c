"""The log through the `eventsourcing` library's own words, and readers that never pass an open transaction."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest
from eventsourcing.persistence import (
    IntegrityError,
    MapperDeserialisationError,
    Notification,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    StoredEvent,
)
from msgspec import Raw
from psycopg import Connection

from domain.audit import GENESIS
from domain.events import Created, Event, Started
from domain.ids import job_ids
from domain.retry import RetryPolicy
from infrastructure.postgres.database import Database
from infrastructure.postgres.log import Log
from infrastructure.postgres.mapper import EventMapper, JobEvent
from infrastructure.postgres.persistence import Factory
from infrastructure.postgres.recorder import MOST_EVENTS, POSITION_BASE, EventRecorder, NewEvents
from tests.infrastructure.nodes import UndisturbedRecorder, migrated, undisturbed

NOW = datetime.now(UTC)
CREATED = Created(
    namespace="default",
    kind="nothing",
    queue="default",
    priority=0,
    input=Raw(b"{}"),
    run_at=NOW,
    max_attempts=3,
    retry=RetryPolicy(),
    heartbeat_timeout=30.0,
    at=NOW,
    by="key:test",
)
STARTED = Started(attempt=1, worker="w1", at=NOW, by="worker:w1")


@pytest.fixture
def recorder(new_database: Callable[[], str]) -> Iterator[EventRecorder]:
    """Over a log of the test's own."""
    database = Database(migrated(new_database()))
    yield UndisturbedRecorder(database)
    database.close()


@pytest.fixture
def log(dsn: str) -> Iterator[Log]:
    log = Log(dsn)
    yield log
    log.close()


def new_id() -> UUID:
    (id,) = job_ids(1, NOW)
    return id


def stored(id: UUID, version: int, topic: str = "topic", state: bytes = b"{}") -> StoredEvent:
    return StoredEvent(id, version, topic, state)


def put(log: Log, id: UUID, *events: Event) -> None:
    log.events.put([cast("Any", JobEvent(id, n, event)) for n, event in enumerate(events, 1)])


class OpenTransaction:
    """A writer that has inserted an event and has not committed yet."""

    def __init__(self, connection: Connection, id: UUID, version: int = 1) -> None:
        self._connection = connection
        connection.execute("BEGIN")
        base, now = connection.execute(POSITION_BASE).fetchone() or (0, NOW)
        self.position = base | 1
        events = NewEvents()
        event = stored(id, version)
        events.add(id, version, event.topic, event.state, GENESIS, now)
        events.insert(connection, base)

    def end(self, how: str = "COMMIT") -> None:
        self._connection.execute(how.encode())


class TestTheFrame:
    def test_the_library_makes_its_parts_from_our_module(self, log: Log) -> None:
        assert isinstance(log.factory, Factory)
        assert isinstance(log.recorder, EventRecorder)
        assert isinstance(log.mapper, EventMapper)

    def test_events_put_into_the_store_come_back_as_the_stream(self, log: Log) -> None:
        id = new_id()
        put(log, id, CREATED, STARTED)
        assert log.stream(id) == [CREATED, STARTED]
        assert log.stream(id, after=1) == [STARTED]
        assert log.stream(id, to=1) == [CREATED]
        assert (log.fold(id).status, log.fold(id, to=1).status) == ("running", "queued")
        assert log.fold(new_id()).version == 0

    def test_an_event_is_stored_as_json_under_its_tag(self, log: Log) -> None:
        id = new_id()
        event = log.mapper.to_stored_event(event_of(id, STARTED))
        assert (event.originator_id, event.originator_version, event.topic) == (id, 1, "job.started")
        assert event.state.startswith(b'{"type":"job.started"')

    @pytest.mark.parametrize(
        ("topic", "state"),
        [
            ("job.started", b"no json"),
            ("job.started", b'{"type":"job.teleported"}'),
            ("job.created", b'{"type":"job.started","at":"2026-01-01T00:00:00Z","by":"x","attempt":1,"worker":"w"}'),
        ],
    )
    def test_bytes_that_are_not_the_event_they_say_are_refused(self, log: Log, topic: str, state: bytes) -> None:
        with pytest.raises(MapperDeserialisationError, match="event 1 of job"):
            log.mapper.to_domain_event(stored(new_id(), 1, topic, state))

    def test_the_notification_log_reads_the_same_events(self, log: Log) -> None:
        start = log.recorder.max_notification_id()
        id = new_id()
        put(log, id, CREATED, STARTED)
        undisturbed(log.database)
        found = log.notification_log.select(start, 10, inclusive_of_start=False)
        assert [(n.originator_id, n.originator_version, n.topic) for n in found] == [
            (id, 1, "job.created"),
            (id, 2, "job.started"),
        ]

    def test_what_we_keep_no_store_for_is_said(self, log: Log) -> None:
        with pytest.raises(NotSupportedError):
            log.factory.process_recorder()
        with pytest.raises(NotSupportedError):
            log.factory.aggregate_recorder(purpose="snapshots")


class TestInserting:
    def test_positions_are_returned_in_the_order_given(self, recorder: EventRecorder) -> None:
        a, b = new_id(), new_id()
        positions = recorder.insert_events([stored(b, 1), stored(a, 1), stored(b, 2)])
        found = recorder.select_notifications(None, 10)
        assert [n.id for n in found] == list(positions) == sorted(set(positions))
        assert [n.originator_id for n in found] == [b, a, b]
        assert recorder.insert_events([]) == []

    def test_a_version_that_is_taken_is_refused_with_all_beside_it(self, recorder: EventRecorder) -> None:
        a, b = new_id(), new_id()
        recorder.insert_events([stored(a, 1)])
        with pytest.raises(IntegrityError):
            recorder.insert_events([stored(b, 1), stored(a, 1)])
        assert recorder.select_events(b) == []

    def test_a_version_that_leaves_a_gap_is_refused(self, recorder: EventRecorder) -> None:
        with pytest.raises(IntegrityError, match="does not follow"):
            recorder.insert_events([stored(new_id(), 2)])

    def test_of_two_writers_of_one_version_one_wins(self, recorder: EventRecorder) -> None:
        for _ in range(10):
            id = new_id()

            def write(text: str, id: UUID = id) -> bool:
                try:
                    recorder.insert_events([stored(id, 1, text)])
                except IntegrityError:
                    return False
                return True

            with ThreadPoolExecutor(4) as threads:
                won = list(threads.map(write, "abcd"))
            assert won.count(True) == 1
            assert [e.topic for e in recorder.select_events(id)] == ["abcd"[won.index(True)]]

    def test_the_ordinal_ends_where_its_sixteen_bits_do(self, recorder: EventRecorder) -> None:
        id = new_id()
        with pytest.raises(ProgrammingError, match="at most 65535"):
            recorder.insert_events([stored(id, n) for n in range(1, MOST_EVENTS + 2)])
        assert recorder.select_events(id) == []

    def test_a_server_that_is_away_is_an_operational_error(self) -> None:
        database = Database("postgresql://postgres@127.0.0.1:1/nowhere")
        with pytest.raises(OperationalError):
            EventRecorder(database).insert_events([stored(new_id(), 1)])


class TestSelectingOneStream:
    def test_bounds_order_and_limit(self, recorder: EventRecorder) -> None:
        id = new_id()
        recorder.insert_events([stored(id, n) for n in range(1, 6)])

        def versions(**bounds: Any) -> list[int]:
            return [e.originator_version for e in recorder.select_events(id, **bounds)]

        assert versions() == [1, 2, 3, 4, 5]
        assert versions(gt=2) == [3, 4, 5]
        assert versions(lte=2) == [1, 2]
        assert versions(lte=0) == []
        assert versions(gt=1, lte=4, desc=True) == [4, 3, 2]
        assert versions(limit=2) == [1, 2]
        assert versions(desc=True, limit=1) == [5]


class TestSelectingTheLog:
    @pytest.fixture
    def positions(self, recorder: EventRecorder) -> list[int]:
        """Of five events with the topics a, b, a, b, a."""
        return [p for topic in "ababa" for p in recorder.insert_events([stored(new_id(), 1, topic)])]

    def test_start_and_stop_belong_to_what_is_read(self, recorder: EventRecorder, positions: list[int]) -> None:
        assert ids_of(recorder.select_notifications(None, 10)) == positions
        assert ids_of(recorder.select_notifications(positions[1], 10)) == positions[1:]
        assert ids_of(recorder.select_notifications(positions[1], 10, positions[3])) == positions[1:4]
        assert ids_of(recorder.select_notifications(positions[1] + 1, 10)) == positions[2:]

    def test_a_start_that_was_read_already_is_left_out(self, recorder: EventRecorder, positions: list[int]) -> None:
        assert ids_of(recorder.select_notifications(positions[1], 10, inclusive_of_start=False)) == positions[2:]
        assert recorder.select_notifications(positions[4], 10, inclusive_of_start=False) == []

    def test_pages_follow_each_other(self, recorder: EventRecorder, positions: list[int]) -> None:
        first = ids_of(recorder.select_notifications(None, 2))
        second = ids_of(recorder.select_notifications(first[-1], 2, inclusive_of_start=False))
        assert first + second == positions[:4]

    def test_topics_are_alternatives(self, recorder: EventRecorder, positions: list[int]) -> None:
        assert ids_of(recorder.select_notifications(None, 10, topics=["b"])) == [positions[1], positions[3]]
        assert ids_of(recorder.select_notifications(None, 2, topics=["a", "x"])) == [positions[0], positions[2]]
        assert ids_of(recorder.select_notifications(None, 9, topics=["a", "b"])) == positions
        assert recorder.select_notifications(None, 10, topics=["x"]) == []

    def test_the_highest_position_is_that_of_the_last_event(self, recorder: EventRecorder) -> None:
        assert recorder.max_notification_id() is None
        positions = recorder.insert_events([stored(new_id(), 1), stored(new_id(), 1)])
        assert recorder.max_notification_id() == positions[-1]


class TestAnOpenTransaction:
    @pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
    def test_readers_wait_below_it_and_then_miss_nothing(self, recorder: EventRecorder, ending: str) -> None:
        (before,) = recorder.insert_events([stored(new_id(), 1)])
        with recorder.database.connection() as connection:
            early = OpenTransaction(connection, new_id())
            id = new_id()
            (late,) = recorder.insert_events([stored(id, 1)])
            assert early.position < late
            assert ids_of(recorder.select_notifications(None, 10)) == [before]
            assert recorder.max_notification_id() == before
            assert [e.originator_version for e in recorder.select_events(id)] == [1]
            early.end(ending)
        expected = [before, early.position, late] if ending == "COMMIT" else [before, late]
        assert ids_of(recorder.select_notifications(None, 10)) == expected
        assert recorder.max_notification_id() == late

    def test_a_transaction_that_has_only_its_number_holds_readers_back_too(self, recorder: EventRecorder) -> None:
        with recorder.database.connection() as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT pg_current_xact_id()")
            (late,) = recorder.insert_events([stored(new_id(), 1)])
            assert recorder.select_notifications(None, 10) == []
            connection.execute("COMMIT")
        assert ids_of(recorder.select_notifications(None, 10)) == [late]

    @pytest.mark.parametrize("seed", range(3))
    def test_a_reader_sees_each_event_once_in_order_however_writers_commit(
        self, recorder: EventRecorder, seed: int
    ) -> None:
        chance = random.Random(seed)
        connections = [recorder.database.connect() for _ in range(6)]
        open: dict[int, OpenTransaction] = {}
        committed: list[int] = []
        seen: list[int] = []
        late = 0

        def read() -> None:
            page = recorder.select_notifications(seen[-1] if seen else None, 3, inclusive_of_start=False)
            seen.extend(ids_of(page))

        for _ in range(250):
            n = chance.randrange(6)
            if chance.random() < 0.4:
                read()
            elif n not in open:
                open[n] = OpenTransaction(connections[n], new_id())
            elif chance.random() < 0.15:
                open.pop(n).end("ROLLBACK")
            else:
                writer = open.pop(n)
                writer.end()
                late += bool(committed) and writer.position < max(committed)
                committed.append(writer.position)
        for writer in open.values():
            writer.end()
            committed.append(writer.position)
        while len(seen) < len(committed):
            had = len(seen)
            read()
            assert len(seen) > had, "the reader stopped short of the end"
        for connection in connections:
            connection.close()
        assert late > 10, "hardly anything was committed out of order"
        assert seen == sorted(committed)


class TestASubscription:
    def test_it_delivers_what_is_there_and_what_comes_and_stops(self, recorder: EventRecorder) -> None:
        before = recorder.insert_events([stored(new_id(), 1), stored(new_id(), 1)])
        with recorder.subscribe(gt=before[0]) as subscription, ThreadPoolExecutor(1) as thread:
            assert next(subscription).id == before[1]
            coming = thread.submit(next, subscription)
            after = recorder.insert_events([stored(new_id(), 1)])
            assert coming.result(30).id == after[0]
            rest = thread.submit(list, subscription)
            subscription.stop()
            assert rest.result(30) == []

    def test_it_delivers_only_the_topics_asked_for(self, recorder: EventRecorder) -> None:
        positions = recorder.insert_events([stored(new_id(), 1, topic) for topic in "abab"])
        with recorder.subscribe(topics=["b"]) as subscription:
            assert [next(subscription).id, next(subscription).id] == [positions[1], positions[3]]

    def test_it_does_not_pass_an_open_transaction(self, recorder: EventRecorder) -> None:
        with (
            recorder.database.connection() as connection,
            recorder.subscribe() as subscription,
            ThreadPoolExecutor(1) as thread,
        ):
            early = OpenTransaction(connection, new_id())
            (late,) = recorder.insert_events([stored(new_id(), 1)])
            coming = thread.submit(lambda: [next(subscription).id, next(subscription).id])
            early.end()
            assert coming.result(30) == [early.position, late]


def ids_of(notifications: Any) -> list[int]:
    return [cast("Notification", n).id for n in notifications]


def event_of(id: UUID, event: Event) -> Any:
    return JobEvent(id, 1, event)
