"""Nobody sees across namespaces: every call, with keys of one, finds nothing of another, and cannot tell why."""

import asyncio
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import httpx2
import psycopg
import pytest

from application.keys import NewKey, Role, make_key
from infrastructure.postgres.database import Database
from infrastructure.postgres.keys import PostgresKeys
from interfaces.bootstrap import Service
from interfaces.http.app import create_app
from interfaces.http.contract import OPERATIONS
from interfaces.http.operation import Operation
from interfaces.settings import Settings
from tests.conftest import Start
from tests.waiting import eventually

Json = Any
ROLES: tuple[Role, ...] = ("client", "auditor", "operator", "worker")
MARK = "mark-of-b"
"""Stands in all that b has: names, inputs, results, errors, files."""
STREAM = {"Accept": "text/event-stream"}


class Patient(httpx2.Client):
    """Sends again what a server on a busy machine had no time for, as Retry-After asks."""

    def request(self, *given: Any, **named: Any) -> httpx2.Response:
        answer = super().request(*given, **named)
        for _ in range(10):
            if answer.status_code != 503:
                break
            time.sleep(float(answer.headers["retry-after"]))
            answer = super().request(*given, **named)
        return answer


class Tenants:
    """A service with two namespaces, a key of each role for each, and an admin's; b has one of everything."""

    def __init__(self, dsn: str, start: Start) -> None:
        database = Database(dsn)
        store = PostgresKeys(database)
        self.secrets = {"admin": make_key(store, NewKey(name="admin", role="admin"), "test").secret}
        for namespace in ("a", "b"):
            for role in ROLES:
                new = NewKey(name=f"{role}-{namespace}", role=role, namespace=namespace)
                self.secrets[new.name] = make_key(store, new, "test").secret
        database.close()
        self.url = start("api", "--port", "0", DATABASE_URL=dsn).url  # only now: until there is a key, it is open
        self.ids: dict[str, list[str]] = {namespace: self._fill(namespace) for namespace in ("a", "b")}

    def http(self, name: str) -> httpx2.Client:
        return Patient(
            base_url=self.url, headers={"Authorization": f"Bearer {self.secrets[name]}"}, timeout=30, trust_env=False
        )

    def _fill(self, namespace: str) -> list[str]:
        """A job that completed with a file, one that failed, one that runs, one that waits, and both products."""
        mark = MARK if namespace == "b" else "mark-of-the-other"
        job = {"kind": mark, "queue": mark, "input": mark, "labels": {mark: mark}, "heartbeat_timeout": 3600}
        worker = f"worker-{mark}"
        with self.http(f"client-{namespace}") as client, self.http(f"worker-{namespace}") as works:

            def created(path: str, body: Json) -> str:
                id: str = client.post(path, json=body, headers={"Idempotency-Key": f"key-{path}"}).json()["id"]
                return id

            def said(id: str, **report: Json) -> None:
                reports = [{"job_id": id, "attempt": 1, **report}]
                (result,) = works.post("/v1/reports", json={"worker": worker, "reports": reports}).json()["results"]
                assert result["ok"], result

            ids = [client.post("/v1/jobs", json=job).raise_for_status().json()["id"] for _ in range(3)]
            claimed: set[str] = set()

            def claim() -> bool:
                claims = works.post("/v1/claims", json={"worker": worker, "queues": [mark], "max": 3, "wait": 5})
                claimed.update(job["id"] for job in claims.json()["jobs"])
                return claimed == set(ids)

            eventually(claim, 60)
            named = f"/v1/jobs/{ids[0]}/attempts/1/artifacts/{mark}.txt?worker={worker}"
            works.put(named, content=mark.encode()).raise_for_status()
            said(ids[0], type="progressed", step=mark, output=mark, message=mark)
            said(ids[0], type="completed", result=mark)
            said(ids[1], type="failed", error={"type": mark, "message": f"{mark} broke"}, final=True)
            ids.append(client.post("/v1/jobs", json=job).raise_for_status().json()["id"])
            ids.append(created("/v1/visualizations", {"question": f"What is {mark}?"}))
            deck = {"title": mark, "slides": [{"title": mark}]}
            ids.append(created("/v1/presentations", deck))
        return ids

    def leaks(self, text: str) -> list[str]:
        return [secret for secret in (MARK, *self.ids["b"]) if secret in text]


@pytest.fixture(scope="module")
def tenants(dsn: str, start_for_module: Start) -> Tenants:
    tenants = Tenants(dsn, start_for_module)
    start_for_module("projector", DATABASE_URL=dsn).wait_for_line("following the log")
    with tenants.http("admin") as admin:
        for path in ("/v1/stats", "/v1/usage", "/v1/failures", "/v1/workers", "/v1/queues", "/v1/events?limit=1000"):
            eventually(lambda path=path: MARK in admin.get(path).text, 60, path)  # type: ignore[misc]
        bundle = f"/v1/audit/jobs/{tenants.ids['b'][0]}/bundle"
        eventually(lambda: admin.get(bundle).status_code == 200, 60, "the seal")
    return tenants


def filled(operation: Operation, id: str) -> str:
    """The operation's path with what b has, or with what nobody has."""
    mark = MARK if operation.id != "get_presentation_slide" else "1"
    named = {"job_id": id, "name": f"{mark}.txt", "attempt": "1", "n": "1", "key_id": str(uuid4()), "path": "0/000"}
    if "projections" in operation.path:
        named["name"] = "stats"
    return re.sub(r"{(\w+)(?::\w+)?}", lambda found: named.get(found[1], MARK), operation.path)


QUERIES: Mapping[str, tuple[str, ...]] = {
    "list_jobs": (
        "",
        f"?kind={MARK}",
        f"?queue={MARK}",
        f"?label={MARK}:{MARK}",
        f"?worker=worker-{MARK}",
        "?sort=-updated_at",
        "?sort=created_at&status=failed",
    ),
    "list_log": ("", f"?kind={MARK}", "?type=job.failed", "?actor=key:worker-b", "?format=cloudevents"),
    "diff_job": ("?from=1&to=1",),
    "get_inclusion_in_job": ("?version=1",),
    "get_usage": ("", "?group=namespace&group=kind", "?group=kind&group=day"),
    "get_stats": ("", f"?queue={MARK}", f"?kind={MARK}"),
    "list_queues": ("", "?cursor=a"),
    "list_workers": ("", "?cursor=a"),
    "get_consistency": ("?from=1&to=1",),
    "put_artifact": (f"?worker=worker-{MARK}",),
}
BODIES: Mapping[str, Json] = {
    "cancel_job": {"reason": "r"},
    "retry_job": {"reason": "r"},
    "cancel_jobs": {"reason": "r", "filter": {"kind": [MARK]}},
    "requeue_jobs": {"reason": "r", "filter": {"queue": [MARK]}},
    "claim_jobs": {"worker": f"worker-{MARK}", "queues": [MARK, "walked"], "max": 10, "claim_id": MARK},
    "create_job": {"kind": "k", "input": 1},
    "create_jobs": {"jobs": [{"kind": "k", "input": 1}]},
    "create_visualization": {"question": "What is 15 % of 80?"},
    "create_presentation": {"title": "t", "slides": [{"title": "s"}]},
    "pause_queue": {"reason": "r"},
}


def place(operation: Operation) -> int:
    """Which part of an address the job's id is."""
    return 3 + operation.path.split("/")[1:].index("{job_id}")


def ask(http: httpx2.Client, operation: Operation, id: str) -> list[httpx2.Response]:
    """What all variants of a call are answered. A stream is read for as long as it says something at once."""
    method = operation.method.upper()
    answers = []
    for query in QUERIES.get(operation.id, ("",)):
        body = BODIES.get(operation.id)
        if operation.id == "report":
            body = {"worker": f"worker-{MARK}", "reports": [{"job_id": id, "attempt": 1, "type": "heartbeat"}]}
        content = b"file" if operation.id == "put_artifact" else json.dumps(body).encode() if body else b""
        answers.append(http.request(method, filled(operation, id) + query, content=content))
    return answers


def without(answer: httpx2.Response, asked: str) -> str:
    """An answer's status, headers and body, but for what the request itself said, and for what differs each time."""
    body = re.sub(r'"request_id":"\w+"', "", answer.text)
    headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date")}
    told = f"{answer.status_code} {sorted(headers.items())} {body}"
    for said in (asked, f"worker-{MARK}", f"{MARK}.txt", f'"{MARK}","walked"'):
        told = told.replace(said, "SAID")
    return told


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_no_call_finds_anything_of_another_namespace(tenants: Tenants, operation: Operation, role: Role) -> None:
    with tenants.http(f"{role}-a") as http:
        for id in (
            tenants.ids["b"] if "{job_id}" in operation.path or operation.id == "report" else tenants.ids["b"][:1]
        ):
            for answer, nothing in zip(ask(http, operation, id), ask(http, operation, str(uuid4())), strict=True):
                assert answer.status_code < 500
                told = without(answer, id)
                assert not tenants.leaks(told), told
                if "{job_id}" in operation.path:
                    assert answer.status_code in (403, 404)
                    assert told == without(nothing, str(nothing.request.url).split("/")[place(operation)].split("?")[0])


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_no_call_without_a_key_finds_anything(tenants: Tenants, operation: Operation) -> None:
    with Patient(base_url=tenants.url, timeout=30, trust_env=False) as http:
        for id in tenants.ids["b"]:
            for answer in ask(http, operation, id):
                assert answer.status_code in ((200,) if operation.tag == "health" else (401,))
                assert not tenants.leaks(without(answer, id))


def test_an_admin_finds_it_in_the_metrics(tenants: Tenants) -> None:
    """So the walks above can fail there."""
    with tenants.http("admin") as http:
        for name in ("jobledger_jobs", "jobledger_job_events_total", "jobledger_queue_oldest_seconds"):
            eventually(
                lambda name=name: [  # type: ignore[misc]
                    line for line in http.get("/metrics").text.splitlines() if line.startswith(name) and MARK in line
                ],
                30,
                name,
            )


def test_with_the_keys_of_the_other_they_would(tenants: Tenants) -> None:
    """So the walk above can fail."""
    id = tenants.ids["b"][0]
    seen = set()
    for role in ROLES:
        with tenants.http(f"{role}-b") as http:
            for operation in OPERATIONS:
                if operation.method == "get" and any(
                    tenants.leaks(a.text.replace(id, "")) for a in ask(http, operation, id)
                ):
                    seen.add(operation.id)
    assert seen >= {
        "list_jobs",
        "get_job",
        "list_events",
        "list_artifacts",
        "get_artifact",
        "list_log",
        "get_stats",
        "get_usage",
        "list_failures",
        "list_workers",
        "list_queues",
    }


@pytest.mark.parametrize("path", ["/v1/events", "/v1/jobs/{id}/events"])
def test_a_stream_never_has_an_event_of_another(tenants: Tenants, path: str) -> None:
    """Of the whole log: its own events come, and those of b that were recorded between them do not."""
    if "{id}" in path:
        with tenants.http("client-a") as http:
            answers = [http.get(path.replace("{id}", id), headers=STREAM) for id in (tenants.ids["b"][0], str(uuid4()))]
        assert [answer.status_code for answer in answers] == [404, 404]
        return
    last = f"last-{uuid4().hex}"
    with tenants.http("client-a") as a, tenants.http("client-b") as b:
        a.post("/v1/jobs", json={"kind": "first", "input": 1, "queue": "s"}).raise_for_status()
        b.post("/v1/jobs", json={"kind": MARK, "input": MARK, "queue": MARK}).raise_for_status()
        a.post("/v1/jobs", json={"kind": last, "input": 1, "queue": "s"}).raise_for_status()
    read = ""
    with tenants.http("auditor-a") as http, http.stream("GET", path, headers=STREAM) as stream:
        for piece in stream.iter_text():
            read += piece
            if last in read:
                break
    assert not tenants.leaks(read)


def test_a_signed_link_leads_to_its_file_only(tenants: Tenants) -> None:
    with tenants.http("client-a") as http:
        (own,) = http.get(f"/v1/jobs/{tenants.ids['a'][0]}").json()["artifacts"]
    for id in tenants.ids["b"]:
        stolen = own["url"].replace(tenants.ids["a"][0], id).replace("mark-of-the-other", MARK)
        assert httpx2.get(tenants.url + stolen).status_code == 403


class TestTheSameIsDoneForWhatIsAnothersAndForWhatIsNot:
    """So that neither the words nor the time of an answer tell which it was: the same statements are sent."""

    @pytest.mark.parametrize("role", ROLES)
    def test_statements(
        self, tenants: Tenants, dsn: str, role: Role, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent: list[Any] = []
        execute = psycopg.Connection.execute

        def noted(connection: Any, query: Any, *values: Any, **how: Any) -> Any:
            sent.append(query)
            return execute(connection, query, *values, **how)

        monkeypatch.setattr(psycopg.Connection, "execute", noted)

        async def story() -> None:
            settings = Settings.model_validate({"DATABASE_URL": dsn, "JOBLEDGER_DATA": tmp_path})
            service = Service(settings)
            headers = {"Authorization": f"Bearer {tenants.secrets[f'{role}-a']}", "Host": "jobs.example.org"}
            transport = httpx2.ASGITransport(cast("Any", create_app(service)))
            async with httpx2.AsyncClient(transport=transport, base_url="http://x", headers=headers) as http:

                async def statements(operation: Operation, id: str) -> tuple[list[Any], str]:
                    sent.clear()
                    body = BODIES.get(operation.id)
                    if operation.id == "report":
                        reports = [
                            {"job_id": id, "attempt": 1, "type": type}
                            for type in ("heartbeat", "completed", "progressed")
                        ]
                        body = {"worker": f"worker-{MARK}", "reports": reports}
                    content = b"file" if operation.id == "put_artifact" else json.dumps(body).encode() if body else b""
                    path = filled(operation, id) + QUERIES.get(operation.id, ("",))[0]
                    answer = await http.request(operation.method.upper(), path, content=content)
                    told = re.sub(r'"request_id":"\w+"', "", answer.text).replace(id, "ID")
                    return list(sent), f"{answer.status_code} {told}"

                try:
                    for operation in OPERATIONS:
                        if "{job_id}" not in operation.path and operation.id != "report":
                            continue
                        await statements(operation, str(uuid4()))  # what is read once is read by now
                        nobodys = await statements(operation, str(uuid4()))
                        for id in tenants.ids["b"]:
                            assert await statements(operation, id) == nobodys, operation.id
                finally:
                    await service.close()

        asyncio.run(story())
