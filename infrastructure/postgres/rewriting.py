"""Rows of the view of jobs written anew from their streams, while they serve: what a rebuild of it is."""

from collections.abc import Sequence
from uuid import UUID

import structlog
from msgspec import MsgspecError
from psycopg import Connection

from domain.events import decode
from domain.job import Job
from infrastructure.postgres.columns import float8s, int4s, texts, uuids
from infrastructure.postgres.jobs import LOCK, insert_jobs, replace_jobs

log = structlog.get_logger()
STREAMS = """
SELECT originator_id, notification_id, state FROM events
WHERE originator_id = ANY(%b::uuid[]) AND originator_id BETWEEN %b AND %b
ORDER BY originator_id, originator_version
"""
# Not of a month that is on its way out of the log, or back into it: `jobledger retention` sees to its rows.
SETTLED = """
SELECT id FROM unnest(%b::uuid[]) AS ids (id)
WHERE NOT EXISTS (
  SELECT FROM archives WHERE id >= low AND id < high AND archives.state IN ('writing', 'leaving', 'returning')
)
ORDER BY id
"""
REMOVE = "DELETE FROM jobs WHERE id = ANY(%b::uuid[])"
# A job that is held has a lease, which its worker extends, if there is one, and rescue finds otherwise.
LET_GO = "DELETE FROM leases WHERE job_id = ANY(%b::uuid[])"
HOLD = """
INSERT INTO leases (job_id, attempt, worker, heartbeat_timeout, heartbeat_at, expires_at)
SELECT id, attempt, worker, seconds, clock_timestamp(), clock_timestamp() + make_interval(secs => seconds)
FROM unnest(%b::uuid[], %b::int4[], %b::text[], %b::float8[]) AS x (id, attempt, worker, seconds)
ON CONFLICT (job_id) DO UPDATE
SET attempt = EXCLUDED.attempt, worker = EXCLUDED.worker, heartbeat_timeout = EXCLUDED.heartbeat_timeout
"""


def rewrite(connection: Connection, ids: Sequence[UUID]) -> None:
    """In an open transaction, bring the rows of these jobs, in the order of ids, and their leases up to their folds.

    Their rows are locked first, so that nobody moves them meanwhile; one that is missing is made, which nobody can
    move before, and one without events is removed. What cannot be read is left as it is, and logged.
    """
    ids = [id for (id,) in connection.execute(SETTLED, (uuids(ids),), binary=True)]
    there = {id for id, _, _ in connection.execute(LOCK, (uuids(ids),), binary=True)}
    streams = streams_of(connection, ids)
    jobs = [job for id in ids if streams[id] and (job := _folded(id, streams[id])) is not None]
    positions = {job.id: streams[job.id][-1][0] for job in jobs}
    missing = [job for job in jobs if job.id not in there]
    insert_jobs(connection, missing, [positions[job.id] for job in missing], {})
    replace_jobs(connection, jobs, [positions[job.id] for job in jobs])
    unfounded = [id for id in ids if not streams[id]]
    connection.execute(REMOVE, (uuids(unfounded),), binary=True)
    connection.execute(LET_GO, (uuids([*unfounded, *(job.id for job in jobs if not job.held)]),), binary=True)
    held = [job for job in jobs if job.held]
    columns = (
        uuids([job.id for job in held]),
        int4s([job.attempt for job in held]),
        texts([job.worker for job in held]),
        float8s([job.heartbeat_timeout for job in held]),
    )
    connection.execute(HOLD, columns, binary=True)


def streams_of(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, list[tuple[int, bytes]]]:
    """The positions and the states of the events of jobs, given in the order of ids."""
    streams: dict[UUID, list[tuple[int, bytes]]] = {id: [] for id in ids}
    if ids:
        for id, position, state in connection.execute(STREAMS, (uuids(ids), ids[0], ids[-1]), binary=True):
            streams[id].append((position, state))
    return streams


def _folded(id: UUID, stream: list[tuple[int, bytes]]) -> Job | None:
    try:
        return Job.fold(id, [decode(state) for _, state in stream])
    except MsgspecError:
        log.exception("stream.unreadable", job_id=str(id))
        return None
