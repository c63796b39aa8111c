"""The view `stats`: what happened in each minute of each queue and kind, and how long jobs waited and ran."""

from datetime import datetime
from typing import Any, NamedTuple

from msgspec import Struct, field
from msgspec.json import encode
from psycopg import Connection

from application.histogram import Histogram, histogram, observe
from application.projections import Happened, Rows, counted
from infrastructure.postgres.columns import int8s, moments, texts

ADD = """
INSERT INTO stats (generation, namespace, minute, queue, kind, created, started, completed, failed, retried, missed,
  released, cancelled, requeued, waits, runs)
SELECT %b, namespace, minute, queue, kind, created, started, completed, failed, retried, missed, released, cancelled,
  requeued, waits::jsonb, runs::jsonb
FROM unnest(%b::text[], %b::timestamptz[], %b::text[], %b::text[], %b::int8[], %b::int8[], %b::int8[], %b::int8[],
    %b::int8[], %b::int8[], %b::int8[], %b::int8[], %b::int8[], %b::text[], %b::text[])
  AS x (namespace, minute, queue, kind, created, started, completed, failed, retried, missed, released, cancelled,
    requeued, waits, runs)
ON CONFLICT (generation, namespace, minute, queue, kind) DO UPDATE
SET created = stats.created + EXCLUDED.created, started = stats.started + EXCLUDED.started,
  completed = stats.completed + EXCLUDED.completed, failed = stats.failed + EXCLUDED.failed,
  retried = stats.retried + EXCLUDED.retried, missed = stats.missed + EXCLUDED.missed,
  released = stats.released + EXCLUDED.released, cancelled = stats.cancelled + EXCLUDED.cancelled,
  requeued = stats.requeued + EXCLUDED.requeued, waits = merge_histograms(stats.waits, EXCLUDED.waits),
  runs = merge_histograms(stats.runs, EXCLUDED.runs)
"""
ROWS = """
SELECT namespace, minute, queue, kind, created, started, completed, failed, retried, missed, released, cancelled,
  requeued, waits, runs
FROM stats
WHERE generation = %b
"""


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
