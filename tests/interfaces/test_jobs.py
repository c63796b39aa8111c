"""Jobs over HTTP: asked for alone and in batches, looked at, and their history."""

import json
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from domain.audit import GENESIS, chain

if TYPE_CHECKING:
    from tests.interfaces.conftest import Send, Service

Json = Any
REPLAYED = "idempotency-replayed"


def test_a_new_job_is_accepted_with_its_address_and_version(service: "Service") -> None:
    answer = service.http.post("/v1/jobs", json={"kind": "test", "input": {"n": 1}})
    job = answer.json()
    here = f"/v1/jobs/{job['id']}"
    assert answer.status_code == 202
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["location"] == here
    assert answer.headers["etag"] == '"1"'
    assert REPLAYED not in answer.headers
    assert UUID(job["id"]).version == 7
    assert datetime.fromisoformat(job["created_at"]).utcoffset() == timedelta(0)
    assert job == {
        "id": job["id"],
        "namespace": "default",
        "kind": "test",
        "queue": "default",
        "status": "queued",
        "progress": 0.0,
        "step": None,
        "message": None,
        "attempt": 0,
        "max_attempts": 3,
        "worker": None,
        "input": {"n": 1},
        "result": None,
        "error": None,
        "labels": {},
        "priority": 0,
        "artifacts": [],
        "created_at": job["created_at"],
        "updated_at": job["created_at"],
        "started_at": None,
        "finished_at": None,
        "run_at": job["created_at"],
        "heartbeat_at": None,
        "version": 1,
        "position": job["position"],
        "links": {"self": here, "events": f"{here}/events", "why": f"{here}/why"},
    }
    assert re.fullmatch("[0-9]+", job["position"])
    assert service.job(job["id"]) == job


def test_a_new_job_keeps_everything_it_was_asked_with(service: "Service", queue: str) -> None:
    key = uuid4().hex
    asked = {
        "kind": "картинка 画像",
        "input": [1, 2.5, "é\u2028", {"deep": [None, True]}],
        "queue": queue,
        "priority": -100,
        "run_at": "2031-05-01T12:00:00.25+02:00",
        "max_attempts": 7,
        "retry": {"initial": 0.5, "factor": 3, "max": 60},
        "heartbeat_timeout": 5,
        "time_limit": 90.5,
        "labels": {"team": "red", "a b:c": ""},
    }
    headers = {"idempotency-key": key, "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    job = service.http.post("/v1/jobs", json=asked, headers=headers).json()
    shown = {field: job[field] for field in ("kind", "input", "queue", "priority", "max_attempts", "labels")}
    assert shown == {field: asked[field] for field in shown}
    assert job["run_at"] == "2031-05-01T10:00:00.250000Z"
    [created] = service.events(job["id"])
    assert created["data"] == {
        "namespace": "default",
        **asked,
        "run_at": "2031-05-01T10:00:00.250000Z",
        "retry": {"initial": 0.5, "factor": 3.0, "max": 60.0},
        "idempotency_key": key,
    }
    assert (created["by"], created["trace"]) == ("anonymous", "ab" * 16)


def test_a_kind_nobody_handles_is_accepted_and_waits(service: "Service") -> None:
    job = service.create(kind=f"unheard-of-{uuid4().hex}")
    assert service.job(job["id"])["status"] == "queued"


@pytest.mark.parametrize("queue", ["...", "..\n", ".\n", ".a", "..a", "a.", "a/..", "%2e"])
def test_a_queue_may_begin_with_dots(service: "Service", queue: str) -> None:
    assert service.create(queue=queue, run_at="2999-01-01T00:00:00Z")["queue"] == queue


def test_a_batch_answers_the_ids_in_the_order_of_the_jobs(service: "Service") -> None:
    answer = service.http.post(
        "/v1/jobs/batch", json={"jobs": [{"kind": "test", "input": n, "priority": -n % 7} for n in range(150)]}
    )
    assert answer.status_code == 202
    created = answer.json()
    assert created.keys() == {"ids", "position"}
    assert created["ids"] == sorted(set(created["ids"]))
    assert [service.job(created["ids"][n])["input"] for n in (0, 75, 149)] == [0, 75, 149]
    assert service.job(created["ids"][-1])["position"] == created["position"]


def test_a_batch_with_bad_jobs_lists_each_and_creates_none(service: "Service", nothing_recorded: None) -> None:
    jobs: list[Json] = [{"kind": "test", "input": n} for n in range(12)]
    jobs[1]["priority"] = 101
    jobs[3]["kinds"] = "x"
    del jobs[5]["input"]
    jobs[7]["input"] = "x" * (256 * 1024)
    jobs[8] = 5
    jobs[9]["run_at"] = "0001-01-01T00:00:00Z"
    jobs[11]["retry"] = {"factor": 0}
    answer = service.http.post("/v1/jobs/batch", json={"jobs": jobs})
    assert service.invalid(answer) == [
        "jobs[1].priority",
        "jobs[3].kinds",
        "jobs[5].input",
        "jobs[7].input",
        "jobs[8]",
        "jobs[9].run_at",
        "jobs[11].retry.factor",
    ]


@pytest.mark.parametrize("count", [0, 10_001])
def test_a_batch_has_one_to_ten_thousand_jobs(service: "Service", nothing_recorded: None, count: int) -> None:
    answer = service.http.post("/v1/jobs/batch", json={"jobs": [{"kind": "test", "input": 0}] * count})
    assert service.invalid(answer) == ["jobs"]


def test_a_job_is_shown_with_its_version_as_etag(service: "Service", queue: str) -> None:
    job = service.running(queue)
    answer = service.http.get(f"/v1/jobs/{job['id']}")
    assert answer.headers["etag"] == '"2"'
    assert answer.json()["version"] == 2


@pytest.mark.parametrize("known", ['"1"', 'W/"1"', '"7", "1"', 'W/"7" , W/"1"', "*"])
def test_who_has_the_version_already_is_told_so(service: "Service", known: str) -> None:
    job = service.create()
    answer = service.http.get(f"/v1/jobs/{job['id']}", headers={"if-none-match": known})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"1"')


@pytest.mark.parametrize("known", ['"2"', '"01x"', "1", "nonsense", '"11"', ""])
def test_who_has_another_version_gets_the_job(service: "Service", known: str) -> None:
    job = service.create()
    assert service.http.get(f"/v1/jobs/{job['id']}", headers={"if-none-match": known}).json() == job


@pytest.mark.parametrize("of", ["", "/events", "/artifacts", "/artifacts/page.html"])
def test_an_unknown_job_is_not_found(service: "Service", of: str) -> None:
    id = uuid4()
    assert str(id) in service.problem(service.http.get(f"/v1/jobs/{id}{of}"), 404, "not-found")["detail"]


def test_the_history_tells_all_that_happened(service: "Service", queue: str) -> None:
    job = service.running(queue, input={"n": 1})
    id = job["id"]
    service.report({"job_id": id, "attempt": 1, "type": "progressed", "progress": 0.5, "step": "s", "output": [1]})
    service.report({"job_id": id, "attempt": 1, "type": "completed", "result": {"done": True}})
    events = service.events(id)
    assert [(event["version"], event["type"], event["by"]) for event in events] == [
        (1, "job.created", "anonymous"),
        (2, "job.started", "worker:w1"),
        (3, "job.progressed", "worker:w1"),
        (4, "job.completed", "worker:w1"),
    ]
    view = {"job_id", "version", "position", "type", "at", "by", "trace", "hash", "data"}
    assert all(event.keys() == view and event["job_id"] == id for event in events)
    assert [event["data"] for event in events[1:]] == [
        {"attempt": 1, "worker": "w1"},
        {"attempt": 1, "progress": 0.5, "step": "s", "message": None, "output": [1], "artifact": None},
        {"attempt": 1, "result": {"done": True}},
    ]
    positions = [int(event["position"]) for event in events]
    assert positions == sorted(set(positions))
    assert service.job(id)["position"] == events[-1]["position"]
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)


def test_the_hashes_of_the_history_chain_the_events_as_stored(service: "Service", queue: str) -> None:
    id = service.completed(queue)["id"]
    previous = GENESIS
    for event, state in zip(service.events(id), service.states(id), strict=True):
        previous = chain(previous, UUID(id), event["version"], event["type"], state)
        assert event["hash"] == previous.hex()


def test_the_history_is_paged_by_version(service: "Service", queue: str) -> None:
    job = service.completed(queue)
    path = f"/v1/jobs/{job['id']}/events"
    first = service.http.get(path, params={"limit": 2}).json()
    assert ([event["version"] for event in first["items"]], first["next"]) == ([1, 2], 2)
    rest = service.http.get(path, params={"limit": 2, "after_version": first["next"]}).json()
    assert ([event["version"] for event in rest["items"]], rest["next"]) == ([3], None)
    whole = service.http.get(path, params={"limit": 3}).json()
    assert (len(whole["items"]), whole["next"]) == (3, None)
    assert service.http.get(path, params={"after_version": 99}).json() == {"items": [], "next": None}


def test_a_job_without_files_has_an_empty_list_of_them(service: "Service") -> None:
    job = service.create()
    assert service.http.get(f"/v1/jobs/{job['id']}/artifacts").json() == {"items": [], "next": None}
    answer = service.http.get(f"/v1/jobs/{job['id']}/artifacts/page.html")
    told = service.problem(answer, 404, "not-found")
    assert job["id"] in told["detail"]
    assert "page.html" in told["detail"]


def test_the_input_comes_back_to_the_letter(service: "Service", send: "Send") -> None:
    written = b'{"big": 123456789012345678901234567890, "exact": 1.10, "text": "\\u00e9 \\ud83d\\ude00"}'
    answer = send("/v1/jobs", b'{"kind":"test","input":' + written + b"}")
    shown = service.http.get(answer.headers["location"]).content
    assert written in shown
    assert json.loads(shown)["input"] == json.loads(written)


def test_of_a_field_given_twice_the_last_counts(service: "Service", send: "Send") -> None:
    job = send("/v1/jobs", b'{"kind":"first","input":1,"kind":"last","input":2}').json()
    assert (job["kind"], job["input"]) == ("last", 2)
