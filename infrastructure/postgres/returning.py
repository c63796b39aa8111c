"""A month that comes back: the table that takes its events until it is a partition, and its rows in the jobs view."""

from collections.abc import Iterable, Sequence
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection

from application.archives import ArchivedEvent
from application.retention import Month
from domain.events import decode
from domain.job import Job
from infrastructure.postgres.columns import uuids
from infrastructure.postgres.jobs import insert_jobs, move_jobs
from infrastructure.postgres.month import on

NEXT_IDS = """
SELECT originator_id FROM {table} WHERE originator_version = 1 AND originator_id > %s ORDER BY originator_id LIMIT %s
"""
THERE = "SELECT id FROM jobs WHERE id = ANY(%b::uuid[])"
STREAMS = """
SELECT originator_id, notification_id, state FROM {table}
WHERE originator_id = ANY(%b::uuid[])
ORDER BY originator_id, originator_version
"""
DISCARD = "DROP TABLE IF EXISTS {table}"
RECEIVE = (
    DISCARD,
    "CREATE TABLE {table} (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
)
COPY = """
COPY {table} (originator_id, originator_version, topic, state, hash, notification_id, recorded_at)
FROM STDIN (FORMAT binary)
"""
COLUMN_TYPES = ("uuid", "int8", "text", "bytea", "bytea", "int8", "timestamptz")
# What add_event_partition makes of a partition, and a constraint that spares ATTACH to read all of it.
FINISH = (
    "ALTER TABLE {table} ADD PRIMARY KEY (originator_id, originator_version)",
    "CREATE UNIQUE INDEX {position} ON {table} (notification_id)",
    "CREATE INDEX {recorded_at} ON {table} USING brin (recorded_at)",
    "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table} "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history()",
    "CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON {table} "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history()",
    "ALTER TABLE {table} ADD CONSTRAINT month CHECK (originator_id >= {low} AND originator_id < {high})",
)
ATTACH = (
    "ALTER TABLE events ATTACH PARTITION {table} FOR VALUES FROM ({low}) TO ({high})",
    "ALTER TABLE {table} DROP CONSTRAINT month",
)


def execute_all(connection: Connection, statements: Iterable[LiteralString], month: Month) -> None:
    for statement in statements:
        connection.execute(on(statement, month))


def put(connection: Connection, month: Month, events: Sequence[ArchivedEvent]) -> None:
    """Write events into the month's table."""
    with connection.cursor() as cursor, cursor.copy(on(COPY, month)) as copy:
        copy.set_types(COLUMN_TYPES)
        for event in events:
            state = event.state.encode()
            place = (event.job_id, event.version, event.topic, state, bytes.fromhex(event.hash))
            copy.write_row((*place, int(event.position), decode(state).at))


def make_rows(connection: Connection, month: Month, after: UUID, limit: int) -> UUID | None:
    """Make rows for `limit` of its jobs after one, where there are none yet; the last of the jobs, None at the end."""
    ids = [id for (id,) in connection.execute(on(NEXT_IDS, month), (after, limit), binary=True)]
    there = {id for (id,) in connection.execute(THERE, (uuids(ids),), binary=True)}
    missing = [id for id in ids if id not in there]
    positions: dict[UUID, int] = {}
    streams: dict[UUID, list[Any]] = {id: [] for id in missing}
    for id, position, state in connection.execute(on(STREAMS, month), (uuids(missing),), binary=True):
        streams[id].append(decode(state))
        positions[id] = position
    jobs = [Job.fold(id, events) for id, events in streams.items()]
    last = [positions[job.id] for job in jobs]
    insert_jobs(connection, jobs, last, {})
    move_jobs(connection, jobs, last)
    return ids[-1] if ids else None
