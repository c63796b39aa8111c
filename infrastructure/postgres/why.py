"""The facts behind `why`: a query each."""

from uuid import UUID

from application.jobs import DEFAULT, JobView
from application.why import ClaimerFacts, LeaseFacts, PauseFacts, QueueFacts
from domain.events import Event, decode
from infrastructure.postgres.database import Database
from infrastructure.postgres.lanes import hops
from infrastructure.postgres.ready import PLACE

HISTORY = "SELECT state FROM events WHERE originator_id = %b ORDER BY originator_version"
LEASE = "SELECT worker, heartbeat_at, expires_at, clock_timestamp() FROM leases WHERE job_id = %b"
# Lane by lane, as the claim goes, so that jobs that are not due yet are not walked over, however many there are.
AHEAD = f"""
WITH RECURSIVE
{hops("kinds", "(SELECT %(queue)s::text AS queue) AS above", ["queue"], "kind", "status = 'queued'", None)},
{hops("lanes", "kinds AS above", ["queue", "kind"], "priority", "status = 'queued'", None)}
SELECT count(*) FROM (
  SELECT FROM lanes
  CROSS JOIN LATERAL (
    SELECT FROM jobs
    WHERE status = 'queued' AND jobs.queue = lanes.queue AND jobs.kind = lanes.kind
      AND jobs.priority = lanes.priority AND run_at <= statement_timestamp()
      AND namespace = coalesce(%(namespace)s, namespace)
      AND (run_at, id) < (CASE WHEN lanes.priority > %(priority)s THEN 'infinity' ELSE %(run_at)s::timestamptz END,
        %(id)s)
    LIMIT %(most)s
  ) AS job
  WHERE lanes.priority >= %(priority)s
  LIMIT %(most)s
) AS ahead
""".encode()  # noqa: S608  put together from words of ours
# Its own jobs are looked at, by the index that claims for a namespace go by, which the default one is not in.
AHEAD_WITHIN = f"""
SELECT count(*) FROM (
  SELECT FROM jobs
  WHERE status = 'queued' AND {PLACE} = %(namespace)s::text || '/' || %(queue)s::text
    AND priority >= %(priority)s AND run_at <= statement_timestamp()
    AND (run_at, id) < (CASE WHEN priority > %(priority)s THEN 'infinity' ELSE %(run_at)s::timestamptz END, %(id)s)
  LIMIT %(most)s
) AS ahead
""".encode()  # noqa: S608  put together from words of ours
QUEUE = """
SELECT
  (SELECT count(*) FROM leases
    CROSS JOIN LATERAL (SELECT queue, namespace FROM jobs WHERE jobs.id = leases.job_id OFFSET 0) AS job
    WHERE queue = %(queue)s AND namespace = coalesce(%(namespace)s, namespace)),
  clock_timestamp(), paused_at, paused_by, reason
FROM (VALUES (%(queue)s::text)) AS asked (queue) LEFT JOIN queue_pauses USING (queue)
"""
# Who is full of work asks for none, but holds leases.
CLAIMERS = """
SELECT count(DISTINCT worker), count(DISTINCT worker) FILTER (WHERE kinds IS NULL OR %(kind)s = ANY(kinds))
FROM claimers
WHERE %(queue)s = ANY(queues) AND (namespace IS NULL OR namespace = %(namespace)s)
  AND (last_seen_at > statement_timestamp() - interval '60 s'
    OR worker IN (SELECT worker FROM leases WHERE expires_at > statement_timestamp()))
"""


class PostgresFacts:
    """See the port, `application.why.Facts`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def history(self, job_id: UUID) -> list[Event]:
        return [decode(state) for (state,) in self._database.rows(HISTORY, (job_id,))]

    def lease(self, job_id: UUID) -> LeaseFacts | None:
        rows = self._database.rows(LEASE, (job_id,))
        return LeaseFacts(*rows[0]) if rows else None

    def claimers(self, job: JobView) -> ClaimerFacts:
        (row,) = self._database.rows(CLAIMERS, {"queue": job.queue, "kind": job.kind, "namespace": job.namespace})
        return ClaimerFacts(*row)

    def queue(self, job: JobView, most: int, namespace: str | None) -> QueueFacts:
        place = {"queue": job.queue, "namespace": namespace}
        before = {"priority": job.priority, "run_at": job.run_at, "id": job.id, "most": most}
        ((ahead,),) = self._database.rows(AHEAD if namespace in (None, DEFAULT) else AHEAD_WITHIN, place | before)
        ((running, now, *pause),) = self._database.rows(QUEUE, place)
        return QueueFacts(ahead, running, now, PauseFacts(*pause) if pause[0] else None)
