"""A proxy between a ledger and its server that cuts connections where it hurts."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self

from psycopg.conninfo import conninfo_to_dict

COMMITS = b"\0COMMIT\0", b"inserted AS ("
"""In messages that commit, which have their statements as text: a ledger over the proxy must not prepare them."""
IDLE = b"Z\x00\x00\x00\x05I"
"""The server's ReadyForQuery outside a transaction."""

Cut = Literal["before COMMIT", "in COMMIT", "after COMMIT"]


class Proxy:
    """Listens on TCP and passes everything on, until it is told to cut the next connection that commits."""

    def __init__(self, dsn: str) -> None:
        parts = conninfo_to_dict(dsn)
        self._server = f"{parts['host']}/.s.PGSQL.{parts['port']}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port: int = self._listener.getsockname()[1]
        self.dsn = (
            f"postgresql://{parts['user']}@127.0.0.1:{self._port}/{parts['dbname']}?sslmode=disable&gssencmode=disable"
        )
        self._next: Cut | None = None
        self.cuts = 0
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._run(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.refuse()
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()

    def cut_next(self, where: Cut) -> None:
        """Cut the connection on which the next COMMIT comes: before the server hears of it, while it is at it, or
        when it is done and its answer is on the way."""
        self._next = where

    def refuse(self) -> None:
        """Drop all connections, and take no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            _hang_up(each)

    def accept_again(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._run(self._accept)

    def _run(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        listener = self._listener
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                self._sockets += [client, server]
                silent = threading.Event()
                self._run(self._pass_on, client, server, silent)
                self._run(self._answer, server, client, silent)

    def _pass_on(self, client: socket.socket, server: socket.socket, silent: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                commits = any(commit in data for commit in COMMITS)
                where, self._next = (self._next, None) if commits else (None, self._next)
                if where is not None:
                    self.cuts += 1
                if where == "before COMMIT":
                    break
                if where == "after COMMIT":
                    silent.set()
                server.sendall(data)
                if where == "in COMMIT":
                    break
        _hang_up(client)
        _hang_up(server)

    @staticmethod
    def _answer(server: socket.socket, client: socket.socket, silent: threading.Event) -> None:
        unsaid = b""
        with suppress(OSError):
            while data := server.recv(65536):
                if not silent.is_set():
                    client.sendall(data)
                    continue
                unsaid += data
                if IDLE in unsaid:
                    break
        _hang_up(client)
        _hang_up(server)


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
