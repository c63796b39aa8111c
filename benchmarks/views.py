"""What projections do and cost: views built anew, how far they are behind under load, and jobs beside a projector."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Protocol

import psutil  # type: ignore[import-untyped]
import psycopg
from msgspec import Raw

from application.commands import execute
from application.jobs import Asked, Create, NewJob
from application.projector import Projector
from application.verifier import Verifier
from infrastructure.postgres.database import Database
from infrastructure.postgres.ledger import PostgresLedger
from infrastructure.postgres.log import Log
from infrastructure.postgres.operations import PostgresOperations
from infrastructure.postgres.projections import VIEWS, PostgresCheckpoints, PostgresLog
from infrastructure.postgres.verifications import PostgresVerifications

ANYBODY = Asked(by="key:benchmark")
PAYLOAD = Raw(b'{"a":1,"b":"hello"}')
RATE = 5_000
STEADY_SECONDS = 10.0
TICK = 0.05
IDLE = "SELECT NOT EXISTS (SELECT FROM jobs WHERE status = 'queued') AND NOT EXISTS (SELECT FROM leases)"
BEHIND = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - (
  SELECT recorded_at FROM events WHERE notification_id > projections.position ORDER BY notification_id LIMIT 1
))), 0)::float8
FROM projections WHERE state = 'live'
"""


class Bench(Protocol):
    """What the benchmarks give to a part of theirs."""

    def database(self) -> str: ...

    def note(self, name: str, value: float) -> None: ...

    def processes(self, database: str, command: list[str], count: int) -> Any: ...


class _NoNews:
    @contextmanager
    def listen(self, topics: object) -> Iterator[Any]:
        yield None


def measure_views(bench: Bench, jobs: int) -> None:
    """Each measure once."""
    rates = {beside: _processed(bench, jobs, beside) for beside in (False, True)}
    bench.note("processed by 1 worker without a projector, jobs/s", rates[False][0])
    bench.note("processed by 1 worker beside a projector, jobs/s", rates[True][0])
    _rebuilds(bench, rates[False][1])
    _steady(bench)


def _processed(bench: Bench, jobs: int, beside: bool) -> tuple[float, str]:
    """No-op jobs a second, and the database they are in."""
    database = bench.database()
    with closing(Log(database)) as log:
        for _ in range(0, jobs, 1_000):
            execute(PostgresLedger(log, lambda _: None), [Create([_new("noop", "default")] * 1_000, ANYBODY)])
    with psycopg.connect(database, autocommit=True) as connection, ExitStack() as stack:
        connection.execute("VACUUM ANALYZE jobs, events")
        if beside:
            (projector,) = stack.enter_context(bench.processes(database, ["projector"], 1))
            _until(lambda: _one(connection, BEHIND) == 0.0)
            used = _cpu(projector)
        stack.enter_context(bench.processes(database, ["worker", "--concurrency", "2000"], 1))
        _until(lambda: _one(connection, "SELECT EXISTS (SELECT FROM leases)"))
        begun, before = time.perf_counter(), _done(connection)
        _until(lambda: _one(connection, IDLE))
        rate = (_done(connection) - before) / (time.perf_counter() - begun)
        if beside:
            _until(lambda: _one(connection, BEHIND) == 0.0)
            bench.note("projector beside it, us of processor time a job", (_cpu(projector) - used) / jobs * 1e6)
        return rate, database


def _rebuilds(bench: Bench, dsn: str) -> None:
    """How many events a second a view is built anew from, and the views of jobs is compared with."""
    with closing(Database(dsn, by_index=True)) as database:
        source, checkpoints = PostgresLog(database), PostgresCheckpoints(database, VIEWS)
        projections = {view.name: view for view in VIEWS}
        projector = Projector(projections, source, checkpoints, _NoNews())
        operator = PostgresOperations(database, database, projections, lambda _: None)
        with psycopg.connect(dsn, autocommit=True) as connection:
            events = _one(connection, "SELECT count(*) FROM events")
            while projector.run_all():
                pass
            for name in sorted(projections):
                operator.rebuild(name, "key:benchmark", "benchmark")
                begun = time.perf_counter()
                _until(lambda: projector.build() == 0, pause=0.0)
                bench.note(f"rebuild of {name}, events/s", events / (time.perf_counter() - begun))
                connection.execute("UPDATE projections SET state = 'retired' WHERE state = 'building'")
                connection.execute("DELETE FROM verifications")
            verifier = Verifier(projections, source, PostgresVerifications(database, VIEWS))
            for name in ("jobs", "stats"):
                operator.verify(name, "key:benchmark", "benchmark")
                begun = time.perf_counter()
                assert verifier.run_once()
                bench.note(f"verification of {name}, events/s", events / (time.perf_counter() - begun))
            connection.execute("TRUNCATE jobs")
            operator.rebuild("jobs", "key:benchmark", "benchmark")
            begun = time.perf_counter()
            assert verifier.run_once()
            bench.note("rebuild of jobs, all rows gone, events/s", events / (time.perf_counter() - begun))
            operator.verify("jobs", "key:benchmark", "benchmark")
            assert verifier.run_once()
            assert _one(connection, "SELECT differences FROM verifications ORDER BY id DESC LIMIT 1") == 0


def _steady(bench: Bench) -> None:
    """How old the oldest event is that is not in every view, while 5 000 come in a second."""
    dsn = bench.database()
    behind: list[float] = []
    with (
        closing(Log(dsn)) as log,
        psycopg.connect(dsn, autocommit=True) as connection,
        bench.processes(dsn, ["projector"], 1),
    ):
        ledger = PostgresLedger(log, _tell(dsn))
        jobs = [_new("idle", "nobody")] * int(RATE * TICK)
        execute(ledger, [Create(jobs, ANYBODY)])
        _until(lambda: _one(connection, BEHIND) == 0.0)
        begun = time.perf_counter()
        for tick in range(int(STEADY_SECONDS / TICK)):
            execute(ledger, [Create(jobs, ANYBODY)])
            behind.append(_one(connection, BEHIND))
            while time.perf_counter() < begun + (tick + 1) * TICK:
                behind.append(_one(connection, BEHIND))
        rate = len(jobs) * int(STEADY_SECONDS / TICK) / (time.perf_counter() - begun)
    bench.note("events/s while the lag was measured", rate)
    bench.note(f"lag of all views at {RATE} events/s p95, ms", statistics.quantiles(behind, n=100)[94] * 1000)


def _tell(dsn: str) -> Callable[[Any], None]:
    """News goes out as servers send it."""
    from infrastructure.postgres.notifications import Notifier

    return Notifier(Database(dsn)).tell


def _cpu(process: Any) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def _new(kind: str, queue: str) -> NewJob:
    return NewJob(kind=kind, queue=queue, input=PAYLOAD)


def _one(connection: psycopg.Connection, question: str) -> Any:
    row = connection.execute(question.encode()).fetchone()
    return row[0] if row else None


def _done(connection: psycopg.Connection) -> int:
    return int(_one(connection, "SELECT count(*) FROM jobs WHERE status = 'completed'"))


def _until(condition: Callable[[], Any], seconds: float = 300, pause: float = 0.05) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("the measure did not come to its end")
        time.sleep(pause)
