"""The view `stats`: what happened in each minute of each queue and kind, and how long jobs waited and ran."""

from collections import Counter
from datetime import datetime
from typing import Any, NamedTuple

from msgspec import Struct, field
from msgspec.json import encode
from psycopg import Connection

from application.histogram import Histogram, histogram, observe, percentile
from application.operations import LaneStats, Percentiles, StatsView, StatsWanted
from application.projections import Happened, Rows, counted
from domain.job import Status
from infrastructure.postgres.columns import int8s, moments, texts
from infrastructure.postgres.database import Database

MERGE = """
ON CONFLICT (generation, namespace, minute, queue, kind) DO UPDATE
SET created = stats.created + EXCLUDED.created, started = stats.started + EXCLUDED.started,
  completed = stats.completed + EXCLUDED.completed, failed = stats.failed + EXCLUDED.failed,
  retried = stats.retried + EXCLUDED.retried, missed = stats.missed + EXCLUDED.missed,
  released = stats.released + EXCLUDED.released, cancelled = stats.cancelled + EXCLUDED.cancelled,
  requeued = stats.requeued + EXCLUDED.requeued, waits = merge_histograms(stats.waits, EXCLUDED.waits),
  runs = merge_histograms(stats.runs, EXCLUDED.runs)
"""
ADD = f"""
INSERT INTO stats (generation, namespace, minute, queue, kind, created, started, completed, failed, retried, missed,
  released, cancelled, requeued, waits, runs)
SELECT %b, namespace, minute, queue, kind, created, started, completed, failed, retried, missed, released, cancelled,
  requeued, waits::jsonb, runs::jsonb
FROM unnest(%b::text[], %b::timestamptz[], %b::text[], %b::text[], %b::int8[], %b::int8[], %b::int8[], %b::int8[],
    %b::int8[], %b::int8[], %b::int8[], %b::int8[], %b::int8[], %b::text[], %b::text[])
  AS x (namespace, minute, queue, kind, created, started, completed, failed, retried, missed, released, cancelled,
    requeued, waits, runs)
{MERGE}
"""  # noqa: S608  the words are ours
ROWS = """
SELECT namespace, minute, queue, kind, created, started, completed, failed, retried, missed, released, cancelled,
  requeued, waits, runs
FROM stats
WHERE generation = %b
"""


WITHIN = """
WITH window_of AS (
  SELECT queue, kind, stats.created, stats.started, completed, failed, retried, missed, released, cancelled, requeued,
    waits, runs
  FROM stats
  JOIN projections ON projections.name = 'stats' AND state = 'live' AND projections.generation = stats.generation
  WHERE namespace = coalesce(%(namespace)s, namespace) AND minute >= %(begin)s AND minute < %(end)s
    AND (%(queues)s::text[] IS NULL OR queue = ANY(%(queues)s)) AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s))
), counts AS (
  SELECT queue, kind, sum(created)::int8 AS created, sum(started)::int8 AS started, sum(completed)::int8 AS completed,
    sum(failed)::int8 AS failed, sum(retried)::int8 AS retried, sum(missed)::int8 AS missed,
    sum(released)::int8 AS released, sum(cancelled)::int8 AS cancelled, sum(requeued)::int8 AS requeued
  FROM window_of
  GROUP BY queue, kind
), waited AS (
  SELECT queue, kind, jsonb_object_agg(bucket, count) AS waits
  FROM (
    SELECT queue, kind, key AS bucket, sum(value::int8) AS count
    FROM window_of CROSS JOIN LATERAL jsonb_each_text(waits) AS bucket
    GROUP BY queue, kind, key
  ) AS sums
  GROUP BY queue, kind
), ran AS (
  SELECT queue, kind, jsonb_object_agg(bucket, count) AS runs
  FROM (
    SELECT queue, kind, key AS bucket, sum(value::int8) AS count
    FROM window_of CROSS JOIN LATERAL jsonb_each_text(runs) AS bucket
    GROUP BY queue, kind, key
  ) AS sums
  GROUP BY queue, kind
)
SELECT queue, kind, created, started, completed, failed, retried, missed, released, cancelled, requeued,
  coalesce(waits, '{}'), coalesce(runs, '{}')
FROM counts LEFT JOIN waited USING (queue, kind) LEFT JOIN ran USING (queue, kind)
"""
STATUSES = """
SELECT queue, kind, sum(now_queued)::int8, sum(now_running)::int8, sum(now_cancelling)::int8,
  sum(now_completed)::int8, sum(now_failed)::int8, sum(now_cancelled)::int8
FROM totals
JOIN projections ON projections.name = 'totals' AND state = 'live' AND projections.generation = totals.generation
WHERE namespace = coalesce(%(namespace)s, namespace)
  AND (%(queues)s::text[] IS NULL OR queue = ANY(%(queues)s)) AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s))
GROUP BY queue, kind
"""
STATUS: tuple[Status, ...] = ("queued", "running", "cancelling", "completed", "failed", "cancelled")
NUMBERS = ("created", "started", "completed", "failed", "retried", "missed", "released", "cancelled", "requeued")


class Minute(NamedTuple):
    namespace: str
    minute: datetime
    queue: str
    kind: str


class Counts(Struct):
    created: int = 0
    started: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0
    missed: int = 0
    released: int = 0
    cancelled: int = 0
    requeued: int = 0
    waits: Histogram = field(default_factory=dict)
    runs: Histogram = field(default_factory=dict)


class Stats:
    """See `application.projections.Projection`."""

    name = "stats"
    revision = 1
    merge = MERGE
    told_last: tuple[str, ...] = ()

    def fold(self, rows: Rows, happened: Happened) -> None:
        event = happened.event
        name = counted(event)
        if name is None:
            return
        key = (happened.namespace, event.at.replace(second=0, microsecond=0), happened.queue, happened.kind)
        counts = rows.get(key)
        if counts is None:
            counts = rows[key] = Counts()
        setattr(counts, name, getattr(counts, name) + 1)
        if happened.waited is not None:
            observe(counts.waits, happened.waited)
        if happened.ran is not None:
            observe(counts.runs, happened.ran)

    def add(self, connection: Connection, generation: int, rows: Rows) -> None:
        keys = [Minute(*key) for key in rows]
        values: list[Counts] = list(rows.values())
        numbers = [int8s([getattr(counts, name) for counts in values]) for name in NUMBERS]
        columns = (
            texts([key.namespace for key in keys]),
            moments([key.minute for key in keys]),
            texts([key.queue for key in keys]),
            texts([key.kind for key in keys]),
            *numbers,
            texts([encode(counts.waits).decode() for counts in values]),
            texts([encode(counts.runs).decode() for counts in values]),
        )
        connection.execute(ADD, (generation, *columns), binary=True)

    def rows(self, connection: Connection, generation: int) -> Rows:
        found = connection.execute(ROWS, (generation,), binary=True)
        return {row[:4]: _counts(row) for row in found}


def _counts(row: tuple[Any, ...]) -> Counts:
    return Counts(**dict(zip(NUMBERS, row[4:13], strict=True)), waits=histogram(row[13]), runs=histogram(row[14]))


def within(database: Database, namespace: str | None, wanted: StatsWanted) -> StatsView:
    """What happened in a window, and how many jobs are in each status now."""
    values = {
        "namespace": namespace,
        "begin": wanted.begin,
        "end": wanted.end,
        "queues": list(wanted.queue) or None,
        "kinds": list(wanted.kind) or None,
    }
    happened = {row[:2]: row[2:] for row in database.rows(WITHIN, values)}
    statuses = {row[:2]: row[2:] for row in database.rows(STATUSES, values)}
    seconds = (wanted.end - wanted.begin).total_seconds()
    lanes = sorted(happened.keys() | statuses.keys())
    items = [_lane(lane, statuses.get(lane), happened.get(lane), seconds) for lane in lanes]
    waits, runs = ([histogram(row[n]) for row in happened.values()] for n in (9, 10))
    return StatsView(
        begin=wanted.begin, end=wanted.end, items=items, wait=_percentiles(*waits), run=_percentiles(*runs)
    )


def _lane(
    lane: tuple[Any, ...], statuses: tuple[Any, ...] | None, row: tuple[Any, ...] | None, seconds: float
) -> LaneStats:
    numbers = dict(zip(NUMBERS, row[:9] if row else [0] * 9, strict=True))
    return LaneStats(
        queue=lane[0],
        kind=lane[1],
        statuses=dict(zip(STATUS, statuses or [0] * 6, strict=True)),
        **numbers,
        completed_per_second=round(numbers["completed"] / seconds, 6),
        wait=_percentiles(histogram(row[9] if row else {})),
        run=_percentiles(histogram(row[10] if row else {})),
    )


def _percentiles(*counts: Histogram) -> Percentiles:
    together: Counter[int] = Counter()
    for one in counts:
        together.update(one)
    return Percentiles(
        count=together.total(),
        p50=percentile(together, 0.5),
        p90=percentile(together, 0.9),
        p95=percentile(together, 0.95),
        p99=percentile(together, 0.99),
    )
