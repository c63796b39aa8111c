"""Queues: how many jobs are in each, and which give no claims."""

import re
import time
from collections.abc import Callable, Collection
from typing import Any

from application.jobs import DEFAULT
from application.operations import MOST_COUNTED, PauseView, QueueView
from infrastructure.postgres.database import Database
from infrastructure.postgres.lanes import hops
from infrastructure.postgres.ready import PLACE

# What is queued is counted lane by lane, as the claim goes; a lane with more than is counted, by the view of totals.
QUEUES = f"""
WITH RECURSIVE
{hops("waiting", "(SELECT) AS above", [], "queue", "status = 'queued'", None)},
held AS (
  SELECT queue, count(*) AS running
  FROM leases
  CROSS JOIN LATERAL (
    SELECT queue FROM jobs WHERE jobs.id = leases.job_id AND namespace = coalesce(%(namespace)s, namespace) OFFSET 0
  ) AS job
  GROUP BY queue
), total AS (
  SELECT queue, sum(now_queued)::int8 AS queued
  FROM totals JOIN projections ON projections.name = 'totals' AND state = 'live'
    AND totals.generation = projections.generation
  WHERE namespace = coalesce(%(namespace)s, namespace)
  GROUP BY queue
), names AS (
  SELECT queue FROM (
    SELECT queue FROM total
    UNION SELECT queue FROM held
    UNION SELECT queue FROM queue_pauses WHERE %(namespace)s::text IS NULL
    UNION SELECT queue FROM waiting
    WHERE queue IS NOT NULL AND (%(namespace)s::text IS NULL OR EXISTS (
      SELECT FROM jobs WHERE status = 'queued' AND jobs.queue = waiting.queue AND namespace = %(namespace)s
    ))
  ) AS known
  WHERE queue > %(after)s
  ORDER BY queue
  LIMIT %(limit)s
),
{hops("kinds", "names AS above", ["queue"], "kind", "status = 'queued'", None)},
{hops("lanes", "kinds AS above", ["queue", "kind"], "priority", "status = 'queued'", None)},
lane AS (
  SELECT queue,
    (SELECT count(*) FROM (
      SELECT FROM jobs
      WHERE status = 'queued' AND jobs.queue = lanes.queue AND jobs.kind = lanes.kind
        AND jobs.priority = lanes.priority AND run_at <= statement_timestamp()
        AND namespace = coalesce(%(namespace)s, namespace)
      LIMIT %(most)s
    ) AS due) AS ready,
    (SELECT count(*) FROM (
      SELECT FROM jobs
      WHERE status = 'queued' AND jobs.queue = lanes.queue AND jobs.kind = lanes.kind
        AND jobs.priority = lanes.priority AND run_at > statement_timestamp()
        AND namespace = coalesce(%(namespace)s, namespace)
      LIMIT %(most)s
    ) AS later) AS scheduled,
    (SELECT run_at FROM jobs
      WHERE status = 'queued' AND jobs.queue = lanes.queue AND jobs.kind = lanes.kind
        AND jobs.priority = lanes.priority AND run_at <= statement_timestamp()
        AND namespace = coalesce(%(namespace)s, namespace)
      ORDER BY run_at, id LIMIT 1) AS oldest
  FROM lanes
  WHERE priority IS NOT NULL
), queued AS (
  SELECT queue, sum(ready)::int8 AS ready, max(ready) >= %(most)s AS more, sum(scheduled)::int8 AS scheduled,
    extract(epoch FROM clock_timestamp() - min(oldest))::float8 AS waited
  FROM lane
  GROUP BY queue
)
SELECT names.queue,
  CASE WHEN more THEN greatest(ready, total.queued - scheduled) ELSE coalesce(ready, 0) END,
  coalesce(scheduled, 0), coalesce(running, 0), waited, paused_at, paused_by, reason
FROM names
LEFT JOIN queued USING (queue)
LEFT JOIN total USING (queue)
LEFT JOIN held USING (queue)
LEFT JOIN queue_pauses USING (queue)
ORDER BY queue
""".encode()  # noqa: S608  put together from words of ours
# Of one namespace: its own jobs are looked at, by the index that claims for it go by, which the default one is not in.
QUEUES_WITHIN = re.sub(
    rb"jobs\.queue = (lanes|waiting)\.queue", PLACE.encode() + rb" = %(namespace)s::text || '/' || \1.queue", QUEUES
)
PAUSE = """
INSERT INTO queue_pauses (queue, paused_by, reason) VALUES (%s, %s, %s)
ON CONFLICT (queue) DO UPDATE SET queue = EXCLUDED.queue
RETURNING paused_at, paused_by, reason
"""
UNPAUSE = "DELETE FROM queue_pauses WHERE queue = %s"
PAUSED = "SELECT queue FROM queue_pauses"
FRESH_SECONDS = 1.0
"""How old a look at the pauses may be when a claim goes by it."""


class PausedQueues:
    """The queues that give no claims; looked up once a second at the most, however many claims there are."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._looked: float | None = None
        self._paused: Collection[str] = ()

    def __call__(self) -> Collection[str]:
        """Raises Unavailable. Use from one thread."""
        now = self._clock()
        if self._looked is None or now - self._looked >= FRESH_SECONDS:
            self._paused = {queue for (queue,) in self._database.rows(PAUSED)}
            self._looked = now
        return self._paused


def listed(database: Database, namespace: str | None, after: str, limit: int) -> list[QueueView]:
    """By name, those above `after`."""
    values = {"namespace": namespace, "after": after, "limit": limit, "most": MOST_COUNTED}
    return [_queue(row) for row in database.rows(QUEUES if namespace in (None, DEFAULT) else QUEUES_WITHIN, values)]


def pause(database: Database, queue: str, by: str, reason: str) -> PauseView:
    """What was said first stands."""
    with database.connection() as connection:
        row = connection.execute(PAUSE, (queue, by, reason)).fetchone()
    assert row
    return PauseView(since=row[0], by=row[1], reason=row[2])


def unpause(database: Database, queue: str) -> None:
    with database.connection() as connection:
        connection.execute(UNPAUSE, (queue,))


def _queue(row: tuple[Any, ...]) -> QueueView:
    return QueueView(
        name=row[0],
        ready=row[1],
        scheduled=row[2],
        running=row[3],
        oldest_waiting_seconds=row[4],
        paused=PauseView(since=row[5], by=row[6], reason=row[7]) if row[5] else None,
    )
