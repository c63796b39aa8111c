"""Jobs over HTTP: asked for, listed, looked at, cancelled and sent round again."""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx2
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


def test_the_same_key_and_body_answer_the_same_job_again(service: "Service", send: "Send") -> None:
    key = uuid4().hex
    first = send("/v1/jobs", b'{"kind":"test","input":{"a":1,"b":[2.0]}}', idempotency_key=key)
    again = send("/v1/jobs", b'\n{ "input" : {"b": [ 2.0 ], "a":1} , "kind":"t\\u0065st"}', idempotency_key=key)
    assert again.status_code == first.status_code == 202
    assert again.headers[REPLAYED] == "true"
    assert REPLAYED not in first.headers
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]


@pytest.mark.parametrize("queue", ["...", "..\n", ".\n", ".a", "..a", "a.", "a/..", "%2e"])
def test_a_queue_may_begin_with_dots(service: "Service", queue: str) -> None:
    assert service.create(queue=queue, run_at="2999-01-01T00:00:00Z")["queue"] == queue


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


@pytest.mark.parametrize("name", ['; filename="q.txt"', '; filename="Q.MD"', ""], ids=["a text", "Markdown", "a field"])
def test_a_question_may_come_in_a_form(service: "Service", name: str) -> None:
    body = f'--b\r\nContent-Disposition: form-data; name="file"{name}\r\n\r\n What is 2 × 2?\r\n--b--\r\n'.encode()
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = service.http.post("/v1/visualizations", content=body, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.json()["input"] == {"question": "What is 2 × 2?"}


def test_the_options_of_an_uploaded_question_are_read(service: "Service") -> None:
    text = "\ufeffWhich is blue?\r\n\r\nA) the sky\r\nB) the grass\r\n\r\nAnswer: A\r\n"
    answer = service.http.post("/v1/visualizations", files={"file": ("q.txt", text.encode())})
    assert answer.status_code == 202, answer.text
    asked = {"question": "Which is blue?", "options": ["A) the sky", "B) the grass"], "answer": "A"}
    assert answer.json()["input"] == asked
    shown = service.http.get(f"/v1/visualizations/{answer.json()['id']}").json()
    assert {name: shown[name] for name in asked} == asked


@pytest.mark.parametrize("line", ["x" * 15 + "\n", '"What?"\n'], ids=["long lines", "quotes and short lines"])
def test_a_file_may_have_all_of_256_kibibytes(service: "Service", line: str) -> None:
    text = (line * (256 * 1024))[: 256 * 1024 - 1] + "x"
    answer = service.http.post("/v1/visualizations", files={"file": ("q.txt", text.encode())})
    assert answer.status_code == 202, answer.text
    assert answer.json()["input"]["question"] == text


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


class Listing:
    """Lists jobs of a kind that no other test uses."""

    def __init__(self, service: "Service") -> None:
        self.service = service
        self.kind = f"listed-{uuid4().hex}"

    def create(self, **fields: Json) -> str:
        id: str = self.service.create(kind=self.kind, **fields)["id"]
        return id

    def ids(self, **filters: Json) -> list[str]:
        answer = self.service.http.get("/v1/jobs", params={"kind": self.kind, **filters})
        assert answer.status_code == 200, answer.text
        assert answer.json()["next"] is None
        return [job["id"] for job in answer.json()["items"]]

    def walk(self, limit: int, sort: str, between: int = 0) -> list[str]:
        """All ids, page by page, with new jobs made after each of the first `between` pages."""
        params: dict[str, Json] = {"kind": self.kind, "sort": sort, "limit": limit}
        found: list[str] = []
        for n in range(100):
            answer = self.service.http.get("/v1/jobs", params=params).json()
            assert len(answer["items"]) <= limit
            found += [job["id"] for job in answer["items"]]
            if answer["next"] is None:
                return found
            params["cursor"] = answer["next"]
            if n < between:
                self.create()
        raise AssertionError("the list has no end")


@pytest.fixture
def listing(service: "Service") -> Listing:
    return Listing(service)


def test_a_list_shows_each_job_whole(service: "Service", listing: Listing, queue: str) -> None:
    id = listing.create(labels={"a": "b"}, queue=queue)
    service.claim(queue)
    answer = service.http.get("/v1/jobs", params={"kind": listing.kind}).json()
    assert answer == {"items": [service.job(id)], "next": None}


def test_each_filter_lists_what_it_names_and_repeated_values_are_alternatives(
    service: "Service", listing: Listing, queue: str
) -> None:
    red = listing.create(queue=queue, labels={"team": "red", "size": "1"})
    blue = listing.create(queue=f"{queue}-2", labels={"team": "blue", "size": "1"})
    plain = listing.create(queue=f"{queue}-3")
    service.claim(queue, "worker-a")
    service.claim(f"{queue}-2", "worker-b")
    service.report({"job_id": blue, "attempt": 1, "type": "completed"}, worker="worker-b")
    assert listing.ids() == [plain, blue, red]
    assert listing.ids(queue=queue) == [red]
    assert listing.ids(queue=[queue, f"{queue}-3"]) == [plain, red]
    assert listing.ids(status="running") == [red]
    assert listing.ids(status=["queued", "completed"]) == [plain, blue]
    assert listing.ids(label="team:red") == [red]
    assert listing.ids(label=["team:red", "team:blue"]) == [blue, red]
    assert listing.ids(label="size:1") == [blue, red]
    assert listing.ids(label="size:2") == []
    assert listing.ids(label="team:") == []
    assert listing.ids(worker="worker-a") == [red]
    assert listing.ids(worker=["worker-a", "worker-b"]) == [blue, red]
    assert listing.ids(kind=[listing.kind, "another"]) == [plain, blue, red]
    assert listing.ids(kind="another") == []


def test_filters_together_must_all_hold(service: "Service", listing: Listing, queue: str) -> None:
    wanted = listing.create(queue=queue, labels={"team": "red"})
    listing.create(queue=queue, labels={"team": "blue"})
    listing.create(queue=f"{queue}-2", labels={"team": "red"})
    assert listing.ids(queue=queue, label="team:red", status="queued") == [wanted]
    assert listing.ids(queue=queue, label="team:red", status="running") == []


def test_a_label_with_a_colon_in_its_value_is_found(listing: Listing) -> None:
    id = listing.create(labels={"url": "http://a:1"})
    assert listing.ids(label="url:http://a:1") == [id]


def test_scheduled_means_queued_for_later(service: "Service", listing: Listing, queue: str) -> None:
    later = listing.create(run_at="2040-01-01T00:00:00Z", queue=queue)
    now = listing.create(queue=queue)
    assert listing.ids(status="scheduled") == [later]
    assert listing.ids(status="queued") == [now, later]
    service.claim(queue)
    assert listing.ids(status=["scheduled", "running"]) == [now, later]
    service.cancel(later)
    assert listing.ids(status="scheduled") == []


def test_jobs_are_listed_by_when_they_were_created(service: "Service", listing: Listing) -> None:
    first, second, third = (listing.create() for _ in range(3))
    at = service.job(second)["created_at"]
    assert listing.ids(created_after=at) == [third]
    assert listing.ids(created_before=at) == [first]
    just_before = (datetime.fromisoformat(at) - timedelta(microseconds=1)).isoformat()
    assert listing.ids(created_after=just_before) == [third, second]
    assert listing.ids(created_after="0001-01-01T00:00:00Z", created_before="9999-12-31T23:59:59Z") == [
        third,
        second,
        first,
    ]
    assert listing.ids(created_after=datetime.now(UTC).replace(year=2090).isoformat()) == []


def test_a_list_is_newest_first_unless_sorted_otherwise(service: "Service", listing: Listing) -> None:
    first, second, third = (listing.create() for _ in range(3))
    service.cancel(second)
    assert listing.ids() == listing.ids(sort="-created_at") == [third, second, first]
    assert listing.ids(sort="created_at") == [first, second, third]
    assert listing.ids(sort="-updated_at") == [second, third, first]


@pytest.mark.parametrize("sort", ["-created_at", "created_at", "-updated_at"])
def test_paging_shows_every_job_once_while_others_are_created(listing: Listing, sort: str) -> None:
    before = [listing.create() for _ in range(11)]
    found = listing.walk(limit=3, sort=sort, between=3)
    assert len(found) == len(set(found))
    assert [id for id in found if id in before] == (before if sort == "created_at" else before[::-1])


def test_the_jobs_of_one_batch_are_paged_without_doubles(service: "Service", listing: Listing) -> None:
    body = {"jobs": [{"kind": listing.kind, "input": n} for n in range(9)]}
    ids = service.http.post("/v1/jobs/batch", json=body).json()["ids"]
    assert listing.walk(limit=2, sort="-updated_at") == ids[::-1]
    assert listing.walk(limit=9, sort="created_at") == ids


@pytest.mark.parametrize("sort", ["-created_at", "created_at", "-updated_at"])
def test_jobs_in_every_state_are_paged_in_one_order(
    service: "Service", listing: Listing, queue: str, sort: str
) -> None:
    retried, failed, done, running, cancelling = (
        listing.create(queue=f"{queue}-{n}", max_attempts=1 if n == 1 else 2) for n in range(5)
    )
    broken = {"attempt": 1, "type": "failed", "error": {"type": "Broken", "message": "it broke"}}
    for n in (4, 2, 0, 3, 1):
        service.claim(f"{queue}-{n}")
    service.report({"job_id": retried, **broken}, {"job_id": done, "attempt": 1, "type": "completed"})
    service.cancel(cancelling)
    later, fresh, cancelled = listing.create(run_at="2040-01-01T00:00:00Z"), listing.create(), listing.create()
    service.cancel(cancelled)
    service.report({"job_id": failed, **broken})
    jobs = [service.job(id) for id in (retried, failed, done, running, cancelling, later, fresh, cancelled)]
    assert {job["status"] for job in jobs} == {"queued", "running", "cancelling", "completed", "failed", "cancelled"}
    key = "updated_at" if sort == "-updated_at" else "created_at"
    ordered = sorted(jobs, key=lambda job: (job[key], job["id"]), reverse=sort.startswith("-"))
    for limit in (1, 3, 8):
        assert listing.walk(limit=limit, sort=sort) == [job["id"] for job in ordered]


def test_jobs_that_stay_as_they_are_are_paged_once_while_others_move(service: "Service", listing: Listing) -> None:
    ids = [listing.create() for _ in range(9)]
    params = {"kind": listing.kind, "sort": "-updated_at", "limit": "3"}
    found, moved = [], []
    for other in (ids[8], ids[0], ids[4]):
        page = service.http.get("/v1/jobs", params=params).json()
        found += [job["id"] for job in page["items"]]
        service.cancel(other)
        moved.append(other)
        if page["next"] is None:
            break
        params["cursor"] = page["next"]
    stayed = [id for id in reversed(ids) if id not in moved]
    assert [id for id in found if id in stayed] == stayed
    assert len(found) == len(set(found))


def test_the_link_header_leads_to_the_next_page_of_the_same_list(service: "Service", listing: Listing) -> None:
    ids = [listing.create(labels={"a": "b&c=é"}) for _ in range(3)]
    params = {"kind": listing.kind, "label": "a:b&c=é", "limit": "2"}
    answer = service.http.get("/v1/jobs", params=params)
    following = re.fullmatch(r'<(/v1/jobs\?.*)>; rel="next"', answer.headers["link"])
    assert following is not None
    last = service.http.get(following[1])
    assert [job["id"] for job in last.json()["items"]] == [ids[0]]
    assert last.json()["next"] is None
    assert "link" not in last.headers


def test_a_list_has_fifty_jobs_unless_told_otherwise(service: "Service", listing: Listing) -> None:
    body = {"jobs": [{"kind": listing.kind, "input": n} for n in range(51)]}
    service.http.post("/v1/jobs/batch", json=body)
    answer = service.http.get("/v1/jobs", params={"kind": listing.kind}).json()
    assert len(answer["items"]) == 50
    assert answer["next"] is not None
    assert len(listing.ids(limit=1000)) == 51


def test_a_cursor_of_another_list_is_refused(service: "Service", listing: Listing) -> None:
    listing.create()
    listing.create()
    params = {"kind": listing.kind, "limit": "1"}
    cursor = service.http.get("/v1/jobs", params=params).json()["next"]
    for other in (
        {"limit": "1", "cursor": cursor},
        {**params, "cursor": cursor, "sort": "created_at"},
        {**params, "cursor": cursor, "status": "queued"},
        {**params, "cursor": cursor[:-4]},
        {**params, "cursor": cursor + "AAAA"},
        {**params, "cursor": "garbage"},
        {**params, "cursor": ""},
    ):
        assert service.invalid(service.http.get("/v1/jobs", params=other)) == ["cursor"]
    assert service.http.get("/v1/jobs", params={**params, "cursor": cursor, "limit": "7"}).status_code == 200


def test_a_cursor_whose_moment_has_no_offset_is_refused(service: "Service", listing: Listing) -> None:
    """Nobody was given such a one, and it cannot be compared with the end of a span."""
    listing.create()
    listing.create()
    params = {"kind": listing.kind, "limit": "1", "created_before": "2999-01-01T00:00:00Z"}
    cursor = service.http.get("/v1/jobs", params=params).json()["next"]
    list_id, id, at = json.loads(urlsafe_b64decode(cursor))
    made = urlsafe_b64encode(json.dumps([list_id, id, at.removesuffix("Z")]).encode()).decode()
    assert service.invalid(service.http.get("/v1/jobs", params={**params, "cursor": made})) == ["cursor"]


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


def test_pages_of_large_jobs_and_of_their_events_end_early_and_are_complete(api: str) -> None:
    kind = str(uuid4())
    job = {"kind": kind, "queue": "nobody", "input": "x" * 250_000}
    created = httpx2.post(f"{api}/v1/jobs/batch", json={"jobs": [job] * 100}, timeout=60).json()["ids"]

    listed: list[str] = []
    asked: dict[str, str] = {"kind": kind, "limit": "1000", "sort": "created_at"}
    pages = 0
    while True:
        page = httpx2.get(f"{api}/v1/jobs", params=asked, timeout=60).json()
        listed += [item["id"] for item in page["items"]]
        pages += 1
        if page["next"] is None:
            break
        asked["cursor"] = page["next"]
    assert (listed, pages) == (created, 2)

    told: list[str] = []
    asked = {"kind": kind, "limit": "1000"}
    while True:
        page = httpx2.get(f"{api}/v1/events", params=asked, timeout=60).json()
        told += [item["job_id"] for item in page["items"]]
        if page["next"] is None:
            break
        asked["after"] = page["next"]
    assert told == created
