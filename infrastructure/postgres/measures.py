"""What the database says for metrics."""

from collections.abc import Sequence

from application.operations import Measures, ProjectionView
from infrastructure.postgres import totals
from infrastructure.postgres.database import Database
from infrastructure.postgres.lanes import hops
from infrastructure.postgres.queues import PAUSED
from infrastructure.postgres.schema import health
from infrastructure.postgres.seal import PostgresSeal

CONNECTIONS = """
SELECT state, count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'jobledger' AND state IS NOT NULL
GROUP BY state
"""
# One look at the index for each queue, kind and priority that has jobs.
WAITING = f"""
WITH RECURSIVE
{hops("names", "(SELECT) AS above", [], "queue", "status = 'queued'", None)},
{hops("kinds", "names AS above", ["queue"], "kind", "status = 'queued'", None)},
{hops("lanes", "kinds AS above", ["queue", "kind"], "priority", "status = 'queued'", None)}
SELECT queue, greatest(extract(epoch FROM statement_timestamp() - min(oldest)), 0)::float8
FROM (
  SELECT queue, (SELECT run_at FROM jobs
    WHERE status = 'queued' AND jobs.queue = lanes.queue AND jobs.kind = lanes.kind AND jobs.priority = lanes.priority
    ORDER BY run_at, id LIMIT 1) AS oldest
  FROM lanes
  WHERE priority IS NOT NULL
) AS lane
GROUP BY queue
ORDER BY queue
""".encode()  # noqa: S608  put together from words of ours
# A node that has just come waits for a job's whole heartbeat timeout before it rescues it: only then is it overdue.
OVERDUE = """
SELECT count(*), coalesce(max(extract(epoch FROM clock_timestamp() - due)::float8), 0)
FROM (SELECT expires_at + make_interval(secs => heartbeat_timeout) AS due FROM leases) AS lease
WHERE due < clock_timestamp()
"""
MONTHS_AHEAD = """
SELECT coalesce(extract(epoch FROM month_of(low) - clock_timestamp()) / (365.25 * 86400 / 12), 0)::float8
FROM event_partitions WHERE name = 'events_after'
"""


def measured(reads: Database, projections: Sequence[ProjectionView]) -> Measures:
    """Blocks. Raises Unavailable, and SchemaNotReady."""
    oldest = health(reads)
    seal = PostgresSeal(reads).lag()
    ((overdue, overdue_seconds),) = reads.rows(OVERDUE)
    months = reads.rows(MONTHS_AHEAD)
    return Measures(
        lanes=totals.measured(reads),
        projections=list(projections),
        stalled_by=oldest.oldest_writer_pid,
        stalled_seconds=oldest.oldest_writer_seconds or 0.0,
        connections=dict(reads.rows(CONNECTIONS)),
        unsealed=seal.events,
        unsealed_seconds=seal.seconds,
        waiting=dict(reads.rows(WAITING)),
        paused=[queue for (queue,) in reads.rows(PAUSED)],
        overdue=overdue,
        overdue_seconds=overdue_seconds,
        months_ahead=months[0][0] if months else 0.0,
    )
