"""A server is replaced by its standby: nothing that was acknowledged is lost, and nobody has to be restarted."""

import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import httpx2
import psycopg
import pytest

from application.errors import Unavailable
from infrastructure.postgres.batch import is_over
from infrastructure.postgres.database import Database
from infrastructure.postgres.schema import EPOCH_IS_BEHIND, health, migrate
from tests.conftest import Start
from tests.infrastructure.nodes import Node, ask, migrated, new_job
from tests.plugs import Plug
from tests.standbys import Standby
from tests.waiting import eventually

WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query <> ''"


@pytest.fixture
def plug(tmp_path: Path) -> Iterator[Plug]:
    with Plug(tmp_path / "postgres") as plug:
        migrated(plug.dsn)
        yield plug


def set_standby(dsn: str, name: str) -> None:
    """Have commits wait for a standby of that name, or for none; in force when this returns."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = local")
        connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'".encode())
        connection.execute("SELECT pg_reload_conf()")
    shown = "SHOW synchronous_standby_names"
    eventually(lambda: ask(dsn, shown) == [(name,)])


def waiting(dsn: str) -> int | None:
    """The process whose commit waits for a standby."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(WAITING).fetchone()
    return int(row[0]) if row else None


def stop_waiting(dsn: str, how: str) -> None:
    """Cancel a wait, as an operator or a timeout does: the commit is answered, and not replicated."""
    eventually(lambda: waiting(dsn) is not None, what="a commit that waits for its standby")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"SELECT {how}(%s)".encode(), (waiting(dsn),))


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
def test_a_commit_that_did_not_wait_for_its_standby_is_not_acknowledged(plug: Plug, how: str) -> None:
    with Node(plug.dsn, prepare=False) as node, ThreadPoolExecutor(1) as pool:
        node.create(new_job())
        set_standby(plug.dsn, "nobody")
        creating: Future[list[UUID]] = pool.submit(node.create, new_job())
        stop_waiting(plug.dsn, how)
        eventually(lambda: waiting(plug.dsn) is not None, what="the confirmation waits for the standby")
        assert not creating.done()
        stop_waiting(plug.dsn, how)
        unknown = unanswered(creating, plug.dsn, how)
        assert "may or may not" in str(unknown)
        set_standby(plug.dsn, "")
        assert ask(plug.dsn, "SELECT count(*) FROM events") == [(2,)]
        node.create(new_job())


def unanswered(creating: "Future[list[UUID]]", dsn: str, how: str) -> BaseException:
    """Why a creation was not acknowledged, while every wait for the standby is cancelled."""
    ended = threading.Event()
    creating.add_done_callback(lambda _: ended.set())
    with psycopg.connect(dsn, autocommit=True) as connection:
        while not ended.wait(0.01):
            if (pid := waiting(dsn)) is not None:
                connection.execute(f"SELECT {how}(%s)".encode(), (pid,))
    error = creating.exception()
    assert isinstance(error, Unavailable)
    return error


def test_it_is_acknowledged_once_it_is_replicated_after_all(plug: Plug) -> None:
    with Node(plug.dsn, prepare=False) as node, ThreadPoolExecutor(1) as pool:
        set_standby(plug.dsn, "nobody")
        creating = pool.submit(node.create, new_job())
        stop_waiting(plug.dsn, "pg_cancel_backend")
        eventually(lambda: waiting(plug.dsn) is not None, what="the confirmation")
        set_standby(plug.dsn, "")
        (id,) = creating.result(30)
        assert ask(plug.dsn, "SELECT originator_id FROM events") == [(id,)]


def test_a_transaction_that_a_promoted_server_never_came_to_is_over(dsn: str) -> None:
    database = Database(dsn)
    with database.connection() as connection:
        assert is_over(connection, 2**40)
        connection.execute("BEGIN")
        ((own,),) = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchall()
        with psycopg.connect(dsn) as other:
            assert not is_over(other, own)
        connection.execute("ROLLBACK")
        assert is_over(connection, own)
    database.close()


def test_a_server_that_is_read_only_counts_as_away(plug: Plug) -> None:
    with Standby(plug.dsn) as standby, Node(standby.dsn) as node:
        standby.caught_up()
        assert health(node.log.reads).positions_rise
        with pytest.raises(Unavailable):
            node.create(new_job())
        standby.ask("SELECT pg_promote()")
        node.create(new_job())


def test_a_machine_that_is_silent_is_not_asked_first_by_every_new_connection(postgres: str) -> None:
    """It takes connections and says nothing, as one behind a network that drops everything."""
    sockets = postgres.partition("host=")[2].partition("&")[0]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        database = Database(f"postgresql://postgres@/postgres?host=127.0.0.1,{sockets}&port={port},5432")
        silent.settimeout(30)
        first = database.connect()
        asked, _ = silent.accept()
        silent.settimeout(0)
        second = database.connect()
        with pytest.raises(BlockingIOError):
            silent.accept()
        assert {first.info.host, second.info.host} == {sockets}
        for each in (first, second, asked):
            each.close()


def test_events_that_others_add_while_a_migration_runs_do_not_raise_the_epoch(dsn: str) -> None:
    with Node(dsn) as node, psycopg.connect(dsn) as migration:
        migration.execute("SELECT pg_current_xact_id()")
        node.create(new_job())
        assert migration.execute(EPOCH_IS_BEHIND).fetchone() is None
        migration.rollback()
        database = Database(dsn)
        migrate(database)
        database.close()
    assert ask(dsn, "SELECT epoch_offset FROM log_epoch") == [(0,)]


def test_all_roles_go_on_at_the_standby_that_was_promoted(plug: Plug, start: Start) -> None:
    with Standby(plug.dsn) as standby:
        set_standby(plug.dsn, "*")
        both = ",".join(dsn.partition("host=")[2].partition("&")[0] for dsn in (plug.dsn, standby.dsn))
        address = f"postgresql://postgres@/jobledger?host={both}&port=5432,5432&target_session_attrs=read-write"
        api = start("api", "--port", "0", DATABASE_URL=address, MIGRATION_DATABASE_URL=address)
        others = [start(role, DATABASE_URL=address, JOBLEDGER_LISTEN_URL=address) for role in ("worker", "projector")]
        with httpx2.Client(base_url=api.url, timeout=60) as http:
            acknowledged = [created(http, n) for n in range(20)]
            plug.pull(signal.SIGKILL)
            assert http.post("/v1/jobs", json={"kind": "kept", "input": 0}).status_code == 503
            standby.ask("SELECT pg_promote()")
            eventually(lambda: http.get("/readyz").status_code == 200, 60, "the service is ready again")
            acknowledged += [created(http, n) for n in range(20, 40)]
            question = http.post("/v1/visualizations", json={"question": "What is 15 % of 80?"}).json()["id"]
            done = http.get(f"/v1/jobs/{question}", headers={"Prefer": "wait=60"}).json()
            assert done["status"] == "completed"
            log = http.get("/v1/events?limit=10000").json()["items"]
            positions = [int(event["position"]) for event in log]
            assert positions == sorted(set(positions))
            by_version = [event["job_id"] for event in log if event["type"] == "job.created"]
            assert [id for id in by_version if id in acknowledged] == acknowledged
            count = f"\n{len(log)}\n"
            eventually(lambda: count in http.get("/v1/audit/checkpoint").text, 60, "the log is sealed on")
        for process in (api, *others):
            assert process.stop() == 0


def created(http: httpx2.Client, n: int) -> str:
    answer = http.post("/v1/jobs", json={"kind": "kept", "input": n})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])
