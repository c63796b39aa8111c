"""The ledger: opens batches on the log, ends them, and finds out how they ended where no answer came."""

import struct
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from operator import attrgetter
from uuid import UUID

import psycopg
import structlog
from psycopg import Connection

from application.errors import BatchRefused, Conflicted, MonthClosed, Unavailable
from application.ledger import IdempotencyKey, Quota, Ready
from infrastructure.postgres.batch import PostgresBatch
from infrastructure.postgres.creation import Creation
from infrastructure.postgres.horizon import Horizon
from infrastructure.postgres.log import Log
from infrastructure.postgres.ready import ReadyJobs
from infrastructure.postgres.streams import StreamCache

log = structlog.get_logger()
# Writes to the server's log, so that its commit waits for a synchronous standby as that of any event does.
CONFIRM = "SELECT pg_logical_emit_message(true, 'jobledger', 'confirmed')"
SETTLE_SECONDS = 1.0
"""How long a commit whose answer was lost is looked for; within two seconds callers know that the database is away."""
BEGINNINGS = 5
"""Of a batch that waited for what a later one moved, before its caller is told of a conflict."""


class PostgresLedger:
    """Opens batches on the log."""

    def __init__(
        self,
        log: Log,
        tell: Callable[[Collection[str]], None],
        appended: Callable[[int, float], None] = lambda _events, _seconds: None,
    ) -> None:
        """`tell` is given the topics of what a batch moved, after the commit.

        `appended` is given how many events a batch had, and the seconds from sending them to their commit.
        """
        self._database = log.batches
        self._tell = tell
        self._appended = appended
        self._cache = StreamCache()
        self.ready_jobs = ReadyJobs(Horizon())

    @contextmanager
    def batch(
        self,
        job_ids: Collection[UUID] = (),
        keys: Collection[IdempotencyKey] = (),
        claim: tuple[Ready, int] | None = None,
        quotas: Collection[Quota] = (),
        new_only: bool = False,
    ) -> Iterator[PostgresBatch]:
        begin: Callable[[Connection], PostgresBatch]
        if new_only:
            begin = partial(Creation.open, self.ready_jobs)
        else:
            ids = sorted(job_ids, key=attrgetter("int"))
            begin = partial(PostgresBatch.begun, self.ready_jobs, self._cache, ids, keys, claim, quotas)
        connection, batch = self._begin(begin)
        committing = False
        try:
            yield batch
            committing = True
            begun = time.perf_counter()
            batch.write()
            if batch.events:
                self._appended(batch.events, time.perf_counter() - begun)
        except (UnicodeEncodeError, struct.error) as error:
            raise BatchRefused(str(error)) from error
        except psycopg.Error as error:
            if not (committing and self._was_recorded(connection, batch, error)):
                raise _translated(error) from error
        finally:
            self._database.give_back(connection)
        batch.tell_place()
        self._cache.keep(batch.streams)
        if topics := batch.topics():
            self._tell(topics)

    def _begin(self, begin: Callable[[Connection], PostgresBatch]) -> tuple[Connection, PostgresBatch]:
        """Nothing was decided yet: a transaction that came too early simply begins anew.

        So does one whose connection broke while it was idle, once. Raises Conflicted.
        """
        replaced = False
        for _ in range(BEGINNINGS):
            connection = self._database.take()
            try:
                return connection, begin(connection)
            except Conflicted:
                self._database.give_back(connection)
            except psycopg.Error as error:
                broken = connection.broken or connection.closed
                self._database.give_back(connection)
                if replaced or not broken:
                    raise _translated(error) from error
                replaced = True
                self._database.close()
        raise Conflicted

    def _was_recorded(self, connection: Connection, batch: PostgresBatch, error: psycopg.Error) -> bool:
        """Whether a transaction whose COMMIT was not answered took place. Raises Conflicted when it did not.

        What is there counts once a later commit is answered: before, it may not have reached the synchronous standby,
        and would be lost in a failover.
        """
        if not (connection.broken or connection.closed):
            return False
        log.warning("commit.lost", events=batch.events, error=str(error))
        until = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < until:
            with suppress(Unavailable, psycopg.Error), self._database.connection() as other:
                if batch.took_place(other):
                    other.execute(CONFIRM)
                    return True
            time.sleep(0.05)
        raise Unavailable(
            "the database went away while it was recording this, and may or may not have; "
            "look, or repeat the request with the same Idempotency-Key"
        )


def _translated(error: psycopg.Error) -> Exception:
    """The driver's error in the application's words."""
    state = error.sqlstate or ""
    if isinstance(error, psycopg.errors.UniqueViolation) or state.startswith("40"):
        return Conflicted()
    if isinstance(error, psycopg.errors.CheckViolation) and error.diag.constraint_name == "month_is_open":
        return MonthClosed(error.diag.message_primary)
    if isinstance(error, psycopg.DataError | psycopg.IntegrityError):
        return BatchRefused(error.diag.message_primary or str(error))
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) or state.startswith("25"):
        log.warning("database.away", error=str(error))
        return Unavailable()
    return error
