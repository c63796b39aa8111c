"""All roles behind PgBouncer in transaction mode, without prepared statements; LISTEN goes past it, or is not there."""

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import run
from types import TracebackType
from typing import Any, Self

import httpx2
import psycopg
import pytest
from psycopg import Connection

from tests.conftest import Process, Start
from tests.followers import Follower
from tests.infrastructure.nodes import ask, migrated
from tests.poolers import SIZE, Pooler

WaitUntil = Callable[[Callable[[], Any], str], Any]
Json = Any
OF_A_SESSION = """
SELECT pg_backend_pid(), current_setting('statement_timeout'), current_setting('enable_seqscan'),
  current_setting('enable_bitmapscan'), current_setting('plan_cache_mode'),
  current_setting('idle_in_transaction_session_timeout'), current_setting('synchronous_commit'),
  (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels()),
  (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
  pg_my_temp_schema() <> 0
"""
COUNTED = """
SELECT count(*) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()
"""


@pytest.fixture
def server(new_database: Callable[[], str]) -> str:
    """An empty database of the test's own, past the pooler."""
    return new_database()


@pytest.fixture
def pooler(server: str) -> Iterator[Pooler]:
    with Pooler(server) as pooler:
        yield pooler


class Roles:
    """One process of each role, which reach their database through the pooler and nothing else."""

    def __init__(self, start: Start, pooler: Pooler, folder: Path, **environment: str) -> None:
        self.environment = {"DATABASE_URL": pooler.dsn, "JOBLEDGER_PREPARE": "off", **environment}
        self.processes: list[Process] = [
            start("api", "--port", "0", **self.environment),
            start("worker", **self.environment),
            start("projector", **self.environment),
        ]
        self.url = self.processes[0].url
        self.http = httpx2.Client(base_url=self.url, timeout=60)
        self._folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.http.close()

    def create(self, kind: str, **fields: Json) -> str:
        answer = self.http.post("/v1/jobs", json={"kind": kind, "input": {}, **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def get(self, path: str, **headers: str) -> Json:
        answer = self.http.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def command(self, *arguments: str) -> str:
        """What a command over the same database prints."""
        environment = {"PATH": "", "HOME": str(self._folder), "JOBLEDGER_DATA": str(self._folder / "data")}
        done = run(
            [sys.executable, "-m", "interfaces.cli.main", *arguments],
            env={**environment, "PYTHONPATH": str(Path(__file__).parents[2]), **self.environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.mark.parametrize("listening", ["past it", "not at all"])
def test_everything_works_behind_pgbouncer_in_transaction_mode(
    start: Start,
    server: str,
    pooler: Pooler,
    handlers: Any,
    wait_until: WaitUntil,
    tmp_path: Path,
    listening: str,
) -> None:
    heard = {"JOBLEDGER_LISTEN_URL": server} if listening == "past it" else {}
    with Roles(start, pooler, tmp_path, **handlers.environment, **heard) as roles:
        assert [pool["pool_mode"] for pool in pooler.asked("SHOW POOLS") if pool["database"] != "pgbouncer"] == [
            "transaction"
        ]
        id = roles.create("three-steps")
        with Follower(f"{roles.url}/v1/jobs/{id}/events") as follower, Follower(f"{roles.url}/v1/events") as of_all:
            wait_until(lambda: "two" in handlers.calls, "the second step")
            with ThreadPoolExecutor(1) as pool:
                waited = pool.submit(roles.get, f"/v1/jobs/{id}", Prefer="wait=60")
                handlers.go()
                assert waited.result()["status"] == "completed"
            history = roles.get(f"/v1/jobs/{id}/events")["items"]
            assert [message.data for message in follower.wait_for_end()] == history
            assert [message.data for message in of_all.wait_for(len(history))] == history
        _work_by_hand(roles)
        assert len(roles.get("/v1/jobs?status=queued")["items"]) == 50

        count = len(roles.get("/v1/events?limit=10000")["items"])
        wait_until(lambda: ask(server, "SELECT sum(created) FROM stats") == [(52,)], "the view of what happened")
        wait_until(lambda: _all_read(roles.get("/v1/projections")["items"]), "every projection has read the log")
        wait_until(lambda: f"\n{count}\n" in roles.http.get("/v1/audit/checkpoint").text, "the whole log is sealed")
        assert json.loads(roles.command("audit", "verify", "--workers", "2", "--json"))["differences"] == 0
        assert json.loads(roles.command("sweep", "--json"))["files"] == 0
        assert roles.command("migrate") == "the schema is up to date\n"
        ready = roles.http.get("/readyz").json()
        assert ready == {"status": "ready", "reasons": [], "warnings": [], "findings": []}
        with psycopg.connect(server) as connection:
            assert connection.execute(COUNTED).fetchall() <= [(SIZE + 3 * len(heard),)]
        _check_that_nothing_is_left_in_sessions(pooler)
        for process in roles.processes:
            assert process.stop() == 0


def _all_read(projections: list[Json]) -> bool:
    return all(view["state"] == "live" and view["lag_events"] == 0 for view in projections)


def _work_by_hand(roles: Roles) -> None:
    """Batches, claims that wait, reports, cancellations and retries, over HTTP."""
    jobs = [{"kind": "by-hand", "queue": "hand", "input": n} for n in range(50)]
    assert len(roles.http.post("/v1/jobs/batch", json={"jobs": jobs}).json()["ids"]) == 50
    with ThreadPoolExecutor(1) as pool, httpx2.Client(base_url=roles.url, timeout=60) as other:
        waiting = pool.submit(
            other.post, "/v1/claims", json={"worker": "w", "queues": ["late"], "wait": 20, "claim_id": "late"}
        )
        id = roles.create("by-hand", queue="late")
        (claimed,) = waiting.result().json()["jobs"]
    assert claimed["id"] == id
    reports = [{"job_id": id, "attempt": 1, "type": "heartbeat"}, {"job_id": id, "attempt": 1, "type": "completed"}]
    for report in reports:
        answer = roles.http.post("/v1/reports", json={"worker": "w", "reports": [report | {}]})
        assert answer.json()["results"][0]["ok"], answer.text
    again = roles.http.post(f"/v1/jobs/{id}/retries", json={"reason": "once more"}, headers={"Idempotency-Key": "k"})
    assert again.status_code == 202
    cancelled = roles.http.post(f"/v1/jobs/{id}/cancellations", json={"reason": "enough"})
    assert cancelled.json()["status"] == "cancelled"
    assert roles.get(f"/v1/jobs/{id}?at_version=3")["status"] == "completed"


def _check_that_nothing_is_left_in_sessions(pooler: Pooler) -> None:
    """Each of the pooler's connections is as a new one is: what we set there others would be met with."""
    with ExitStack() as stack:
        held = [stack.enter_context(_transaction(pooler.dsn)) for _ in range(SIZE)]
        sessions = [connection.execute(OF_A_SESSION).fetchall()[0] for connection in held]
    assert len({pid for pid, *_ in sessions}) == SIZE
    new = ("0", "on", "on", "auto", "1min", "on", 0, 0, 0, False)
    assert {session[1:] for session in sessions} == {new}


@contextmanager
def _transaction(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, prepare_threshold=None) as connection:
        connection.execute("SELECT")
        yield connection
        connection.rollback()


def test_pgbouncer_killed_in_the_middle_of_work_loses_nothing(
    start: Start, server: str, pooler: Pooler, handlers: Any, wait_until: WaitUntil, tmp_path: Path
) -> None:
    with Roles(start, pooler, tmp_path, **handlers.environment) as roles:
        running = roles.create("three-steps", heartbeat_timeout=10, max_attempts=1)
        wait_until(lambda: "two" in handlers.calls, "the second step")
        acknowledged: dict[str, str] = {}

        def create(number: int) -> None:
            with httpx2.Client(base_url=roles.url, timeout=60) as http:
                for count in range(100):
                    key = f"{number}-{count}"
                    while (answer := _create(http, key)).status_code != 202:
                        assert answer.status_code == 503, answer.text
                    acknowledged[key] = answer.json()["id"]

        with Follower(f"{roles.url}/v1/events") as of_all, ThreadPoolExecutor(4) as pool:
            creators = [pool.submit(create, number) for number in range(4)]
            for enough in (50, 150, 250):
                wait_until(lambda: len(acknowledged) > enough, "jobs")  # noqa: B023  asked at once
                pooler.kill()
                assert roles.http.get("/v1/jobs").status_code == 503
                pooler.start()
            for creator in creators:
                creator.result()
            handlers.go()
            wait_until(lambda: roles.get(f"/v1/jobs/{running}")["status"] == "completed", "the job's end")
            log = roles.get("/v1/events?limit=10000")["items"]
            assert [message.data for message in of_all.wait_for(len(log))] == log
        assert roles.get(f"/v1/jobs/{running}")["attempt"] == 1
        kept = {e["job_id"]: e["data"]["idempotency_key"] for e in log if e["type"] == "job.created"}
        assert {kept[id] for id in acknowledged.values()} == acknowledged.keys()
        assert sorted(kept.values(), key=str) == sorted([*acknowledged, None], key=str)


def _create(http: httpx2.Client, key: str) -> httpx2.Response:
    return http.post("/v1/jobs", json={"kind": "kept", "input": key}, headers={"Idempotency-Key": key})


def test_check_says_what_a_pooler_in_between_needs(start: Start, server: str, pooler: Pooler) -> None:
    migrated(server)
    refused = start("check", DATABASE_URL=f"{pooler.dsn}?options=-csearch_path%3Dpublic", JOBLEDGER_PREPARE="off")
    assert "unsupported startup parameter: options" in refused.wait_for_line("database")
    assert "set JOBLEDGER_PREPARE=off" in start("check", DATABASE_URL=pooler.dsn).wait_for_line("database")
    for fitting in ({"DATABASE_URL": server}, {"DATABASE_URL": pooler.dsn, "JOBLEDGER_PREPARE": "off"}):
        assert "PREPARE" not in start("check", **fitting).wait_for_line("database")
