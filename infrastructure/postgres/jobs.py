"""The inline view of jobs: its row, how it follows the fold, and its queries."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import UNSET, Raw
from msgspec.json import Decoder, encode
from psycopg import Connection, sql

from application.archives import Archive
from application.following import History, LogEntry, LogFilter
from application.jobs import ArtifactView, EventView, Filter, JobView, Links, Sort
from domain.events import Completed, Event, JobError, Started
from domain.events import decode as decode_event
from domain.job import Job
from infrastructure.postgres.archives import archives_of
from infrastructure.postgres.columns import Column, byteas, float8s, int2s, int4s, int8s, moments, texts, uuids
from infrastructure.postgres.database import Database
from infrastructure.postgres.lists import Page

LOCK = "SELECT id, version, position FROM jobs WHERE id = ANY(%b::uuid[]) ORDER BY id FOR UPDATE"
INSERT_AT = """
INSERT INTO jobs (id, namespace, kind, queue, priority, max_attempts, input, labels, created_at,
  version, position, status, attempt, progress, run_at, updated_at, charged_to)
SELECT id, namespace, kind, queue, priority, max_attempts, input, labels::jsonb, created_at,
  version, {position}, 'queued', 0, 0, run_at, created_at, charged_to::uuid
FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::text[], %b::int2[], %b::int4[], %b::bytea[], %b::text[],
    %b::timestamptz[], %b::int8[], %b::int8[], %b::timestamptz[], %b::text[])
  AS x (id, namespace, kind, queue, priority, max_attempts, input, labels, created_at, version, position, run_at,
    charged_to)
"""
INSERT = INSERT_AT.format(position="position")
MOVE = """
UPDATE jobs
SET version = x.version, position = x.position, status = x.status, attempt = x.attempt, progress = x.progress,
  step = x.step, message = x.message, worker = x.worker, result = x.result, error = x.error,
  artifacts = x.artifacts, run_at = x.run_at, updated_at = x.updated_at, started_at = x.started_at,
  finished_at = x.finished_at
FROM unnest(%b::uuid[], %b::int8[], %b::int8[], %b::text[], %b::int4[], %b::float8[], %b::text[], %b::text[],
    %b::text[], %b::bytea[], %b::bytea[], %b::bytea[], %b::timestamptz[], %b::timestamptz[], %b::timestamptz[],
    %b::timestamptz[])
  AS x (id, version, position, status, attempt, progress, step, message, worker, result, error, artifacts, run_at,
    updated_at, started_at, finished_at)
WHERE jobs.id = x.id
"""
# What a start, or a completion, changes of a row: batches of nothing else are what busy workers ask for, and to take
# sixteen arrays apart costs a sixth of the update.
START = """
UPDATE jobs
SET version = x.version, position = x.position, status = 'running', attempt = x.attempt, worker = x.worker,
  updated_at = x.at, started_at = x.at
FROM unnest(%b::uuid[], %b::int8[], %b::int8[], %b::timestamptz[], %b::int4[], %b::text[])
  AS x (id, version, position, at, attempt, worker)
WHERE jobs.id = x.id
"""
COMPLETE = """
UPDATE jobs
SET version = x.version, position = x.position, status = 'completed', progress = 1, result = x.result, error = NULL,
  updated_at = x.at, finished_at = x.at
FROM unnest(%b::uuid[], %b::int8[], %b::int8[], %b::timestamptz[], %b::bytea[])
  AS x (id, version, position, at, result)
WHERE jobs.id = x.id
"""
# What a job was created with, which nothing changes but a rebuild of the view.
REPLACE = """
UPDATE jobs
SET namespace = x.namespace, kind = x.kind, queue = x.queue, priority = x.priority,
  max_attempts = x.max_attempts, input = x.input, labels = x.labels::jsonb, created_at = x.created_at
FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::text[], %b::int2[], %b::int4[], %b::bytea[], %b::text[],
    %b::timestamptz[], %b::int8[], %b::int8[], %b::timestamptz[])
  AS x (id, namespace, kind, queue, priority, max_attempts, input, labels, created_at, version, position, run_at)
WHERE jobs.id = x.id
"""
COLUMNS = """
id, namespace, kind, queue, jobs.status, progress, step, message, jobs.attempt, max_attempts, jobs.worker, input,
result, error, labels, priority, artifacts, created_at, updated_at, started_at, finished_at, run_at, heartbeat_at,
version, position
"""
BY_ID = f"""
SELECT {COLUMNS} FROM jobs LEFT JOIN leases ON leases.job_id = jobs.id WHERE id = ANY(%b::uuid[])
"""  # noqa: S608  the columns are ours
VERSIONS = "SELECT id, version FROM jobs WHERE id = ANY(%b::uuid[])"
HISTORIES = """
SELECT n, id, event.*
FROM unnest(%b::uuid[], %b::int8[], %b::int8[]) WITH ORDINALITY AS wanted (id, after, most, n)
CROSS JOIN LATERAL (
  SELECT originator_version, notification_id, topic, hash, state
  FROM events
  WHERE originator_id = wanted.id AND originator_version > wanted.after
  ORDER BY originator_version
  LIMIT wanted.most
) AS event
ORDER BY n, originator_version
"""
LOG = """
SELECT notification_id, namespace, kind, originator_id, originator_version, topic, hash, state
FROM events JOIN jobs ON jobs.id = originator_id
WHERE notification_id > %s AND notification_id <= %s AND notification_id < (SELECT safe_position()) AND {}
ORDER BY notification_id
LIMIT %s
"""
# Where a look ends that finds little: a filter that hardly anything passes would not end within a statement's time.
STRETCH = """
SELECT notification_id FROM events
WHERE notification_id > %s AND notification_id < (SELECT safe_position())
ORDER BY notification_id
OFFSET %s LIMIT 1
"""
LOOKED_AT = 5_000
"""Events of the whole log that one statement looks at through a filter."""
LAST = 2**63 - 1
LOG_END = """
SELECT coalesce((
    SELECT notification_id FROM events WHERE notification_id < (SELECT safe_position())
    ORDER BY notification_id DESC LIMIT 1
  ), 0),
  EXISTS (SELECT FROM events WHERE notification_id >= (SELECT safe_position()))
"""
STREAM = """
SELECT state FROM events WHERE originator_id = %b AND originator_version <= %b ORDER BY originator_version
"""
VERSION_AT = """
SELECT coalesce((
    SELECT max(originator_version) FROM events WHERE originator_id = %b AND recorded_at <= %b
  ), 0),
  clock_timestamp()
"""
POSITION_OF = "SELECT notification_id FROM events WHERE originator_id = %b AND originator_version = %b"
MOST_BYTES = 16 * 1024 * 1024
"""Of inputs and results in one page of jobs; it ends early when they are large."""
ROWS = 100
"""Jobs of a page that are read at a time."""
_error = Decoder(JobError).decode
_artifacts = Decoder(list[ArtifactView]).decode


def insert_jobs(
    connection: Connection, jobs: Sequence[Job], positions: Sequence[int], charged_to: Mapping[UUID, UUID]
) -> None:
    """Make the rows of new jobs, given with the positions of their creation, and the keys whose quotas count them."""
    if jobs:
        # A column that is shorter than the others is filled up with NULL: without quotas there is nothing to send.
        charges = [str(charged_to[job.id]) if job.id in charged_to else None for job in jobs] if charged_to else ()
        connection.execute(INSERT, (*new_columns(jobs, positions), texts(charges)), binary=True)


def move_jobs(
    connection: Connection, jobs: Sequence[Job], positions: Sequence[int], by: type[Event] | None = None
) -> None:
    """Bring rows up to their jobs, given with the positions of their last events.

    `by`: the type of the one event that each has moved by since its row was written, if it is the same for all.
    """
    if not jobs:
        return
    if by in (Started, Completed):
        columns = (
            uuids([job.id for job in jobs]),
            int8s([job.version for job in jobs]),
            int8s(positions),
            moments([job.updated_at for job in jobs]),
        )
        if by is Started:
            held = int4s([job.attempt for job in jobs]), texts([job.worker for job in jobs])
            connection.execute(START, (*columns, *held), binary=True)
        else:
            connection.execute(COMPLETE, (*columns, byteas([job.result for job in jobs])), binary=True)
    else:
        connection.execute(MOVE, _moved_columns(jobs, positions), binary=True)


def replace_jobs(connection: Connection, jobs: Sequence[Job], positions: Sequence[int]) -> None:
    """Bring all of rows up to their jobs, also what they were created with, given with their last positions."""
    if jobs:
        connection.execute(REPLACE, new_columns(jobs, positions), binary=True)
        move_jobs(connection, jobs, positions)


class PostgresViews:
    """Answers questions about jobs from the view, and about one job's history from its stream."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def jobs(self, ids: Sequence[UUID]) -> list[JobView | None]:
        views = {row[0]: job_view(row) for row in self._database.rows(BY_ID, (list(set(ids)),))}
        return [views.get(id) for id in ids]

    def page(self, wanted: Filter, sort: Sort, limit: int, cursor: str | None) -> tuple[list[JobView], str | None]:
        """Newest first, oldest first (both by id, which begins with the moment of creation), or latest moved first."""
        views: list[JobView] = []
        room = MOST_BYTES
        while True:
            page = Page(wanted, sort, min(limit + 1 - len(views), ROWS), cursor)
            rows = self._database.rows(page.query(COLUMNS), page.values)
            for row in rows:
                if len(views) == limit or (views and room <= 0):
                    return views, page.cursor(views[-1])
                views.append(job_view(row))
                room -= len(row[11]) + len(row[12] or b"")
            if len(rows) < page.count:
                return views, None
            cursor = page.cursor(views[-1])

    def ids(self, wanted: Filter, without_kind: str, limit: int, cursor: str | None) -> tuple[list[UUID], str | None]:
        page = Page(wanted, "created_at", limit + 1, cursor)
        rows = self._database.rows(page.query("jobs.id, kind, created_at"), page.values)
        following = page.cursor_at(rows[limit - 1][0], rows[limit - 1][2]) if len(rows) > limit else None
        return [id for id, kind, _ in rows[:limit] if kind != without_kind], following

    def histories(self, wanted: Sequence[History]) -> list[list[EventView]]:
        columns = ([w.job_id for w in wanted], [w.after for w in wanted], [w.limit for w in wanted])
        histories: list[list[EventView]] = [[] for _ in wanted]
        for n, *row in self._database.rows(HISTORIES, columns):
            histories[n - 1].append(event_view(*row))
        return histories

    def versions(self, ids: Collection[UUID]) -> dict[UUID, int]:
        return dict(self._database.rows(VERSIONS, (list(ids),)))

    def log(self, after: int, limit: int, wanted: LogFilter | None) -> list[LogEntry]:
        conditions, values = _log_conditions(wanted)
        query = sql.SQL(LOG).format(sql.SQL(" AND ").join(conditions))
        found: list[LogEntry] = []
        while True:
            stretch = self._database.rows(STRETCH, (after, LOOKED_AT)) if values else []
            to = stretch[0][0] if stretch else LAST
            rows = self._database.rows(query, [after, to, *values, limit - len(found)])
            found += [
                LogEntry(position, namespace, kind, event_view(id, version, position, topic, hash, state))
                for position, namespace, kind, id, version, topic, hash, state in rows
            ]
            if len(found) == limit or not stretch:
                return found
            after = to

    def log_end(self) -> tuple[int, bool]:
        ((end, lagging),) = self._database.rows(LOG_END)
        return end, lagging

    def fold(self, id: UUID, version: int | None = None) -> Job:
        rows = self._database.rows(STREAM, (id, version if version is not None else 2**62))
        return Job.fold(id, [decode_event(state) for (state,) in rows])

    def version_at(self, id: UUID, moment: datetime) -> tuple[int, datetime]:
        ((version, now),) = self._database.rows(VERSION_AT, (id, moment))
        return version, now

    def archive_of(self, id: UUID) -> Archive | None:
        return archives_of(self._database, [id]).get(id)

    def position_of(self, id: UUID, version: int) -> int:
        rows = self._database.rows(POSITION_OF, (id, version))
        return rows[0][0] if rows else 0


def event_view(id: UUID, version: int, position: int, topic: str, hash: bytes, state: bytes) -> EventView:
    event = decode_event(state)
    shared = ("at", "by", "trace")
    said = {field: getattr(event, field) for field in event.__struct_fields__ if field not in shared}
    return EventView(
        job_id=id,
        version=version,
        position=str(position),
        type=topic,
        at=event.at,
        by=event.by,
        trace=event.trace,
        hash=bytes(hash).hex(),
        data={field: value for field, value in said.items() if value is not UNSET},
    )


def job_view(row: tuple[Any, ...]) -> JobView:
    """A row of COLUMNS."""
    result, error, labels, artifacts = row[12], row[13], row[14], row[16]
    return JobView(
        id=row[0],
        namespace=row[1],
        kind=row[2],
        queue=row[3],
        status=row[4],
        progress=row[5],
        step=row[6],
        message=row[7],
        attempt=row[8],
        max_attempts=row[9],
        worker=row[10],
        input=Raw(row[11]),
        result=Raw(result) if result is not None else None,
        error=_error(error) if error is not None else None,
        labels=labels or {},
        priority=row[15],
        artifacts=_artifacts(artifacts) if artifacts is not None else [],
        created_at=row[17],
        updated_at=row[18],
        started_at=row[19],
        finished_at=row[20],
        run_at=row[21],
        heartbeat_at=row[22],
        version=row[23],
        position=str(row[24]),
        links=Links.to(row[0]),
    )


def new_columns(jobs: Sequence[Job], positions: Sequence[int]) -> tuple[Column, ...]:
    """What new jobs have, as INSERT takes it but for the keys that are charged."""
    return (
        uuids([job.id for job in jobs]),
        texts([job.namespace for job in jobs]),
        texts([job.kind for job in jobs]),
        texts([job.queue for job in jobs]),
        int2s([job.priority for job in jobs]),
        int4s([job.max_attempts for job in jobs]),
        byteas([bytes(job.input) for job in jobs]),
        texts([encode(job.labels).decode() if job.labels else None for job in jobs]),
        moments([job.created_at for job in jobs]),
        int8s([job.version for job in jobs]),
        int8s(positions),
        moments([job.run_at for job in jobs]),
    )


def _moved_columns(jobs: Sequence[Job], positions: Sequence[int]) -> tuple[Column, ...]:
    return (
        uuids([job.id for job in jobs]),
        int8s([job.version for job in jobs]),
        int8s(positions),
        texts([job.status for job in jobs]),
        int4s([job.attempt for job in jobs]),
        float8s([job.progress for job in jobs]),
        texts([job.step for job in jobs]),
        texts([job.message for job in jobs]),
        texts([job.worker for job in jobs]),
        byteas([bytes(job.result) if job.result is not None else None for job in jobs]),
        byteas([encode(job.error) if job.error is not None else None for job in jobs]),
        byteas([encode(list(job.artifacts.values())) if job.artifacts else None for job in jobs]),
        moments([job.run_at for job in jobs]),
        moments([job.updated_at for job in jobs]),
        moments([job.started_at for job in jobs]),
        moments([job.finished_at for job in jobs]),
    )


def _log_conditions(wanted: LogFilter | None) -> tuple[list[sql.Composable], list[Any]]:
    """The WHERE clauses of a filter of the whole log, and their values, in order."""
    if wanted is None:
        return [sql.SQL("true")], []
    conditions: list[sql.Composable] = [sql.SQL("true")]
    values: list[Any] = []
    if wanted.namespace is not None:
        conditions.append(sql.SQL("namespace = %s"))
        values.append(wanted.namespace)
    for column, alternatives in (("topic", wanted.type), ("kind", wanted.kind)):
        if alternatives:
            conditions.append(sql.SQL("{} = ANY(%s)").format(sql.Identifier(column)))
            values.append(list(alternatives))
    if wanted.actor:
        conditions.append(sql.SQL("convert_from(state, 'UTF8')::json ->> 'by' = ANY(%s)"))
        values.append(list(wanted.actor))
    if wanted.begin:
        conditions.append(sql.SQL("recorded_at >= %s"))
        values.append(wanted.begin)
    if wanted.end:
        conditions.append(sql.SQL("recorded_at < %s"))
        values.append(wanted.end)
    return conditions, values
