"""Batches of nothing but new jobs, which take one statement: nothing has to be locked before they are recorded."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

import psycopg
from psycopg import Connection

from infrastructure.postgres.batch import CLOCK, EPOCH, Locked, Place, PostgresBatch
from infrastructure.postgres.columns import texts
from infrastructure.postgres.jobs import INSERT_AT, new_columns
from infrastructure.postgres.ready import ReadyJobs
from infrastructure.postgres.recorder import APPEND_AT, BASE

NOW = f"SELECT {CLOCK}"
SOON_OVER = "SET LOCAL lock_timeout = '1s'"
CREATE = f"""
WITH appended AS ({APPEND_AT.format(base=BASE)}), inserted AS ({INSERT_AT.format(position=f"{BASE} | position")})
SELECT {BASE}
"""


class Creation(PostgresBatch):
    """See the port, `application.ledger.Batch`, under `new_only`. Its place in the log is known when it is recorded."""

    def __init__(self, connection: Connection, ready_jobs: ReadyJobs, now: datetime, begun: float) -> None:
        super().__init__(connection, ready_jobs, Place(transaction=0, base=0, now=now), Locked(), begun)
        self._waiting: list[Callable[[int], None]] = []

    @classmethod
    def open(cls, ready_jobs: ReadyJobs, connection: Connection) -> "Creation":
        """Read the clock, and nothing else."""
        asked = time.monotonic()
        (microseconds,) = connection.execute(NOW, binary=True).fetchone() or (0,)
        return cls(connection, ready_jobs, EPOCH + timedelta(microseconds=microseconds), asked)

    def when_placed(self, tell: Callable[[int], None]) -> None:
        self._waiting.append(tell)

    def tell_place(self) -> None:
        for stream in self._touched:
            stream.position |= self._base
        for tell in self._waiting:
            tell(self._base)

    def write(self) -> None:
        """Send everything recorded, in one statement that is a transaction of its own."""
        if self._touched:
            self._write(self._connection)

    def took_place(self, connection: Connection) -> bool:
        """Whether it was recorded, although that was not heard of: it is sent again, and is recorded once either way.

        While the first of the two is under way, the other waits for it, since both have the same events; no longer
        than a lost answer is looked for.
        """
        try:
            with connection.transaction():
                connection.execute(SOON_OVER)
                self._write(connection)
        except psycopg.errors.UniqueViolation:
            self._base = self.position_in_log(connection) - 1
        return True

    def _write(self, connection: Connection) -> None:
        jobs = [stream.job for stream in self._touched]
        ordinals = [stream.position for stream in self._touched]
        values = (*self._events.columns(), *new_columns(jobs, ordinals), texts(()))
        (self._base,) = connection.execute(CREATE, values, binary=True).fetchone() or (0,)
