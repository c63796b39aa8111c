"""Upgrades without downtime: servers of two releases side by side, over the schema of the newer one."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import psycopg
import pytest

from infrastructure.postgres import schema
from infrastructure.postgres.database import Database
from infrastructure.postgres.schema import Migration, TablesBusy, migrate, migrations
from tests.conftest import Start
from tests.infrastructure.nodes import ask, migrated
from tests.waiting import eventually

TOMORROW = 9001
EXPANSION = """
ALTER TABLE events ADD COLUMN tomorrow text;
ALTER TABLE jobs ADD COLUMN tomorrow text NOT NULL DEFAULT 'as today';
ALTER TABLE leases ADD COLUMN tomorrow integer;
ALTER TABLE keys ADD COLUMN tomorrow boolean NOT NULL DEFAULT false;
ALTER TABLE stats ADD COLUMN tomorrow bigint NOT NULL DEFAULT 0;
ALTER TABLE seal_tiles ADD COLUMN tomorrow bytea;
CREATE INDEX jobs_tomorrow ON jobs (tomorrow, id);
CREATE TABLE inventions (id uuid PRIMARY KEY, job_id uuid NOT NULL);
"""
"""What the rule for migrations allows: to add, with defaults."""


@contextmanager
def release_of_tomorrow(monkeypatch: pytest.MonkeyPatch, sql: str) -> Iterator[None]:
    """In this process, there is one more migration."""
    known = [*migrations(), Migration(TOMORROW, f"{TOMORROW}_tomorrow.sql", sql)]
    with monkeypatch.context() as patch:
        patch.setattr(schema, "migrations", lambda: known)
        yield


def migrate_to(dsn: str) -> list[str]:
    database = Database(dsn)
    try:
        return migrate(database)
    finally:
        database.close()


def test_servers_of_today_go_on_under_the_schema_of_tomorrow(
    new_database: Callable[[], str], start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = migrated(new_database())
    api = start("api", "--port", "0", DATABASE_URL=dsn)
    others = [start("worker", DATABASE_URL=dsn), start("projector", DATABASE_URL=dsn)]
    ended, questions = threading.Event(), list[str]()

    def work() -> None:
        with httpx2.Client(base_url=api.url, timeout=60) as client:
            while not ended.is_set():
                answer = client.post("/v1/visualizations", json={"question": "What is 15 % of 80?"})
                assert answer.status_code == 202, answer.text
                done = client.get(f"/v1/jobs/{answer.json()['id']}", headers={"Prefer": "wait=60"})
                assert done.json()["status"] == "completed", done.text
                questions.append(answer.json()["id"])

    with ThreadPoolExecutor(2) as pool, httpx2.Client(base_url=api.url, timeout=60) as http:
        working = [pool.submit(work) for _ in range(2)]
        try:
            eventually(lambda: len(questions) > 2, 120)
            with release_of_tomorrow(monkeypatch, EXPANSION):
                assert migrate_to(dsn) == [f"{TOMORROW}_tomorrow.sql"]
            count = len(questions)
            late = start("api", "--port", "0", DATABASE_URL=dsn)
            assert httpx2.get(f"{late.url}/readyz").json()["status"] == "ready"
            eventually(lambda: len(questions) > count + 2, 120)
        finally:
            ended.set()
        for each in working:
            each.result()
        for path in ("/v1/jobs", "/v1/events", "/v1/stats", "/v1/queues", "/v1/workers", "/v1/usage", "/metrics"):
            assert http.get(path).status_code == 200, path
        rows = ask(dsn, "SELECT count(*) FROM events")[0][0]
        eventually(lambda: f"\n{rows}\n" in http.get("/v1/audit/checkpoint").text, 60, "the log is sealed")
        views = http.get("/v1/projections").json()["items"]
        assert {view["state"] for view in views} == {"live"}
        assert http.get("/readyz").json()["status"] == "ready"
    assert start("migrate", DATABASE_URL=dsn).wait_for_line("up to date")
    for process in (api, *others):
        assert process.stop() == 0


def test_a_server_that_the_schema_no_longer_serves_refuses_and_says_so(
    new_database: Callable[[], str], start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = migrated(new_database())
    running = start("api", "--port", "0", DATABASE_URL=dsn)
    assert httpx2.get(f"{running.url}/readyz").status_code == 200
    with release_of_tomorrow(monkeypatch, f"UPDATE oldest_server SET knows = {TOMORROW}"):
        migrate_to(dsn)
        assert migrate_to(dsn) == []
    words = f"the schema serves releases that know migration {TOMORROW}, and this one knows {migrations()[-1].number}"
    ready = httpx2.get(f"{running.url}/readyz")
    assert ready.status_code == 503
    assert words in ready.json()["reasons"][0]
    for command in (["api", "--port", "0"], ["worker"], ["projector"], ["migrate"]):
        late = start(*command, DATABASE_URL=dsn)
        late.wait_for_line(words)
        assert late.process.wait(30) == 1


def test_a_migration_does_not_hold_everybody_up_behind_a_table_that_is_in_use(
    new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = migrated(new_database())
    monkeypatch.setattr(schema, "TABLE_PATIENCE", "200ms")
    with release_of_tomorrow(monkeypatch, EXPANSION):
        with psycopg.connect(dsn) as reader:
            reader.execute("SELECT FROM jobs")
            with pytest.raises(TablesBusy, match="nothing was changed"):
                migrate_to(dsn)
            assert ask(dsn, "SELECT max(number) FROM migrations") == [(migrations()[-1].number,)]
        assert migrate_to(dsn) == [f"{TOMORROW}_tomorrow.sql"]


def test_two_servers_that_start_at_once_on_an_empty_database_make_one_schema_and_one_key(
    new_database: Callable[[], str], start: Start
) -> None:
    dsn = new_database()
    servers = [start("api", "--host", "0.0.0.0", "--port", "0", DATABASE_URL=dsn) for _ in range(3)]
    ports = [server.url.rpartition(":")[2] for server in servers]
    printed = [line for server in servers for line in server.output if "admin key" in line]
    assert len(printed) == 1
    key = printed[0].split()[-1]
    for port in ports:
        listed = httpx2.get(f"http://127.0.0.1:{port}/v1/keys", headers={"Authorization": f"Bearer {key}"}, timeout=30)
        assert [each["name"] for each in listed.json()["items"]] == ["admin"]
    assert ask(dsn, "SELECT count(*) FROM migrations") == [(len(migrations()),)]
