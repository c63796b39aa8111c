"""What the tests of the HTTP contract share: a client that speaks it, and a look at what is recorded."""

import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest

from tests.conftest import Start
from tests.infrastructure.nodes import Node
from tests.interfaces.closed import Closed

Json = Any
LEAKS = re.compile(
    r"Traceback|File \"|\.py\b|psycopg|litestar|SELECT |INSERT |UPDATE |/home/|/usr/|/tmp/|site-packages"
)
"""Traces of the inside, none of which an answer may show."""


class Service:
    """An API server as its clients and workers see it, with its database behind it."""

    def __init__(self, url: str, dsn: str) -> None:
        self.url = url
        self.http = httpx2.Client(base_url=url, timeout=60)
        self._database = psycopg.connect(dsn, autocommit=True)

    def close(self) -> None:
        self.http.close()
        self._database.close()

    def create(self, **fields: Json) -> Json:
        """A new job of kind `test`, unless told otherwise; its leases outlast the tests, so that none is rescued."""
        answer = self.http.post("/v1/jobs", json={"kind": "test", "input": None, "heartbeat_timeout": 3600, **fields})
        assert answer.status_code == 202, answer.text
        return answer.json()

    def job(self, id: str) -> Json:
        answer = self.http.get(f"/v1/jobs/{id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def events(self, id: str) -> list[Json]:
        answer = self.http.get(f"/v1/jobs/{id}/events")
        assert answer.status_code == 200, answer.text
        items: list[Json] = answer.json()["items"]
        return items

    def types(self, id: str) -> list[str]:
        """The types of a job's events, in order."""
        return [event["type"] for event in self.events(id)]

    def claim(self, queue: str, worker: str = "w1", **fields: Json) -> list[Json]:
        answer = self.http.post("/v1/claims", json={"worker": worker, "queues": [queue], **fields})
        assert answer.status_code == 200, answer.text
        jobs: list[Json] = answer.json()["jobs"]
        return jobs

    def report(self, *reports: Json, worker: str = "w1") -> list[Json]:
        answer = self.http.post("/v1/reports", json={"worker": worker, "reports": list(reports)})
        assert answer.status_code == 200, answer.text
        results: list[Json] = answer.json()["results"]
        return results

    def running(self, queue: str, worker: str = "w1", **fields: Json) -> Json:
        """A job that `worker` has just claimed, as it was handed out."""
        self.create(queue=queue, **fields)
        [job] = self.claim(queue, worker)
        return job

    def completed(self, queue: str, result: Json = None, **fields: Json) -> Json:
        """A job that was run and completed, as it is shown."""
        job = self.running(queue, **fields)
        [done] = self.report({"job_id": job["id"], "attempt": 1, "type": "completed", "result": result})
        assert done["ok"], done
        return self.job(job["id"])

    def cancel(self, id: str, reason: str = "no longer needed", **headers: str) -> httpx2.Response:
        return self.http.post(f"/v1/jobs/{id}/cancellations", json={"reason": reason}, headers=headers)

    def recorded(self) -> tuple[int, int]:
        """How many jobs and how many events there are."""
        row = self._database.execute("SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM events)").fetchone()
        assert row is not None
        return row[0], row[1]

    def states(self, id: str) -> list[bytes]:
        """A job's events as they are stored."""
        query = "SELECT state FROM events WHERE originator_id = %s ORDER BY originator_version"
        return [bytes(row[0]) for row in self._database.execute(query, (id,))]

    @staticmethod
    def problem(answer: httpx2.Response, status: int, code: str) -> Json:
        """The problem that an answer tells, which must be this one, whole, and say nothing of the inside."""
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        told = answer.json()
        assert told.keys() - {"errors"} == {"type", "title", "status", "detail", "code", "request_id"}
        assert (told["type"], told["status"], told["code"]) == (f"/problems/{code}", status, code)
        assert told["title"]
        assert told["detail"]
        assert told["request_id"] == answer.headers["x-request-id"]
        assert not LEAKS.search(answer.text), answer.text
        return told

    def invalid(self, answer: httpx2.Response) -> list[str]:
        """The fields that a 400 names."""
        told = self.problem(answer, 400, "invalid")
        assert told["errors"], told
        assert all(error["message"] for error in told["errors"])
        return [error["field"] for error in told["errors"]]


@pytest.fixture(scope="module")
def service(api: str, dsn: str) -> Iterator[Service]:
    """The module's API server."""
    speaker = Service(api, dsn)
    yield speaker
    speaker.close()


@pytest.fixture(scope="module")
def other(service: Service, dsn: str, start_for_module: Start) -> Iterator[Service]:
    """Another API server over the same database."""
    speaker = Service(start_for_module("api", "--port", "0", DATABASE_URL=dsn).url, dsn)
    yield speaker
    speaker.close()


@pytest.fixture(scope="module")
def closed(dsn: str, start_for_module: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    """Two servers over one database, with a key of each role for all namespaces, and others for one."""
    service = Closed(dsn, [], tmp_path_factory.mktemp("keys"))
    service.make("admin", "admin")
    servers = [start_for_module("api", "--port", "0", DATABASE_URL=dsn) for _ in range(2)]
    service.urls = [server.url for server in servers]
    for role in ("client", "worker", "auditor", "operator"):
        service.ask_for(role, role)
    for name, role in (("of-a", "client"), ("reads-a", "auditor"), ("runs-a", "operator"), ("works-a", "worker")):
        service.ask_for(name, role, "a")
    service.ask_for("of-b", "client", "b")
    for role in ("client", "worker"):
        service.ask_for(f"{role}-of-default", role, "default")
    yield service
    said = "".join(line for server in servers for line in server.output)
    assert not [name for name, secret in service.secrets.items() if secret in said], "a log has a key in it"


@pytest.fixture
def node(dsn: str) -> Iterator[Node]:
    """A server in this process, over the module's database."""
    with Node(dsn) as writer:
        yield writer


@pytest.fixture
def queue() -> str:
    """A queue that no other test uses."""
    return f"queue-{uuid4().hex}"


@pytest.fixture(scope="module")
def held(service: Service) -> Json:
    """A job that worker w1 holds."""
    return service.running(f"held-{uuid4().hex}")


@pytest.fixture
def nothing_recorded(service: Service) -> Iterator[None]:
    """The test may not record anything, and the server must serve after it."""
    before = service.recorded()
    yield
    assert service.recorded() == before
    assert service.http.get("/livez").status_code == 200


Send = Callable[..., httpx2.Response]


@pytest.fixture
def send(service: Service) -> Send:
    """Sends bytes as the JSON body of a POST, `send("/v1/jobs", b"{}")`."""

    def post(path: str, body: bytes, **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return service.http.post(path, content=body, headers={"content-type": "application/json", **named})

    return post
