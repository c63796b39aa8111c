"""Namespaces: nobody sees another's jobs, events, files or figures, nor claims or reports there."""

import json
from threading import Thread
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from interfaces.http.contract import OPERATIONS
from tests.infrastructure.nodes import ask
from tests.interfaces.closed import Closed
from tests.waiting import eventually

Json = Any


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
