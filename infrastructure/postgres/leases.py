"""Leases: who holds which attempt until when."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from psycopg import Connection

from application.reports import Beat, Lease
from application.rescue import Expired
from domain.job import Job
from infrastructure.postgres.columns import float8s, int4s, texts, uuids
from infrastructure.postgres.database import Database

HOLD = """
INSERT INTO leases (job_id, attempt, worker, claim_id, heartbeat_timeout, heartbeat_at, expires_at)
SELECT id, attempt, worker, claim_id, seconds, %b, %b + make_interval(secs => seconds)
FROM unnest(%b::uuid[], %b::int4[], %b::text[], %b::text[], %b::float8[]) AS x (id, attempt, worker, claim_id, seconds)
ON CONFLICT (job_id) DO UPDATE
SET attempt = EXCLUDED.attempt, worker = EXCLUDED.worker, heartbeat_timeout = EXCLUDED.heartbeat_timeout,
  claim_id = CASE WHEN leases.attempt = EXCLUDED.attempt THEN leases.claim_id ELSE EXCLUDED.claim_id END,
  heartbeat_at = EXCLUDED.heartbeat_at, expires_at = greatest(leases.expires_at, EXCLUDED.expires_at)
"""
# All leases that a batch finds there are locked first, in order, so that it and a heartbeat for many jobs never wait
# for each other in a circle.
LOCK = "SELECT FROM leases WHERE job_id = ANY(%b::uuid[]) ORDER BY job_id FOR UPDATE"
END = "DELETE FROM leases WHERE job_id = ANY(%b::uuid[])"
EXTEND = """
WITH beats AS (
  SELECT * FROM unnest(%b::uuid[], %b::int4[], %b::text[]) AS x (job_id, attempt, worker)
), held AS (
  SELECT leases.job_id
  FROM leases JOIN beats USING (job_id, attempt, worker)
  ORDER BY leases.job_id
  FOR UPDATE OF leases
), now AS MATERIALIZED (
  SELECT clock_timestamp() AS at
)
UPDATE leases
SET heartbeat_at = now.at, expires_at = greatest(expires_at, now.at + make_interval(secs => heartbeat_timeout))
FROM held, now
WHERE leases.job_id = held.job_id
RETURNING leases.job_id, leases.attempt, leases.worker
"""
STANDING = "SELECT id, version, status, attempt, worker FROM jobs WHERE id = ANY(%b::uuid[])"
HELD_BY = "SELECT job_id FROM leases WHERE worker = %b AND claim_id = %b ORDER BY job_id"
EXPIRED = """
SELECT job_id, attempt, heartbeat_at
FROM leases
WHERE expires_at < clock_timestamp() AND heartbeat_timeout <= %b
ORDER BY expires_at
LIMIT %b
"""
# Locked, so that a heartbeat that is under way comes before the rescue, or after it and is refused.
STILL_EXPIRED = """
WITH held AS (
  SELECT job_id, expires_at FROM leases WHERE job_id = ANY(%b::uuid[]) ORDER BY job_id FOR UPDATE
)
SELECT job_id FROM held WHERE expires_at < clock_timestamp()
"""


def move_leases(
    connection: Connection,
    held: Sequence[tuple[Job, str | None]],
    kept: Sequence[UUID],
    ended: Sequence[UUID],
    now: datetime,
) -> None:
    """Take or extend the leases of held jobs, given with the claim that took them, if any, and drop the ended ones.

    `kept` are those of the held that were held before.
    """
    if kept or ended:
        connection.execute(LOCK, (uuids([*kept, *ended]),), binary=True)
    if held:
        columns = (
            uuids([job.id for job, _ in held]),
            int4s([job.attempt for job, _ in held]),
            texts([job.worker for job, _ in held]),
            texts([claim_id for _, claim_id in held]),
            float8s([job.heartbeat_timeout for job, _ in held]),
        )
        connection.execute(HOLD, (now, now, *columns), binary=True)
    if ended:
        connection.execute(END, (uuids(ended),), binary=True)


class PostgresLeases:
    """Heartbeats, and what claims and rescue ask of the leases. Each call is one short transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def extend(self, beats: Sequence[Beat]) -> list[Lease | None]:
        """Extend what is still held, in one statement, and say where each job stands."""
        ids = uuids([beat.job_id for beat in beats])
        columns = (ids, int4s([beat.attempt for beat in beats]), texts([beat.worker for beat in beats]))
        extended = set(self._database.rows(EXTEND, columns))
        standing = {row[0]: row[1:] for row in self._database.rows(STANDING, (ids,))}
        return [
            Lease(
                extended=(beat.job_id, beat.attempt, beat.worker) in extended,
                version=standing[beat.job_id][0],
                status=standing[beat.job_id][1],
                attempt=standing[beat.job_id][2],
                worker=standing[beat.job_id][3],
            )
            if beat.job_id in standing
            else None
            for beat in beats
        ]

    def held_by(self, worker: str, claim_id: str) -> list[UUID]:
        return [row[0] for row in self._database.rows(HELD_BY, (worker, claim_id))]

    def expired(self, unbroken: float, limit: int) -> list[Expired]:
        """Leases that ran out, of jobs whose heartbeat timeout is at most `unbroken` seconds."""
        return [Expired(*row) for row in self._database.rows(EXPIRED, (unbroken, limit))]
