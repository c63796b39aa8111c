"""A replica of the database, from which is read what may be a little old."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import psycopg
import structlog

from application.errors import Unavailable
from application.following import History, LogEntry, LogFilter
from application.jobs import EventView, Filter, JobView, Sort
from infrastructure.postgres.database import Database
from infrastructure.postgres.installation import installation_id
from infrastructure.postgres.jobs import PostgresViews

T = TypeVar("T")
log = structlog.get_logger()
REST_SECONDS = 2.0
"""How long a replica that failed is left alone. What is asked meanwhile goes to the primary at once."""
NEWEST = "SELECT notification_id FROM events ORDER BY notification_id DESC LIMIT 1"
# What it lacks, rather than what it says of itself: one that has lost its primary believes that it is up to date.
AGE_OF_FIRST_MISSING = """
SELECT extract(epoch FROM clock_timestamp() - recorded_at)::float8
FROM events WHERE notification_id > %b ORDER BY notification_id LIMIT 1
"""


class Replica:
    """Reads like `PostgresViews`; raises Unavailable, at once while it rests, when the primary is to be asked instead.

    A position that is safe to read here is safe anywhere: a standby's snapshot counts as running every transaction of
    the primary that it has not seen the end of. What it has up to there is what the primary has, and never changes.
    """

    def __init__(self, database: Database, primary: Database) -> None:
        self._database = database
        self._primary = primary
        self._views = PostgresViews(database)
        self._rests_until = 0.0
        self._is_ours = False

    def page(self, wanted: Filter, sort: Sort, limit: int, cursor: str | None) -> tuple[list[JobView], str | None]:
        return self._ask(lambda: self._views.page(wanted, sort, limit, cursor))

    def histories(self, wanted: Sequence[History]) -> list[list[EventView]]:
        return self._ask(lambda: self._views.histories(wanted))

    def log(self, after: int, limit: int, wanted: LogFilter | None) -> list[LogEntry]:
        return self._ask(lambda: self._views.log(after, limit, wanted))

    def behind(self) -> float:
        """Age in seconds of the oldest event that it lacks. Blocks. Raises Unavailable when either is away."""
        newest = self._ask(lambda: self._database.rows(NEWEST))
        missing = self._primary.rows(AGE_OF_FIRST_MISSING, (newest[0][0] if newest else 0,))
        return max(0.0, missing[0][0]) if missing else 0.0

    def close(self) -> None:
        self._database.close()

    def _ask(self, read: Callable[[], T]) -> T:
        if time.monotonic() < self._rests_until:
            raise Unavailable("the replica is away")
        try:
            if not self._is_ours:
                self._check_that_it_is_ours()
            return read()
        except (Unavailable, psycopg.Error) as error:
            self._rests_until = time.monotonic() + REST_SECONDS
            self._is_ours = False
            log.warning("replica.away", reason=str(error.__cause__ or error))
            raise Unavailable("the replica is away") from error

    def _check_that_it_is_ours(self) -> None:
        theirs, ours = (installation_id(database) for database in (self._database, self._primary))
        if theirs != ours:
            raise Unavailable(f"JOBLEDGER_READ_URL leads to another database than DATABASE_URL: {theirs}, not {ours}")
        self._is_ours = True


class ReplicatedViews(PostgresViews):
    """Views whose lists are read from a replica, and all else from the primary."""

    def __init__(self, primary: Database, replica: Replica) -> None:
        super().__init__(primary)
        self._replica = replica

    def page(self, wanted: Filter, sort: Sort, limit: int, cursor: str | None) -> tuple[list[JobView], str | None]:
        try:
            return self._replica.page(wanted, sort, limit, cursor)
        except Unavailable:
            return super().page(wanted, sort, limit, cursor)
