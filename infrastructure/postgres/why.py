"""The facts behind `why`: a query each."""

from uuid import UUID

from application.jobs import JobView
from application.why import LeaseFacts, QueueFacts
from infrastructure.postgres.database import Database

LEASE = "SELECT worker, heartbeat_at, expires_at, clock_timestamp() FROM leases WHERE job_id = %b"
QUEUE = """
SELECT
  (SELECT count(*) FROM (
    SELECT FROM jobs
    WHERE status = 'queued' AND queue = %(queue)s AND run_at <= clock_timestamp()
      AND (priority > %(priority)s OR priority = %(priority)s AND (run_at, id) < (%(run_at)s, %(id)s))
    LIMIT %(most)s
  ) AS ahead),
  (SELECT count(*) FROM leases JOIN jobs ON jobs.id = job_id WHERE queue = %(queue)s),
  clock_timestamp()
"""


class PostgresFacts:
    """See the port, `application.why.Facts`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def lease(self, job_id: UUID) -> LeaseFacts | None:
        rows = self._database.rows(LEASE, (job_id,))
        return LeaseFacts(*rows[0]) if rows else None

    def queue(self, job: JobView, most: int) -> QueueFacts:
        values = {"queue": job.queue, "priority": job.priority, "run_at": job.run_at, "id": job.id, "most": most}
        (row,) = self._database.rows(QUEUE, values)
        return QueueFacts(*row)
