"""When the next jobs are due that wait for their moment."""

from collections.abc import Collection
from datetime import datetime

from application.alarm import Due
from infrastructure.postgres.database import Database
from infrastructure.postgres.lanes import hops

# Lane by lane, as the claim goes, each by two looks into the index: what came due does not hide what will be.
DUE = f"""
WITH RECURSIVE
{hops("queues", "(VALUES (1)) AS above (one)", [], "queue", "status = 'queued'", "queues")},
{hops("kinds", "queues AS above", ["queue"], "kind", "status = 'queued'", None)},
{hops("lanes", "kinds AS above", ["queue", "kind"], "priority", "status = 'queued'", None)}
SELECT statement_timestamp(), queue, came, extract(epoch FROM next_at - statement_timestamp())::float8
FROM (VALUES (1)) AS one
LEFT JOIN (
  SELECT lanes.queue, bool_or(passed.run_at IS NOT NULL) AS came, min(next.run_at) AS next_at
  FROM lanes
  LEFT JOIN LATERAL (
    SELECT run_at FROM jobs
    WHERE status = 'queued' AND jobs.queue = lanes.queue AND jobs.kind = lanes.kind
      AND jobs.priority = lanes.priority AND run_at > %(since)s::timestamptz AND run_at <= statement_timestamp()
    ORDER BY run_at, id
    LIMIT 1
  ) AS passed ON true
  LEFT JOIN LATERAL (
    SELECT run_at FROM jobs
    WHERE status = 'queued' AND jobs.queue = lanes.queue AND jobs.kind = lanes.kind
      AND jobs.priority = lanes.priority AND run_at > statement_timestamp()
    ORDER BY run_at, id
    LIMIT 1
  ) AS next ON true
  WHERE lanes.priority IS NOT NULL
  GROUP BY lanes.queue
) AS due ON true
""".encode()  # noqa: S608  put together from words of ours


def next_due(database: Database, queues: Collection[str], since: datetime | None) -> Due:
    """See the port, `application.alarm.Look`. Blocks."""
    rows = database.rows(DUE, {"queues": list(queues), "since": since})
    came = [queue for _, queue, came, _ in rows if came]
    return Due(rows[0][0], came, min((seconds for *_, seconds in rows if seconds is not None), default=None))
