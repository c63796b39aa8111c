"""What all tests share: one real PostgreSQL for the run, a database for each module, and servers as processes."""

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import hypothesis
import psycopg
import pytest

from infrastructure.chromium import find_chromium
from infrastructure.embedded import EmbeddedPostgres
from infrastructure.postgres.database import Database
from infrastructure.postgres.schema import migrate

PATIENCE = 60.0
"""Seconds a test waits for a condition that must come."""


def pytest_configure() -> None:
    """End like Ctrl-C when told to end, so that fixtures stop what they started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one takes its time
    hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL server of the run's own, as a superuser."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), lambda line: None)
    try:
        yield server.start()
    finally:
        server.stop()


_numbers = itertools.count(1)


@pytest.fixture
def new_database(postgres: str) -> Callable[[], str]:
    """Makes an empty database and returns its address."""
    return lambda: _new_database(postgres)


@pytest.fixture(scope="module")
def dsn(postgres: str) -> str:
    """A migrated database of the module's own."""
    address = _new_database(postgres)
    database = Database(address)
    migrate(database)
    database.close()
    return address


def _new_database(server: str) -> str:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is."""
    found = find_chromium()
    if found is None:
        pytest.skip("no Chromium on the PATH: install chromium, so that pages are opened in it")
    return found


class Process:
    """A `jobledger` command in a process of its own, with what it printed."""

    def __init__(self, arguments: list[str], environment: dict[str, str], folder: Path) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        self.output: list[str] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "interfaces.cli.main", *arguments],
            cwd=folder,
            env={**kept, "HOME": str(folder), "PYTHONPATH": str(Path(__file__).parents[1]), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for_line(self, text: str, seconds: float = PATIENCE) -> str:
        """The first line that has `text` in it, once it is printed. Fails with all output when it is not."""
        with self._changed:
            self._changed.wait_for(lambda: self._line(text) is not None or self._ended(), seconds)
            line = self._line(text)
        if line is None:
            pytest.fail(f"no line with {text!r} in:\n" + "".join(self.output))
        return line

    @property
    def url(self) -> str:
        """Where it listens, once it does."""
        return self.wait_for_line("jobledger listening on ").split()[-1]

    def stop(self, seconds: float = PATIENCE) -> int:
        """End it as an operator would; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it in any case, and stop reading from it."""
        try:
            self.stop(30)
        except subprocess.TimeoutExpired:
            self.kill()
        self._reader.join(30)
        assert not self._reader.is_alive(), "something that it started outlives it, and has its output"
        assert self.process.stdout
        self.process.stdout.close()

    def _line(self, text: str) -> str | None:
        return next((line.strip() for line in self.output if text in line), None)

    def _ended(self) -> bool:
        return not self._reader.is_alive()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._changed:
                self.output.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `jobledger` commands, `start("api", "--port", "0", DATABASE_URL=…)`, and ends them after the test."""
    with _starting(tmp_path) as starter:
        yield starter


@pytest.fixture(scope="module")
def start_for_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Like `start`, for processes that serve all tests of a module."""
    with _starting(tmp_path_factory.mktemp("processes")) as starter:
        yield starter


@pytest.fixture(scope="module")
def api(dsn: str, start_for_module: Start) -> str:
    """The address of an API server over the module's database."""
    return start_for_module("api", "--port", "0", DATABASE_URL=dsn).url


@contextmanager
def _starting(folder: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def start(*arguments: str, **environment: str) -> Process:
            process = Process(list(arguments), {"JOBLEDGER_DATA": str(folder / "data"), **environment}, folder)
            stack.callback(process.close)
            return process

        yield start
