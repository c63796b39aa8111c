"""Jobs that somebody cancels or sends round again over HTTP."""

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service


def test_a_queued_job_is_cancelled_at_once(service: "Service", queue: str) -> None:
    job = service.create(queue=queue)
    answer = service.cancel(job["id"], "wrong question")
    assert (answer.status_code, answer.headers["location"], answer.headers["etag"]) == (
        202,
        job["links"]["self"],
        '"2"',
    )
    cancelled = answer.json()
    assert (cancelled["status"], cancelled["finished_at"]) == ("cancelled", cancelled["updated_at"])
    assert cancelled["error"] == {"type": "cancelled", "message": "wrong question"}
    assert service.job(job["id"]) == cancelled
    assert service.claim(queue) == []


def test_a_running_job_is_cancelled_by_its_worker(service: "Service", queue: str) -> None:
    job = service.running(queue)
    assert service.cancel(job["id"], "stop").json()["status"] == "cancelling"
    [done] = service.report({"job_id": job["id"], "attempt": 1, "type": "cancelled"})
    assert done["ok"]
    ended = service.job(job["id"])
    assert (ended["status"], ended["error"]["message"], ended["worker"]) == ("cancelled", "stop", "w1")
    assert service.types(job["id"])[2:] == ["job.cancel_requested", "job.cancelled"]


def test_cancelling_again_is_answered_as_done(service: "Service", queue: str) -> None:
    running = service.running(queue)
    queued = service.create(queue=queue)
    for id, status in ((running["id"], "cancelling"), (queued["id"], "cancelled")):
        first, again = service.cancel(id), service.cancel(id, "another reason")
        assert (again.status_code, again.json()) == (202, first.json())
        assert again.json()["status"] == status


def test_a_finished_job_cannot_be_cancelled(service: "Service", queue: str) -> None:
    job = service.completed(queue)
    told = service.problem(service.cancel(job["id"]), 409, "job-finished")
    assert job["id"] in told["detail"]
    assert "completed" in told["detail"]
    assert service.job(job["id"]) == job


@pytest.mark.parametrize("call", ["cancellations", "retries"])
def test_only_the_version_that_was_named_is_changed(service: "Service", queue: str, call: str) -> None:
    job = service.completed(queue) if call == "retries" else service.create(queue=queue)
    path, body = f"/v1/jobs/{job['id']}/{call}", {"reason": "because"}
    before = service.recorded()
    for other in ('"99"', 'W/"99"', '"x"'):
        answer = service.http.post(path, json=body, headers={"if-match": other})
        assert job["id"] in service.problem(answer, 412, "precondition-failed")["detail"]
    assert service.recorded() == before
    answer = service.http.post(path, json=body, headers={"if-match": f'"99", "{job["version"]}"'})
    assert (answer.status_code, answer.json()["version"]) == (202, job["version"] + 1)


@pytest.mark.parametrize("call", ["cancellations", "retries"])
@pytest.mark.parametrize("versions", ["nonsense", "3", '"3', '"3" "4"', '"3",', "*, *"])
def test_an_if_match_that_names_no_versions_is_refused(service: "Service", call: str, versions: str) -> None:
    path = f"/v1/jobs/{service.create()['id']}/{call}"
    answer = service.http.post(path, json={"reason": "because"}, headers={"if-match": versions})
    assert service.invalid(answer) == ["If-Match"]


def test_any_version_matches_a_star(service: "Service") -> None:
    assert service.cancel(service.create()["id"], **{"if-match": "*"}).status_code == 202


def test_an_unknown_job_is_neither_cancelled_nor_retried(service: "Service") -> None:
    for call in ("cancellations", "retries"):
        answer = service.http.post(f"/v1/jobs/{uuid4()}/{call}", json={"reason": "because"})
        service.problem(answer, 404, "not-found")


def test_a_finished_job_is_sent_round_again_with_its_steps(service: "Service", queue: str) -> None:
    job = service.running(queue, max_attempts=1)
    said = {"job_id": job["id"], "attempt": 1}
    service.report({**said, "type": "progressed", "progress": 0.5, "step": "first", "output": {"kept": 1}})
    service.report({**said, "type": "failed", "error": {"type": "Broken", "message": "it broke"}})
    failed = service.job(job["id"])
    assert (failed["status"], failed["error"]) == ("failed", {"type": "Broken", "message": "it broke"})
    answer = service.http.post(f"/v1/jobs/{job['id']}/retries", json={"reason": "mended"})
    assert answer.status_code == 202
    queued = answer.json()
    assert answer.headers["etag"] == f'"{failed["version"] + 1}"'
    assert (queued["status"], queued["error"], queued["finished_at"]) == ("queued", None, None)
    assert (queued["progress"], queued["step"], queued["attempt"]) == (0.5, "first", 1)
    [again] = service.claim(queue)
    assert (again["attempt"], again["steps"]) == (2, {"first": {"kept": 1}})


def test_a_retry_afresh_forgets_the_steps(service: "Service", queue: str) -> None:
    job = service.running(queue)
    said = {"job_id": job["id"], "attempt": 1}
    service.report({**said, "type": "progressed", "progress": 0.5, "step": "first", "output": 1, "handle": "h"})
    service.report({**said, "type": "completed", "result": 1})
    body = {"reason": "from the start", "afresh": True}
    queued = service.http.post(f"/v1/jobs/{job['id']}/retries", json=body).json()
    assert (queued["progress"], queued["step"], queued["result"]) == (0.0, None, None)
    [again] = service.claim(queue)
    assert (again["attempt"], again["steps"], again["handles"]) == (2, {}, {})


def test_only_a_finished_job_is_sent_round_again(service: "Service", queue: str) -> None:
    running = service.running(queue)["id"]
    cancelling = service.running(queue)["id"]
    service.cancel(cancelling)
    for id, status in ((service.create()["id"], "queued"), (running, "running"), (cancelling, "cancelling")):
        before = service.recorded()
        answer = service.http.post(f"/v1/jobs/{id}/retries", json={"reason": "again"})
        told = service.problem(answer, 409, "conflict")
        assert id in told["detail"]
        assert status in told["detail"]
        assert service.recorded() == before


def test_a_cancelled_job_is_sent_round_again(service: "Service", queue: str) -> None:
    job = service.create(queue=queue)
    service.cancel(job["id"])
    service.http.post(f"/v1/jobs/{job['id']}/retries", json={"reason": "after all"})
    assert [claimed["id"] for claimed in service.claim(queue)] == [job["id"]]
