"""Which contents only archived months name, and letting go of them. Needs the owner's rights."""

from datetime import date

from application.retention import Month
from infrastructure.postgres.database import Database
from infrastructure.postgres.seal import RECORD

UNNAMED = "SELECT month FROM archives WHERE state = 'archived' AND NOT files_named ORDER BY month"
# Servers of the release before may go on for a while after the migration, and do not say which month names a content.
CATCH_UP = """
INSERT INTO artifact_names (sha256, month)
SELECT DISTINCT decode(sha256, 'hex'), month
FROM (
  SELECT convert_from(state, 'UTF8')::json #>> '{artifact,sha256}' AS sha256,
    (month_of(originator_id) AT TIME ZONE 'UTC')::date AS month
  FROM events
  WHERE recorded_at >= (SELECT applied_at FROM migrations WHERE number = 19) - interval '1 hour'
    AND recorded_at < (SELECT applied_at FROM migrations WHERE number = 19) + interval '7 days'
    AND topic = 'job.progressed' AND position('"artifact":{'::bytea IN state) > 0
) AS named
WHERE sha256 ~ '^[0-9a-f]{64}$'
ON CONFLICT DO NOTHING
"""
OF_MONTH = """
artifact_names.month >= month_of(%(low)s) AT TIME ZONE 'UTC'
  AND artifact_names.month < month_of(%(high)s) AT TIME ZONE 'UTC'
"""
NEEDED = """
EXISTS (
  SELECT FROM artifact_names AS other
  WHERE other.sha256 = content.sha256 AND NOT EXISTS (
    SELECT FROM archives
    WHERE state = 'archived' AND (files_forgotten_at IS NOT NULL OR archives.month = %(day)s)
      AND other.month >= month_of(low) AT TIME ZONE 'UTC' AND other.month < month_of(high) AT TIME ZONE 'UTC'
  )
)
"""
ALONE = f"""
SELECT count(*)
FROM (SELECT DISTINCT sha256 FROM artifact_names WHERE {OF_MONTH}) AS content
JOIN artifact_contents USING (sha256)
WHERE NOT {NEEDED}
"""  # noqa: S608  the conditions are ours
FORGET = """
UPDATE archives SET files_forgotten_at = clock_timestamp()
WHERE month = %(day)s AND state = 'archived' AND files_forgotten_at IS NULL
RETURNING month
"""
# Of what is locked here, the names that others have recorded are seen by the statement that follows.
LOCK = f"""
WITH page AS (
  SELECT DISTINCT sha256 FROM artifact_names WHERE {OF_MONTH} AND sha256 > %(after)s ORDER BY sha256 LIMIT %(limit)s
), locked AS (
  SELECT sha256 FROM artifact_contents WHERE sha256 IN (SELECT sha256 FROM page) ORDER BY sha256 FOR UPDATE
)
SELECT page.sha256 FROM page LEFT JOIN locked USING (sha256) ORDER BY page.sha256
"""  # noqa: S608  the conditions are ours
FREE = f"""
UPDATE artifact_contents AS content SET named = false
WHERE sha256 = ANY(%(page)s) AND named AND NOT {NEEDED}
"""  # noqa: S608  the conditions are ours


class PostgresNames:
    """See the port, `application.forgetting.Names`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unnamed(self) -> list[date]:
        return [month for (month,) in self._database.rows(UNNAMED)]

    def alone(self, month: Month) -> int:
        with self._database.connection() as connection:
            connection.execute(CATCH_UP)
        ((contents,),) = self._database.rows(ALONE, _values(month))
        return int(contents)

    def forget(self, month: Month, by: str, reason: str) -> None:
        with self._database.connection() as connection, connection.transaction():
            if connection.execute(FORGET, _values(month)).fetchone() is not None:
                connection.execute(RECORD, (by, "forget", None, f"month={month}", reason))

    def free(self, month: Month, after: bytes, limit: int) -> bytes | None:
        values = {**_values(month), "after": after, "limit": limit}
        with self._database.connection() as connection, connection.transaction():
            page = [bytes(sha256) for (sha256,) in connection.execute(LOCK, values).fetchall()]
            connection.execute(FREE, {**values, "page": page})
        return page[-1] if page else None


def _values(month: Month) -> dict[str, object]:
    return {"day": month.day, "low": month.low, "high": month.high}
