"""Where projections are kept: their checkpoints, and the views that are written with them."""

import struct
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import LiteralString, Protocol
from uuid import UUID

import psycopg
from psycopg import Connection, sql

from application.errors import BatchRefused, Unavailable
from application.projections import Projection, Recorded, Rows
from application.projector import Standing, Step
from infrastructure.postgres.columns import uuids
from infrastructure.postgres.database import Database
from infrastructure.postgres.failures import Failures
from infrastructure.postgres.stats import Stats
from infrastructure.postgres.totals import Totals
from infrastructure.postgres.usage import Usage
from infrastructure.postgres.workers import Workers

PAGE = """
SELECT notification_id, originator_id, originator_version, state
FROM events
WHERE notification_id > %b AND notification_id < (SELECT safe_position())
ORDER BY notification_id
LIMIT %b
"""
# The bounds let the planner leave out partitions, which it cannot do by an array.
BEFORE = """
SELECT notification_id, originator_id, originator_version, state
FROM events
WHERE originator_id = ANY(%b::uuid[]) AND originator_id BETWEEN %b AND %b AND topic <> 'job.progressed'
ORDER BY originator_id, originator_version
"""
STANDINGS = """
SELECT name, generation, revision, state, position, verified_at IS NOT NULL, parked_at IS NOT NULL
FROM projections
WHERE state <> 'retired'
ORDER BY name
"""
# Rows and checkpoint are made from the log again when the server loses the last of them, always together; so the commit
# waits for no disk.
TAKE = """
SELECT position
FROM projections, set_config('synchronous_commit', 'off', true)
WHERE name = %b AND generation = %b AND position = %b AND parked_at IS NULL AND state <> 'retired'
FOR UPDATE OF projections SKIP LOCKED
"""
MOVE = """
UPDATE projections
SET position = %b, events = events + %b, recorded_at = coalesce(%b, recorded_at),
  parked_at = CASE WHEN %b::bigint IS NOT NULL THEN clock_timestamp() END,
  parked_position = %b, parked_job_id = %b, parked_version = %b, parked_error = %b
WHERE name = %b AND generation = %b
"""
# A generation that begins takes up what was made of the months that have left the log.
ARCHIVED = "SELECT month FROM archives WHERE state = 'archived' ORDER BY month"
COLUMNS = "SELECT * FROM {view} LIMIT 0"
CARRY = """
INSERT INTO {view} (generation, {columns})
SELECT %s, {columns} FROM {view} WHERE generation = %s
{merge}
"""
NEXT = """
INSERT INTO projections (name, generation, revision, state, begun_by, reason)
SELECT %b, 1 + max(generation), %b, 'building', 'system:projector', 'the release folds it differently'
FROM projections
WHERE name = %b
ON CONFLICT DO NOTHING
RETURNING generation
"""
ASK_TO_VERIFY = """
INSERT INTO verifications (name, generation, asked_by, reason)
SELECT name, generation, 'system:projector', 'it was built' FROM projections
WHERE name = %b AND generation = %b AND state = 'building' AND verified_at IS NULL
ON CONFLICT DO NOTHING
"""
LOCK = """
SELECT generation, state, position, verified_at IS NOT NULL
FROM projections
WHERE name = %b AND state <> 'retired'
ORDER BY state
FOR UPDATE
"""
RETIRE = "UPDATE projections SET state = 'retired' WHERE name = %b AND generation = %b"
SERVE = "UPDATE projections SET state = 'live' WHERE name = %b AND generation = %b"
RETIRED = "SELECT name, generation FROM projections WHERE state = 'retired' ORDER BY name, generation"
REMOVE = """
DELETE FROM {view} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {view} WHERE generation = %s LIMIT %s))
"""
FORGET = "DELETE FROM projections WHERE name = %b AND generation = %b AND state = 'retired'"
AT_A_TIME = 5_000
LONGEST_ERROR = 2_000


class View(Projection, Protocol):
    """A projection and where its rows are."""

    @property
    def merge(self) -> LiteralString:
        """The end of an INSERT into them, which adds to those that are there."""
        ...

    def add(self, connection: Connection, generation: int, rows: Rows) -> None:
        """Add to what is there."""
        ...

    def rows(self, connection: Connection, generation: int) -> Rows:
        """All that is there."""
        ...


VIEWS: tuple[View, ...] = (Failures(), Stats(), Totals(), Usage(), Workers())


def carried_generation(month: date) -> int:
    """Under which generation views keep what they made of a month that left the log; those that serve are above 0."""
    return -(month.year * 100 + month.month)


def take_up_archived(connection: Connection, view: View, generation: int) -> None:
    """Begin a generation, in the transaction that makes it, with what was made of months that have left the log."""
    table = sql.Identifier(view.name)
    named = connection.execute(sql.SQL(COLUMNS).format(view=table)).description or []
    columns = sql.SQL(", ").join(sql.Identifier(one.name) for one in named if one.name != "generation")
    carry = sql.SQL(CARRY).format(view=table, columns=columns, merge=sql.SQL(view.merge))
    for (month,) in connection.execute(ARCHIVED).fetchall():
        connection.execute(carry, (generation, carried_generation(month)))


class PostgresLog:
    """See the port, `application.projector.Log`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, after: int, limit: int) -> list[Recorded]:
        return [Recorded(*row) for row in self._database.rows(PAGE, (after, limit))]

    def before(self, versions: Mapping[UUID, int]) -> Sequence[Recorded]:
        ids = list(versions)
        rows = self._database.rows(BEFORE, (uuids(ids), min(ids), max(ids)))
        return [Recorded(*row) for row in rows if row[2] < versions[row[1]]]


class PostgresCheckpoints:
    """See the port, `application.projector.Checkpoints`."""

    def __init__(self, database: Database, views: Collection[View]) -> None:
        self._database = database
        self._views = {view.name: view for view in views}

    def standings(self) -> list[Standing]:
        return [Standing(*row) for row in self._database.rows(STANDINGS)]

    def advance(self, standing: Standing, step: Step) -> bool:
        try:
            with self._database.connection() as connection:
                with connection.pipeline():
                    connection.execute("BEGIN")
                    taken = connection.execute(TAKE, (standing.name, standing.generation, standing.position))
                if taken.fetchone() is None:
                    connection.rollback()
                    return False
                self._write(connection, standing, step)
        except (psycopg.DataError, psycopg.IntegrityError, UnicodeEncodeError, struct.error) as error:
            raise BatchRefused(str(error)) from error
        except psycopg.OperationalError as error:
            raise Unavailable from error
        return True

    def begin(self, name: str, revision: int) -> None:
        with self._database.connection() as connection, connection.transaction():
            begun = connection.execute(NEXT, (name, revision, name), binary=True).fetchone()
            if begun is not None:
                take_up_archived(connection, self._views[name], begun[0])

    def ask_to_verify(self, standing: Standing) -> None:
        with self._database.connection() as connection:
            connection.execute(ASK_TO_VERIFY, (standing.name, standing.generation), binary=True)

    def swap(self, standing: Standing) -> bool:
        with self._database.connection() as connection, connection.transaction():
            rows = connection.execute(LOCK, (standing.name,), binary=True).fetchall()
            if len(rows) != 2:
                return False
            (built, _, reached, verified), (serving, _, position, _) = rows
            if built != standing.generation or not verified or reached < position:
                return False
            connection.execute(RETIRE, (standing.name, serving), binary=True)
            connection.execute(SERVE, (standing.name, built), binary=True)
            return True

    def sweep(self) -> int:
        removed = 0
        for name, generation in self._database.rows(RETIRED):
            if name not in self._views:
                continue
            remove = sql.SQL(REMOVE).format(view=sql.Identifier(name))
            with self._database.connection() as connection:
                count = connection.execute(remove, (generation, AT_A_TIME)).rowcount
                if count < AT_A_TIME:
                    connection.execute(FORGET, (name, generation), binary=True)
            removed += count
        return removed

    def _write(self, connection: Connection, standing: Standing, step: Step) -> None:
        poison = step.poison
        parked = (
            (poison.position, poison.position, poison.job_id, poison.version, _text(poison.error))
            if poison
            else (None, None, None, None, None)
        )
        with connection.pipeline():
            if step.rows:
                self._views[standing.name].add(connection, standing.generation, step.rows)
            values = (step.position, step.events, step.at, *parked, standing.name, standing.generation)
            connection.execute(MOVE, values, binary=True)
            connection.execute("COMMIT")


def _text(error: str) -> str:
    """An error as it can be stored."""
    return error.replace("\0", "�").encode(errors="replace").decode()[:LONGEST_ERROR]
