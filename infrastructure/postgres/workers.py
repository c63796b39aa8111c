"""The view `workers`: who worked, from when until when, and how it ended."""

from datetime import datetime
from typing import Any

from msgspec import Struct
from psycopg import Connection

from application.operations import HeldJob, WorkerView
from application.projections import Happened, Rows
from domain.events import Cancelled, Completed, Failed, HeartbeatMissed, Progressed, Released, Started
from infrastructure.postgres.columns import int8s, moments, texts
from infrastructure.postgres.database import Database

MERGE = """
ON CONFLICT (generation, namespace, worker) DO UPDATE
SET first_seen = least(workers.first_seen, EXCLUDED.first_seen),
  last_seen = greatest(workers.last_seen, EXCLUDED.last_seen), started = workers.started + EXCLUDED.started,
  completed = workers.completed + EXCLUDED.completed, failed = workers.failed + EXCLUDED.failed,
  missed = workers.missed + EXCLUDED.missed, released = workers.released + EXCLUDED.released
"""
ADD = f"""
INSERT INTO workers (generation, namespace, worker, first_seen, last_seen, started, completed, failed, missed, released)
SELECT %b, namespace, worker, first_seen, last_seen, started, completed, failed, missed, released
FROM unnest(%b::text[], %b::text[], %b::timestamptz[], %b::timestamptz[], %b::int8[], %b::int8[], %b::int8[],
    %b::int8[], %b::int8[])
  AS x (namespace, worker, first_seen, last_seen, started, completed, failed, missed, released)
{MERGE}
"""  # noqa: S608  the words are ours
ROWS = """
SELECT namespace, worker, first_seen, last_seen, started, completed, failed, missed, released
FROM workers
WHERE generation = %b
"""
WORKERS = """
WITH held AS (
  SELECT worker, count(*) AS holding, max(heartbeat_at) AS heartbeat_at
  FROM leases
  CROSS JOIN LATERAL (
    SELECT FROM jobs WHERE jobs.id = job_id AND namespace = coalesce(%(namespace)s, namespace) OFFSET 0
  ) AS job
  GROUP BY worker
), asking AS (
  SELECT worker, min(first_seen_at) AS first_seen, max(last_seen_at) AS last_seen,
    array_agg(DISTINCT queue) AS queues,
    CASE WHEN NOT bool_or(kinds IS NULL) THEN array_agg(DISTINCT kind) END AS kinds
  FROM claimers
  CROSS JOIN LATERAL unnest(queues) AS queue
  LEFT JOIN LATERAL unnest(kinds) AS kind ON true
  WHERE %(namespace)s::text IS NULL OR namespace = %(namespace)s
  GROUP BY worker
), working AS (
  SELECT worker, min(first_seen) AS first_seen, max(last_seen) AS last_seen, sum(workers.started)::int8 AS started,
    sum(completed)::int8 AS completed, sum(failed)::int8 AS failed, sum(missed)::int8 AS missed,
    sum(released)::int8 AS released
  FROM workers
  JOIN projections ON projections.name = 'workers' AND state = 'live' AND projections.generation = workers.generation
  WHERE namespace = coalesce(%(namespace)s, namespace)
  GROUP BY worker
)
SELECT worker, least(working.first_seen, asking.first_seen),
  greatest(working.last_seen, asking.last_seen, heartbeat_at), coalesce(holding, 0), coalesce(started, 0),
  coalesce(completed, 0), coalesce(failed, 0), coalesce(missed, 0), coalesce(released, 0), queues, kinds
FROM working
FULL JOIN asking USING (worker)
LEFT JOIN held USING (worker)
WHERE worker > %(after)s
  AND (greatest(working.last_seen, asking.last_seen) > clock_timestamp() - make_interval(secs => %(since)s)
    OR holding > 0)
ORDER BY worker
LIMIT %(limit)s
"""
HELD = """
SELECT worker, job_id, attempt, heartbeat_at, expires_at
FROM (
  SELECT leases.worker, job_id, leases.attempt, heartbeat_at, expires_at,
    row_number() OVER (PARTITION BY leases.worker ORDER BY job_id) AS n
  FROM leases JOIN jobs ON jobs.id = job_id
  WHERE leases.worker = ANY(%(workers)s) AND namespace = coalesce(%(namespace)s, namespace)
) AS held
WHERE n <= %(shown)s
"""
SHOWN = 10
"""Jobs that are shown of a worker."""
SAID: dict[type, str | None] = {
    Started: "started",
    Progressed: None,
    Completed: "completed",
    Failed: "failed",
    HeartbeatMissed: "missed",
    Released: "released",
    Cancelled: None,
}
"""What a worker says, or leaves unsaid, of its attempts, and what that is counted as."""
NUMBERS = ("started", "completed", "failed", "missed", "released")


class WorkerRow(Struct):
    """`failed` and `missed` count attempts; `last_seen` is of the log alone: heartbeats are in the leases."""

    first_seen: datetime
    last_seen: datetime
    started: int = 0
    completed: int = 0
    failed: int = 0
    missed: int = 0
    released: int = 0


class Workers:
    """See `application.projections.Projection`."""

    name = "workers"
    revision = 1
    merge = MERGE
    told_last: tuple[str, ...] = ()

    def fold(self, rows: Rows, happened: Happened) -> None:
        event, worker = happened.event, happened.worker
        kind = type(event)
        if worker is None or kind not in SAID:
            return
        if happened.ran is None and kind not in (Started, Progressed):  # the attempt had ended before
            return
        seen = event.last_heartbeat if isinstance(event, HeartbeatMissed) else event.at
        row = rows.get((happened.namespace, worker))
        if row is None:
            row = rows[happened.namespace, worker] = WorkerRow(seen, seen)
        row.first_seen = min(row.first_seen, seen)
        row.last_seen = max(row.last_seen, seen)
        if (name := SAID[kind]) is not None:
            setattr(row, name, getattr(row, name) + 1)

    def add(self, connection: Connection, generation: int, rows: Rows) -> None:
        values: list[WorkerRow] = list(rows.values())
        columns = (
            texts([namespace for namespace, _ in rows]),
            texts([worker for _, worker in rows]),
            moments([row.first_seen for row in values]),
            moments([row.last_seen for row in values]),
            *(int8s([getattr(row, name) for row in values]) for name in NUMBERS),
        )
        connection.execute(ADD, (generation, *columns), binary=True)

    def rows(self, connection: Connection, generation: int) -> Rows:
        return {row[:2]: _row(row) for row in connection.execute(ROWS, (generation,), binary=True)}


def _row(row: tuple[Any, ...]) -> WorkerRow:
    return WorkerRow(row[2], row[3], **dict(zip(NUMBERS, row[4:], strict=True)))


def listed(database: Database, namespace: str | None, since: float, after: str, limit: int) -> list[WorkerView]:
    """Those heard of in the last `since` seconds, by name, those above `after`."""
    values = {"namespace": namespace, "since": since, "after": after, "limit": limit}
    rows = database.rows(WORKERS, values)
    held: dict[str, list[HeldJob]] = {}
    wanted = {"workers": [row[0] for row in rows if row[3]], "namespace": namespace, "shown": SHOWN}
    for worker, job_id, attempt, beat, expires in database.rows(HELD, wanted):
        job = HeldJob(job_id=job_id, attempt=attempt, heartbeat_at=beat, lease_expires_at=expires)
        held.setdefault(worker, []).append(job)
    return [_worker(row, held.get(row[0], [])) for row in rows]


def _worker(row: tuple[Any, ...], jobs: list[HeldJob]) -> WorkerView:
    return WorkerView(
        name=row[0],
        first_seen=row[1],
        last_seen=row[2],
        holding=row[3],
        jobs=jobs,
        started=row[4],
        completed=row[5],
        failed=row[6],
        missed=row[7],
        released=row[8],
        queues=row[9] or [],
        kinds=row[10],
    )
