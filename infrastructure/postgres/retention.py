"""The log's months in Postgres: closing one, letting it go, and taking it back. Needs the owner's rights.

Nobody waits for a step longer than LOCK_TIMEOUT: what others need for longer is tried again. Where a month leaves the
log or joins it, projections and verifications stand still for that moment, since they must find its events in the log
or what was made of them beside it, never both and never neither.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from uuid import UUID

import psycopg
from psycopg import Connection, sql

from application.archive_writer import Source
from application.archives import ArchivedEvent
from application.retention import ArchiveRow, Busy, Month, Plan, RetentionRefused
from infrastructure.postgres.database import Database
from infrastructure.postgres.month import ENDS, PostgresMonth, on
from infrastructure.postgres.projections import View, carried_generation
from infrastructure.postgres.returning import ATTACH, DISCARD, FINISH, RECEIVE, execute_all, make_rows, put
from infrastructure.postgres.seal import PostgresSeal

LOCK_TIMEOUT = "SET LOCAL lock_timeout = '200ms'"
ALONE = "SELECT pg_try_advisory_lock(1785684588, 1)"  # "jobl"
OWNS = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'events'::regclass"
ALONE_SECONDS = 20.0
"""How long a command that was killed may be kept by the server, at its last statement."""
MONTHS = """
SELECT month_of(low)::date, name, low, high FROM event_partitions
WHERE low <= first_id_of(clock_timestamp()) AND high IS NOT NULL AND low IS NOT NULL
ORDER BY low
"""
FIND = """
SELECT month, partition, low, high FROM archives WHERE month = %(day)s AND state <> 'returned'
UNION
SELECT month_of(low)::date, name, low, high FROM event_partitions
WHERE high IS NOT NULL AND first_id_of(%(day)s::timestamp AT TIME ZONE 'UTC') >= low
  AND first_id_of(%(day)s::timestamp AT TIME ZONE 'UTC') < high
"""
ROW = "SELECT state, name, sha256, bytes, jobs, events, archived_at, returned_at FROM archives WHERE month = %s"
ROWS = """
SELECT month, state, name, sha256, bytes, jobs, events, archived_at, returned_at FROM archives ORDER BY month
"""
COUNTS = """
SELECT count(*), coalesce(sum(version), 0)::int8, pg_total_relation_size(%(table)s::regclass),
  count(*) FILTER (WHERE finished_at IS NULL),
  (array_agg(id ORDER BY id) FILTER (WHERE finished_at IS NULL))[:5],
  count(*) FILTER (WHERE finished_at > clock_timestamp() - interval '24 hours'),
  %(high)s <= first_id_of(clock_timestamp())
FROM jobs
WHERE id >= %(low)s AND id < %(high)s
"""
UNFINISHED = "SELECT count(*) FROM jobs WHERE id >= %s AND id < %s AND finished_at IS NULL"
BEHIND = """
SELECT name FROM projections WHERE state <> 'retired' AND position < %s ORDER BY name, generation
"""
BUILDING = "SELECT name FROM projections WHERE state = 'building' ORDER BY name"
# One whose verifier gave no sign of life is begun anew by another, which finds the log as it is then.
VERIFYING = """
SELECT name FROM verifications WHERE finished_at IS NULL AND beat_at > clock_timestamp() - interval '15 seconds'
"""
STILL = "LOCK TABLE projections, verifications IN SHARE ROW EXCLUSIVE MODE"
CLOSE = """
CREATE OR REPLACE TRIGGER month_is_closed BEFORE INSERT ON {table}
FOR EACH ROW EXECUTE FUNCTION refuse_append_to_closed_month()
"""
OPEN = "DROP TRIGGER IF EXISTS month_is_closed ON {table}"
BEGIN = """
INSERT INTO archives (month, low, high, partition, state) VALUES (%s, %s, %s, %s, 'writing')
ON CONFLICT (month) DO UPDATE
SET state = 'writing', begun_at = clock_timestamp(), name = NULL, sha256 = NULL, bytes = NULL, jobs = NULL,
  events = NULL, first_position = NULL, last_position = NULL, archived_at = NULL, returned_at = NULL
"""
FORGET = "DELETE FROM archives WHERE month = %s"
NAME = "UPDATE archives SET name = %s WHERE month = %s"
UNMARK = "DELETE FROM archived_leaves WHERE month = %s"
MARK = "INSERT INTO archived_leaves (index, month, leaves) VALUES (%s, %s, %s)"
WRITTEN = """
UPDATE archives
SET state = 'leaving', name = %s, sha256 = %s, bytes = %s, jobs = %s, events = %s, first_position = %s,
  last_position = %s, archived_at = clock_timestamp()
WHERE month = %s
"""
REMOVE_ROWS = """
DELETE FROM jobs WHERE id = ANY(ARRAY(SELECT id FROM jobs WHERE id >= %s AND id < %s ORDER BY id LIMIT %s))
"""
MOVE = "UPDATE archives SET state = %s WHERE month = %s"
RETURNED = "UPDATE archives SET state = 'returned', returned_at = clock_timestamp() WHERE month = %s"
UNCARRY = "DELETE FROM {view} WHERE generation = %s"


class PostgresMonths:
    """See the port, `application.retention.Months`."""

    def __init__(self, database: Database, views: Collection[View]) -> None:
        self._database = database
        self._views = list(views)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """For as long as this connection stands: a command that is killed is in nobody's way."""
        with self._database.connection() as connection:
            if connection.execute(OWNS).fetchone() != (True,):
                raise RetentionRefused(
                    "only the owner of the log moves months: set MIGRATION_DATABASE_URL to that role"
                )
            until = time.monotonic() + ALONE_SECONDS
            while connection.execute(ALONE).fetchone() != (True,):
                if time.monotonic() >= until:
                    raise Busy("another `jobledger retention` moves a month now; wait until it has ended")
                time.sleep(0.2)
            try:
                yield
            finally:
                connection.close()

    def find(self, day: date) -> Month:
        rows = self._database.rows(FIND, {"day": day})
        if not rows:
            raise RetentionRefused(f"the log has no partition for {day:%Y-%m}, and there is no archive of it")
        month = Month(*rows[0])
        if month.day != day:
            raise RetentionRefused(
                f"{day:%Y-%m} is in one partition with {month}, and leaves the log with it: say {month}"
            )
        return month

    def all(self) -> list[Month]:
        return [Month(*row) for row in self._database.rows(MONTHS)]

    def rows(self) -> dict[str, ArchiveRow]:
        return {f"{month:%Y-%m}": ArchiveRow(*row) for month, *row in self._database.rows(ROWS)}

    def row(self, month: Month) -> ArchiveRow | None:
        return next((ArchiveRow(*row) for row in self._database.rows(ROW, (month.day,))), None)

    def source(self, month: Month) -> Source:
        return PostgresMonth(self._database, self._views, month)

    def plan(self, month: Month) -> Plan:
        row = self.row(month)
        state = row.state if row and row.state != "returned" else "in the log"
        if state == "archived":
            raise RetentionRefused(f"{month} was archived already, as {row and row.name}")
        values = {"table": f'"{month.partition}"', "low": month.low, "high": month.high}
        ((jobs, events, size, unfinished, first, fresh, over),) = self._database.rows(COUNTS, values)
        reasons = []
        if not over:
            reasons.append("it is not over")
        elif not jobs:
            reasons.append("it has no jobs")
        if unfinished:
            reasons.append(f"{unfinished} of its jobs have not ended: {', '.join(map(str, first))}")
        if fresh:
            reasons.append(f"{fresh} of its jobs ended within the last 24 hours")
        reasons += self._unready(month)
        return Plan(month=str(month), state=state, jobs=jobs, events=events, bytes=size, reasons=reasons)

    def close(self, month: Month) -> None:
        with self._moment() as connection:
            connection.execute(on(CLOSE, month))
            ((unfinished,),) = connection.execute(UNFINISHED, (month.low, month.high)).fetchall()
            if unfinished:
                raise RetentionRefused(f"{month} stays in the log: {unfinished} of its jobs have not ended")
            connection.execute(BEGIN, (month.day, month.low, month.high, month.partition))

    def reopen(self, month: Month) -> None:
        with self._moment() as connection:
            self._uncarry(connection, month)
            connection.execute(FORGET, (month.day,))
            connection.execute(on(OPEN, month))

    def uncarry(self, month: Month) -> None:
        with self._database.connection() as connection, connection.transaction():
            self._uncarry(connection, month)

    def name(self, month: Month, name: str | None) -> None:
        with self._database.connection() as connection:
            connection.execute(NAME, (name, month.day))

    def written(self, month: Month, written: ArchiveRow) -> None:
        with self._database.connection() as connection, connection.transaction():
            ends = connection.execute(on(ENDS, month)).fetchone() or (0, 0)
            connection.execute(UNMARK, (month.day,))
            marks = ((tile.index, month.day, tile.marked) for tile in self.source(month).leaves())
            with connection.cursor() as cursor:
                cursor.executemany(MARK, marks)
            values = (written.name, written.sha256, written.bytes, written.jobs, written.events, *ends, month.day)
            connection.execute(WRITTEN, values)

    def remove_rows(self, month: Month, limit: int) -> int:
        with self._database.connection() as connection:
            return connection.execute(REMOVE_ROWS, (month.low, month.high, limit)).rowcount

    def detach(self, month: Month) -> None:
        with self._still() as connection:
            if behind := self._unready(month):
                raise Busy(f"{month} waits: {'; '.join(behind)}")
            connection.execute(on("ALTER TABLE events DETACH PARTITION {table}", month))
            connection.execute(on("DROP TABLE {table}", month))
            connection.execute(MOVE, ("archived", month.day))

    def receive(self, month: Month) -> None:
        with self._database.connection() as connection, connection.transaction():
            execute_all(connection, RECEIVE, month)

    def discard(self, month: Month) -> None:
        with self._database.connection() as connection:
            connection.execute(on(DISCARD, month))

    def put(self, month: Month, events: Sequence[ArchivedEvent]) -> None:
        with self._database.connection() as connection:
            put(connection, month, events)

    def finish(self, month: Month) -> None:
        with self._database.connection() as connection, connection.transaction():
            execute_all(connection, (*FINISH, CLOSE), month)

    def attach(self, month: Month) -> None:
        with self._still() as connection:
            if building := connection.execute(BUILDING).fetchall():
                raise Busy(f"projection {building[0][0]!r} is being rebuilt; {month} waits until it is")
            self._uncarry(connection, month)
            execute_all(connection, ATTACH, month)
            connection.execute(MOVE, ("returning", month.day))

    def make_rows(self, month: Month, after: UUID, limit: int) -> UUID | None:
        with self._database.connection() as connection, connection.transaction():
            return make_rows(connection, month, after, limit)

    def returned(self, month: Month) -> None:
        with self._moment() as connection:
            self._uncarry(connection, month)
            connection.execute(UNMARK, (month.day,))
            connection.execute(RETURNED, (month.day,))
            connection.execute(on(OPEN, month))

    def _unready(self, month: Month) -> list[str]:
        """What has not got as far as the month's last event."""
        ((_, last),) = self._database.rows(on(ENDS, month))
        behind = [f"projection {name!r} has not got through it" for (name,) in self._database.rows(BEHIND, (last,))]
        sealed = PostgresSeal(self._database).sealed_to()
        if sealed is None or sealed.position < last:
            behind.append("its last events are not sealed; does a projector run?")
        return behind

    def _uncarry(self, connection: Connection, month: Month) -> None:
        for view in self._views:
            statement = sql.SQL(UNCARRY).format(view=sql.Identifier(view.name))
            connection.execute(statement, (carried_generation(month.day),))

    @contextmanager
    def _still(self) -> Iterator[Connection]:
        """A moment in which projections stand still and nothing is being verified. Raises Busy."""
        with self._moment() as connection:
            connection.execute(STILL)
            if verifying := connection.execute(VERIFYING).fetchall():
                raise Busy(f"{verifying[0][0]!r} is being verified; try again when it is")
            yield connection

    @contextmanager
    def _moment(self) -> Iterator[Connection]:
        """A transaction that waits for nobody for long. Raises Busy."""
        try:
            with self._database.connection() as connection, connection.transaction():
                connection.execute(LOCK_TIMEOUT)
                yield connection
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            raise Busy("transactions that others have open are in the way; try again when they have ended") from error
