"""When the next jobs are due that wait for their moment."""

from collections.abc import Collection
from datetime import datetime

from application.alarm import Due
from infrastructure.postgres.database import Database
from infrastructure.postgres.lists import hops

# Lane by lane, as the claim goes, each by one look into the index.
DUE = f"""
WITH RECURSIVE
{hops("queues", "(VALUES (1)) AS above (one)", [], "queue", "status = 'queued'", "queues")},
{hops("kinds", "queues AS above", ["queue"], "kind", "status = 'queued'", None)},
{hops("lanes", "kinds AS above", ["queue", "kind"], "priority", "status = 'queued'", None)}
SELECT statement_timestamp(), queue, extract(epoch FROM run_at - statement_timestamp())::float8
FROM (VALUES (1)) AS one
LEFT JOIN (
  SELECT lanes.queue, min(next.run_at) AS run_at
  FROM lanes
  CROSS JOIN LATERAL (
    SELECT run_at FROM jobs
    WHERE status = 'queued' AND jobs.queue = lanes.queue AND jobs.kind = lanes.kind
      AND jobs.priority = lanes.priority AND run_at > coalesce(%(since)s::timestamptz, statement_timestamp())
    ORDER BY run_at, id
    LIMIT 1
  ) AS next
  GROUP BY lanes.queue
) AS due ON true
""".encode()  # noqa: S608  put together from words of ours


def next_due(database: Database, queues: Collection[str], since: datetime | None) -> Due:
    """See the port, `application.alarm.Look`. Blocks."""
    rows = database.rows(DUE, {"queues": list(queues), "since": since})
    return Due(rows[0][0], {queue: seconds for _, queue, seconds in rows if queue is not None})
