"""Keys: each role makes its own calls only, nobody sees another namespace, and a revoked key is of no use."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx2
import pytest
from msgspec.structs import replace

from application.keys import ROLES
from application.operations import ParkedView, ProjectionView
from interfaces.http.contract import OPERATIONS
from interfaces.http.guard import ADMIN, ANYONE, AUDITOR, CLIENT, COOKIE, OPERATOR, READER, WORKER
from tests.infrastructure.nodes import ask, migrated
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.conftest import Start

Json = Any
STALLS = timedelta(seconds=3)
"""What a server may be late because others keep the machine busy."""
ALLOWED = {
    "create_job": CLIENT,
    "create_jobs": CLIENT,
    "cancel_job": CLIENT,
    "retry_job": CLIENT,
    "create_visualization": CLIENT,
    "list_jobs": READER,
    "get_job": READER,
    "diff_job": READER,
    "why_job": READER,
    "list_events": READER,
    "list_artifacts": READER,
    "get_artifact": (*READER, "worker"),
    "get_visualization": READER,
    "get_visualization_page": READER,
    "claim_jobs": WORKER,
    "report": WORKER,
    "put_artifact": WORKER,
    "list_log": AUDITOR,
    "get_checkpoint": AUDITOR,
    "get_tile": AUDITOR,
    "get_consistency": AUDITOR,
    "get_inclusion": AUDITOR,
    "get_inclusion_in_job": AUDITOR,
    "list_sealing_keys": AUDITOR,
    "get_bundle": AUDITOR,
    "list_accesses": AUDITOR,
    "list_archives": AUDITOR,
    "requeue_jobs": OPERATOR,
    "list_projections": OPERATOR,
    "rebuild_projection": OPERATOR,
    "verify_projection": OPERATOR,
    "resume_projection": OPERATOR,
    "list_queues": OPERATOR,
    "pause_queue": OPERATOR,
    "unpause_queue": OPERATOR,
    "list_workers": OPERATOR,
    "list_failures": OPERATOR,
    "get_usage": OPERATOR,
    "get_stats": OPERATOR,
    "get_metrics": ANYONE,
    "cancel_jobs": OPERATOR,
    "create_key": ADMIN,
    "list_keys": ADMIN,
    "revoke_key": ADMIN,
    "create_presentation": CLIENT,
    "get_presentation": READER,
    "get_presentation_video": READER,
    "get_presentation_thumbnail": READER,
    "get_presentation_slide": READER,
    "poll_presentation": READER,
    "poll_visualization": READER,
    "live": ANYONE,
    "ready": ANYONE,
}
"""Who may make which call; one that is missing here fails the test below."""


class Closed:
    """A service with keys: two servers over one database, and a key of each role."""

    def __init__(self, dsn: str, urls: list[str], folder: Path) -> None:
        self.dsn = dsn
        self.urls = urls
        self.secrets: dict[str, str] = {}
        self._folder = folder

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A `jobledger keys` command on the service's machine, unless the environment leads elsewhere."""
        return subprocess.run(
            [sys.executable, "-m", "interfaces.cli.main", "keys", *arguments],
            cwd=self._folder,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(self._folder), **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def make(self, name: str, role: str, *arguments: str) -> str:
        """A new key's secret."""
        made = self.command("create", "--name", name, "--role", role, "--json", *arguments, DATABASE_URL=self.dsn)
        assert made.returncode == 0, made.stderr
        self.secrets[name] = json.loads(made.stdout)["secret"]
        return self.secrets[name]

    def http(self, name: str | None, server: int = 0) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.secrets[name]}"} if name else {}
        return httpx2.Client(base_url=self.urls[server], headers=headers, timeout=60)


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


@pytest.fixture(scope="module")
def closed(dsn: str, start_for_module: "Start", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    service = Closed(dsn, [], tmp_path_factory.mktemp("keys"))
    for role in ("admin", "client", "worker", "auditor", "operator"):
        service.make(role, role)
    service.make("of-a", "client", "--namespace", "a")
    service.make("of-b", "client", "--namespace", "b")
    service.make("reads-a", "auditor", "--namespace", "a")
    service.make("runs-a", "operator", "--namespace", "a")
    service.make("works-a", "worker", "--namespace", "a")
    for role in ("client", "worker"):
        service.make(f"{role}-of-default", role, "--namespace", "default")
    servers = [start_for_module("api", "--port", "0", DATABASE_URL=dsn) for _ in range(2)]
    service.urls = [server.url for server in servers]
    yield service
    said = "".join(line for server in servers for line in server.output)
    assert not [name for name, secret in service.secrets.items() if secret in said], "a log has a key in it"


def path_of(operation: Any) -> str:
    named = {"job_id": str(uuid4()), "key_id": str(uuid4()), "attempt": "1", "name": "x", "n": "1"}
    return re.sub(r"{(\w+)}", lambda found: named.get(found[1], "x"), operation.path)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_each_role_makes_its_own_calls_only(closed: Closed, operation: Any) -> None:
    allowed = ALLOWED[operation.id]
    for role in (None, *ROLES):
        with closed.http(role) as http:
            answer = http.request(operation.method, path_of(operation), content=b"{}")
        if allowed == ANYONE:
            assert answer.status_code in (200, 503)
        elif role is None:
            assert answer.status_code == 401
            assert answer.json()["code"] == "unauthenticated"
            assert answer.headers["www-authenticate"].startswith("Bearer")
        elif role in allowed:
            assert answer.status_code not in (401, 403), answer.text
        else:
            assert answer.status_code == 403
            assert answer.json()["code"] == "forbidden"
            assert role in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Bearer jl_client_" + "x" * 43)],
        [("Authorization", "Bearer")],
        [("Authorization", "Basic YTpi")],
        [("Authorization", "Bearer a"), ("Authorization", "Bearer b")],
        [("Authorization", "Bearer " + "y" * 5000)],
        [("Authorization", "Bearer ü".encode("latin-1"))],
        [("Cookie", f"{COOKIE}=nonsense")],
        [("Cookie", "=;;; a b c")],
    ],
)
def test_what_is_no_key_opens_nothing(closed: Closed, headers: Any) -> None:
    answer = httpx2.get(f"{closed.urls[0]}/v1/jobs", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


COUNTED = {
    "jobledger_jobs",
    "jobledger_job_events_total",
    "jobledger_job_wait_seconds_total",
    "jobledger_attempts_ended_total",
    "jobledger_attempt_run_seconds_total",
    "jobledger_queue_oldest_seconds",
    "jobledger_projection_events_total",
    "jobledger_projection_lag_events",
    "jobledger_unsealed_events",
    "jobledger_leases_overdue",
    "jobledger_append_events_sum",
    "jobledger_append_seconds_count",
}
"""Metrics that grow with what anybody of any namespace does."""
WELL = {
    "jobledger_ready",
    "jobledger_database_up",
    "jobledger_finding",
    "jobledger_projection_lag_seconds",
    "jobledger_projection_parked",
    "jobledger_seal_lag_seconds",
    "jobledger_lease_overdue_seconds",
    "jobledger_partition_months_ahead",
    "jobledger_disk_free_bytes",
}
"""What says whether the service is well, to whoever asks."""


def test_metrics_count_what_operators_may_see_and_tell_others_whether_the_service_is_well(
    closed: Closed, start: "Start"
) -> None:
    start("projector", DATABASE_URL=closed.dsn).wait_for_line("following the log")
    for name in ("of-a", "of-b"):
        with closed.http(name) as http:
            assert http.post("/v1/jobs", json={"kind": "k", "input": 1, "queue": "measured"}).status_code == 202

    def measured(name: str | None) -> str:
        with closed.http(name) as http:
            return http.get("/metrics").text

    def names(text: str) -> set[str]:
        return {re.split("[ {]", line)[0] for line in text.splitlines() if not line.startswith("#")}

    def queued(name: str) -> list[str]:
        """The namespaces in which a job waits in that queue."""
        return re.findall(
            r'^jobledger_jobs{kind="k",namespace="(.*)",queue="measured",status="queued"} 1.0$', measured(name), re.M
        )

    for name, seen in (("operator", ["a", "b"]), ("admin", ["a", "b"]), ("runs-a", ["a"])):
        eventually(lambda name=name, seen=seen: sorted(queued(name)) == seen, 20, name)  # type: ignore[misc]
    assert names(measured("operator")) >= COUNTED | WELL
    limited = measured("runs-a")
    assert set(re.findall('namespace="(.*?)"', limited)) == {"a"}
    assert names(limited) & COUNTED == {name for name in COUNTED if re.search("_(jobs|job_.*|attempt.*)$", name)}
    for other in (None, "client", "of-a", "worker", "auditor", "reads-a"):
        text = measured(other)
        assert not re.findall('(?:namespace|queue|kind)="', text), other
        assert not names(text) & COUNTED, other
        assert names(text) >= WELL, other
    refused = httpx2.get(f"{closed.urls[0]}/metrics", headers={"Authorization": "Bearer jl_operator_nonsense"})
    assert refused.status_code == 401, "who sends a key wants to know that it is of no use"


def test_projections_tell_a_key_of_a_namespace_how_they_are_and_nothing_of_the_jobs_of_others(closed: Closed) -> None:
    def told(name: str) -> Json:
        with closed.http(name) as http:
            return {view["name"]: view for view in http.get("/v1/projections").json()["items"]}

    assert told("operator")["totals"]["events"] is not None
    assert {(view["events"], view["parked"]) for view in told("runs-a").values()} == {(None, None)}


def test_a_parked_projection_names_its_job_to_keys_of_all_namespaces_only() -> None:
    at = datetime(2026, 11, 30, tzinfo=UTC)
    parked = ParkedView(at=at, position="7", job_id=uuid4(), version=2, error="of b")
    view = ProjectionView(
        name="stats",
        kind="async",
        state="parked",
        generation=1,
        checkpoint="6",
        events=6,
        lag_events=1,
        lag_seconds=2.0,
        skipped=0,
        parked=parked,
        rebuild=None,
        verification=None,
    )
    assert view.limited() == replace(view, events=None, parked=None)


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


def test_a_worker_reads_the_files_of_jobs_that_run(closed: Closed) -> None:
    with closed.http("client") as client, closed.http("worker") as worker:
        id = client.post("/v1/jobs", json={"kind": "k", "input": 1, "queue": "files"}).json()["id"]
        worker.post("/v1/claims", json={"worker": "w", "queues": ["files"], "wait": 5}).raise_for_status()
        worker.put(f"/v1/jobs/{id}/attempts/1/artifacts/a.txt?worker=w", content=b"a").raise_for_status()
        assert worker.get(f"/v1/jobs/{id}/artifacts/a.txt").content == b"a"
        said = {"job_id": id, "attempt": 1, "type": "completed"}
        worker.post("/v1/reports", json={"worker": "w", "reports": [said]}).raise_for_status()
        refused = worker.get(f"/v1/jobs/{id}/artifacts/a.txt")
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert client.get(f"/v1/jobs/{id}/artifacts/a.txt").content == b"a"


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


class TestNamespaces:
    """Two namespaces, each with a job of the same queue, kind and labels, that has a file and an end."""

    @pytest.fixture(scope="class")
    def jobs(self, closed: Closed) -> dict[str, str]:
        ids: dict[str, str] = {}
        for name in ("a", "b"):
            with closed.http(f"of-{name}") as http, closed.http("worker") as worker:
                created = http.post(
                    "/v1/jobs",
                    json={
                        "kind": "shared",
                        "queue": f"shared-{name}",
                        "input": f"secret of {name}",
                        "labels": {"l": "1"},
                    },
                    headers={"Idempotency-Key": "the-same"},
                )
                assert created.status_code == 202, created.text
                assert created.json()["namespace"] == name
                id = ids[name] = created.json()["id"]
                claimed = worker.post("/v1/claims", json={"worker": "w", "queues": [f"shared-{name}"]}).json()["jobs"]
                assert [job["id"] for job in claimed] == [id]
                path = f"/v1/jobs/{id}/attempts/1/artifacts/file.txt?worker=w"
                assert worker.put(path, content=b"file of " + name.encode()).status_code == 201
                said = {"job_id": id, "attempt": 1, "type": "completed", "result": name}
                assert worker.post("/v1/reports", json={"worker": "w", "reports": [said]}).json()["results"][0]["ok"]
        return ids

    @pytest.mark.parametrize("name", ["of-a", "reads-a", "runs-a"])
    @pytest.mark.parametrize("operation", [o for o in OPERATIONS if "{job_id}" in o.path], ids=lambda o: o.id)
    def test_a_job_of_another_is_as_if_there_were_none(
        self, closed: Closed, jobs: dict[str, str], operation: Any, name: str
    ) -> None:
        body = json.dumps({"reason": "r"}).encode() if operation.method == "post" else b""
        queries = {"diff_job": "?from=1&to=1", "get_inclusion_in_job": "?version=1"}
        answers = []
        with closed.http(name) as http:
            for id in (jobs["b"], str(uuid4())):
                path = (
                    operation.path.replace("{job_id}", id)
                    .replace("{name}", "file.txt")
                    .replace("{attempt}", "1")
                    .replace("{n}", "1")
                )
                answer = http.request(operation.method, path + queries.get(operation.id, ""), content=body)
                told = answer.json()
                said = told["detail"] if "detail" in told else told["error"]
                answers.append((answer.status_code, said.replace(id, "ID")))
        assert answers[0] == answers[1]
        assert answers[0][0] in (403, 404)

    def test_its_own_jobs_are_there(self, closed: Closed, jobs: dict[str, str]) -> None:
        for name in ("of-a", "reads-a", "runs-a", "operator", "admin"):
            with closed.http(name) as http:
                assert http.get(f"/v1/jobs/{jobs['a']}").json()["input"] == "secret of a"
                assert http.get(f"/v1/jobs/{jobs['a']}/artifacts/file.txt").content == b"file of a"

    @pytest.mark.parametrize("sort", ["created_at", "-created_at", "-updated_at"])
    @pytest.mark.parametrize(
        "filter", ["", "kind=shared", "status=completed", "label=l:1", "queue=shared-b", "worker=w"]
    )
    def test_lists_have_its_own_jobs_only(self, closed: Closed, jobs: dict[str, str], filter: str, sort: str) -> None:
        with closed.http("of-a") as a, closed.http("admin") as admin:
            seen = a.get(f"/v1/jobs?{filter}&sort={sort}".replace("?&", "?")).json()["items"]
            everything, address = [], f"/v1/jobs?limit=1000&{filter}&sort={sort}".replace("&&", "&")
            while address:
                answer = admin.get(address)
                everything += answer.json()["items"]
                address = answer.links.get("next", {}).get("url", "")
        assert {job["namespace"] for job in seen} <= {"a"}
        assert jobs["b"] not in {job["id"] for job in seen}
        assert jobs["b"] in {job["id"] for job in everything}
        assert (jobs["a"] in {job["id"] for job in seen}) == (filter != "queue=shared-b")

    def test_the_log_has_its_own_events_only(self, closed: Closed, jobs: dict[str, str]) -> None:
        with closed.http("reads-a") as limited, closed.http("auditor") as unlimited:

            def seen(http: httpx2.Client, accept: str = "application/json") -> str:
                return http.get("/v1/events?limit=10000", headers={"Accept": accept}).text

            eventually(lambda: jobs["b"] in seen(unlimited))
            for accept in ("application/json", "application/x-ndjson"):
                assert jobs["a"] in seen(limited, accept)
                assert jobs["b"] not in seen(limited, accept)

    def test_the_seal_proves_its_own_events_only(self, closed: Closed, jobs: dict[str, str]) -> None:
        places = dict(ask(closed.dsn, "SELECT originator_id::text, max(notification_id) FROM events GROUP BY 1"))
        with closed.http("reads-a") as limited:
            codes = [
                limited.get(f"/v1/audit/inclusion?position={places[jobs[name]]}").json()["code"] for name in ("a", "b")
            ]
            assert codes == ["conflict", "not-found"], "its own is there, and not sealed yet"
            accesses = limited.get("/v1/audit/accesses")
        assert accesses.status_code == 403
        assert "limited to one" in accesses.json()["detail"]

    def test_an_idempotency_key_is_of_one_namespace(self, closed: Closed, jobs: dict[str, str]) -> None:
        with closed.http("of-a") as http:
            body = {"kind": "shared", "queue": "shared-a", "input": "secret of a", "labels": {"l": "1"}}
            again = http.post("/v1/jobs", json=body, headers={"Idempotency-Key": "the-same"})
        assert again.headers["idempotency-replayed"] == "true"
        assert again.json()["id"] == jobs["a"]

    def test_bulk_counts_and_moves_its_own_jobs_only(self, closed: Closed, jobs: dict[str, str]) -> None:
        with closed.http("runs-a") as http:
            counted = http.post("/v1/jobs/requeues", json={"filter": {"kind": ["shared"]}, "reason": "r"}).json()
        assert counted["matching"] == 1

    def test_a_signed_link_is_all_that_a_browser_needs_for_one_file(self, closed: Closed, jobs: dict[str, str]) -> None:
        with closed.http("of-a") as http:
            link = http.get(f"/v1/jobs/{jobs['a']}").json()["artifacts"][0]["url"]
        assert httpx2.get(closed.urls[1] + link).content == b"file of a"
        assert httpx2.get(closed.urls[1] + link.replace(jobs["a"], jobs["b"])).status_code == 403
        assert httpx2.get(closed.urls[1] + link.partition("?")[0]).status_code == 401
        assert httpx2.get(f"{closed.urls[1]}/v1/jobs/{jobs['a']}?signature=x&expires=1").status_code == 401


class TestWorkersOfANamespace:
    """A worker whose key is limited to namespace a, beside jobs of b in the same queues, and workers of all."""

    @pytest.fixture
    def queue(self) -> str:
        return f"both-{uuid4().hex}"

    def create(self, closed: Closed, name: str, queue: str) -> str:
        with closed.http(f"of-{name}") as http:
            body = {"kind": "both", "input": name, "queue": queue, "heartbeat_timeout": 3600}
            id: str = http.post("/v1/jobs", json=body).raise_for_status().json()["id"]
            return id

    def claim(self, closed: Closed, key: str, queue: str, **fields: Json) -> list[str]:
        body = {"worker": "w", "queues": [queue], "max": 10, **fields}
        with closed.http(key) as http:
            return [
                job["id"] for job in http.post("/v1/claims", json=body, timeout=60).raise_for_status().json()["jobs"]
            ]

    def test_claims_there_only(self, closed: Closed, queue: str) -> None:
        others = [self.create(closed, "b", queue) for _ in range(3)]
        own = self.create(closed, "a", queue)
        assert self.claim(closed, "works-a", queue) == [own]
        assert self.claim(closed, "works-a", queue, kinds=["both"]) == []
        assert self.claim(closed, "worker", queue) == others

    def test_the_default_one_is_as_good_as_any(self, closed: Closed, queue: str) -> None:
        other = self.create(closed, "a", queue)
        body = {"kind": "both", "input": 1, "queue": queue, "heartbeat_timeout": 3600}
        with closed.http("client") as everywhere, closed.http("client-of-default") as here:
            own = [http.post("/v1/jobs", json=body).json()["id"] for http in (everywhere, here)]
            assert here.get(f"/v1/jobs/{own[0]}").json()["namespace"] == "default"
            assert here.get(f"/v1/jobs/{other}").status_code == 404
            assert {job["id"] for job in here.get("/v1/jobs", params={"queue": queue}).json()["items"]} == set(own)
            assert everywhere.get(f"/v1/jobs/{other}").status_code == 200
        assert self.claim(closed, "worker-of-default", queue, max=1) == own[:1]
        assert self.claim(closed, "worker-of-default", queue, kinds=["both"]) == own[1:]
        assert self.claim(closed, "worker-of-default", queue) == []
        report = {"worker": "w", "reports": [{"job_id": id, "attempt": 1, "type": "completed"} for id in (*own, other)]}
        assert self.claim(closed, "worker", queue) == [other]
        with closed.http("worker-of-default") as http:
            told = http.post("/v1/reports", json=report).json()["results"]
        assert [result["ok"] for result in told] == [True, True, False]
        assert told[2]["problem"]["code"] == "not-found"

    def test_waits_for_jobs_of_its_own(self, closed: Closed, queue: str) -> None:
        claimed: list[str] = []
        waits = Thread(target=lambda: claimed.extend(self.claim(closed, "works-a", queue, wait=30)), daemon=True)
        waits.start()
        asks = "SELECT namespace FROM claimers WHERE %s = ANY(queues)"
        eventually(lambda: ask(closed.dsn, asks, [queue]) == [("a",)])
        other = self.create(closed, "b", queue)
        own = self.create(closed, "a", queue)
        waits.join(60)
        assert claimed == [own]
        assert self.claim(closed, "worker", queue) == [other]

    @pytest.mark.parametrize("type", ["heartbeat", "progressed", "completed", "failed", "released", "cancelled"])
    def test_says_nothing_of_others(self, closed: Closed, queue: str, type: str) -> None:
        other = self.create(closed, "b", queue)
        assert self.claim(closed, "worker", queue, claim_id=queue) == [other]
        more: Json = {"failed": {"error": {"type": "t", "message": "m"}}, "released": {"reason": "r"}}.get(type, {})
        unknown = str(uuid4())
        reports = [{"job_id": id, "attempt": 1, "type": type, **more} for id in (other, unknown)]
        with closed.http("works-a") as http:
            told = http.post("/v1/reports", json={"worker": "w", "reports": reports}).json()["results"]
            problems = [
                json.dumps(result["problem"]).replace(id, "ID")
                for result, id in zip(told, (other, unknown), strict=True)
            ]
            assert problems[0] == problems[1]
            assert told[0]["problem"]["code"] == "not-found"
            files = [
                http.put(f"/v1/jobs/{id}/attempts/1/artifacts/f?worker=w", content=b"f") for id in (other, unknown)
            ]
            read = [http.get(f"/v1/jobs/{id}/artifacts/f") for id in (other, unknown)]
        for answers in (files, read):
            assert [answer.status_code for answer in answers] == [404, 404]
            assert answers[0].json()["detail"].replace(other, unknown) == answers[1].json()["detail"]
        assert self.claim(closed, "works-a", queue, claim_id=queue) == [], "another's claim is not repeated for it"
        with closed.http("of-b") as http:
            assert (http.get(f"/v1/jobs/{other}").json()["version"]) == 2
        with closed.http("worker") as http:
            assert http.post("/v1/reports", json={"worker": "w", "reports": reports[:1]}).json()["results"][0][
                "ok"
            ] == (type != "cancelled")

    def test_works_as_any_other_in_it(self, closed: Closed, queue: str) -> None:
        own = self.create(closed, "a", queue)
        assert self.claim(closed, "works-a", queue, claim_id=f"{queue}-mine") == [own]
        assert self.claim(closed, "works-a", queue, claim_id=f"{queue}-mine") == [own]
        with closed.http("works-a") as http:
            assert http.put(f"/v1/jobs/{own}/attempts/1/artifacts/f?worker=w", content=b"f").status_code == 201
            assert http.get(f"/v1/jobs/{own}/artifacts/f").content == b"f"
            said = [{"job_id": own, "attempt": 1, "type": type} for type in ("heartbeat", "completed")]
            for report in said:
                (result,) = http.post("/v1/reports", json={"worker": "w", "reports": [report]}).json()["results"]
                assert result["ok"]

    def test_takes_no_jobs_of_others_says_why(self, closed: Closed, queue: str) -> None:
        self.claim(closed, "works-a", queue)
        eventually(lambda: ask(closed.dsn, "SELECT 1 FROM claimers WHERE %s = ANY(queues)", [queue]))
        own, other = self.create(closed, "a", queue), self.create(closed, "b", queue)
        with closed.http("of-a") as a, closed.http("of-b") as b:
            assert "1 worker handles kind" in a.get(f"/v1/jobs/{own}/why").json()["reasons"][0]
            told = b.get(f"/v1/jobs/{other}/why").json()["reasons"]
        assert told == [f'no worker subscribes to queue "{queue}"'], "and nothing of the job of a that goes first"
        with closed.http("operator") as http:
            assert "queued behind 1 job of" in " ".join(http.get(f"/v1/jobs/{other}/why").json()["reasons"])


def test_a_key_with_a_rate_is_told_to_wait(closed: Closed) -> None:
    closed.make("slow", "client", "--rate", "1")
    with closed.http("slow") as http, closed.http("client") as other:
        answers = [http.get("/v1/jobs") for _ in range(20)]
        limited = [answer for answer in answers if answer.status_code == 429]
        assert limited
        assert limited[0].json()["code"] == "rate-limited"
        assert int(limited[0].headers["retry-after"]) >= 1
        assert other.get("/v1/jobs").status_code == 200


def test_a_key_with_a_quota_waits_until_jobs_of_its_own_have_finished(closed: Closed) -> None:
    made = closed.command(
        "create", "--name", "few", "--role", "client", "--in-flight", "3", "--rate", "500/s", DATABASE_URL=closed.dsn
    )
    closed.secrets["few"] = re.findall(r"jl_client_\S+", made.stdout)[0]
    assert "500/s on each server, 3 jobs in flight" in made.stdout
    assert "3 jobs in flight" in " ".join(closed.command("list", DATABASE_URL=closed.dsn, COLUMNS="200").stdout.split())
    job = {"kind": "k", "input": 1, "queue": "few"}
    with closed.http("few", 0) as here, closed.http("few", 1) as there, closed.http("admin") as admin:
        listed = {key["name"]: key for key in admin.get("/v1/keys").json()["items"]}
        assert (listed["few"]["in_flight"], listed["few"]["rate"], listed["client"]["in_flight"]) == (3, 500, None)
        both = here.post("/v1/jobs/batch", json={"jobs": [job] * 2}).raise_for_status().json()["ids"]
        named = {"Idempotency-Key": uuid4().hex}
        third = there.post("/v1/jobs", json=job, headers=named).raise_for_status().json()["id"]
        full = [
            here.post("/v1/jobs", json=job),
            there.post("/v1/jobs/batch", json={"jobs": [job] * 2}),
            here.post("/v1/visualizations", json={"question": "What is 15 % of 80?"}),
        ]
        for refused in full:
            assert (refused.status_code, refused.json()["code"]) == (429, "rate-limited")
            assert refused.headers["retry-after"] == "1"
            assert "'few' may have 3 jobs in flight" in refused.json()["detail"]
        assert here.post("/v1/jobs", json=job, headers=named).json()["id"] == third
        assert admin.post("/v1/jobs", json=job).status_code == 202
        here.post(f"/v1/jobs/{both[0]}/cancellations", json={"reason": "enough"}).raise_for_status()
        assert there.post("/v1/jobs", json=job).status_code == 202
        assert there.post(f"/v1/jobs/{both[0]}/retries", json={"reason": "again"}).status_code == 429


@pytest.mark.parametrize("wrong", [{"in_flight": 0}, {"in_flight": 100_001}, {"in_flight": 1.5}, {"rate": 0}])
def test_limits_that_make_no_sense_are_refused(closed: Closed, wrong: Json) -> None:
    with closed.http("admin") as http:
        refused = http.post("/v1/keys", json={"name": "nonsense", "role": "client", **wrong})
    assert [error["field"] for error in refused.json()["errors"]] == list(wrong)


def test_a_cookie_changes_nothing_for_a_page_of_another_origin(closed: Closed) -> None:
    cookie = {"Cookie": f"{COOKIE}={closed.secrets['client']}"}
    url, own = f"{closed.urls[0]}/v1/jobs", {"Origin": closed.urls[0]}
    body = {"kind": "k", "input": 1, "queue": "cookies"}
    assert httpx2.get(url, headers=cookie).status_code == 200
    assert httpx2.post(url, json=body, headers={**cookie, **own}).status_code == 202
    for foreign in ({}, {"Origin": "https://example.org"}, {"Origin": "null"}, {"Origin": "http://["}):
        assert httpx2.post(url, json=body, headers={**cookie, **foreign}).status_code == 403


@pytest.mark.parametrize(
    "operation",
    [operation for operation in OPERATIONS if operation.method != "get"],
    ids=lambda operation: operation.id,
)
def test_no_call_that_changes_something_is_made_for_another_page(closed: Closed, operation: Any) -> None:
    """Browsers send the cookie of somebody who is signed in unasked; it counts for the console's own pages only."""
    cookie = {"Cookie": f"{COOKIE}={closed.secrets['admin']}"}
    url = f"{closed.urls[0]}{path_of(operation)}"
    for origin in (None, "https://example.org", "null", f"{closed.urls[0]}.example.org", closed.urls[1]):
        headers = cookie if origin is None else {**cookie, "Origin": origin}
        refused = httpx2.request(operation.method, url, content=b"{}", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), origin
        assert "a page of this service only" in refused.json()["detail"]
    own = httpx2.request(operation.method, url, content=b"{}", headers={**cookie, "Origin": closed.urls[0]})
    assert own.status_code not in (401, 403), own.text


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


def test_pages_of_configured_origins_may_call(start: "Start", dsn: str, closed: Closed) -> None:
    server = start("api", "--port", "0", DATABASE_URL=dsn, JOBLEDGER_ORIGINS="https://shop.example.org")
    asked = {"Origin": "https://shop.example.org", "Access-Control-Request-Method": "POST"}
    preflight = httpx2.options(f"{server.url}/v1/jobs", headers=asked)
    assert preflight.headers["access-control-allow-origin"] == "https://shop.example.org"
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    other = httpx2.options(f"{server.url}/v1/jobs", headers={**asked, "Origin": "https://example.org"})
    assert "access-control-allow-origin" not in other.headers
    headers = {"Authorization": f"Bearer {closed.secrets['client']}", "Origin": "https://shop.example.org"}
    answer = httpx2.get(f"{server.url}/v1/jobs", headers=headers)
    assert answer.headers["access-control-allow-origin"] == "https://shop.example.org"
