"""Keys: made by admins, named in what they cause, and of no use once revoked."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx2
import pytest

from tests.infrastructure.nodes import ask, migrated
from tests.interfaces.closed import Closed
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.conftest import Start

STALLS = timedelta(seconds=3)
"""What a server may be late because others keep the machine busy."""


@contextmanager
def away() -> Iterator[str]:
    """A server that answers everything with 503, as a proxy does without one behind it."""

    class Away(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Away) as server:
        serving = Thread(target=server.serve_forever, daemon=True)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join(10)


def test_the_key_is_the_actor_of_what_it_causes(closed: Closed) -> None:
    with closed.http("client") as http:
        job = http.post("/v1/jobs", json={"kind": "k", "input": 1, "queue": "actors"}).json()
        http.post(f"/v1/jobs/{job['id']}/cancellations", json={"reason": "test"})
        events = http.get(f"/v1/jobs/{job['id']}/events").json()["items"]
    assert [(event["type"], event["by"]) for event in events] == [
        ("job.created", "key:client"),
        ("job.cancelled", "key:client"),
    ]


def test_the_key_of_a_worker_is_the_actor_of_what_it_says(closed: Closed) -> None:
    with closed.http("client") as client, closed.http("worker") as worker:
        id = client.post("/v1/jobs", json={"kind": "k", "input": 1, "queue": "said"}).json()["id"]
        worker.post("/v1/claims", json={"worker": "w", "queues": ["said"], "wait": 5}).raise_for_status()
        worker.put(f"/v1/jobs/{id}/attempts/1/artifacts/a.txt?worker=w", content=b"a").raise_for_status()
        said = {"job_id": id, "attempt": 1, "type": "completed"}
        for _ in range(2):  # told twice, recorded once
            results = worker.post("/v1/reports", json={"worker": "w", "reports": [said]}).json()["results"]
            assert results[0]["ok"]
        events = client.get(f"/v1/jobs/{id}/events").json()["items"]
    assert [event["by"] for event in events] == ["key:client", *["key:worker"] * 3]
    assert events[1]["data"]["worker"] == "w"


def test_both_products_are_made_by_a_worker_with_no_more_than_a_key(closed: Closed, start: "Start") -> None:
    worker = start("worker", "--url", closed.urls[0], JOBLEDGER_KEY=closed.secrets["worker"])
    deck = {"title": "Short", "slides": [{"title": "One", "seconds": 1}], "size": "720p"}
    with closed.http("client") as http:
        asked = [("visualizations", {"question": "What is 15 % of 80?"}), ("presentations", deck)]
        ids = [http.post(f"/v1/{path}", json=body).raise_for_status().json()["id"] for path, body in asked]
        for id in ids:
            done = http.get(f"/v1/jobs/{id}", headers={"Prefer": "wait=60"}, timeout=90).json()
            assert done["status"] == "completed", done["error"]
    assert worker.stop() == 0


def test_only_hashes_are_kept(closed: Closed) -> None:
    secret = closed.secrets["client"]
    for table in ("keys", "key_uses", "events", "jobs"):
        rows = ask(closed.dsn, f"SELECT row_to_json(x)::text FROM {table} AS x")
        assert not [row for (row,) in rows if secret in row]
    with closed.http("admin") as http:
        assert not [name for name, secret in closed.secrets.items() if secret in http.get("/v1/keys").text]


def test_a_key_that_is_made_on_one_server_is_good_on_the_other_at_once(closed: Closed) -> None:
    with closed.http("admin") as http:
        made = http.post("/v1/keys", json={"name": "fresh", "role": "client"})
    assert made.status_code == 201
    assert made.json()["secret"].startswith("jl_client_")
    closed.secrets["fresh"] = made.json()["secret"]
    with closed.http("fresh", 1) as http:
        assert http.get("/v1/jobs").status_code == 200


def test_a_revoked_key_is_of_no_use_on_any_server(closed: Closed) -> None:
    closed.make("leaving", "client")
    with closed.http("admin") as admin, closed.http("leaving", 0) as here, closed.http("leaving", 1) as there:
        assert here.get("/v1/jobs").status_code == there.get("/v1/jobs").status_code == 200
        (id,) = [key["id"] for key in admin.get("/v1/keys").json()["items"] if key["name"] == "leaving"]
        revoked = admin.delete(f"/v1/keys/{id}").json()
        assert (revoked["name"], revoked["revoked_by"]) == ("leaving", "key:admin")
        assert admin.delete(f"/v1/keys/{id}").json()["revoked_at"] == revoked["revoked_at"]
        assert here.get("/v1/jobs").status_code == 401
        eventually(lambda: there.get("/v1/jobs").status_code == 401, 5)
        assert "revoked" in there.get("/v1/jobs").json()["detail"]


def test_a_revocation_holds_on_every_server_within_two_seconds(closed: Closed) -> None:
    """Told by the clock of what is recorded: between the revocation and the last job that the key was let in with."""
    closed.make("hurried", "client")

    def last_let_in(server: int) -> datetime:
        latest, until = "", time.monotonic() + 60
        with closed.http("hurried", server) as http:
            while (answer := http.post("/v1/jobs", json={"kind": "k", "input": 1, "queue": "hurried"})).is_success:
                latest = answer.json()["created_at"]
                assert time.monotonic() < until
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        return datetime.fromisoformat(latest)

    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(last_let_in, server) for server in range(2)]
        # By the command line, which tells no server of it.
        assert closed.command("revoke", "hurried", DATABASE_URL=closed.dsn).returncode == 0
        latest = [one.result(90) for one in asked]
    ((revoked_at,),) = ask(closed.dsn, "SELECT revoked_at FROM keys WHERE name = 'hurried'")
    assert max(latest) - revoked_at <= timedelta(seconds=2) + STALLS


@pytest.mark.parametrize("waiting", ["a stream", "a claim"])
def test_what_waits_under_a_revoked_key_ends(closed: Closed, waiting: str) -> None:
    name = f"waits-{uuid4().hex[:6]}"
    closed.make(name, "client" if waiting == "a stream" else "worker")
    with closed.http("client") as http:
        job = http.post("/v1/jobs", json={"kind": "k", "input": 1, "queue": "stays"}).json()
    began: list[bool] = []

    def wait() -> None:
        with closed.http(name) as http:
            if waiting == "a stream":
                with http.stream("GET", f"/v1/jobs/{job['id']}/events", headers={"Accept": "text/event-stream"}) as s:
                    for _ in s.iter_raw():
                        began.append(True)
            else:
                began.append(True)
                http.post("/v1/claims", json={"worker": "w", "queues": ["nothing-here"], "wait": 30}, timeout=60)

    thread = Thread(target=wait, daemon=True)
    thread.start()
    eventually(lambda: began)
    assert closed.command("revoke", name, DATABASE_URL=closed.dsn).returncode == 0
    thread.join(10)
    assert not thread.is_alive()


class TestMakingThem:
    def test_the_first_one_is_an_admin_s(self, new_database: Callable[[], str], closed: Closed) -> None:
        dsn = migrated(new_database())
        refused = closed.command("create", "--name", "x", "--role", "client", DATABASE_URL=dsn)
        assert refused.returncode == 1
        assert "admin key first" in refused.stderr

    def test_a_name_is_for_ever(self, closed: Closed) -> None:
        closed.make("once", "client")
        assert closed.command("revoke", "once", DATABASE_URL=closed.dsn).returncode == 0
        again = closed.command("create", "--name", "once", "--role", "client", DATABASE_URL=closed.dsn)
        assert again.returncode == 1
        assert "'once' already" in again.stderr

    def test_the_last_admin_key_stays(self, closed: Closed) -> None:
        refused = closed.command("revoke", "admin", DATABASE_URL=closed.dsn)
        assert refused.returncode == 1
        assert "last admin key" in refused.stderr
        with closed.http("admin") as http:
            (id,) = [key["id"] for key in http.get("/v1/keys").json()["items"] if key["name"] == "admin"]
            assert http.delete(f"/v1/keys/{id}").json()["code"] == "conflict"

    @pytest.mark.parametrize("namespace", ["a", "default"])
    def test_no_namespace_limits_an_admin(self, closed: Closed, namespace: str) -> None:
        with closed.http("admin") as http:
            refused = http.post("/v1/keys", json={"name": "n", "role": "admin", "namespace": namespace})
        assert [error["field"] for error in refused.json()["errors"]] == ["namespace"]

    def test_over_http_with_an_admin_key(self, closed: Closed) -> None:
        here = {"JOBLEDGER_URL": closed.urls[0], "JOBLEDGER_KEY": closed.secrets["admin"]}
        made = closed.command("create", "--name", "remote", "--role", "auditor", "--namespace", "a", **here)
        assert "jl_auditor_" in made.stdout
        assert "remote" in closed.command("list", **here).stdout
        assert closed.command("revoke", "remote", **here).returncode == 0
        listed = json.loads(closed.command("list", "--json", **here).stdout)
        assert [key["revoked_by"] for key in listed if key["name"] == "remote"] == ["key:admin"]
        for key, status, says in ((closed.secrets["client"], 1, "client"), ("nonsense", 1, "not known")):
            refused = closed.command("list", **{**here, "JOBLEDGER_KEY": key})
            assert refused.returncode == status
            assert says in refused.stderr
        assert closed.command("list", JOBLEDGER_URL="http://127.0.0.1:9").returncode == 3

    def test_a_service_without_its_database_is_away(self, closed: Closed) -> None:
        with away() as url:
            told = closed.command("list", JOBLEDGER_URL=url)
        assert (told.returncode, told.stdout) == (3, "")
        assert "does not answer (HTTP 503)" in told.stderr

    def test_the_folder_may_stand_on_either_side_of_the_action(self, closed: Closed, tmp_path: Path) -> None:
        """Without DATABASE_URL the server that runs over a folder is asked; over this one there is none."""
        (tmp_path / ".env").write_text("JOBLEDGER_URL=http://127.0.0.1:9")
        for arguments in (("--data", str(tmp_path), "list"), ("list", "--data", str(tmp_path))):
            told = closed.command(*arguments)
            assert told.returncode == 3
            assert "http://127.0.0.1:9 does not answer" in told.stderr

    def test_a_program_reads_whole_names(self, closed: Closed) -> None:
        name = "the-first-of-many-keys-of-the-shop-in-the-high-street"
        closed.make(name, "client")
        assert name in closed.command("list", DATABASE_URL=closed.dsn).stdout

    def test_a_rate_that_is_none_is_refused_by_name(self, closed: Closed) -> None:
        for rate, status, says in (("x", 2, "argument --rate: 'x' is no rate"), ("0", 1, "rate: Expected")):
            made = ("create", "--name", "hasty", "--role", "client", "--rate", rate)
            told = closed.command(*made, DATABASE_URL=closed.dsn)
            assert told.returncode == status
            assert says in told.stderr

    def test_use_is_noted(self, closed: Closed) -> None:
        with closed.http("admin") as http:
            eventually(lambda: http.get("/v1/keys").json()["items"][0]["last_used_at"], 30)

    def test_without_any_key_none_is_made_over_http(self, start: "Start", new_database: Callable[[], str]) -> None:
        server = start("api", "--port", "0", DATABASE_URL=migrated(new_database()))
        refused = httpx2.post(f"{server.url}/v1/keys", json={"name": "x", "role": "admin"})
        assert refused.status_code == 403
        assert "jobledger keys create" in refused.json()["detail"]
        assert httpx2.get(f"{server.url}/v1/keys").json() == {"items": [], "next": None}


class TestBeyondLoopback:
    def test_the_first_start_prints_an_admin_key_and_no_later_one_does(
        self, start: "Start", new_database: Callable[[], str]
    ) -> None:
        dsn = new_database()
        first = start("api", "--host", "0.0.0.0", "--port", "0", DATABASE_URL=dsn)
        secret = first.wait_for_line("jobledger admin key").split()[-1]
        url = first.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx2.get(f"{url}/v1/jobs").status_code == 401
        assert httpx2.get(f"{url}/v1/jobs", headers={"Host": "jobs.example.org"}).status_code == 401
        headers = {"Authorization": f"Bearer {secret}", "Host": "jobs.example.org"}
        assert httpx2.get(f"{url}/v1/keys", headers=headers).json()["items"][0]["name"] == "admin"
        assert httpx2.get(f"{url}/livez").status_code == 200
        second = start("api", "--host", "0.0.0.0", "--port", "0", DATABASE_URL=dsn)
        assert second.url
        assert not [line for line in second.output if "jl_admin_" in line]

    def test_what_to_try_next_is_said_with_the_key_that_it_needs(
        self, start: "Start", new_database: Callable[[], str]
    ) -> None:
        up = start("up", "--host", "0.0.0.0", "--port", "0", DATABASE_URL=new_database())
        up.wait_for_line("Ctrl-C lets running jobs end")
        tried = [line for line in up.output if line.strip().startswith("curl ")]
        assert len(tried) == 3
        assert all('-H "Authorization: Bearer $JOBLEDGER_KEY"' in line for line in tried)
        assert [line for line in up.output if "export JOBLEDGER_KEY=" in line]

    def test_it_refuses_to_start_when_all_admin_keys_are_gone(
        self, start: "Start", new_database: Callable[[], str], closed: Closed
    ) -> None:
        dsn = migrated(new_database())
        closed.command("create", "--name", "gone", "--role", "admin", DATABASE_URL=dsn)
        ask(dsn, "UPDATE keys SET revoked_at = now(), revoked_by = 'test'")
        server = start("api", "--host", "0.0.0.0", "--port", "0", DATABASE_URL=dsn)
        assert "jobledger keys create" in server.wait_for_line("is not loopback")
        assert server.process.wait(60) == 2
