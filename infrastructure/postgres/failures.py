"""The view `failures`: attempts that failed, those alike counted together."""

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from msgspec import MsgspecError, Struct
from msgspec.json import decode, encode
from psycopg import Connection

from application.errors import FieldError, Invalid
from application.operations import FailureView
from application.projections import Happened, Rows
from domain.events import Failed, HeartbeatMissed
from infrastructure.postgres.columns import byteas, int8s, moments, texts
from infrastructure.postgres.database import Database

MERGE = """
ON CONFLICT (generation, namespace, kind, type, fingerprint) DO UPDATE
SET message = EXCLUDED.message, count = failures.count + EXCLUDED.count, final = failures.final + EXCLUDED.final,
  first_seen = least(failures.first_seen, EXCLUDED.first_seen),
  last_seen = greatest(failures.last_seen, EXCLUDED.last_seen),
  examples = latest_five(failures.examples, EXCLUDED.examples)
"""
ADD = f"""
INSERT INTO failures (generation, namespace, kind, type, fingerprint, message, count, final, first_seen, last_seen,
  examples)
SELECT %b, namespace, kind, type, fingerprint, message, count, final, first_seen, last_seen, examples::uuid[]
FROM unnest(%b::text[], %b::text[], %b::text[], %b::bytea[], %b::text[], %b::int8[], %b::int8[], %b::timestamptz[],
    %b::timestamptz[], %b::text[])
  AS x (namespace, kind, type, fingerprint, message, count, final, first_seen, last_seen, examples)
{MERGE}
"""  # noqa: S608  the words are ours
ROWS = """
SELECT namespace, kind, type, fingerprint, message, count, final, first_seen, last_seen, examples
FROM failures
WHERE generation = %b
"""
LISTED = """
SELECT last_seen, namespace, kind, type, fingerprint, message, count, final, first_seen, examples
FROM failures
WHERE generation = (SELECT generation FROM projections WHERE name = 'failures' AND state = 'live')
  AND (last_seen, namespace, kind, type, fingerprint) < (%b, %b, %b, %b, %b)
ORDER BY last_seen DESC, namespace DESC, kind DESC, type DESC, fingerprint DESC
LIMIT %b
"""
LISTED_OF_NAMESPACE = """
SELECT last_seen, namespace, kind, type, fingerprint, message, count, final, first_seen, examples
FROM failures
WHERE generation = (SELECT generation FROM projections WHERE name = 'failures' AND state = 'live')
  AND namespace = %b AND (last_seen, kind, type, fingerprint) < (%b, %b, %b, %b)
ORDER BY last_seen DESC, kind DESC, type DESC, fingerprint DESC
LIMIT %b
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
    merge = MERGE
    told_last: tuple[str, ...] = ("message", "examples")

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


def listed(
    database: Database, namespace: str | None, limit: int, cursor: str | None
) -> tuple[list[FailureView], str | None]:
    """Those seen last first, and the cursor of the next page. Raises Invalid."""
    last_seen, last_namespace, *last = _place(cursor) if cursor else (datetime.max.replace(tzinfo=UTC), "", "", "", b"")
    if namespace is None:
        rows = database.rows(LISTED, (last_seen, last_namespace, *last, limit + 1))
    else:
        rows = database.rows(LISTED_OF_NAMESPACE, (namespace, last_seen, *last, limit + 1))
    following = _cursor(rows[limit - 1]) if len(rows) > limit else None
    return [_failure(row) for row in rows[:limit]], following


def _failure(row: tuple[Any, ...]) -> FailureView:
    return FailureView(
        last_seen=row[0],
        kind=row[2],
        type=row[3],
        message=row[5],
        count=row[6],
        final=row[7],
        first_seen=row[8],
        examples=row[9],
    )


def _cursor(row: tuple[Any, ...]) -> str:
    return urlsafe_b64encode(encode(row[:5])).decode()


def _place(cursor: str) -> tuple[datetime, str, str, str, bytes]:
    with suppress(MsgspecError, ValueError):
        place = decode(urlsafe_b64decode(cursor), type=tuple[datetime, str, str, str, bytes])
        if not any("\0" in part for part in place[1:4]):
            return place
    raise Invalid(FieldError("cursor", "is not the `next` of a page of this list"))
