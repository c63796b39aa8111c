"""Connections to Postgres: one straight way to get a healthy one, and errors in the application's words."""

import re
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import Connection, sql
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from application.errors import Unavailable, UnreadableAddress
from infrastructure.postgres.columns import Column, ColumnDumper

SESSION = "SET idle_in_transaction_session_timeout = '10s'"
# Without JIT: before PostgreSQL 18 a scan that is ruled out counts as so dear that everything is compiled, for seconds.
PLANS = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off"
NO_BITMAPS = "SET enable_bitmapscan = off"
STATEMENT_TIMEOUT = "SELECT set_config('statement_timeout', %s, false)"
Query = LiteralString | bytes | sql.Composed
T = TypeVar("T")
IDLE, ACTIVE = psycopg.pq.TransactionStatus.IDLE, psycopg.pq.TransactionStatus.ACTIVE
TOO_SLOW = "the database took too long over this; ask for less, or try again"
DEFAULT_PORT = "5432"
SYNCHRONOUS_WAIT = "SyncRepWaitForLSN"
CANNOT_SERVE = {"08", "25", "53", "57", "58"}
"""Classes of SQLSTATE that blame no statement: lost, read-only, out of room or connections, told to stop, failing."""
CONNECT_TIMEOUT = 2
"""Seconds to wait for a connection; also how soon a caller learns that the database is away."""


class PatientConnection(Connection):
    """Gives up on a server that is no good any more, though nobody says that it is gone.

    One that hangs; one that became read-only, since another was promoted; and one that answered a commit without
    waiting for its synchronous standby, since the wait was cancelled: what is not there yet is lost with the server,
    so that this is no answer. Each is raised as an OperationalError of a connection that is closed.
    """

    patience: float | None = None
    unreplicated = False

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        try:
            answer = super().wait(gen, interval, self.patience if timeout is None else timeout)
        except psycopg.errors.ReadOnlySqlTransaction as error:
            self.close()
            raise psycopg.OperationalError("the server is read-only: it was made a standby, or is one") from error
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == ACTIVE:
                self.close()  # its answer is still to come, and would be taken for the next one's
            raise
        if self.unreplicated:
            self.close()
            raise psycopg.OperationalError("the wait for the synchronous standby was cancelled")
        return answer

    def notice(self, notice: psycopg.errors.Diagnostic) -> None:
        """Take in what the server says beside an answer: by its place in the source, since texts are translated."""
        if notice.source_function == SYNCHRONOUS_WAIT:
            self.unreplicated = True


class Database:
    """Hands out connections and takes them back; a broken one takes the idle ones of its time with it.

    There is no pool thread: a connection is made by whoever needs it, so that the first call after an outage is
    served as soon as the server is back. Safe to share between threads.
    """

    def __init__(
        self,
        dsn: str,
        *,
        prepare: bool = True,
        by_index: bool = False,
        bitmaps: bool = True,
        patience: float | None = None,
    ) -> None:
        """`prepare` off stands for a transaction pooler in between, where a session's settings are not ours.

        `by_index`: for statements that only ever look rows up by index: they are planned once, and never as a scan of
        a table that was small when the plan was made. `bitmaps` off: nor by a bitmap, which for a claim, that wants
        the first few jobs of a lane, would be of the whole lane.

        `patience`: seconds that a statement may take, on the server and until its answer is here.

        Raises UnreadableAddress.
        """
        _check(dsn)
        self._dsn = dsn
        self._prepare = prepare
        self._by_index = by_index
        self._bitmaps = bitmaps
        self._patience = patience
        self._idle: deque[Connection] = deque()
        self._last: tuple[str, str] | None = None

    def connect(self) -> Connection:
        """A new connection in autocommit mode. Raises Unavailable when the server does not answer."""
        try:
            connection = PatientConnection.connect(
                self._address(),
                autocommit=True,
                prepare_threshold=2 if self._prepare else None,
                connect_timeout=CONNECT_TIMEOUT,
                application_name="jobledger",
                keepalives_idle=5,
                keepalives_interval=2,
                keepalives_count=3,
                tcp_user_timeout=10_000,
            )
            self._last = connection.info.host, str(connection.info.port)
            connection.patience = self._patience
            connection.add_notice_handler(connection.notice)
            connection.adapters.register_dumper(Column, ColumnDumper)
            connection.execute("SET TIME ZONE 'UTC'")
            if self._prepare:
                connection.execute(SESSION)
            if self._prepare and self._patience is not None:
                connection.execute(STATEMENT_TIMEOUT, (f"{self._patience:g}s",))
            if self._prepare and self._by_index:
                connection.execute(PLANS)
            if self._prepare and not self._bitmaps:
                connection.execute(NO_BITMAPS)
        except psycopg.OperationalError as error:
            raise Unavailable() from error
        return connection

    def _address(self) -> str:
        """With several servers in it, the one that answered last stands first: one that is silent costs two seconds."""
        parts = conninfo_to_dict(self._dsn)
        hosts = str(parts.get("host") or "").split(",")
        if self._last is None or len(hosts) == 1 or "hostaddr" in parts:
            return self._dsn
        ports = [port or DEFAULT_PORT for port in str(parts.get("port") or "").split(",")]
        servers = list(zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=False))
        servers.sort(key=lambda server: server != self._last)
        first = {"host": ",".join(host for host, _ in servers), "port": ",".join(port for _, port in servers)}
        return make_conninfo(self._dsn, **first)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection for one piece of work. Raises Unavailable when the server goes away, or can do nothing now."""
        connection = self.take()
        try:
            yield connection
        except psycopg.Error as error:
            if connection.closed or connection.broken:
                self.close()
            elif not cannot_serve(error):
                raise
            raise Unavailable() from error
        finally:
            self.give_back(connection)

    def rows(self, query: Query, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement that may be run twice. Raises Unavailable.

        A connection that broke while it was idle is replaced, so that the first caller after an outage is served.
        """
        begun = time.monotonic()
        for last_try in (False, True):
            connection = self.take()
            try:
                return connection.execute(query, values, binary=True).fetchall()
            except psycopg.errors.QueryCanceled as error:
                raise Unavailable(TOO_SLOW) from error
            except psycopg.Error as error:
                if not (connection.closed or connection.broken):
                    if cannot_serve(error):
                        raise Unavailable() from error
                    raise
                self.close()
                if last_try or (self._patience is not None and time.monotonic() - begun >= self._patience):
                    raise Unavailable() from error
            finally:
                self.give_back(connection)
        raise AssertionError("unreachable")

    def pooled(self) -> bool:
        """Whether a pooler is in between, which makes up the process ids that it tells. Raises Unavailable."""
        with self.connection() as connection:
            return connection.execute("SELECT pg_backend_pid()").fetchone() != (connection.info.backend_pid,)

    def close(self) -> None:
        """Close the idle connections."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def take(self) -> Connection:
        """An idle connection or a new one, to be given back. Raises Unavailable."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self.connect()
            if not connection.closed:
                return connection

    def give_back(self, connection: Connection) -> None:
        """Keep it for the next caller; what it left open is rolled back."""
        if not (connection.closed or connection.broken) and connection.info.transaction_status != IDLE:
            with suppress(psycopg.Error):
                connection.rollback()
        if connection.closed or connection.info.transaction_status != IDLE:
            connection.close()
        else:
            self._idle.append(connection)


def cannot_serve(error: psycopg.Error) -> bool:
    """Whether the server refused for what it is in, and will do the same later."""
    return (error.sqlstate or "")[:2] in CANNOT_SERVE


def _check(dsn: str) -> None:
    """An @ or a letter where libpq sees host and port is of a password that was not written for an address.

    A host that begins with an @ is an abstract socket, one with a / the folder of a socket, which may well have one.
    """
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        raise UnreadableAddress from None
    hosts, ports = str(parts.get("host") or ""), str(parts.get("port") or "")
    strange = any("@" in host[1:] for host in hosts.split(",") if not host.startswith("/"))
    if strange or not re.fullmatch("[0-9, ]*", ports):
        raise UnreadableAddress
