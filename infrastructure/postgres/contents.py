"""The contents of artifacts: which are named by events, which may yet be, and which the sweeper removes."""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from psycopg import Connection

from application.sweeper import Found
from infrastructure.postgres.columns import byteas, moments
from infrastructure.postgres.database import Database

NAME = """
INSERT INTO artifact_contents (sha256, named, stored_at)
SELECT sha256, true, %b FROM unnest(%b::bytea[]) AS x (sha256) ORDER BY sha256
ON CONFLICT (sha256) DO UPDATE SET named = true WHERE NOT artifact_contents.named
"""
HOLD = """
WITH content AS (
  INSERT INTO artifact_contents (sha256, stored_at) VALUES (%b, clock_timestamp())
  ON CONFLICT (sha256) DO UPDATE SET stored_at = EXCLUDED.stored_at WHERE artifact_contents.removing_at IS NULL
  RETURNING sha256
), hold AS (
  INSERT INTO artifact_holds (sha256, job_id, attempt) SELECT sha256, %b, %b FROM content
  ON CONFLICT DO NOTHING
)
SELECT EXISTS (SELECT FROM content)
"""
# A mark that is an hour old is of a sweeper that died before it was done.
REMOVABLE = """
  NOT EXISTS (
    SELECT FROM artifact_holds JOIN leases USING (job_id, attempt) WHERE artifact_holds.sha256 = content.sha256
  )
  AND (content.removing_at IS NULL OR content.removing_at < clock_timestamp() - interval '1 hour')
"""
UNNAMED = f"""
SELECT content.sha256
FROM (
  SELECT x.sha256, greatest(known.stored_at, x.modified) AS stored_at, known.named, known.removing_at
  FROM unnest(%b::bytea[], %b::timestamptz[]) AS x (sha256, modified)
  LEFT JOIN artifact_contents AS known USING (sha256)
) AS content
WHERE content.named IS NOT TRUE AND content.stored_at <= clock_timestamp() - make_interval(secs => %b) AND {REMOVABLE}
"""  # noqa: S608  the conditions are ours
MEET = """
INSERT INTO artifact_contents (sha256, stored_at)
SELECT sha256, modified FROM unnest(%b::bytea[], %b::timestamptz[]) AS x (sha256, modified) ORDER BY sha256
ON CONFLICT DO NOTHING
"""
LOCK = "SELECT FROM artifact_contents WHERE sha256 = ANY(%b::bytea[]) ORDER BY sha256 FOR UPDATE"
CONDEMN = f"""
UPDATE artifact_contents AS content
SET removing_at = clock_timestamp()
WHERE sha256 = ANY(%b::bytea[]) AND NOT named AND stored_at <= clock_timestamp() - make_interval(secs => %b)
  AND {REMOVABLE}
RETURNING sha256
"""  # noqa: S608  the conditions are ours
FORGET = "DELETE FROM artifact_contents WHERE sha256 = ANY(%b::bytea[]) AND removing_at IS NOT NULL"
END_HOLDS = """
DELETE FROM artifact_holds
WHERE NOT EXISTS (
  SELECT FROM leases
  WHERE leases.job_id = artifact_holds.job_id AND leases.attempt = artifact_holds.attempt
)
"""
# Nothing is lost with them: of a content without a row, the store itself knows how old it is.
FORGET_OLD = """
DELETE FROM artifact_contents
WHERE NOT named AND removing_at IS NULL AND stored_at < clock_timestamp() - make_interval(secs => %b)
"""
DUE = """
UPDATE installation SET swept_at = clock_timestamp()
WHERE swept_at < clock_timestamp() - make_interval(secs => %b)
RETURNING swept_at
"""


def name_contents(connection: Connection, hashes: Collection[str], now: datetime) -> None:
    """Keep the contents that events of this transaction name, for as long as there are events."""
    if hashes:
        connection.execute(NAME, (now, byteas([bytes.fromhex(hash) for hash in sorted(hashes)])), binary=True)


class PostgresContents:
    """See the ports, `application.artifacts.Holds` and `application.sweeper.Contents`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def hold(self, sha256: str, job_id: UUID, attempt: int) -> bool:
        ((held,),) = self._database.rows(HOLD, (bytes.fromhex(sha256), job_id, attempt))
        return bool(held)

    def unnamed(self, found: Sequence[Found], grace: float) -> set[str]:
        return _hashes(self._database.rows(UNNAMED, (*_columns(found), grace)))

    def condemn(self, found: Sequence[Found], grace: float) -> set[str]:
        """The conditions are looked at by a second statement: the first one's snapshot is older than its locks."""
        hashes, modified = _columns(found)
        with self._database.connection() as connection:
            connection.execute(MEET, (hashes, modified), binary=True)
            with connection.transaction():
                connection.execute(LOCK, (hashes,), binary=True)
                return _hashes(connection.execute(CONDEMN, (hashes, grace), binary=True).fetchall())

    def forget(self, hashes: Collection[str]) -> None:
        with self._database.connection() as connection:
            connection.execute(FORGET, (byteas([bytes.fromhex(hash) for hash in hashes]),), binary=True)

    def tidy(self, grace: float) -> None:
        with self._database.connection() as connection:
            connection.execute(END_HOLDS)
            connection.execute(FORGET_OLD, (grace,), binary=True)

    def due(self, period: float) -> bool:
        with self._database.connection() as connection:
            return connection.execute(DUE, (period,), binary=True).fetchone() is not None

    def clock(self) -> datetime:
        ((now,),) = self._database.rows("SELECT clock_timestamp()")
        moment: datetime = now
        return moment


def _columns(found: Sequence[Found]) -> tuple[bytes, bytes]:
    return byteas([bytes.fromhex(one.sha256 or "") for one in found]), moments([one.modified for one in found])


def _hashes(rows: Sequence[tuple[bytes]]) -> set[str]:
    return {bytes(row[0]).hex() for row in rows}
