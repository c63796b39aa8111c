"""`--steady`: all roles at 60 % of what they do at most, for an hour, and a transaction held open elsewhere meanwhile.

Jobs are created here in small batches, and done by one worker; a projector and an API server run beside. A sixth of the
time, 10 minutes of an hour, another session holds a snapshot and a transaction id, so that nothing can be vacuumed and
no reader of the whole log goes on.
"""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

import psutil  # type: ignore[import-untyped]
import psycopg
from msgspec import Raw, Struct

from application.commands import execute
from application.jobs import Asked, Create, NewJob
from infrastructure.postgres.ledger import PostgresLedger
from infrastructure.postgres.log import Log
from infrastructure.postgres.notifications import Notifier

SHARE = 0.6
WARM_SECONDS, PEAK_SECONDS = 5.0, 15.0
AHEAD = 5_000
"""Jobs that wait at least, while it is measured what is done at most."""
TICK = 0.05
WINDOWS = 12
"""Lines of the table."""
ROLES = (("worker", "--concurrency", "2000"), ("projector",), ("api", "--port", "0"))
DONE = """
SELECT count(*) FILTER (WHERE finished_at >= %(begin)s AND finished_at < %(end)s),
  percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - created_at) * 1000)
FROM jobs WHERE created_at >= %(begin)s AND id >= first_id_of(%(begin)s) AND id < first_id_of(%(end)s)
"""
SIZES = """
SELECT (SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'jobs'),
  (SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'leases'),
  pg_table_size('jobs'), pg_indexes_size('jobs'), pg_relation_size('jobs_ready'),
  pg_total_relation_size('leases'), pg_database_size(current_database())
"""
LEFT = "SELECT count(*) FROM jobs WHERE status = 'queued'"
STARTED = "SELECT EXISTS (SELECT FROM jobs WHERE status = 'completed')"
NOW = "SELECT clock_timestamp()"
HOLD = "SELECT pg_current_xact_id(), count(*) FROM leases"


class Bench(Protocol):
    """What starts databases and processes."""

    def database(self) -> str: ...

    def processes(
        self, database: str, command: list[str], count: int
    ) -> AbstractContextManager[list["subprocess.Popen[str]"]]: ...


class Sizes(Struct, frozen=True):
    """How things stand: dead rows, and bytes."""

    dead_jobs: int
    dead_leases: int
    table: int
    indexes: int
    ready: int
    leases: int
    database: int


class Window(Struct, frozen=True):
    """A part of the run; delays in ms, and at its end sizes, and memory by role in MB."""

    minute: float
    held: bool
    rate: float
    p50: float
    p99: float
    sizes: Sizes
    memory: dict[str, float]


class Load:
    """Creates jobs, so many a second."""

    def __init__(self, address: str) -> None:
        self._log = Log(address)
        self._notifier = Notifier(self._log.database)
        self._ledger = PostgresLedger(self._log, self._notifier.tell)

    def create(self, count: int) -> None:
        new = NewJob(kind="noop", input=Raw(b'{"a":1,"b":"hello"}'))
        for begin in range(0, count, 1_000):
            execute(self._ledger, [Create([new] * min(1_000, count - begin), Asked(by="key:benchmark"))])

    def hold(self, rate: float, seconds: float) -> None:
        begun, made = time.perf_counter(), 0
        while (passed := time.perf_counter() - begun) < seconds:
            due = int(passed * rate) - made
            self.create(due)
            made += due
            time.sleep(max(0.0, TICK - (time.perf_counter() - begun - passed)))

    def close(self) -> None:
        self._notifier.close()
        self._log.close()


def steady(bench: Bench, minutes: float) -> tuple[float, list[Window]]:
    """What is done at most, in jobs a second, and the windows of the run at 60 % of it."""
    address = bench.database()
    load = Load(address)
    with psycopg.connect(address, autocommit=True) as connection, _roles(bench, address) as roles:
        peak = _peak(connection, load)
        _until(lambda: _ask(connection, LEFT) == 0)
        connection.execute("VACUUM ANALYZE")
        windows = []
        seconds = minutes * 60 / WINDOWS
        holder: psycopg.Connection | None = None
        for n in range(WINDOWS):
            if n == WINDOWS // 3:
                holder = _hold_open(address)
            begin = _ask(connection, NOW)
            load.hold(peak * SHARE, seconds)
            end = _ask(connection, NOW)
            took = (end - begin).total_seconds()
            windows.append(_window(connection, (n + 1) * seconds / 60, holder is not None, begin, end, took, roles))
            if holder is not None and n == WINDOWS // 3 + WINDOWS // 6 - 1:
                holder.close()
                holder = None
    load.close()
    return peak, windows


def table(peak: float, windows: Sequence[Window]) -> str:
    """Markdown."""
    lines = [
        f"At most {peak:,.0f} jobs/s were created and done at once; {SHARE:.0%} of that is {peak * SHARE:,.0f}.",
        "",
        "| minute | held open | done /s | create to start p50, ms | p99, ms | dead rows of jobs | of leases "
        "| jobs, MB | their indexes, MB | ready index, MB | leases, MB | database, MB | "
        + " | ".join(f"{role}, MB" for role in windows[0].memory)
        + " |",
        "|---:|---|" + "---:|" * (10 + len(windows[0].memory)),
    ]
    for window in windows:
        at = window.sizes
        numbers = [
            f"{window.rate:,.0f}",
            f"{window.p50:.1f}",
            f"{window.p99:.1f}",
            f"{at.dead_jobs:,}",
            f"{at.dead_leases:,}",
            *(f"{size / 1e6:,.1f}" for size in (at.table, at.indexes, at.ready, at.leases, at.database)),
            *(f"{used:.1f}" for used in window.memory.values()),
        ]
        lines.append(f"| {window.minute:.1f} | {'yes' if window.held else ''} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def _peak(connection: psycopg.Connection, load: Load) -> float:
    load.create(AHEAD)
    _until(lambda: _ask(connection, STARTED))
    until, begin = time.perf_counter() + WARM_SECONDS, None
    while begin is None or time.perf_counter() < until:
        if begin is None and time.perf_counter() >= until:
            begin, until = _ask(connection, NOW), time.perf_counter() + PEAK_SECONDS
        if _ask(connection, LEFT) < AHEAD:
            load.create(2_000)
    end = _ask(connection, NOW)
    query = "SELECT count(*) FROM jobs WHERE finished_at >= %s AND finished_at < %s"
    row = connection.execute(query, (begin, end)).fetchone()
    assert row
    assert row[0], "nothing was done"
    return float(row[0] / (end - begin).total_seconds())


def _window(
    connection: psycopg.Connection,
    minute: float,
    held: bool,
    begin: object,
    end: object,
    took: float,
    roles: dict[str, "subprocess.Popen[str]"],
) -> Window:
    done = connection.execute(DONE, {"begin": begin, "end": end}).fetchone()
    sizes = connection.execute(SIZES).fetchone()
    assert done
    assert sizes
    p50, p99 = done[1] or (0.0, 0.0)
    memory = {role: psutil.Process(process.pid).memory_info().rss / 1e6 for role, process in roles.items()}
    return Window(minute, held, done[0] / took, p50, p99, Sizes(*sizes), memory)


@contextmanager
def _roles(bench: Bench, address: str) -> Iterator[dict[str, "subprocess.Popen[str]"]]:
    with ExitStack() as stack:
        yield {role: stack.enter_context(bench.processes(address, [role, *options], 1))[0] for role, *options in ROLES}


def _hold_open(address: str) -> psycopg.Connection:
    """A session with a snapshot and a transaction id, which nobody ends but us."""
    connection = psycopg.connect(address)
    connection.execute("SET idle_in_transaction_session_timeout = 0")
    connection.commit()
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.execute(HOLD)
    return connection


def _ask(connection: psycopg.Connection, question: str) -> Any:
    row = connection.execute(question.encode()).fetchone()
    assert row
    return row[0]


def _until(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("the jobs were not done")
        time.sleep(0.1)
