"""The view `failures`: attempts that failed, those alike counted together."""

import hashlib
import re
from datetime import datetime
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from application.projections import Happened, Rows
from domain.events import Failed, HeartbeatMissed
from infrastructure.postgres.columns import byteas, int8s, moments, texts

ADD = """
INSERT INTO failures (generation, namespace, kind, type, fingerprint, message, count, final, first_seen, last_seen,
  examples)
SELECT %b, namespace, kind, type, fingerprint, message, count, final, first_seen, last_seen, examples::uuid[]
FROM unnest(%b::text[], %b::text[], %b::text[], %b::bytea[], %b::text[], %b::int8[], %b::int8[], %b::timestamptz[],
    %b::timestamptz[], %b::text[])
  AS x (namespace, kind, type, fingerprint, message, count, final, first_seen, last_seen, examples)
ON CONFLICT (generation, namespace, kind, type, fingerprint) DO UPDATE
SET message = EXCLUDED.message, count = failures.count + EXCLUDED.count, final = failures.final + EXCLUDED.final,
  first_seen = least(failures.first_seen, EXCLUDED.first_seen),
  last_seen = greatest(failures.last_seen, EXCLUDED.last_seen),
  examples = latest_five(failures.examples, EXCLUDED.examples)
"""
ROWS = """
SELECT namespace, kind, type, fingerprint, message, count, final, first_seen, last_seen, examples
FROM failures
WHERE generation = %b
"""
EXAMPLES = 5
MISSED = "heartbeat-missed"
UNHEARD = "the lease ran out without a heartbeat"
LONGEST_MESSAGE = 2_000
_DIFFERS = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"
    r"|0x[0-9a-f]+|\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b|\d+(?:\.\d+)?",
    re.IGNORECASE,
)
"""Ids, moments, addresses, hashes and numbers."""


class Failure(Struct):
    """Failures alike. `final`: how many of them ended their job; `message` is the last one's."""

    message: str
    first_seen: datetime
    last_seen: datetime
    count: int = 0
    final: int = 0
    examples: list[UUID] = []


class Failures:
    """See `application.projections.Projection`."""

    name = "failures"
    revision = 1

    def fold(self, rows: Rows, happened: Happened) -> None:
        event = happened.event
        match event:
            case HeartbeatMissed():
                type, message, count, final = MISSED, UNHEARD, 1, False
            case Failed() if happened.ran is None:  # what follows the last missed heartbeat
                type, message, count, final = MISSED, UNHEARD, 0, True
            case Failed():
                type, message, count, final = event.error.type, event.error.message, 1, event.retry_at is None
            case _:
                return
        key = (happened.namespace, happened.kind, type, fingerprint(message))
        row = rows.get(key)
        if row is None:
            row = rows[key] = Failure(message, event.at, event.at)
        row.message = message[:LONGEST_MESSAGE]
        row.count += count
        row.final += final
        row.first_seen = min(row.first_seen, event.at)
        row.last_seen = max(row.last_seen, event.at)
        row.examples = [*(id for id in row.examples if id != happened.job_id), happened.job_id][-EXAMPLES:]

    def add(self, connection: Connection, generation: int, rows: Rows) -> None:
        values: list[Failure] = list(rows.values())
        columns = (
            *(texts([key[n] for key in rows]) for n in range(3)),
            byteas([key[3] for key in rows]),
            texts([row.message for row in values]),
            int8s([row.count for row in values]),
            int8s([row.final for row in values]),
            moments([row.first_seen for row in values]),
            moments([row.last_seen for row in values]),
            texts([f"{{{','.join(map(str, row.examples))}}}" for row in values]),
        )
        connection.execute(ADD, (generation, *columns), binary=True)

    def rows(self, connection: Connection, generation: int) -> Rows:
        found = connection.execute(ROWS, (generation,), binary=True)
        return {row[:4]: Failure(row[4], row[7], row[8], count=row[5], final=row[6], examples=row[9]) for row in found}


def fingerprint(message: str) -> bytes:
    """Of a message without its ids, moments and numbers: eight bytes that are alike for failures alike."""
    return hashlib.sha256(_DIFFERS.sub("#", message).encode(errors="replace")).digest()[:8]
