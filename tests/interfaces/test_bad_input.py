"""Bad bodies: each gets its own problem, nothing is recorded, and the server is as before."""

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.interfaces.malformed import JOB, NO_JSON, POSTS, with_input

if TYPE_CHECKING:
    from tests.interfaces.conftest import Send, Service

Json = Any

pytestmark = pytest.mark.usefixtures("nothing_recorded")


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON.keys())
def test_what_is_no_json_is_refused(service: "Service", send: "Send", body: bytes) -> None:
    assert service.invalid(send("/v1/jobs", body)) == ["$"]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b'"text"', b"7"])
def test_every_post_wants_an_object(service: "Service", send: "Send", path: str, body: bytes) -> None:
    assert service.invalid(send(path, body)) == ["$"]


NUL = {
    "the kind": (b'{"kind":"a\\u0000b","input":1}', "kind"),
    "the input": (with_input(b'"\\u0000"'), "input"),
    "an input deep down": (with_input(b'[1,{"a":[["x\\u0000"]]}]'), "input[1].a[0][0]"),
    "a key of the input": (with_input(b'{"a":{"b\\u0000":1}}'), "input.a"),
    "a label": (b'{"kind":"a","input":1,"labels":{"a":"\\u0000"}}', "labels.a"),
    "a label's name": (b'{"kind":"a","input":1,"labels":{"\\u0000":"a"}}', "labels"),
    "a field's name": (b'{"kind":"a","input":1,"\\u0000":"a"}', "$"),
}


@pytest.mark.parametrize(("body", "field"), NUL.values(), ids=NUL.keys())
def test_a_nul_is_refused_wherever_it_hides(service: "Service", send: "Send", body: bytes, field: str) -> None:
    [named] = service.invalid(send("/v1/jobs", body))
    assert named.removeprefix("$.") == field


@pytest.mark.parametrize(
    "written",
    [b"[" * 64 + b"]" * 64, b'{"a":' * 64 + b"1" + b"}" * 64, b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000],
    ids=["arrays", "objects", "100 000 open brackets", "100 000 brackets"],
)
def test_more_than_64_levels_are_refused(service: "Service", send: "Send", written: bytes) -> None:
    assert service.invalid(send("/v1/jobs", with_input(written))) == ["$"]


def test_brackets_in_strings_are_no_levels(service: "Service", send: "Send") -> None:
    """Refused for its unknown field, so not for its depth."""
    body = with_input(b'"' + b'[{\\"' * 500 + b'"')[:-1] + b',"x":1}'
    assert service.invalid(send("/v1/jobs", body)) == ["x"]


INVALID_JOBS: dict[str, tuple[Json, str]] = {
    "no kind": ({"input": 1}, "kind"),
    "no input": ({"kind": "a"}, "input"),
    "an unknown field": ({**JOB, "delay": 5}, "delay"),
    "an unknown field of retry": ({**JOB, "retry": {"tries": 5}}, "retry.tries"),
    "a number for a kind": ({**JOB, "kind": 5}, "kind"),
    "an empty kind": ({**JOB, "kind": ""}, "kind"),
    "a long kind": ({**JOB, "kind": "k" * 201}, "kind"),
    "null for a queue": ({**JOB, "queue": None}, "queue"),
    "an empty queue": ({**JOB, "queue": ""}, "queue"),
    "a queue that no address can name": ({**JOB, "queue": "."}, "queue"),
    "a queue that an address loses": ({**JOB, "queue": ".."}, "queue"),
    "text for a priority": ({**JOB, "priority": "1"}, "priority"),
    "a fraction for a priority": ({**JOB, "priority": 1.0}, "priority"),
    "true for a priority": ({**JOB, "priority": True}, "priority"),
    "a priority too high": ({**JOB, "priority": 101}, "priority"),
    "a priority too low": ({**JOB, "priority": -101}, "priority"),
    "a priority of 30 digits": ({**JOB, "priority": 10**30}, "priority"),
    "no attempts": ({**JOB, "max_attempts": 0}, "max_attempts"),
    "too many attempts": ({**JOB, "max_attempts": 2**31}, "max_attempts"),
    "a naive run_at": ({**JOB, "run_at": "2030-01-01T00:00:00"}, "run_at"),
    "a run_at in year 1": ({**JOB, "run_at": "0001-01-01T00:00:00Z"}, "run_at"),
    "a run_at before year 1": ({**JOB, "run_at": "0001-01-01T00:00:00+14:00"}, "run_at"),
    "a run_at in 1969": ({**JOB, "run_at": "1969-12-31T23:59:59Z"}, "run_at"),
    "a run_at in year 3000": ({**JOB, "run_at": "3000-01-01T00:00:00Z"}, "run_at"),
    "a run_at in year 9999": ({**JOB, "run_at": "9999-12-31T23:59:59Z"}, "run_at"),
    "a run_at after year 9999": ({**JOB, "run_at": "9999-12-31T23:59:59-14:00"}, "run_at"),
    "a run_at on February 30": ({**JOB, "run_at": "2030-02-30T00:00:00Z"}, "run_at"),
    "a number for run_at": ({**JOB, "run_at": 1893456000}, "run_at"),
    "a date for run_at": ({**JOB, "run_at": "2030-01-01"}, "run_at"),
    "words for run_at": ({**JOB, "run_at": "tomorrow"}, "run_at"),
    "a list of labels": ({**JOB, "labels": ["a"]}, "labels"),
    "text for labels": ({**JOB, "labels": "a:b"}, "labels"),
    "a number in a label": ({**JOB, "labels": {"a": 1}}, "labels[...]"),
    "null in a label": ({**JOB, "labels": {"a": None}}, "labels[...]"),
    "an object in a label": ({**JOB, "labels": {"a": {}}}, "labels[...]"),
    "a label without a name": ({**JOB, "labels": {"": "a"}}, "labels"),
    "a label with a long name": ({**JOB, "labels": {"a" * 101: "a"}}, "labels"),
    "a long label": ({**JOB, "labels": {"a": "a" * 501}}, "labels[...]"),
    "65 labels": ({**JOB, "labels": {str(n): "" for n in range(65)}}, "labels"),
    "a factor below 1": ({**JOB, "retry": {"factor": 0.5}}, "retry.factor"),
    "a negative wait": ({**JOB, "retry": {"initial": -1}}, "retry.initial"),
    "text for retry": ({**JOB, "retry": "often"}, "retry"),
    "no heartbeat timeout": ({**JOB, "heartbeat_timeout": 0}, "heartbeat_timeout"),
    "a heartbeat timeout of a year": ({**JOB, "heartbeat_timeout": 3e7}, "heartbeat_timeout"),
    "no time limit": ({**JOB, "time_limit": 0}, "time_limit"),
    "a negative time limit": ({**JOB, "time_limit": -1}, "time_limit"),
}


@pytest.mark.parametrize(("body", "field"), INVALID_JOBS.values(), ids=INVALID_JOBS.keys())
def test_an_invalid_job_is_refused_by_the_field_at_fault(
    service: "Service", send: "Send", body: Json, field: str
) -> None:
    assert service.invalid(send("/v1/jobs", json.dumps(body).encode())) == [field]
    batch = json.dumps({"jobs": [JOB, body]}).encode()
    assert service.invalid(send("/v1/jobs/batch", batch)) == [f"jobs[1].{field}"]


def test_a_queue_of_dots_is_refused_in_words(service: "Service") -> None:
    refused = service.http.post("/v1/jobs", json={**JOB, "queue": ".."}).json()["errors"]
    assert refused == [
        {"field": "queue", "message": 'must not be "." or "..", which browsers and proxies take out of an address'}
    ]


BAD_BODIES: dict[str, tuple[str, Json, str]] = {
    "a batch of no list": ("/v1/jobs/batch", {"jobs": JOB}, "jobs"),
    "a batch with an unknown field": ("/v1/jobs/batch", {"jobs": [JOB], "atomic": True}, "atomic"),
    "a claim without a worker": ("/v1/claims", {"queues": ["q"]}, "worker"),
    "a claim without queues": ("/v1/claims", {"worker": "w"}, "queues"),
    "a claim of no queue": ("/v1/claims", {"worker": "w", "queues": []}, "queues"),
    "a claim of a nameless queue": ("/v1/claims", {"worker": "w", "queues": [""]}, "queues[0]"),
    "a claim of no kind": ("/v1/claims", {"worker": "w", "queues": ["q"], "kinds": []}, "kinds"),
    "a claim of no job": ("/v1/claims", {"worker": "w", "queues": ["q"], "max": 0}, "max"),
    "a claim of too many": ("/v1/claims", {"worker": "w", "queues": ["q"], "max": 1001}, "max"),
    "a claim that waits backwards": ("/v1/claims", {"worker": "w", "queues": ["q"], "wait": -1}, "wait"),
    "a claim that waits too long": ("/v1/claims", {"worker": "w", "queues": ["q"], "wait": 30.1}, "wait"),
    "a claim with an unknown field": ("/v1/claims", {"worker": "w", "queues": ["q"], "lease": 1}, "lease"),
    "reports without a worker": ("/v1/reports", {"reports": []}, "worker"),
    "reports that are none": ("/v1/reports", {"worker": "w", "reports": {}}, "reports"),
    "a visualization of nothing": ("/v1/visualizations", {}, "question"),
    "a visualization of a number": ("/v1/visualizations", {"question": 5}, "question"),
    "a visualization with an unknown field": ("/v1/visualizations", {"question": "Why?", "style": 1}, "style"),
}


@pytest.mark.parametrize(("path", "body", "field"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_an_invalid_body_is_refused_by_the_field_at_fault(
    service: "Service", send: "Send", path: str, body: Json, field: str
) -> None:
    assert service.invalid(send(path, json.dumps(body).encode())) == [field]


BAD_REPORTS: dict[str, tuple[Json, str]] = {
    "no type": ({}, "type"),
    "an unknown type": ({"type": "exploded"}, "type"),
    "a type of the service's own": ({"type": "artifact"}, "type"),
    "no job": ({"type": "heartbeat", "job_id": None}, "job_id"),
    "a job id that is no UUID": ({"type": "heartbeat", "job_id": "7"}, "job_id"),
    "attempt 0": ({"type": "heartbeat", "attempt": 0}, "attempt"),
    "an attempt of 20 digits": ({"type": "heartbeat", "attempt": 10**19}, "attempt"),
    "a heartbeat with a field": ({"type": "heartbeat", "progress": 0.5}, "progress"),
    "too much progress": ({"type": "progressed", "progress": 1.01}, "progress"),
    "negative progress": ({"type": "progressed", "progress": -0.1}, "progress"),
    "progress as text": ({"type": "progressed", "progress": "50 %"}, "progress"),
    "a nameless step": ({"type": "progressed", "step": ""}, "step"),
    "a long message": ({"type": "progressed", "message": "m" * 2001}, "message"),
    "a failure without an error": ({"type": "failed"}, "error"),
    "a failure without a message": ({"type": "failed", "error": {"type": "E"}}, "error.message"),
    "a failure that retries backwards": (
        {"type": "failed", "error": {"type": "E", "message": "m"}, "retry_in": -1},
        "retry_in",
    ),
    "a release without a reason": ({"type": "released"}, "reason"),
}


@pytest.mark.parametrize(("said", "field"), BAD_REPORTS.values(), ids=BAD_REPORTS.keys())
def test_a_request_with_nothing_but_malformed_reports_is_refused(
    service: "Service", send: "Send", held: Json, said: Json, field: str
) -> None:
    body = {"worker": "w1", "reports": [{"job_id": held["id"], "attempt": 1, **said}] * 2}
    assert service.invalid(send("/v1/reports", json.dumps(body).encode())) == [f"reports[{n}].{field}" for n in (0, 1)]


def test_a_request_has_a_thousand_reports_at_most(service: "Service", send: "Send", held: Json) -> None:
    beat = {"job_id": held["id"], "attempt": 1, "type": "heartbeat"}
    body = {"worker": "w1", "reports": [beat] * 1001}
    assert service.invalid(send("/v1/reports", json.dumps(body).encode())) == ["reports"]
    assert len(service.report(*[beat] * 1000)) == 1000


def test_a_stale_attempt_records_nothing(service: "Service", held: Json) -> None:
    results = service.report({"job_id": held["id"], "attempt": 2, "type": "completed", "result": 1})
    assert results[0]["problem"]["code"] == "lease-lost"


@pytest.mark.parametrize("call", ["cancellations", "retries"])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "reason"),
        ({"reason": ""}, "reason"),
        ({"reason": 5}, "reason"),
        ({"reason": "r" * 2001}, "reason"),
        ({"reason": "because", "force": True}, "force"),
    ],
    ids=["none", "empty", "a number", "too long", "an unknown field"],
)
def test_who_intervenes_must_say_why(service: "Service", held: Json, call: str, body: Json, field: str) -> None:
    assert service.invalid(service.http.post(f"/v1/jobs/{held['id']}/{call}", json=body)) == [field]


def test_an_impossible_transition_records_nothing(service: "Service", held: Json) -> None:
    answer = service.http.post(f"/v1/jobs/{held['id']}/retries", json={"reason": "again"})
    service.problem(answer, 409, "conflict")
