"""The view `totals`: what happened since the beginning in each queue and kind, and how many jobs are in each status."""

from typing import Any

from msgspec import Struct
from psycopg import Connection

from application.operations import LaneMeasures
from application.projections import Happened, Rows, counted
from infrastructure.postgres.columns import int8s, texts
from infrastructure.postgres.database import Database
from infrastructure.postgres.stats import NUMBERS, STATUS

MERGE = """
ON CONFLICT (generation, namespace, queue, kind) DO UPDATE
SET created = totals.created + EXCLUDED.created, started = totals.started + EXCLUDED.started,
  completed = totals.completed + EXCLUDED.completed, failed = totals.failed + EXCLUDED.failed,
  retried = totals.retried + EXCLUDED.retried, missed = totals.missed + EXCLUDED.missed,
  released = totals.released + EXCLUDED.released, cancelled = totals.cancelled + EXCLUDED.cancelled,
  requeued = totals.requeued + EXCLUDED.requeued, waited_us = totals.waited_us + EXCLUDED.waited_us,
  ran_us = totals.ran_us + EXCLUDED.ran_us, runs = totals.runs + EXCLUDED.runs,
  now_queued = totals.now_queued + EXCLUDED.now_queued, now_running = totals.now_running + EXCLUDED.now_running,
  now_cancelling = totals.now_cancelling + EXCLUDED.now_cancelling,
  now_completed = totals.now_completed + EXCLUDED.now_completed, now_failed = totals.now_failed + EXCLUDED.now_failed,
  now_cancelled = totals.now_cancelled + EXCLUDED.now_cancelled
"""
ADD = f"""
INSERT INTO totals (generation, namespace, queue, kind, created, started, completed, failed, retried, missed, released,
  cancelled, requeued, waited_us, ran_us, runs, now_queued, now_running, now_cancelling, now_completed, now_failed,
  now_cancelled)
SELECT %b, x.*
FROM unnest(%b::text[], %b::text[], %b::text[], %b::int8[], %b::int8[], %b::int8[], %b::int8[], %b::int8[], %b::int8[],
    %b::int8[], %b::int8[], %b::int8[], %b::int8[], %b::int8[], %b::int8[], %b::int8[], %b::int8[], %b::int8[],
    %b::int8[], %b::int8[], %b::int8[]) AS x
{MERGE}
"""  # noqa: S608  the words are ours
ROWS = """
SELECT namespace, queue, kind, created, started, completed, failed, retried, missed, released, cancelled, requeued,
  waited_us, ran_us, runs, now_queued, now_running, now_cancelling, now_completed, now_failed, now_cancelled
FROM totals
WHERE generation = %b
"""


LANES = """
SELECT namespace, queue, kind, created, started, completed, failed, retried, missed, released, cancelled, requeued,
  waited_us / 1e6::float8, ran_us / 1e6::float8, runs,
  now_queued, now_running, now_cancelling, now_completed, now_failed, now_cancelled
FROM totals
JOIN projections ON projections.name = 'totals' AND state = 'live' AND totals.generation = projections.generation
ORDER BY namespace, queue, kind
"""


class Total(Struct):
    """Durations in microseconds; `now_…` are the jobs that are in that status."""

    created: int = 0
    started: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0
    missed: int = 0
    released: int = 0
    cancelled: int = 0
    requeued: int = 0
    waited_us: int = 0
    ran_us: int = 0
    runs: int = 0
    now_queued: int = 0
    now_running: int = 0
    now_cancelling: int = 0
    now_completed: int = 0
    now_failed: int = 0
    now_cancelled: int = 0


class Totals:
    """See `application.projections.Projection`."""

    name = "totals"
    revision = 1
    merge = MERGE
    told_last: tuple[str, ...] = ()

    def fold(self, rows: Rows, happened: Happened) -> None:
        name = counted(happened.event)
        if name is None and happened.before == happened.after:
            return
        key = (happened.namespace, happened.queue, happened.kind)
        total = rows.get(key)
        if total is None:
            total = rows[key] = Total()
        if name is not None:
            setattr(total, name, getattr(total, name) + 1)
        if happened.before != happened.after:
            _move(total, f"now_{happened.after}", 1)
            if happened.before is not None:
                _move(total, f"now_{happened.before}", -1)
        if happened.waited is not None:
            total.waited_us += happened.waited
        if happened.ran is not None:
            total.ran_us += happened.ran
            total.runs += 1

    def add(self, connection: Connection, generation: int, rows: Rows) -> None:
        keys = [texts([key[n] for key in rows]) for n in range(3)]
        numbers = [int8s([getattr(total, name) for total in rows.values()]) for name in Total.__struct_fields__]
        connection.execute(ADD, (generation, *keys, *numbers), binary=True)

    def rows(self, connection: Connection, generation: int) -> Rows:
        return {row[:3]: _total(row) for row in connection.execute(ROWS, (generation,), binary=True)}


def measured(database: Database) -> list[LaneMeasures]:
    """All lanes of all namespaces."""
    return [
        LaneMeasures(
            namespace=row[0],
            queue=row[1],
            kind=row[2],
            events=dict(zip(NUMBERS, row[3:12], strict=True)),
            statuses=dict(zip(STATUS, row[15:], strict=True)),
            waited_seconds=row[12],
            ran_seconds=row[13],
            ended=row[14],
        )
        for row in database.rows(LANES)
    ]


def _move(total: Total, name: str, count: int) -> None:
    setattr(total, name, getattr(total, name) + count)


def _total(row: tuple[Any, ...]) -> Total:
    return Total(**dict(zip(Total.__struct_fields__, row[3:], strict=True)))
