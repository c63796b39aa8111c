"""Leases: who holds which attempt until when."""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from psycopg import Connection

from application.archives import Archive
from application.reports import Beat, Lease
from domain.job import Job
from infrastructure.postgres.archives import archives_of
from infrastructure.postgres.columns import Column, float8s, int4s, texts, uuids
from infrastructure.postgres.database import Database
from infrastructure.postgres.recorder import BASE

TAKE = """
INSERT INTO leases (job_id, attempt, worker, claim_id, heartbeat_timeout, heartbeat_at, expires_at)
SELECT id, attempt, worker, claim_id, seconds, %b, %b + make_interval(secs => seconds)
FROM unnest(%b::uuid[], %b::int4[], %b::text[], %b::text[], %b::float8[]) AS x (id, attempt, worker, claim_id, seconds)
"""
HOLD = f"""
{TAKE}ON CONFLICT (job_id) DO UPDATE
SET attempt = EXCLUDED.attempt, worker = EXCLUDED.worker, heartbeat_timeout = EXCLUDED.heartbeat_timeout,
  claim_id = CASE WHEN leases.attempt = EXCLUDED.attempt THEN leases.claim_id ELSE EXCLUDED.claim_id END,
  heartbeat_at = EXCLUDED.heartbeat_at, expires_at = greatest(leases.expires_at, EXCLUDED.expires_at)
"""
# All leases that a batch finds there are locked first, in order, so that it and a heartbeat for many jobs never wait
# for each other in a circle.
LOCK = "SELECT FROM leases WHERE job_id = ANY(%b::uuid[]) ORDER BY job_id FOR UPDATE"
END = "DELETE FROM leases WHERE job_id = ANY(%b::uuid[])"
# Of leases that are locked as `held`: from now on they have all of their time.
_FROM_NOW = """), now AS MATERIALIZED (
  SELECT clock_timestamp() AS at
)
UPDATE leases
SET heartbeat_at = now.at, expires_at = greatest(expires_at, now.at + make_interval(secs => heartbeat_timeout))
FROM held, now
WHERE leases.job_id = held.job_id
RETURNING"""
# Whose worker is limited to no namespace, its job is not looked at.
EXTEND = f"""
WITH beats AS (
  SELECT * FROM unnest(%b::uuid[], %b::int4[], %b::text[], %b::text[])
    WITH ORDINALITY AS x (job_id, attempt, worker, namespace, n)
), held AS (
  SELECT leases.job_id, n
  FROM leases JOIN beats USING (job_id, attempt, worker)
  WHERE beats.namespace IS NULL
    OR beats.namespace = (SELECT jobs.namespace FROM jobs WHERE jobs.id = leases.job_id)
  ORDER BY leases.job_id
  FOR UPDATE OF leases
{_FROM_NOW} n
"""  # noqa: S608  the parts are ours
STANDING = """
SELECT n, version, status, attempt, worker
FROM jobs JOIN unnest(%b::uuid[], %b::text[]) WITH ORDINALITY AS x (id, seen, n) USING (id)
WHERE seen IS NULL OR seen = namespace
"""
HELD_BY = """
SELECT job_id FROM leases
WHERE worker = %b AND claim_id = %b
  AND (%b::text IS NULL OR %b = (SELECT namespace FROM jobs WHERE jobs.id = job_id))
"""
BEGIN_ANEW = f"""
WITH held AS (
  SELECT job_id FROM leases
  WHERE job_id = ANY(%b::uuid[]) AND worker = %b AND claim_id = %b
  ORDER BY job_id
  FOR UPDATE
{_FROM_NOW} leases.job_id
"""  # noqa: S608  the parts are ours
# A lease or a job that is locked is passed over: its worker is just heard of, or another node is at it; and so is a job
# that moved with a later place in the log than this transaction has. Leases come first: an array can be looked for
# in the index of jobs alone, where an equation lets a plan that was made while both were empty walk over all jobs.
EXPIRED = f"""
SELECT leases.job_id, jobs.position, leases.attempt, leases.heartbeat_at
FROM leases JOIN jobs ON jobs.id = ANY(ARRAY[leases.job_id])
WHERE expires_at < clock_timestamp() AND heartbeat_timeout <= %b AND leases.job_id <> ALL(%b::uuid[])
  AND jobs.position < {BASE}
ORDER BY expires_at
LIMIT %b
FOR UPDATE SKIP LOCKED
"""  # noqa: S608  the parts are ours
# Locked, so that a heartbeat that is under way comes before the rescue, or after it and is refused.
STILL_EXPIRED = """
WITH held AS (
  SELECT job_id, expires_at FROM leases WHERE job_id = ANY(%b::uuid[]) ORDER BY job_id FOR UPDATE
)
SELECT job_id FROM held WHERE expires_at < clock_timestamp()
"""
# Locked, so that a claim that is repeated comes before what its first try gives back, and keeps it, or after it.
HEARD = "SELECT job_id, heartbeat_at FROM leases WHERE job_id = ANY(%b::uuid[]) ORDER BY job_id FOR UPDATE"


def move_leases(
    connection: Connection,
    taken: Sequence[tuple[Job, str | None]],
    kept: Sequence[tuple[Job, str | None]],
    ended: Sequence[UUID],
    now: datetime,
) -> None:
    """Make the leases of jobs that are newly held, extend those of jobs that were held before, and drop the ended ones.

    Held jobs are given with the claim that took them, if any; all in the order of their ids.
    """
    if kept and ended:
        connection.execute(LOCK, (uuids([*(job.id for job, _ in kept), *ended]),), binary=True)
    for statement, held in ((TAKE, taken), (HOLD, kept)):
        if held:
            connection.execute(statement, (now, now, *_columns(held)), binary=True)
    if ended:
        connection.execute(END, (uuids(ended),), binary=True)


class PostgresLeases:
    """Heartbeats, and what claims ask of the leases. Each call is one short transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def extend(self, beats: Sequence[Beat]) -> list[Lease | None]:
        """Extend what is still held, in one statement, and say where each job stands."""
        ids = uuids([beat.job_id for beat in beats])
        seen = texts([beat.namespace for beat in beats])
        columns = (ids, int4s([beat.attempt for beat in beats]), texts([beat.worker for beat in beats]), seen)
        extended = {beats[n - 1] for (n,) in self._database.rows(EXTEND, columns)}
        leases: list[Lease | None] = [None] * len(beats)
        for n, version, status, attempt, worker in self._database.rows(STANDING, (ids, seen)):
            held = beats[n - 1] in extended
            leases[n - 1] = Lease(extended=held, version=version, status=status, attempt=attempt, worker=worker)
        return leases

    def archives(self, ids: Collection[UUID]) -> dict[UUID, Archive]:
        return archives_of(self._database, ids)

    def held_by(self, worker: str, claim_id: str, namespace: str | None = None) -> list[UUID]:
        found = [row[0] for row in self._database.rows(HELD_BY, (worker, claim_id, namespace, namespace))]
        if not found:  # as nearly always
            return []
        return sorted(row[0] for row in self._database.rows(BEGIN_ANEW, (uuids(found), worker, claim_id)))


def _columns(held: Sequence[tuple[Job, str | None]]) -> tuple[Column, ...]:
    return (
        uuids([job.id for job, _ in held]),
        int4s([job.attempt for job, _ in held]),
        texts([job.worker for job, _ in held]),
        texts([claim_id for _, claim_id in held]),
        float8s([job.heartbeat_timeout for job, _ in held]),
    )
