"""Connections to Postgres: one straight way to get a healthy one, and errors in the application's words."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, LiteralString

import psycopg
from psycopg import Connection, sql

from application.errors import Unavailable
from infrastructure.postgres.columns import Column, ColumnDumper

SESSION = "SET idle_in_transaction_session_timeout = '10s'"
PLANS = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off"
Query = LiteralString | bytes | sql.Composed
IDLE = psycopg.pq.TransactionStatus.IDLE
CONNECT_TIMEOUT = 2
"""Seconds to wait for a connection; also how soon a caller learns that the database is away."""


class Database:
    """Hands out connections and takes them back; a broken one takes the idle ones of its time with it.

    There is no pool thread: a connection is made by whoever needs it, so that the first call after an outage is
    served as soon as the server is back. Safe to share between threads.
    """

    def __init__(self, dsn: str, *, prepare: bool = True, by_index: bool = False) -> None:
        """`prepare` off stands for a transaction pooler in between, where a session's settings are not ours.

        `by_index`: for statements that only ever look rows up by index: they are planned once, and never as a scan of
        a table that was small when the plan was made.
        """
        self._dsn = dsn
        self._prepare = prepare
        self._by_index = by_index
        self._idle: deque[Connection] = deque()

    def connect(self) -> Connection:
        """A new connection in autocommit mode. Raises Unavailable when the server does not answer."""
        try:
            connection = psycopg.connect(
                self._dsn,
                autocommit=True,
                prepare_threshold=2 if self._prepare else None,
                connect_timeout=CONNECT_TIMEOUT,
                application_name="jobledger",
                keepalives_idle=5,
                keepalives_interval=2,
                keepalives_count=3,
                tcp_user_timeout=10_000,
            )
            connection.adapters.register_dumper(Column, ColumnDumper)
            connection.execute("SET TIME ZONE 'UTC'")
            if self._prepare:
                connection.execute(SESSION)
            if self._prepare and self._by_index:
                connection.execute(PLANS)
        except psycopg.OperationalError as error:
            raise Unavailable() from error
        return connection

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection for one piece of work. Raises Unavailable when the server goes away meanwhile."""
        connection = self.take()
        try:
            yield connection
        except psycopg.OperationalError as error:
            if connection.closed or connection.broken:
                self.close()
                raise Unavailable() from error
            raise
        finally:
            self.give_back(connection)

    def rows(self, query: Query, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement that may be run twice. Raises Unavailable.

        A connection that broke while it was idle is replaced, so that the first caller after an outage is served.
        """
        for last_try in (False, True):
            connection = self.take()
            try:
                return connection.execute(query, values, binary=True).fetchall()
            except (psycopg.OperationalError, psycopg.errors.InvalidTransactionState) as error:
                broken = connection.closed or connection.broken
                if not broken:
                    raise
                self.close()
                if last_try:
                    raise Unavailable() from error
            finally:
                self.give_back(connection)
        raise AssertionError("unreachable")

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
