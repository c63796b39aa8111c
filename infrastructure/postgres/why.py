"""The facts behind `why`: a query each."""

from uuid import UUID

from application.jobs import JobView
from application.why import ClaimerFacts, LeaseFacts, PauseFacts, QueueFacts
from domain.events import Event, decode
from infrastructure.postgres.database import Database
from infrastructure.postgres.lists import hops

HISTORY = "SELECT state FROM events WHERE originator_id = %b ORDER BY originator_version"
LEASE = "SELECT worker, heartbeat_at, expires_at, clock_timestamp() FROM leases WHERE job_id = %b"
# Lane by lane, as the claim goes, so that jobs that are not due yet are not walked over, however many there are.
QUEUE = f"""
WITH RECURSIVE
{hops("kinds", "(SELECT %(queue)s::text AS queue) AS above", ["queue"], "kind", "status = 'queued'", None)},
{hops("lanes", "kinds AS above", ["queue", "kind"], "priority", "status = 'queued'", None)}
SELECT
  (SELECT count(*) FROM (
    SELECT FROM lanes
    CROSS JOIN LATERAL (
      SELECT FROM jobs
      WHERE status = 'queued' AND jobs.queue = lanes.queue AND jobs.kind = lanes.kind
        AND jobs.priority = lanes.priority AND run_at <= statement_timestamp()
        AND (run_at, id) < (CASE WHEN lanes.priority > %(priority)s THEN 'infinity' ELSE %(run_at)s::timestamptz END,
          %(id)s)
      LIMIT %(most)s
    ) AS job
    WHERE lanes.priority >= %(priority)s
    LIMIT %(most)s
  ) AS ahead),
  (SELECT count(*) FROM leases
    CROSS JOIN LATERAL (SELECT queue FROM jobs WHERE jobs.id = leases.job_id OFFSET 0) AS job
    WHERE queue = %(queue)s),
  clock_timestamp(), paused_at, paused_by, reason
FROM (VALUES (%(queue)s::text)) AS asked (queue) LEFT JOIN queue_pauses USING (queue)
""".encode()  # noqa: S608  put together from words of ours

# Who is full of work asks for none, but holds leases.
CLAIMERS = """
SELECT count(DISTINCT worker), count(DISTINCT worker) FILTER (WHERE kinds IS NULL OR %(kind)s = ANY(kinds))
FROM claimers
WHERE %(queue)s = ANY(queues)
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

    def claimers(self, queue: str, kind: str) -> ClaimerFacts:
        (row,) = self._database.rows(CLAIMERS, {"queue": queue, "kind": kind})
        return ClaimerFacts(*row)

    def queue(self, job: JobView, most: int) -> QueueFacts:
        values = {"queue": job.queue, "priority": job.priority, "run_at": job.run_at, "id": job.id, "most": most}
        ((ahead, running, now, *pause),) = self._database.rows(QUEUE, values)
        return QueueFacts(ahead, running, now, PauseFacts(*pause) if pause[0] else None)
