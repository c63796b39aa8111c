"""The same measures of every peer, one after the other within each round, each in a database of its own."""

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from msgspec import Struct

from benchmarks.peers.environments import CACHE, NotMade, environment, ours
from benchmarks.peers.peers import BARE_LOG, Peer

STEP_SECONDS = 300
"""After which a peer's step is given up, and named in the table."""
CALLERS = 32
BY_INDEX = "SET enable_seqscan = off"
"""For what is asked while workers are measured: a scan of all jobs, twenty times a second, would slow them down."""
BULK, ONE, MANY = "bulk create, jobs/s", "single create, 1 caller /s", f"single create, {CALLERS} callers /s"
PROCESSED = {1: "processed by 1 worker process, jobs/s", 2: "processed by 2 worker processes, jobs/s"}
IDLE_50, IDLE_95 = "create to start, idle p50, ms", "create to start, idle p95, ms"
LOADED_50, LOADED_95 = "create to start, half load p50, ms", "create to start, half load p95, ms"
WAL, DISK = "WAL, bytes a job", "disk, bytes a job"
MEASURES = (BULK, *PROCESSED.values(), ONE, MANY, IDLE_50, IDLE_95, LOADED_50, LOADED_95, WAL, DISK)
BETTER_LESS = frozenset({IDLE_50, IDLE_95, LOADED_50, LOADED_95, WAL, DISK})


class Scale(Struct, frozen=True):
    """How much of each: jobs of a bulk measure; created one by one by one caller, and eight times as many by 32;
    timed from their creation to their start, and of these the first ones that do not count; seconds of the load; and
    with how many worker processes they are done."""

    jobs: int = 20_000
    singles: int = 400
    picked: int = 220
    warm: int = 20
    loaded_seconds: float = 8.0
    workers: tuple[int, ...] = (1, 2)


class Failed(Exception):
    """A step of a lane did not come to its end; says why, in a line."""


class Comparison:
    """`values` by measure and peer, and `absent`: why a peer, or a measure of it, is not there."""

    def __init__(
        self,
        peers: Sequence[Peer],
        new_database: Callable[[], str],
        folder: Path,
        scale: Scale,
        yardstick: Path | None = None,
    ) -> None:
        """`new_database` makes an empty one and returns its address.

        `yardstick`: a script that prints `created N jobs/s` and `processed N jobs/s` of the bare log.
        """
        self.values: dict[str, dict[str, list[float]]] = {measure: {} for measure in MEASURES}
        self.absent: dict[str, str] = {}
        self._new_database = new_database
        self._folder = folder
        self._scale = scale
        self._yardstick = yardstick
        self._pythons: dict[str, Path] = {}
        self.peers = [peer for peer in peers if self._has_environment(peer)]

    def round(self) -> None:
        """Each measure of each peer once, one measure after the other."""
        for measure in (self._throughput, self._singles, self._pickup):
            for peer in self.peers:
                with self._naming(f"{peer.name}, {measure.__name__.strip('_')}"):
                    measure(peer)
            if measure == self._throughput and self._yardstick:
                with self._naming(BARE_LOG.name):
                    self._bare_log(self._yardstick)

    @contextmanager
    def _naming(self, what: str) -> Iterator[None]:
        """What fails is named, and the others are measured all the same."""
        try:
            yield
        except (Failed, psycopg.Error, TimeoutError, subprocess.SubprocessError) as error:
            self.absent.setdefault(what, (str(error).strip() or type(error).__name__).splitlines()[-1])

    def _bare_log(self, script: Path) -> None:
        for workers in self._scale.workers:
            command = [
                sys.executable,
                str(script),
                self._new_database(),
                "--jobs",
                str(self._scale.jobs),
                "--workers",
                str(workers),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=STEP_SECONDS)
            created, processed = (float(n) for n in re.findall(r"(?:created|processed)\s+(\d+) jobs/s", done.stdout))
            if workers == 1:
                self._note(BULK, BARE_LOG, created)
            self._note(PROCESSED[workers], BARE_LOG, processed)

    def _has_environment(self, peer: Peer) -> bool:
        try:
            self._pythons[peer.name] = environment(peer.requirements, CACHE) if peer.requirements else ours()
        except NotMade as reason:
            self.absent[peer.name] = str(reason)
            return False
        return True

    def _throughput(self, peer: Peer) -> None:
        jobs = max(100, int(self._scale.jobs * peer.share))
        for workers in self._scale.workers if peer.works else (0,):
            dsn = self._installed(peer)
            with psycopg.connect(dsn, autocommit=True) as connection:
                wal, disk = _wal(connection), _size(connection)
                rate = self._ask(peer, dsn, "bulk", jobs)
                created = _wal(connection) - wal
                connection.execute("VACUUM ANALYZE")
                connection.execute(BY_INDEX)
                wal = _wal(connection)
                if workers:
                    self._note(PROCESSED[workers], peer, self._processed(peer, dsn, connection, workers, jobs))
                else:
                    self._ask(peer, dsn, "finish", jobs)
                if workers <= 1:
                    self._note(BULK, peer, rate)
                    self._note(WAL, peer, (created + _wal(connection) - wal) / jobs)
                    self._note(DISK, peer, (_size(connection) - disk) / jobs)

    def _processed(self, peer: Peer, dsn: str, connection: psycopg.Connection, workers: int, jobs: int) -> float:
        """From when some jobs are done, so that starting does not count, to when all are; unless they are too few."""
        started = time.perf_counter()
        with self._working(peer, dsn, workers):
            _until(lambda: _count(connection, peer) > 0)
            begun, before = time.perf_counter(), _count(connection, peer)
            _until(lambda: not _has_unfinished(connection, peer))
            took = time.perf_counter() - begun
        done = _count(connection, peer)
        if done < jobs:
            raise Failed(f"only {done} of {jobs} jobs were done")
        return (done - before) / took if before < jobs else jobs / (begun - started)

    def _singles(self, peer: Peer) -> None:
        dsn = self._installed(peer)
        self._note(ONE, peer, self._ask(peer, dsn, "single", self._scale.singles, 1))
        self._note(MANY, peer, self._ask(peer, dsn, "single", self._scale.singles * 8, CALLERS))

    def _pickup(self, peer: Peer) -> None:
        if not peer.works or not self.values[PROCESSED[1]].get(peer.name):
            return
        dsn = self._installed(peer)
        with self._working(peer, dsn, 1):
            self._picks(peer, dsn, 1)  # the worker has started
            p50, p95 = self._picked(peer, dsn)
            self._note(IDLE_50, peer, p50)
            self._note(IDLE_95, peer, p95)
            half = self.values[PROCESSED[1]][peer.name][-1] / 2
            with self._process(peer, dsn, "load", f"{half:.0f}", str(self._scale.loaded_seconds)):
                time.sleep(self._scale.loaded_seconds / 4)
                p50, p95 = self._picked(peer, dsn)
        self._note(LOADED_50, peer, p50)
        self._note(LOADED_95, peer, p95)

    def _picked(self, peer: Peer, dsn: str) -> tuple[float, float]:
        """Milliseconds from the moment before a job is asked for to the start of its handler."""
        delays = sorted(self._picks(peer, dsn, self._scale.picked)[self._scale.warm :])
        return statistics.median(delays), delays[int(len(delays) * 0.95)]

    def _picks(self, peer: Peer, dsn: str, count: int) -> list[float]:
        file = self._folder / f"picked-{time.monotonic_ns()}"
        self._ask(peer, dsn, "pick", count, file)
        _until(lambda: file.read_text().count("started") >= count, 60)
        said = [line.split() for line in file.read_text().splitlines()]
        asked = {n: float(at) for word, n, at in said if word == "asked"}
        started = {n: float(at) for word, n, at in said if word == "started"}
        return [(started[str(n)] - asked[str(n)]) * 1000 for n in range(count)]

    def _note(self, measure: str, peer: Peer, value: float) -> None:
        self.values[measure].setdefault(peer.name, []).append(value)

    def _installed(self, peer: Peer) -> str:
        dsn = self._new_database()
        self._ask(peer, dsn, "install")
        return dsn

    def _ask(self, peer: Peer, dsn: str, *words: object) -> float:
        """What a lane's command prints. Raises Failed."""
        try:
            done = subprocess.run(
                self._command(peer, dsn, *words),
                capture_output=True,
                text=True,
                check=True,
                timeout=STEP_SECONDS,
                env=self._environment,
            )
        except subprocess.CalledProcessError as error:
            raise Failed(f"{words[0]}: {(error.stderr.strip() or 'it failed').splitlines()[-1]}") from error
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{words[0]}: took longer than {STEP_SECONDS} s") from error
        return float(done.stdout.split()[-1]) if words[0] in ("bulk", "single") else 0.0

    @contextmanager
    def _working(self, peer: Peer, dsn: str, count: int) -> Iterator[None]:
        if count == 0:
            yield
            return
        with self._process(peer, dsn, "work"), self._working(peer, dsn, count - 1):
            yield

    @contextmanager
    def _process(self, peer: Peer, dsn: str, *words: str) -> Iterator[None]:
        process = subprocess.Popen(
            self._command(peer, dsn, *words),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
        )
        try:
            yield
            if process.poll() not in (None, 0):
                raise Failed(f"{words[0]}: ended with status {process.returncode}")
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _command(self, peer: Peer, dsn: str, *words: object) -> list[str]:
        return [str(self._pythons[peer.name]), "-m", f"benchmarks.peers.lanes.{peer.lane}", dsn, *map(str, words)]

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "JOBLEDGER_DATA": str(self._folder), "PYTHONUNBUFFERED": "1"}


def _until(condition: Callable[[], bool], seconds: float = STEP_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"a measure did not come to its end in {seconds:g} s")
        time.sleep(0.05)


def _count(connection: psycopg.Connection, peer: Peer) -> int:
    assert peer.finished
    row = connection.execute(peer.finished.encode()).fetchone()
    return row[0] if row else 0


def _has_unfinished(connection: psycopg.Connection, peer: Peer) -> bool:
    assert peer.unfinished
    return connection.execute(peer.unfinished.encode()).fetchone() == (True,)


def _wal(connection: psycopg.Connection) -> float:
    row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    return float(row[0]) if row else 0.0


def _size(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return row[0] if row else 0
