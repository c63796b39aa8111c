"""The schema is applied once, history cannot be changed, and every job's events have a place."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from threading import Barrier
from uuid import UUID

import psycopg
import pytest
from eventsourcing.persistence import StoredEvent
from msgspec import structs
from psycopg.conninfo import make_conninfo

from application.errors import Unavailable
from application.reports import ArtifactReport, ProgressReport
from domain.events import Artifact
from domain.ids import job_ids
from infrastructure.postgres.database import Database
from infrastructure.postgres.recorder import EventRecorder
from infrastructure.postgres.schema import MONTHS_AHEAD, SchemaNotReady, health, migrate, migrations
from tests.infrastructure.nodes import Node, UndisturbedRecorder, ask, migrated, new_job
from tests.waiting import eventually

PARTITIONS = """
SELECT child.relname, pg_get_expr(child.relpartbound, child.oid), first.id, later.id
FROM pg_inherits
JOIN pg_class AS child ON child.oid = inhrelid
CROSS JOIN LATERAL (
  SELECT substring(pg_get_expr(child.relpartbound, child.oid) FROM 'FROM \\(''([^'']+)''')::uuid AS id
) AS first
CROSS JOIN LATERAL (
  SELECT substring(pg_get_expr(child.relpartbound, child.oid) FROM 'TO \\(''([^'']+)''')::uuid AS id
) AS later
WHERE inhparent = 'events'::regclass
ORDER BY first.id NULLS FIRST
"""
WHERE_IT_IS = "SELECT tableoid::regclass::text FROM events WHERE originator_id = %s"


@pytest.fixture
def database(new_database: Callable[[], str]) -> Iterator[Database]:
    """An empty database of the test's own."""
    database = Database(new_database())
    yield database
    database.close()


@pytest.fixture(scope="module")
def with_history(dsn: str) -> str:
    with Node(dsn) as node:
        node.create(new_job())
    return dsn


def month_from_now(count: int) -> datetime:
    first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    years, month = divmod(first.month - 1 + count, 12)
    return first.replace(year=first.year + years, month=month + 1)


def month_names(ahead: int) -> list[str]:
    return [f"{month_from_now(n):events_%Y_%m}" for n in range(ahead + 1)]


def put_event(dsn: str, id: UUID) -> None:
    database = Database(dsn)
    try:
        EventRecorder(database).insert_events([StoredEvent(id, 1, "job.created", b"{}")])
    finally:
        database.close()


def test_a_database_that_is_not_in_utf8_is_refused_with_what_to_do(new_database: Callable[[], str]) -> None:
    address = new_database()
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE DATABASE of_bytes ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    database = Database(make_conninfo(address, dbname="of_bytes"))
    try:
        with pytest.raises(SchemaNotReady, match=r"is in SQL_ASCII.* CREATE DATABASE of_bytes ENCODING 'UTF8'"):
            migrate(database)
        assert database.rows("SELECT to_regclass('migrations') IS NULL") == [(True,)]
    finally:
        database.close()


def test_two_migrators_at_once_migrate_an_empty_database_once(new_database: Callable[[], str]) -> None:
    dsn = new_database()
    together = Barrier(2)

    def migrator() -> list[str]:
        database = Database(dsn)
        try:
            together.wait(30)
            return migrate(database)
        finally:
            database.close()

    with ThreadPoolExecutor(2) as threads:
        applied = [done.result(60) for done in [threads.submit(migrator) for _ in range(2)]]

    names = [migration.name for migration in migrations()]
    assert sorted(applied) == [[], names]
    assert ask(dsn, "SELECT name FROM migrations ORDER BY number") == [(name,) for name in names]
    assert ask(dsn, "SELECT count(*) FROM log_epoch") == [(1,)]


def test_migrating_again_changes_nothing(own: str) -> None:
    before = ask(own, PARTITIONS), ask(own, "SELECT * FROM migrations"), ask(own, "SELECT * FROM log_epoch")
    database = Database(own)
    assert migrate(database) == []
    database.close()
    assert (ask(own, PARTITIONS), ask(own, "SELECT * FROM migrations"), ask(own, "SELECT * FROM log_epoch")) == before


def test_writing_the_rows_of_jobs_anew_keeps_them_and_who_may_read_them(own: str) -> None:
    rows = "SELECT row_to_json(jobs)::jsonb FROM jobs ORDER BY id"
    indexes = """
        SELECT indexdef FROM pg_indexes
        WHERE tablename = 'jobs' AND indexname NOT LIKE 'jobs\\_ready%' -- of later migrations
        ORDER BY indexname
    """
    granted = """
        SELECT has_table_privilege('pg_monitor', 'jobs', 'SELECT'), has_table_privilege('pg_monitor', 'jobs', 'DELETE')
    """
    with Node(own) as node:
        (id,) = node.started(new_job())
        node.create(new_job(labels={"a": "b"}), new_job(priority=5))
        node.say(ProgressReport(job_id=id, attempt=1, message="half", progress=0.5))
        before = ask(own, rows), ask(own, indexes)
        ask(own, "GRANT SELECT ON jobs TO pg_monitor")
        ask(own, "DELETE FROM migrations WHERE name = '0012_row_of_jobs.sql'")
        migrated(own)
        assert (ask(own, rows), ask(own, indexes)) == before
        assert ask(own, granted) == [(True, False)]
        assert node.say(ProgressReport(job_id=id, attempt=1, message="more", progress=0.6)).version == 4


def test_contents_that_were_named_before_there_was_a_table_of_them_are_kept(own: str) -> None:
    named, replaced = Artifact(name="a", sha256="ab" * 32, size=1, media_type="text/html"), "cd" * 32
    with Node(own) as node:
        (id,) = node.started(new_job())
        for sha256 in (replaced, named.sha256):
            node.say(ArtifactReport(job_id=id, attempt=1, artifact=structs.replace(named, sha256=sha256)))
        node.say(ProgressReport(job_id=id, attempt=1, message='no "artifact":{"sha256": "at all"}', progress=0.5))
    ask(own, "DROP TABLE artifact_contents, artifact_holds, installation")
    ask(own, "DELETE FROM migrations WHERE number = 6")
    migrated(own)
    contents = ask(own, "SELECT encode(sha256, 'hex'), named FROM artifact_contents ORDER BY 1")
    assert contents == [("ab" * 32, True), ("cd" * 32, True)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {} SET topic = 'job.completed'",
        "UPDATE {} SET hash = hash WHERE false",
        "DELETE FROM {}",
        "TRUNCATE {}",
        "INSERT INTO {0} SELECT * FROM {0} ON CONFLICT (originator_id, originator_version) DO UPDATE SET topic = 'x'",
    ],
)
@pytest.mark.parametrize("table", ["events", "its partition"])
def test_history_cannot_be_changed_even_by_a_superuser(with_history: str, statement: str, table: str) -> None:
    stored = ask(with_history, "SELECT * FROM events ORDER BY notification_id")
    assert ask(with_history, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(True,)]
    name = table if table == "events" else month_names(0)[0]
    with (
        psycopg.connect(with_history) as superuser,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"),
    ):
        superuser.execute(statement.format(name).encode())
    assert ask(with_history, "SELECT * FROM events ORDER BY notification_id") == stored


def test_partitions_reach_two_years_ahead_without_gaps_and_without_a_default(dsn: str) -> None:
    partitions = ask(dsn, PARTITIONS)
    assert [name for name, *_ in partitions] == ["events_before", *month_names(MONTHS_AHEAD), "events_after"]
    assert not [bound for _, bound, *_ in partitions if "DEFAULT" in bound]
    assert partitions[0][1].startswith("FOR VALUES FROM (MINVALUE)")
    assert partitions[-1][1].endswith("TO (MAXVALUE)")
    for (_, _, _, end), (_, _, begin, _) in pairwise(partitions):
        assert end == begin


def test_the_events_of_a_job_lie_in_the_month_of_its_id(own: str) -> None:
    with Node(own) as node:
        (id,) = node.started(new_job())
        created_at = node.log.fold(id).created_at
    assert ask(own, WHERE_IT_IS, [id]) == [(f"{created_at:events_%Y_%m}",)] * 2
    for n in (0, 1, 7, MONTHS_AHEAD):
        first = month_from_now(n)
        last = month_from_now(n + 1) - timedelta(microseconds=1)
        for at in (first, last):
            (id,) = job_ids(1, at)
            put_event(own, id)
            assert ask(own, WHERE_IT_IS, [id]) == [(f"{first:events_%Y_%m}",)]


@pytest.mark.parametrize(
    ("id", "partition"),
    [
        (next(job_ids(1, datetime(2020, 2, 29, tzinfo=UTC))), "events_before"),
        (UUID(int=0), "events_before"),
        (next(job_ids(1, datetime(2190, 1, 1, tzinfo=UTC))), "events_after"),
        (UUID(int=2**128 - 1), "events_after"),
    ],
)
def test_an_id_from_another_time_has_a_place(own: str, id: UUID, partition: str) -> None:
    put_event(own, id)
    assert ask(own, WHERE_IT_IS, [id]) == [(partition,)]


def test_more_months_are_added_when_they_are_asked_for(own: str) -> None:
    assert ask(own, "SELECT add_event_partitions(30)") == [(30 - MONTHS_AHEAD,)]
    assert [name for name, *_ in ask(own, PARTITIONS)] == ["events_before", *month_names(30), "events_after"]
    assert ask(own, "SELECT add_event_partitions(30)") == [(0,)]
    (id,) = job_ids(1, month_from_now(29))
    put_event(own, id)
    assert ask(own, WHERE_IT_IS, [id]) == [(f"{month_from_now(29):events_%Y_%m}",)]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_months_are_those_of_utc_wherever_the_operator_sits(own: str, zone: str) -> None:
    with psycopg.connect(own) as connection:
        connection.execute("SELECT set_config('timezone', %s, false)", [zone])
        assert connection.execute("SELECT add_event_partitions(40)").fetchone() == (40 - MONTHS_AHEAD,)
    partitions = ask(own, PARTITIONS)
    assert [name for name, *_ in partitions] == ["events_before", *month_names(40), "events_after"]
    for n, (_, _, begin, _) in enumerate(partitions[1:]):
        assert begin.int >> 80 == int(month_from_now(n).timestamp() * 1000)


def test_events_from_the_future_stay_where_they_are_when_months_are_made_around_them(own: str) -> None:
    ahead = MONTHS_AHEAD + 3
    (id,) = job_ids(1, month_from_now(ahead))
    put_event(own, id)
    stored = ask(own, "SELECT * FROM events")
    ask(own, "SELECT add_event_partitions(30)")
    assert [name for name, *_ in ask(own, PARTITIONS)] == ["events_before", *month_names(30), "events_after"]
    assert ask(own, WHERE_IT_IS, [id]) == [(f"{month_from_now(ahead):events_%Y_%m}",)]
    assert ask(own, "SELECT * FROM events") == stored


def test_positions_rise_on_after_a_log_was_restored_into_a_younger_cluster(own: str) -> None:
    database = Database(own)
    restored = 4_000_000_000 << 16 | 3
    (id,) = job_ids(1, datetime.now(UTC))
    ask(
        own,
        "INSERT INTO events VALUES (%s, 1, 'job.created', '{}', decode(repeat('00', 32), 'hex'), %s, now())",
        [id, restored],
    )
    assert not health(database).positions_rise

    assert migrate(database) == []

    assert health(database).positions_rise
    recorder = UndisturbedRecorder(database)
    with Node(own) as node:
        positions = [recorder.max_notification_id()]
        assert positions == [restored]
        for _ in range(3):
            node.create(new_job())
            positions.append(recorder.max_notification_id())
    assert all(before is not None and after is not None and before < after for before, after in pairwise(positions))
    offset = ask(own, "SELECT epoch_offset FROM log_epoch")
    assert migrate(database) == []
    assert ask(own, "SELECT epoch_offset FROM log_epoch") == offset
    database.close()


def test_health_names_the_oldest_open_write_transaction(own: str) -> None:
    database = Database(own)
    found = health(database)
    assert (found.schema_version, found.positions_rise) == (migrations()[-1].number, True)

    def oldest() -> int | None:
        return health(database).oldest_writer_pid

    with psycopg.connect(own) as writer:
        pid = writer.info.backend_pid
        writer.execute("SELECT pg_current_xact_id()")
        eventually(lambda: oldest() == pid)
        seconds = health(database).oldest_writer_seconds
        assert seconds is not None
        assert 0 <= seconds < 60
    eventually(lambda: oldest() != pid)
    database.close()


def test_a_database_without_our_schema_is_not_ready(database: Database) -> None:
    with pytest.raises(SchemaNotReady, match="run `jobledger migrate`"):
        health(database)


def test_a_server_that_refuses_is_unavailable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    database = Database(f"postgresql://postgres@127.0.0.1:{port}/nowhere")
    with pytest.raises(Unavailable):
        health(database)
    with pytest.raises(Unavailable):
        migrate(database)
