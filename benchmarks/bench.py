"""One run of the benchmarks: its server, its databases, its processes, and what was measured so far."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psutil  # type: ignore[import-untyped]
import psycopg
from msgspec import Raw

from application.commands import execute
from application.jobs import Asked, Create, NewJob
from infrastructure.postgres.database import Database
from infrastructure.postgres.ledger import PostgresLedger
from infrastructure.postgres.log import Log
from infrastructure.postgres.schema import migrate
from interfaces.settings import Settings

ANYBODY = Asked(by="key:benchmark")
PAYLOAD = Raw(b'{"a":1,"b":"hello"}')
BATCH = 1_000
LEFT = "SELECT (SELECT count(*) FROM jobs WHERE status = 'queued') + (SELECT count(*) FROM leases)"
Results = dict[str, list[float]]


class Bench:
    """Makes databases on one server, and starts processes of this service beside it."""

    def __init__(self, server: str, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self._made = 0
        self.results: Results = {}

    def note(self, name: str, value: float) -> None:
        self.results.setdefault(name, []).append(value)

    def empty_database(self) -> str:
        """A new one; the address."""
        self._made += 1
        name = f"bench_{self._made}"
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return urlunsplit(urlsplit(self.server)._replace(path=f"/{name}"))

    def database(self) -> str:
        """A new, migrated database; the address."""
        address = self.empty_database()
        log = Log(address)
        migrate(log.database)
        log.close()
        return address

    @contextmanager
    def open_database(self, address: str) -> Iterator[Database]:
        database = Database(address)
        try:
            yield database
        finally:
            database.close()

    def settings(self, database: str) -> Settings:
        return Settings.model_validate({"DATABASE_URL": database, "JOBLEDGER_DATA": str(self.folder)})

    @contextmanager
    def api(self, database: str) -> Iterator[str]:
        with self.processes(database, ["api", "--port", "0"], 1) as (process,):
            yield listening(process)

    @contextmanager
    def bare(self) -> Iterator[str]:
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.bare"], stdout=subprocess.PIPE, text=True)
        try:
            yield listening(process)
        finally:
            end(process)

    @contextmanager
    def processes(self, database: str, command: list[str], count: int) -> Iterator[list["subprocess.Popen[str]"]]:
        environment = {
            **os.environ,
            "DATABASE_URL": database,
            "JOBLEDGER_DATA": str(self.folder),
            "JOBLEDGER_HANDLERS": os.environ.get("BENCH_HANDLERS", "benchmarks.handlers"),
        }
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "interfaces.cli.main", *command],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for _ in range(count)
        ]
        try:
            yield processes
        finally:
            for process in processes:
                end(process)


def bulk_create(ledger: PostgresLedger, jobs: int, kind: str = "idle", queue: str = "nobody") -> tuple[float, float]:
    """Create jobs in batches; jobs per second and microseconds of Python a job."""
    new = [NewJob(kind=kind, queue=queue, input=PAYLOAD)] * BATCH
    begun, cpu = time.perf_counter(), time.process_time()
    for _ in range(0, jobs, BATCH):
        execute(ledger, [Create(new, ANYBODY)])
    return jobs / (time.perf_counter() - begun), (time.process_time() - cpu) / jobs * 1e6


def listening(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    for line in process.stdout:
        if "listening on " in line:
            return line.split()[-1]
    raise RuntimeError("the server ended before it listened")


def end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()


def wait_for(connection: psycopg.Connection, question: str) -> None:
    until(lambda: connection.execute(question.encode()).fetchone() == (True,))


def until(condition: Callable[[], bool], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("the measure did not come to its end")
        time.sleep(0.05)


def peak(pid: int) -> float:
    """The most memory that a process has had, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1000


def completed(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM jobs WHERE status = 'completed'").fetchone()
    return row[0] if row else 0


def left(connection: psycopg.Connection) -> int:
    """Jobs that are not finished; by index, since a scan of a full log's jobs would take half of a measure's time."""
    row = connection.execute(LEFT).fetchone()
    return row[0] if row else 0


def wal(connection: psycopg.Connection) -> float:
    row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    return float(row[0]) if row else 0.0


def cpu_of(processes: list["subprocess.Popen[str]"]) -> float:
    times = [psutil.Process(process.pid).cpu_times() for process in processes]
    return float(sum(time.user + time.system for time in times))


def postgres_cpu(connection: psycopg.Connection) -> float:
    """Seconds of processor time of the server's processes, those that have ended included."""
    postmaster = psutil.Process(connection.info.backend_pid).parent()
    used = 0.0
    for process in (postmaster, *postmaster.children()):
        with suppress(psutil.Error):
            times = process.cpu_times()
            used += times.user + times.system
    times = postmaster.cpu_times()
    return float(used + times.children_user + times.children_system)
