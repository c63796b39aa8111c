"""Idempotency keys over HTTP: asked again with the same key and body, the answer is the same job."""

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from tests.interfaces.conftest import Send, Service

REPLAYED = "idempotency-replayed"


def test_the_same_key_and_body_answer_the_same_job_again(service: "Service", send: "Send") -> None:
    key = uuid4().hex
    first = send("/v1/jobs", b'{"kind":"test","input":{"a":1,"b":[2.0]}}', idempotency_key=key)
    again = send("/v1/jobs", b'\n{ "input" : {"b": [ 2.0 ], "a":1} , "kind":"t\\u0065st"}', idempotency_key=key)
    assert again.status_code == first.status_code == 202
    assert again.headers[REPLAYED] == "true"
    assert REPLAYED not in first.headers
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]


def test_a_replayed_create_shows_the_job_as_it_is_now(service: "Service", queue: str) -> None:
    asked = {"kind": "test", "input": 1, "queue": queue, "heartbeat_timeout": 3600}
    headers = {"idempotency-key": uuid4().hex}
    job = service.http.post("/v1/jobs", json=asked, headers=headers).json()
    service.claim(queue)
    again = service.http.post("/v1/jobs", json=asked, headers=headers)
    assert (again.json()["id"], again.json()["status"]) == (job["id"], "running")
    assert again.headers["etag"] == '"2"'


def test_the_same_key_for_another_request_is_a_mismatch(service: "Service", send: "Send") -> None:
    key = uuid4().hex
    send("/v1/jobs", b'{"kind":"test","input":1}', idempotency_key=key)
    before = service.recorded()
    for path, body in (
        ("/v1/jobs", b'{"kind":"test","input":2}'),
        ("/v1/jobs", b'{"kind":"test","input":1,"priority":0}'),
        ("/v1/jobs/batch", b'{"jobs":[{"kind":"test","input":1}]}'),
    ):
        told = service.problem(send(path, body, idempotency_key=key), 422, "idempotency-mismatch")
        assert key in told["detail"]
    assert service.recorded() == before


def test_an_invalid_request_does_not_burn_its_key(service: "Service", send: "Send") -> None:
    key = uuid4().hex
    service.invalid(send("/v1/jobs", b'{"kind":"test","input":1,"priority":101}', idempotency_key=key))
    mended = send("/v1/jobs", b'{"kind":"test","input":1,"priority":100}', idempotency_key=key)
    assert mended.status_code == 202
    assert REPLAYED not in mended.headers


def test_a_refused_retry_does_not_burn_its_key(service: "Service", queue: str) -> None:
    headers = {"idempotency-key": uuid4().hex}
    job = service.running(queue)
    path = f"/v1/jobs/{job['id']}/retries"
    service.problem(service.http.post(path, json={"reason": "too early"}, headers=headers), 409, "conflict")
    service.report({"job_id": job["id"], "attempt": 1, "type": "completed"})
    assert service.http.post(path, json={"reason": "in time"}, headers=headers).status_code == 202


@pytest.mark.parametrize("key", ["", "k" * 256, b"caf\xc3\xa9", b"caf\xe9", b"a\tb"])
def test_a_key_that_is_empty_or_too_long_or_no_printable_ascii_is_refused(
    service: "Service", nothing_recorded: None, key: str | bytes
) -> None:
    headers = {b"idempotency-key": key.encode() if isinstance(key, str) else key}
    answer = service.http.post("/v1/jobs", json={"kind": "test", "input": 1}, headers=headers)
    assert service.invalid(answer) == ["Idempotency-Key"]


def test_a_key_may_have_255_characters(send: "Send") -> None:
    key = uuid4().hex.ljust(255, "k")
    first, again = (send("/v1/jobs", b'{"kind":"test","input":1}', idempotency_key=key) for _ in range(2))
    assert first.json()["id"] == again.json()["id"]


def test_a_batch_with_a_key_is_created_once(service: "Service") -> None:
    body = {"jobs": [{"kind": "test", "input": n} for n in range(3)]}
    headers = {"idempotency-key": uuid4().hex}
    first = service.http.post("/v1/jobs/batch", json=body, headers=headers)
    before = service.recorded()
    again = service.http.post("/v1/jobs/batch", json=body, headers=headers)
    assert again.json() == first.json()
    assert again.headers[REPLAYED] == "true"
    assert service.recorded() == before


def test_a_retry_with_a_key_sends_the_job_round_once(service: "Service", queue: str) -> None:
    job = service.completed(queue)
    headers = {"idempotency-key": uuid4().hex}
    path = f"/v1/jobs/{job['id']}/retries"
    first = service.http.post(path, json={"reason": "again"}, headers=headers)
    again = service.http.post(path, json={"reason": "again"}, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.headers[REPLAYED] == "true"
    assert service.types(job["id"]).count("job.requeued") == 1


def test_a_visualization_with_a_key_is_created_once(service: "Service") -> None:
    headers = {"idempotency-key": uuid4().hex}
    first, again = (
        service.http.post("/v1/visualizations", json={"question": "What is 2 + 2?"}, headers=headers) for _ in range(2)
    )
    assert first.json()["id"] == again.json()["id"]
    assert again.headers[REPLAYED] == "true"
