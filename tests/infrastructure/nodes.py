"""What the tests of the log share: a server of their own over a real database, and waiting for what must come."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, LiteralString, Self
from uuid import UUID

import psycopg
from eventsourcing.persistence import Notification
from msgspec import Raw, structs
from psycopg import Connection, IsolationLevel

from application.commands import Command, execute
from application.jobs import Accepted, Asked, Create, NewJob
from application.ledger import Ready
from application.reports import Decided, Say
from application.rescue import MissHeartbeat
from domain.job import Cause
from domain.refusals import Refused
from infrastructure.postgres.database import Database
from infrastructure.postgres.jobs import PostgresViews
from infrastructure.postgres.leases import PostgresLeases
from infrastructure.postgres.ledger import PostgresLedger
from infrastructure.postgres.log import Log
from infrastructure.postgres.recorder import EventRecorder
from infrastructure.postgres.schema import migrate
from tests.waiting import eventually

PATIENCE = 20.0
ASKED = Asked(by="key:test")


class Node:
    """One server: a ledger, its views and its leases, with connections and a memory of its own."""

    def __init__(self, dsn: str, *, prepare: bool = True) -> None:
        self.dsn = dsn
        self.log = Log(dsn, prepare=prepare)
        self.told: list[Collection[str]] = []
        self.ledger = PostgresLedger(self.log, self.told.append)
        self.leases = PostgresLeases(self.log.beats)
        self.views = PostgresViews(self.log.reads)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.log.close()

    def execute(self, *commands: Command) -> list[Any]:
        """For each command of one batch its answer, or the exception that says why not."""
        return execute(self.ledger, commands)

    def one(self, command: Command) -> Any:
        """The answer to a command alone. Raises what it was refused with."""
        (answer,) = self.execute(command)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def create(self, *jobs: NewJob, namespace: str | None = None) -> list[UUID]:
        accepted: Accepted = self.one(Create(jobs, structs.replace(ASKED, namespace=namespace)))
        return list(accepted.job_ids)

    def claim(
        self,
        worker: str = "w1",
        count: int = 1,
        *,
        queue: str = "default",
        kinds: tuple[str, ...] | None = None,
        claim_id: str | None = None,
        namespace: str | None = None,
    ) -> list[UUID]:
        """Start up to `count` jobs that are ready, as a claim does."""
        wanted = Ready((queue,), kinds, namespace)
        with self.ledger.batch(claim=(wanted, count)) as batch:
            started = []
            for job in batch.ready(wanted, count):
                with suppress(Refused):  # it became due between the batch's moment and the scan
                    batch.record(job, job.start(worker, Cause(batch.now, f"worker:{worker}")), claim_id=claim_id)
                    started.append(job.id)
            return started

    def say(self, report: Decided, worker: str = "w1") -> Any:
        return self.one(Say(report=report, worker=worker))

    def rescue(self, id: UUID) -> str:
        """Let the lease on a job run out, and act on it; the job's status afterwards."""
        ask(self.dsn, "UPDATE leases SET expires_at = now() - interval '1 s' WHERE job_id = %s", [id])
        with self.ledger.batch() as batch:
            (expired,) = [one for one in batch.expired(3600, 100) if one.job_id == id]
            return MissHeartbeat(expired=expired).run(batch)

    def started(self, *jobs: NewJob, worker: str = "w1", claim_id: str | None = None) -> list[UUID]:
        """Create jobs of a queue of their own and claim them all."""
        queue = jobs[0].queue
        ids = self.create(*jobs)
        assert self.claim(worker, len(jobs), queue=queue, claim_id=claim_id) == ids
        return ids


class UndisturbedRecorder(EventRecorder):
    """Reads the whole log once no transaction elsewhere in the cluster, such as autovacuum's, holds readers back."""

    def select_notifications(self, *args: Any, **kwargs: Any) -> Sequence[Notification]:
        undisturbed(self.database)
        return super().select_notifications(*args, **kwargs)

    def max_notification_id(self) -> int | None:
        undisturbed(self.database)
        return super().max_notification_id()


def undisturbed(database: Database) -> None:
    """Wait until what holds the safe position back, if anything, are the test's own transactions.

    One that begins elsewhere afterwards has a higher number than all that was written before.
    """
    strangers = """
        SELECT count(*) FROM pg_stat_activity
        WHERE backend_xid IS NOT NULL
          AND (datname IS DISTINCT FROM current_database() OR backend_type <> 'client backend')
    """
    eventually(lambda: database.rows(strangers) == [(0,)])


def new_job(**fields: Any) -> NewJob:
    return NewJob(**{"kind": "nothing", "input": Raw(b"{}"), **fields})


def migrated(dsn: str) -> str:
    """The database at `dsn`, with the schema."""
    database = Database(dsn)
    try:
        migrate(database)
    finally:
        database.close()
    return dsn


def ask(dsn: str, query: LiteralString, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
    """What the superuser is answered in a transaction of its own."""
    with psycopg.connect(dsn) as connection:
        cursor = connection.execute(query, values)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def holding_a_snapshot(dsn: str) -> Iterator[Connection]:
    """A transaction that somebody forgot: what ends meanwhile is not dead to all."""
    with psycopg.connect(dsn, options="-c idle_in_transaction_session_timeout=0") as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT count(*) FROM migrations")
        yield connection


def plan_nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan of EXPLAIN (FORMAT JSON), node by node."""
    yield plan
    for child in plan.get("Plans", []):
        yield from plan_nodes(child)
