"""The view `usage`: what each day cost, by kind and model: run time, bytes of artifacts, tokens."""

from typing import Any

from msgspec import UNSET, MsgspecError, Struct
from msgspec.json import Decoder
from psycopg import Connection

from application.language import Usage as ModelUsage
from application.operations import UsageView, UsageWanted
from application.projections import Happened, Rows
from domain.events import Progressed
from infrastructure.postgres.columns import int8s, texts
from infrastructure.postgres.database import Database

MERGE = """
ON CONFLICT (generation, namespace, day, kind, model) DO UPDATE
SET attempts = usage.attempts + EXCLUDED.attempts, run_us = usage.run_us + EXCLUDED.run_us,
  artifact_bytes = usage.artifact_bytes + EXCLUDED.artifact_bytes,
  input_tokens = usage.input_tokens + EXCLUDED.input_tokens,
  output_tokens = usage.output_tokens + EXCLUDED.output_tokens
"""
ADD = f"""
INSERT INTO usage (generation, namespace, day, kind, model, attempts, run_us, artifact_bytes, input_tokens,
  output_tokens)
SELECT %b, namespace, day::date, kind, model, attempts, run_us, artifact_bytes, input_tokens, output_tokens
FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::int8[], %b::int8[], %b::int8[], %b::int8[], %b::int8[])
  AS x (namespace, day, kind, model, attempts, run_us, artifact_bytes, input_tokens, output_tokens)
{MERGE}
"""  # noqa: S608  the words are ours
ROWS = """
SELECT namespace, day, kind, model, attempts, run_us, artifact_bytes, input_tokens, output_tokens
FROM usage
WHERE generation = %b
"""


SUMMED = """
SELECT CASE WHEN %(by_namespace)s THEN namespace END AS of_namespace, CASE WHEN %(by_day)s THEN day END AS of_day,
  CASE WHEN %(by_kind)s THEN kind END AS of_kind, CASE WHEN %(by_model)s THEN model END AS of_model,
  sum(attempts)::int8, sum(run_us)::float8, sum(artifact_bytes)::int8, sum(input_tokens)::int8,
  sum(output_tokens)::int8
FROM usage
JOIN projections ON projections.name = 'usage' AND state = 'live' AND projections.generation = usage.generation
WHERE namespace = coalesce(%(namespace)s, namespace) AND day BETWEEN %(begin)s AND %(end)s
GROUP BY of_namespace, of_day, of_kind, of_model
ORDER BY of_namespace, of_day, of_kind, of_model
"""
MOST_TOKENS = 10**12


class _Output(Struct):
    """What a step's output says of its cost, in the field `usage`."""

    usage: ModelUsage | None = None


_read = Decoder(_Output).decode


class Used(Struct):
    """Attempts that ended and their run time in microseconds; bytes of artifacts; tokens."""

    attempts: int = 0
    run_us: int = 0
    artifact_bytes: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Usage:
    """See `application.projections.Projection`."""

    name = "usage"
    revision = 1
    merge = MERGE
    told_last: tuple[str, ...] = ()

    def fold(self, rows: Rows, happened: Happened) -> None:
        if happened.ran is not None:
            used = _used(rows, happened)
            used.attempts += 1
            used.run_us += happened.ran
        event = happened.event
        if not isinstance(event, Progressed):
            return
        if event.artifact is not None:
            _used(rows, happened).artifact_bytes += event.artifact.size
        if event.output is not UNSET and (cost := _cost(bytes(event.output))) is not None:
            used = _used(rows, happened, cost.model)
            used.input_tokens += cost.input_tokens
            used.output_tokens += cost.output_tokens

    def add(self, connection: Connection, generation: int, rows: Rows) -> None:
        numbers = [int8s([getattr(used, name) for used in rows.values()]) for name in Used.__struct_fields__]
        columns = (
            texts([key[0] for key in rows]),
            texts([key[1].isoformat() for key in rows]),
            texts([key[2] for key in rows]),
            texts([key[3] for key in rows]),
        )
        connection.execute(ADD, (generation, *columns, *numbers), binary=True)

    def rows(self, connection: Connection, generation: int) -> Rows:
        return {row[:4]: _row(row) for row in connection.execute(ROWS, (generation,), binary=True)}


def _used(rows: Rows, happened: Happened, model: str = "") -> Used:
    used: Used = rows.setdefault((happened.namespace, happened.event.at.date(), happened.kind, model), Used())
    return used


def _cost(output: bytes) -> ModelUsage | None:
    """What a step says that it cost; a field of another shape is somebody else's."""
    if b'"usage"' not in output:
        return None
    try:
        cost = _read(output).usage
    except MsgspecError:
        return None
    return cost if cost and _counts(cost.input_tokens) and _counts(cost.output_tokens) else None


def _row(row: tuple[Any, ...]) -> Used:
    return Used(*row[4:])


def _counts(tokens: int) -> bool:
    return 0 <= tokens <= MOST_TOKENS


def summed(database: Database, namespace: str | None, wanted: UsageWanted) -> list[UsageView]:
    """Sums over what it is grouped by, in the order of that."""
    kept = {f"by_{name}": name in wanted.group for name in ("namespace", "day", "kind", "model")}
    rows = database.rows(SUMMED, {"namespace": namespace, "begin": wanted.begin, "end": wanted.end, **kept})
    return [
        UsageView(
            namespace=row[0],
            day=row[1],
            kind=row[2],
            model=row[3],
            attempts=row[4],
            seconds=row[5] / 1e6,
            artifact_bytes=row[6],
            input_tokens=row[7],
            output_tokens=row[8],
        )
        for row in rows
    ]
