"""What a database refuses for the state it is in is told as such: whoever asked may ask again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from application.errors import Unavailable
from application.reports import Beat
from infrastructure.postgres.database import Database
from tests.infrastructure.nodes import Node, migrated, new_job


@contextmanager
def read_only(dsn: str) -> Iterator[None]:
    """As a primary is that hands over to another, for connections made meanwhile."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        try:
            yield
        finally:
            connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())


def test_a_database_that_is_read_only_for_a_while_is_unavailable(new_database: Callable[[], str]) -> None:
    with Node(migrated(new_database())) as node:
        (id,) = node.started(new_job())
        with read_only(node.dsn):
            for database in (node.log.beats, node.log.database):
                database.close()
            with pytest.raises(Unavailable):
                node.leases.extend([Beat(id, 1, "w1")])
            with pytest.raises(Unavailable), node.log.database.connection() as connection:
                connection.execute("UPDATE leases SET heartbeat_at = now()")
        for database in (node.log.beats, node.log.database):
            database.close()
        (lease,) = node.leases.extend([Beat(id, 1, "w1")])
        assert lease is not None
        assert lease.extended


@pytest.mark.parametrize("state", ["53100", "53300", "57014", "58030"])
def test_so_is_one_that_has_no_room_or_no_connection_or_cancels_or_fails(dsn: str, state: str) -> None:
    raises = f"DO $$ BEGIN RAISE EXCEPTION 'cannot now' USING ERRCODE = '{state}'; END $$".encode()
    database = Database(dsn)
    with pytest.raises(Unavailable):
        database.rows(raises)
    with pytest.raises(Unavailable), database.connection() as connection:
        connection.execute(raises)
    database.close()


def test_what_is_wrong_with_a_statement_is_told_as_it_is(dsn: str) -> None:
    database = Database(dsn)
    with pytest.raises(psycopg.errors.DivisionByZero):
        database.rows("SELECT 1 / 0")
    with pytest.raises(psycopg.errors.DivisionByZero), database.connection() as connection:
        connection.execute("SELECT 1 / 0")
    database.close()


def test_the_folder_of_a_socket_may_have_a_name_as_an_account_of_a_domain_has() -> None:
    database = Database("postgresql:///x?host=/home/u@shop.example/sockets,/tmp")
    with pytest.raises(Unavailable):
        database.connect()
