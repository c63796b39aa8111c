"""Requeueing and cancelling by filter, over HTTP."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.interfaces.conftest import Service

Json = Any
PATIENCE = 60.0
BECAUSE = "the renderer is mended"


@pytest.fixture(scope="module", autouse=True)
def _worker(start_for_module: "Start", dsn: str) -> None:
    start_for_module("worker", DATABASE_URL=dsn)


def asked(service: "Service", call: str, filter: Json, **fields: Json) -> Json:
    answer = service.http.post(f"/v1/jobs/{call}", json={"filter": filter, "reason": BECAUSE, **fields})
    assert answer.status_code == (200 if fields.get("dry_run", True) else 202), answer.text
    return answer.json()


def ended(service: "Service", id: str) -> Json:
    """A job, once it has."""
    return until(service, id, lambda job: job["finished_at"])


def until(service: "Service", id: str, holds: Any) -> Json:
    end = time.monotonic() + PATIENCE
    while not holds(job := service.job(id)):
        assert time.monotonic() < end, job
    return job


def failed(service: "Service", queue: str, **fields: Json) -> str:
    job = service.running(queue, **fields)
    error = {"type": "E", "message": "no luck"}
    held = {"job_id": job["id"], "attempt": 1}
    step = {**held, "type": "progressed", "step": "one", "output": 1, "progress": 0.5}
    results = service.report(step, {**held, "type": "failed", "error": error, "final": True})
    assert all(result["ok"] for result in results), results
    return str(job["id"])


@contextmanager
def locked(dsn: str, id: str) -> Iterator[None]:
    """Nobody can move this job meanwhile."""
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", (id,))
        yield


def test_a_dry_run_counts_what_the_operation_can_touch_and_moves_nothing(service: "Service", queue: str) -> None:
    failed(service, queue)
    service.completed(queue)
    service.running(queue)
    waiting = [service.create(queue=queue, labels={"team": "a"})["id"] for _ in range(3)]
    service.create(queue=queue, run_at="2098-01-01T00:00:00Z")
    before = service.recorded()
    here = {"queue": [queue]}
    assert asked(service, "requeues", here) == {"matching": 2, "exact": True}
    assert asked(service, "requeues", {**here, "status": ["failed", "running"]}) == {"matching": 1, "exact": True}
    assert asked(service, "requeues", {**here, "status": ["running"]}) == {"matching": 0, "exact": True}
    assert asked(service, "cancellations", here) == {"matching": 5, "exact": True}
    assert asked(service, "cancellations", {**here, "status": ["scheduled"]}) == {"matching": 1, "exact": True}
    assert asked(service, "cancellations", {**here, "label": ["team:a", "team:b"]})["matching"] == 3
    assert asked(service, "cancellations", {**here, "kind": ["other"]})["matching"] == 0
    last = service.job(waiting[-1])["created_at"]
    assert asked(service, "cancellations", {**here, "label": ["team:a"], "created_before": last})["matching"] == 2
    assert service.recorded() == before


def test_a_count_beyond_its_bound_says_so(service: "Service", queue: str) -> None:
    job = {"kind": "many", "input": None, "queue": queue}
    for count in (10_000, 1):
        assert service.http.post("/v1/jobs/batch", json={"jobs": [job] * count}).status_code == 202
        assert asked(service, "cancellations", {"kind": ["many"]}) == {"matching": 10_000, "exact": count > 1}


@pytest.mark.parametrize("call", ["requeues", "cancellations"])
@pytest.mark.parametrize(
    ("filter", "field"),
    [
        ({}, "filter"),
        ({"status": []}, "filter.status"),
        ({"state": ["failed"]}, "filter.state"),
        ({"created_after": None}, "filter.created_after"),
        ({"label": ["team"]}, "filter.label[0]"),
    ],
)
def test_a_filter_that_is_none_is_refused_by_name(
    service: "Service", call: str, filter: Json, field: str, nothing_recorded: None
) -> None:
    answer = service.http.post(f"/v1/jobs/{call}", json={"filter": filter, "reason": "x", "dry_run": False})
    assert service.invalid(answer) == [field]


def test_no_client_makes_a_bulk_job_of_its_own(service: "Service", nothing_recorded: None) -> None:
    job = {"kind": "bulk", "input": {"operation": "cancel", "filter": {}, "reason": "x", "by": "key:boss"}}
    assert service.invalid(service.http.post("/v1/jobs", json=job)) == ["kind"]
    assert service.invalid(service.http.post("/v1/jobs/batch", json={"jobs": [job]})) == ["jobs[0].kind"]


def test_requeued_jobs_keep_their_steps_and_say_who_and_why(service: "Service", queue: str) -> None:
    ids = [failed(service, queue) for _ in range(3)]
    other = failed(service, queue, kind="other")
    body = {"filter": {"queue": [queue], "kind": ["test"]}, "reason": BECAUSE, "dry_run": False}
    trace = "ab" * 16
    answer = service.http.post("/v1/jobs/requeues", json=body, headers={"traceparent": f"00-{trace}-{'1' * 16}-01"})
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    bulk = ended(service, answer.json()["id"])
    assert bulk["result"] == {"matched": 3, "changed": 3, "refused": {}}
    assert (bulk["kind"], bulk["progress"], bulk["message"]) == ("bulk", 1.0, "3 of 3")
    for id in ids:
        event = service.events(id)[-1]
        assert (event["type"], event["by"], event["trace"]) == ("job.requeued", "anonymous", trace)
        assert event["data"] == {"reason": BECAUSE, "afresh": False}
    assert service.job(other)["status"] == "failed"
    [again, *_] = service.claim(queue, max=3)
    assert again["steps"] == {"one": 1}


def test_afresh_forgets_the_steps(service: "Service", queue: str) -> None:
    failed(service, queue)
    bulk = asked(service, "requeues", {"queue": [queue]}, afresh=True, dry_run=False)
    assert ended(service, bulk["id"])["result"]["changed"] == 1
    [again] = service.claim(queue)
    assert again["steps"] == {}


def test_cancelling_ends_what_waits_and_asks_what_runs_to_stop(service: "Service", queue: str) -> None:
    running = service.running(queue)["id"]
    waiting = service.create(queue=queue)["id"]
    scheduled = service.create(queue=queue, run_at="2098-01-01T00:00:00Z")["id"]
    bulk = asked(service, "cancellations", {"queue": [queue]}, dry_run=False)
    assert ended(service, bulk["id"])["result"] == {"matched": 3, "changed": 3, "refused": {}}
    assert [service.job(id)["status"] for id in (running, waiting, scheduled)] == ["cancelling", *["cancelled"] * 2]
    assert service.events(running)[-1]["data"] == {"reason": BECAUSE}


def test_a_status_that_cannot_be_moved_so_leaves_nothing_to_do(service: "Service", queue: str) -> None:
    waiting = service.create(queue=queue)["id"]
    bulk = asked(service, "requeues", {"queue": [queue], "status": ["queued"]}, dry_run=False)
    assert ended(service, bulk["id"])["result"] == {"matched": 0, "changed": 0, "refused": {}}
    assert service.job(waiting)["version"] == 1


def test_bulk_jobs_pass_over_each_other(service: "Service", queue: str) -> None:
    done = ended(service, asked(service, "requeues", {"queue": [queue]}, dry_run=False)["id"])
    bulk = ended(service, asked(service, "requeues", {"kind": ["bulk"]}, dry_run=False)["id"])
    assert bulk["result"] == {"matched": 0, "changed": 0, "refused": {}}
    assert service.job(done["id"])["version"] == done["version"]


def test_the_same_key_answers_the_same_bulk_job(service: "Service", queue: str) -> None:
    body = {"filter": {"queue": [queue]}, "reason": BECAUSE, "dry_run": False}
    key = {"idempotency-key": uuid4().hex}
    first, again = (service.http.post("/v1/jobs/requeues", json=body, headers=key) for _ in range(2))
    assert (first.json()["id"], again.headers["idempotency-replayed"]) == (again.json()["id"], "true")
    for call, other in (("requeues", {**body, "afresh": True}), ("cancellations", body)):
        answer = service.http.post(f"/v1/jobs/{call}", json=other, headers=key)
        service.problem(answer, 422, "idempotency-mismatch")


def test_a_bulk_job_is_cancelled_between_pages(service: "Service", queue: str, dsn: str) -> None:
    job = {"kind": "test", "input": None, "queue": queue}
    ids = service.http.post("/v1/jobs/batch", json={"jobs": [job] * 700}).json()["ids"]
    with locked(dsn, ids[600]):
        bulk = asked(service, "cancellations", {"queue": [queue]}, dry_run=False)
        moved = until(service, bulk["id"], lambda job: job["progress"] > 0)
        assert moved["message"] == "500 of 700"
        assert service.cancel(bulk["id"]).json()["status"] == "cancelling"
    assert ended(service, bulk["id"])["status"] == "cancelled"
    assert asked(service, "cancellations", {"queue": [queue]}) == {"matching": 200, "exact": True}
