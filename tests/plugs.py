"""A PostgreSQL whose plug can be pulled, and that comes back at the same address."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil  # type: ignore[import-untyped]
import psycopg

from infrastructure.embedded import EmbeddedPostgres
from tests.waiting import eventually

PATIENCE = 60.0


class Plug:
    """A server of the test's own; its address leads through a link to wherever its socket is after each start."""

    def __init__(self, data: Path) -> None:
        self._server = EmbeddedPostgres(data, lambda line: None)
        self._folder = Path(tempfile.mkdtemp(prefix="plug-"))
        self._folder.chmod(0o711)  # a standby's user goes through it, to the socket that is closed to others
        self._link = self._folder / "sockets"
        self.socket = f"{self._link}/.s.PGSQL.5432"
        self.dsn = f"postgresql://postgres@/jobledger?host={self._link}&port=5432"

    def __enter__(self) -> Self:
        self.put_in()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def put_in(self) -> None:
        """Start the server; it accepts connections when this returns."""
        parts = dict(part.split("=") for part in self._server.start().partition("?")[2].split("&"))
        following = self._folder / "next"
        following.symlink_to(parts["host"])
        following.replace(self._link)

    def pull(self, request: signal.Signals) -> None:
        """End the server by that signal; it is gone when this returns."""
        os.kill(self._server.pid, request)
        eventually(lambda: not self._server.alive, PATIENCE, "the server's end")
        self._server.stop()

    def mend(self) -> None:
        """Wait until it accepts connections again by itself, and start it when it has ended."""
        until = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < until, "the server does not come back"
            if not self._server.alive:
                self._server.stop()
                self.put_in()
            try:
                psycopg.connect(self.dsn, connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """All its processes stand still meanwhile: connections stay open, and nobody answers."""
        server = psutil.Process(self._server.pid)
        server.suspend()  # first, so that it starts no more
        processes = [server, *server.children()]
        try:
            for process in processes[1:]:
                process.suspend()
            yield
        finally:
            for process in reversed(processes):
                process.resume()
