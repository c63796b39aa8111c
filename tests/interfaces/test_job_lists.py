"""Lists of jobs over HTTP: filtered, sorted, and paged without doubles or gaps while others are made."""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx2
import pytest

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service

Json = Any


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
    assert listing.ids(created_after="2090-01-01T00:00:00Z") == []


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
