"""Months that are over: servers for which it is still an earlier day, over a database whose months began before it.

The database's clock is the only one there is, and its functions are looked up like any others: a schema before
pg_catalog that has a `clock_timestamp` and a `now` of its own sets the clock of whoever names it in the search path.
"""

from datetime import UTC, datetime
from urllib.parse import quote
from uuid import UUID

import psycopg
from msgspec import Raw

from application.reports import ArtifactReport, CompletionReport, FailureReport, ProgressReport, ReportedError
from domain.events import Artifact
from infrastructure.postgres.database import Database
from infrastructure.postgres.schema import migrate
from tests.infrastructure.nodes import Node, new_job

NOW = datetime.now(UTC)
"""When the tests began. The month it is in may be over before they end, so ask the clock for the current one."""


def month_before(months: int) -> datetime:
    """The beginning of the month so many months before that in which the tests began."""
    years, n = divmod(NOW.month - 1 - months, 12)
    return datetime(NOW.year + years, n + 1, 1, tzinfo=UTC)


def at(dsn: str, moment: datetime) -> str:
    """The address by which it is `moment` now, and later by as much as passes."""
    name = f"past_{moment:%Y_%m_%d_%H_%M}"
    behind = int((NOW - moment).total_seconds())
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {name}".encode())
        for function in ("clock_timestamp", "now"):
            connection.execute(
                f"CREATE OR REPLACE FUNCTION {name}.{function}() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
                f"'SELECT pg_catalog.{function}() - interval ''{behind} seconds'''".encode()
            )
    options = quote(f"-c search_path=public,{name},pg_catalog")
    return f"{dsn}{'&' if '?' in dsn else '?'}options={options}"


def migrated_then(dsn: str, moment: datetime) -> str:
    """The database with the schema, and with months since `moment`."""
    for address in (at(dsn, moment), dsn):
        database = Database(address)
        migrate(database)
        database.close()
    return dsn


def some_jobs(node: Node) -> list[UUID]:
    """Jobs that ended in all the ways there are: their ids."""
    ids = node.started(*[new_job(kind=f"kind-{n % 2}", input=Raw(b'{"text":"\xc5\xbc","n":%d}' % n)) for n in range(6)])
    usage = Raw(b'{"text":"x","usage":{"model":"gpt","input_tokens":11,"output_tokens":7}}')
    node.say(ProgressReport(job_id=ids[0], attempt=1, progress=0.5, step="ask", output=usage))
    artifact = Artifact(name="a.txt", sha256="ab" * 32, size=123, media_type="text/plain")
    node.say(ArtifactReport(job_id=ids[1], attempt=1, artifact=artifact))
    for id in ids[:4]:
        node.say(CompletionReport(job_id=id, attempt=1, result=Raw(b'{"ok":true}')))
    for id in ids[4:]:
        error = ReportedError(type="Broken", message=f"it broke at {id}")
        node.say(FailureReport(job_id=id, attempt=1, error=error, final=True))
    return ids
