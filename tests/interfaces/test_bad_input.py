"""Bad input: each gets its own problem, nothing is recorded, and the server is as before."""

import gzip
import itertools
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.interfaces.conftest import Send, Service

Json = Any
KIB = 1024
MIB = 1024 * KIB
JOB = {"kind": "test", "input": 1}
POSTS = ("/v1/jobs", "/v1/jobs/batch", "/v1/claims", "/v1/reports", "/v1/visualizations", "/v1/presentations")

pytestmark = pytest.mark.usefixtures("nothing_recorded")


@pytest.fixture(scope="module")
def held(service: "Service") -> Json:
    """A job that worker w1 holds."""
    return service.running(f"held-{uuid4().hex}")


def with_input(written: bytes) -> bytes:
    """A new job with an input written like this."""
    return b'{"kind":"test","input":' + written + b"}"


NO_JSON = {
    "nothing": b"",
    "blanks": b" \n",
    "half an object": b'{"kind":"test","input":',
    "an object and more": with_input(b"1") + b"x",
    "single quotes": b"{'kind':'test','input':1}",
    "a trailing comma": b'{"kind":"test","input":1,}',
    "a comment": with_input(b"/* 1 */ 1"),
    "a byte order mark": b"\xef\xbb\xbf" + with_input(b"1"),
    "UTF-16": json.dumps(JOB).encode("utf-16"),
    "a raw NUL": with_input(b'"\x00"'),
    "a raw line break in a string": with_input(b'"\n"'),
    "invalid UTF-8": with_input(b'"\xff"'),
    "invalid UTF-8 in a key": with_input(b'{"\xc3(":1}'),
    "overlong UTF-8": with_input(b'"\xc0\x80"'),
    "a surrogate in UTF-8": with_input(b'"\xed\xa0\x80"'),
    "a lone high surrogate": with_input(b'"\\ud800"'),
    "a lone high surrogate before text": with_input(b'"\\ud800 text"'),
    "a lone low surrogate": with_input(b'{"a":["\\udc00"]}'),
    "a lone surrogate in a key": with_input(b'{"\\udfff":1}'),
    "NaN": with_input(b"NaN"),
    "Infinity": with_input(b"[-Infinity]"),
    "a number beyond all floats": with_input(b"1e999"),
    "an integer of 5 000 digits": with_input(b"9" * 5000),
    "a leading zero": with_input(b"007"),
    "no JSON at all": b"\x00\x01\x02\xfe",
}


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
def test_a_malformed_report_refuses_the_request(
    service: "Service", send: "Send", held: Json, said: Json, field: str
) -> None:
    good = {"job_id": held["id"], "attempt": 1, "type": "progressed", "progress": 0.9}
    body = {"worker": "w1", "reports": [good, {"job_id": held["id"], "attempt": 1, **said}]}
    [named] = service.invalid(send("/v1/reports", json.dumps(body).encode()))
    assert named == f"reports[1].{field}"


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


@pytest.mark.parametrize("of", ["", "/events", "/artifacts", "/artifacts/a.txt"])
@pytest.mark.parametrize("id", ["7", "null", "%00", "%ff", "..%5c..", "0" * 31, "g" * 32, "x" * 5000])
def test_an_id_that_is_no_uuid_is_invalid(service: "Service", id: str, of: str) -> None:
    assert service.invalid(service.http.get(f"/v1/jobs/{id}{of}")) == ["job_id"]


@pytest.mark.parametrize("call", ["cancellations", "retries"])
def test_an_id_to_act_on_that_is_no_uuid_is_invalid(service: "Service", call: str) -> None:
    assert service.invalid(service.http.post(f"/v1/jobs/7/{call}", json={"reason": "because"})) == ["job_id"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("colour=red", "colour"),
        ("colour", "colour"),
        ("%00=1", "\0"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("limit=1.5", "limit"),
        ("limit=1e2", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("limit=%D9%A3", "limit"),
        ("limit=1&limit=2", "limit"),
        ("sort=created_at&sort=-created_at", "sort"),
        ("cursor=a&cursor=b", "cursor"),
        ("sort=priority", "sort"),
        ("status=done", "status[0]"),
        ("status=queued&status=", "status[1]"),
        ("kind=", "kind[0]"),
        ("kind=%00", "kind"),
        ("kind=" + "k" * 201, "kind[0]"),
        ("worker=", "worker[0]"),
        ("label=team", "label[0]"),
        ("label=:red", "label[0]"),
        ("label=a%00:b", "label"),
        ("created_after=2030-01-01T00:00:00", "created_after"),
        ("created_after=yesterday", "created_after"),
        ("created_after=5", "created_after"),
        ("created_after=nan", "created_after"),
        ("created_before=1e300", "created_before"),
        ("created_before=", "created_before"),
        ("created_before=10000-01-01T00:00:00Z", "created_before"),
        ("cursor=%00", "cursor"),
        ("cursor=%ff%fe", "cursor"),
        ("cursor=" + "A" * 4000, "cursor"),
        ("cursor=" + "W10=", "cursor"),
    ],
)
def test_a_bad_query_of_the_list_is_refused_by_name(service: "Service", query: str, field: str) -> None:
    assert service.invalid(service.http.get(f"/v1/jobs?{query}")) == [field]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("after_version=-1", "after_version"),
        ("after_version=last", "after_version"),
        ("after_version=1&after_version=2", "after_version"),
        ("after_version=" + "9" * 30, "after_version"),
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("cursor=1", "cursor"),
    ],
)
def test_a_bad_query_of_the_history_is_refused_by_name(service: "Service", held: Json, query: str, field: str) -> None:
    assert service.invalid(service.http.get(f"/v1/jobs/{held['id']}/events?{query}")) == [field]


@pytest.mark.parametrize("path", POSTS)
def test_a_query_where_none_belongs_is_refused(service: "Service", send: "Send", path: str) -> None:
    assert service.invalid(send(f"{path}?dry_run=true", b"{}")) == ["dry_run"]


@pytest.mark.parametrize(
    "media_type", ["", "text/plain", "application/xml", "application/x-www-form-urlencoded", "application/jsonp", "*/*"]
)
@pytest.mark.parametrize("path", POSTS)
def test_another_media_type_is_refused(service: "Service", send: "Send", path: str, media_type: str) -> None:
    answer = service.http.post(path, content=b"{}", headers={"content-type": media_type})
    assert "application/json" in service.problem(answer, 415, "unsupported-media-type")["detail"]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/claims", "/v1/visualizations"])
def test_a_body_over_one_mebibyte_is_too_large(service: "Service", send: "Send", path: str) -> None:
    for size in (MIB + 1, 10 * MIB):
        service.problem(send(path, b'{"a":"' + b"x" * (size - 8) + b'"}'), 413, "too-large")
    assert service.invalid(send(path, b'{"a":"' + b"x" * (MIB - 8) + b'"}')) != []


def test_a_body_over_the_limit_is_too_large_though_it_does_not_say_its_length(service: "Service") -> None:
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(30):
            sent += 100 * KIB
            yield b"x" * (100 * KIB)

    answer = service.http.post("/v1/jobs", content=pieces(), headers={"content-type": "application/json"})
    service.problem(answer, 413, "too-large")
    assert sent > MIB


def test_a_batch_over_32_mebibytes_is_too_large(service: "Service", send: "Send") -> None:
    service.problem(send("/v1/jobs/batch", b" " * (32 * MIB + 1)), 413, "too-large")


def test_a_length_that_is_announced_but_too_large_is_refused_before_it_is_sent(service: "Service") -> None:
    assert b" 413 " in exchange(service, request("POST /v1/jobs", "Content-Length: 99999999999"))


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/batch", "/v1/reports", "/v1/claims", "/v1/visualizations"])
def test_a_packed_body_is_no_media_type_of_ours(service: "Service", path: str) -> None:
    """It would be told that it is no JSON, or as JSON be taken for what it does not say it is."""
    for media_type in ("application/json", MULTIPART) if path == "/v1/visualizations" else ("application/json",):
        headers = {"content-type": media_type, "content-encoding": "gzip"}
        answer = service.http.post(path, content=gzip.compress(b"{}"), headers=headers)
        assert "Content-Encoding" in service.problem(answer, 415, "unsupported-media-type")["detail"]
        assert answer.headers["accept-encoding"] == "identity"


def test_an_input_over_256_kibibytes_is_too_large(service: "Service", send: "Send") -> None:
    answer = send("/v1/jobs", with_input(b'"' + b"x" * (256 * KIB - 1) + b'"'))
    assert "artifact" in service.problem(answer, 413, "too-large")["detail"]


@pytest.mark.parametrize("said", ["result", "output", "handle"])
def test_what_a_worker_says_has_256_kibibytes_at_most(service: "Service", held: Json, said: str) -> None:
    type = {"type": "completed"} if said == "result" else {"type": "progressed", "step": "s"}
    report = {"job_id": held["id"], "attempt": 1, **type, said: "x" * (256 * KIB - 1)}
    assert service.report(report)[0]["problem"]["code"] == "too-large"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/claims", "/livez"])
def test_another_method_is_refused_with_those_that_are_taken(service: "Service", method: str, path: str) -> None:
    answer = service.http.request(method, path)
    service.problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"]


def test_options_tells_all_methods_of_an_address(service: "Service") -> None:
    answer = service.http.options("/v1/jobs")
    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, OPTIONS, POST")


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1", "/v2/jobs", "/v1/jobs/7/8/9", "/v1/%00", "/../etc/passwd", "/%2e%2e/%2e%2e"]
)
def test_an_address_with_nothing_there_is_not_found(service: "Service", path: str) -> None:
    service.problem(service.http.get(path), 404, "not-found")


NO_TEXT = ("%ff", "%C3%28", "a%80b", "%ed%a0%80", "%c0%80")


@pytest.mark.parametrize("written", NO_TEXT)
def test_a_query_that_is_no_utf8_is_refused_by_name(service: "Service", held: Json, written: str) -> None:
    for path, name in (
        ("/v1/jobs", "kind"),
        ("/v1/jobs", "worker"),
        ("/v1/events", "actor"),
        (f"/v1/jobs/{held['id']}", "as_of"),
        (f"/v1/jobs/{held['id']}/artifacts/a", "signature"),
    ):
        assert service.invalid(service.http.get(f"{path}?{name}={written}")) == [name]
    assert service.invalid(service.http.get(f"/v1/jobs?limit=5&{written}=1")) == [unquote(written)]


@pytest.mark.parametrize("written", [*NO_TEXT, "%00", "a%00b"])
def test_a_path_that_is_no_text_is_refused_by_name(service: "Service", held: Json, written: str) -> None:
    assert service.invalid(service.http.get(f"/v1/jobs/{held['id']}/artifacts/{written}")) == ["name"]
    place = f"/v1/jobs/{held['id']}/attempts/1/artifacts/{written}?worker=w1"
    assert service.invalid(service.http.put(place, content=b"x")) == ["name"]
    answer = service.http.put(f"/v1/jobs/{held['id']}/attempts/{written}/artifacts/a?worker=w1", content=b"x")
    assert service.invalid(answer) == ["attempt"]
    assert service.invalid(service.http.get(f"/v1/visualizations/{written}")) == ["job_id"]
    service.problem(service.http.get(f"/problems/{written}"), 404, "not-found")


def told(answer: bytes) -> tuple[int, Json]:
    """The status of a whole answer, and what it tells."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    ("line", "headers", "named"),
    [
        ("POST /v1/jobs", ("Content-Type: application/json",), "Content-Type"),
        ("POST /v1/jobs", ("Content-Type: text/plain",), "Content-Type"),
        ("POST /v1/visualizations", ("Content-Type: multipart/form-data; boundary=b",), "Content-Type"),
        (f"PUT /v1/jobs/{uuid4()}/attempts/1/artifacts/a?worker=w", ("Content-Type: text/plain",), "Content-Type"),
        ("POST /v1/jobs", ("Idempotency-Key: a", "Idempotency-Key: b"), "Idempotency-Key"),
        ("POST /v1/jobs/batch", ("Idempotency-Key: a", "Idempotency-Key: a"), "Idempotency-Key"),
        ("GET /v1/events", ("Last-Event-ID: 1", "Last-Event-ID: 2"), "Last-Event-ID"),
    ],
)
def test_a_header_that_must_be_single_is_refused_when_it_is_not(
    service: "Service", line: str, headers: tuple[str, ...], named: str
) -> None:
    body = json.dumps({"jobs": [JOB]} if "batch" in line else JOB).encode()
    status, problem = told(
        whole(service, request(line, "Connection: close", f"Content-Length: {len(body)}", *headers) + body)
    )
    assert (status, [error["field"] for error in problem["errors"]]) == (400, [named])


def test_lines_of_if_none_match_are_one_list(service: "Service", held: Json) -> None:
    etag = service.http.get(f"/v1/jobs/{held['id']}").headers["etag"]
    for tags, status in (([etag, '"99"'], b" 304 "), (['"98"', etag], b" 304 "), (['"98"', '"99"'], b" 200 ")):
        lines = [f"If-None-Match: {tag}" for tag in tags]
        assert status in exchange(service, request(f"GET /v1/jobs/{held['id']}", *lines)).partition(b"\r\n")[0]


def test_lines_of_if_match_are_one_list(service: "Service", send: "Send", held: Json) -> None:
    """The job runs, so a retry that its version lets through is a conflict."""
    etag, body = service.http.get(f"/v1/jobs/{held['id']}").headers["etag"], b'{"reason":"because"}'
    for tags, status in (([etag, '"99"'], 409), (['"98"', etag], 409), (['"98"', '"99"'], 412), (['"98"', "*"], 400)):
        lines = ["Connection: close", *(f"If-Match: {tag}" for tag in tags)]
        asked = request(f"POST /v1/jobs/{held['id']}/retries", f"Content-Length: {len(body)}", *lines) + body
        assert told(whole(service, asked))[0] == status


@pytest.mark.parametrize("hosts", [(), ("localhost", "localhost"), ("localhost", "example.org")])
@pytest.mark.parametrize("path", ["/v1/jobs", "/livez", "/nowhere"])
def test_a_request_names_one_host(service: "Service", path: str, hosts: tuple[str, ...]) -> None:
    lines = [f"GET {path} HTTP/1.1", *(f"Host: {host}" for host in hosts), "Connection: close", "", ""]
    status, problem = told(whole(service, "\r\n".join(lines).encode()))
    assert (status, problem["code"]) == (400, "invalid")


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [("/livez", "", 403), ("/livez", "Host: localhost\r\n", 200), ("/v1/events", "Host: localhost\r\n", 200)],
)
def test_http_1_0_is_answered_without_chunks_and_hung_up_on(
    service: "Service", path: str, host: str, status: int
) -> None:
    answer = whole(service, f"GET {path} HTTP/1.0\r\n{host}Accept: application/x-ndjson\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"transfer-encoding" not in head.lower()
    assert all(json.loads(line) for line in body.splitlines())


MULTIPART = "multipart/form-data; boundary=b"


def field(content: bytes, name: str = "file", *headers: str) -> bytes:
    """A form with one field, which is no file."""
    head = "\r\n".join(("--b", f'Content-Disposition: form-data; name="{name}"', *headers, "", ""))
    return head.encode() + content + b"\r\n--b--\r\n"


def part(name: str, content: bytes) -> bytes:
    """A form with one file, in `multipart/form-data`."""
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n--b--\r\n"


@pytest.mark.parametrize(
    ("media_type", "body", "status", "code"),
    [
        ("multipart/form-data", part("q.txt", b"Why?"), 400, "invalid"),
        (MULTIPART, b"", 400, "invalid"),
        (MULTIPART, b"--b", 400, "invalid"),
        (MULTIPART, b"no form at all", 400, "invalid"),
        (MULTIPART, part("q.txt", b"Why?")[:-10], 400, "invalid"),
        (MULTIPART, part("q.txt", b"\xff\xfe"), 400, "invalid"),
        (MULTIPART, part("q.txt", b"a\x00b"), 400, "invalid"),
        (MULTIPART, field(b"\xff\xfe"), 400, "invalid"),
        (MULTIPART, field(b"Why?", "file", "Content-Type: text/plain; charset=klingon"), 400, "invalid"),
        (MULTIPART, field(b"Why?", "question"), 400, "invalid"),
        (MULTIPART, field(b" "), 400, "invalid"),
        (MULTIPART, field(b"x" * (256 * KIB + 1)), 413, "too-large"),
        (MULTIPART, part("q.txt", b" \n "), 400, "invalid"),
        (MULTIPART, part("q.txt", b"Why?")[:-7] + part("r.txt", b"How?"), 400, "invalid"),
        (MULTIPART, part("q.exe", b"Why?"), 415, "unsupported-media-type"),
        (MULTIPART, part("q.txt", b"x" * (256 * KIB + 1)), 413, "too-large"),
        (MULTIPART, part("q.txt", b"x" * MIB), 413, "too-large"),
    ],
    ids=[
        "no boundary",
        "nothing",
        "an end",
        "no form",
        "half a form",
        "no UTF-8",
        "a NUL",
        "a field of no UTF-8",
        "a field in an unknown charset",
        "a field of another name",
        "a field of blanks",
        "too large a field",
        "blanks",
        "two files",
        "a program",
        "too large a file",
        "too large a body",
    ],
)
def test_a_bad_upload_is_refused(service: "Service", media_type: str, body: bytes, status: int, code: str) -> None:
    answer = service.http.post("/v1/visualizations", content=body, headers={"content-type": media_type})
    told = service.problem(answer, status, code)
    assert all(error["field"] in ("file", "Content-Type", "question") for error in told.get("errors", ()))


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (b"--b--\r\n", "file", "is missing"),
        (part("q.txt", b""), "file", "is empty"),
        (part("q.md", b"\xef\xbb\xbf \n"), "file", "is empty"),
        (part("q.txt", b"a\x00b"), "file", "NUL"),
        (part("q.txt", b"\x89PNG\r\n\xff"), "file", "no text in UTF-8"),
        (part("q.txt", "Why?".encode("utf-16")), "file", "no text in UTF-8"),
        (part("q.txt", b"Why?")[:-7] + part("r.txt", b"How?"), "file", "more than once"),
        (field(b"Why?", "question"), "question", "is not taken"),
    ],
    ids=["no file", "empty", "a mark and blanks", "a NUL", "a picture", "UTF-16", "two files", "another field"],
)
def test_a_refused_upload_names_the_field_and_the_fault(
    service: "Service", body: bytes, field: str, message: str
) -> None:
    answer = service.http.post("/v1/visualizations", content=body, headers={"content-type": MULTIPART})
    (error,) = service.problem(answer, 400, "invalid")["errors"]
    assert error["field"] == field
    assert message in error["message"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"question": " \n"}, "question"),
        ({"question": "Why?", "options": ["a", " "]}, "options[1]"),
        ({"question": "Why?", "options": ["a"] * 27}, "options"),
        ({"question": "Why?", "options": "a"}, "options"),
        ({"question": "Why?", "answer": ""}, "answer"),
        ({"question": "Why?", "answer": "x\0"}, "answer"),
    ],
)
def test_a_refused_question_names_the_field(service: "Service", body: "Json", field: str) -> None:
    assert service.invalid(service.http.post("/v1/visualizations", json=body)) == [field]


def test_a_question_that_is_too_large_is_told_so(service: "Service") -> None:
    answer = service.http.post("/v1/visualizations", json={"question": "x" * (256 * KIB)})
    assert "question has" in service.problem(answer, 413, "too-large")["detail"]


def test_half_requests_disturb_nobody(service: "Service") -> None:
    whole = request("POST /v1/jobs", "Content-Length: 26") + json.dumps(JOB).encode()
    assert whole.endswith(b"}")
    for length in (0, 1, 20, len(whole) - 27, len(whole) - 26, len(whole) - 1):
        with connected(service) as connection:
            connection.sendall(whole[:length])
        assert service.http.get("/livez").status_code == 200


def test_a_chunked_body_that_ends_in_the_middle_creates_nothing(service: "Service") -> None:
    body = json.dumps(JOB).encode()
    with connected(service) as connection:
        connection.sendall(request("POST /v1/jobs", "Transfer-Encoding: chunked") + b"%x\r\n" % len(body) + body)


BROKEN_OFF = {
    "a length": ("Content-Length: 100\r\nContent-Type: application/json", b'{"kind":'),
    "a form": ("Content-Length: 100\r\nContent-Type: multipart/form-data; boundary=b", b"--b\r\n"),
    "chunks": ("Transfer-Encoding: chunked\r\nContent-Type: application/json", b'5\r\n{"kin'),
    "a bad chunk": ("Transfer-Encoding: chunked\r\nContent-Type: application/json", b'5\r\n{"kin\r\nnonsense\r\n'),
}


def test_a_body_that_breaks_off_is_no_failure_of_ours(dsn: str, start: "Start") -> None:
    server = start("api", "--port", "0", DATABASE_URL=dsn)
    place, attempt = urlsplit(server.url), f"/v1/jobs/{uuid4()}/attempts/1/artifacts/a?worker=w1"
    calls = (*((f"POST {path}") for path in POSTS), f"PUT {attempt}")
    for call, (headers, begun) in itertools.product(calls, BROKEN_OFF.values()):
        with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
            connection.sendall(f"{call} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n".encode() + begun)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    started = len(server.output)
    server.stop()
    server.close()
    told = server.output[started:]
    assert not [line for line in server.output if "Traceback" in line or "rror" in line]
    assert len(told) <= len(calls) * len(BROKEN_OFF)


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"FETCH /v1/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["garbage", "TLS", "an unknown method", "a negative length", "two lengths"],
)
def test_what_is_no_http_is_refused(service: "Service", sent: bytes) -> None:
    assert b" 400 " in exchange(service, sent).partition(b"\r\n")[0]


def test_many_bad_requests_at_once_leave_the_server_as_it_was(service: "Service", send: "Send") -> None:
    bodies = [*NO_JSON.values(), with_input(b"[" * 100_000)]
    codes: list[int] = []

    def ask() -> None:
        codes.extend(send("/v1/jobs", body).status_code for body in bodies)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert codes == [400] * 4 * len(bodies)


def request(line: str, *headers: str) -> bytes:
    """The head of a request with JSON."""
    named = ("Host: localhost", "Content-Type: application/json", *headers)
    return "\r\n".join((f"{line} HTTP/1.1", *named, "", "")).encode()


def connected(service: "Service") -> socket.socket:
    place = urlsplit(service.url)
    assert place.hostname
    assert place.port
    return socket.create_connection((place.hostname, place.port), timeout=30)


def exchange(service: "Service", sent: bytes) -> bytes:
    """The beginning of the answer to these bytes."""
    with connected(service) as connection:
        with suppress(OSError):
            connection.sendall(sent)
        return connection.recv(65536)


def whole(service: "Service", sent: bytes) -> bytes:
    """All of the answer to these bytes, after which the server hangs up."""
    with connected(service) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))
