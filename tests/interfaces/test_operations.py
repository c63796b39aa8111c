"""What operators see and ask: projections, queues, workers, failures, usage, stats."""

from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from msgspec.json import encode

from tests.conftest import Start
from tests.interfaces.conftest import Service
from tests.waiting import eventually

Json = Any


@pytest.fixture(scope="module", autouse=True)
def projector(dsn: str, start_for_module: Start) -> None:
    """One runs."""
    start_for_module("projector", DATABASE_URL=dsn).wait_for_line("following the log")


def get(service: Service, path: str, **query: Json) -> Json:
    answer = service.http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def projection(service: Service, name: str) -> Json:
    return next(item for item in get(service, "/v1/projections")["items"] if item["name"] == name)


def queue_of(service: Service, queue: str) -> Json:
    before = queue[:-1]  # the names of queues before it are shorter, or of other tests
    return next((q for q in get(service, "/v1/queues", cursor=before)["items"] if q["name"] == queue), None)


def failing(service: Service, queue: str, message: str, kind: str = "test") -> str:
    job = service.running(queue, kind=kind)
    error = {"type": "ShopError", "message": message}
    [said] = service.report({"job_id": job["id"], "attempt": 1, "type": "failed", "error": error, "final": True})
    assert said["ok"]
    id: str = job["id"]
    return id


def test_projections_are_behind_by_nothing_when_nothing_happens(service: Service, queue: str) -> None:
    service.completed(queue)
    eventually(lambda: all(item["lag_events"] == 0 for item in get(service, "/v1/projections")["items"]))
    names = [item["name"] for item in get(service, "/v1/projections")["items"]]
    assert names == ["failures", "jobs", "stats", "totals", "usage", "workers"]
    stats = projection(service, "stats")
    assert (stats["state"], stats["generation"], stats["lag_seconds"], stats["parked"]) == ("live", 1, 0.0, None)
    assert stats["events"] >= 3


def test_stats_tell_of_the_window_and_of_now(service: Service, queue: str) -> None:
    service.completed(queue)
    service.running(queue)
    service.create(queue=queue)

    def lane() -> Json:
        items = get(service, "/v1/stats", queue=queue)["items"]
        whole = items and items[0]["statuses"]["queued"] == 1 and items[0]["created"] == 3
        return items[0] if whole else None

    eventually(lane)
    told = lane()
    assert (told["queue"], told["kind"]) == (queue, "test")
    assert told["statuses"] == {
        "queued": 1, "running": 1, "cancelling": 0, "completed": 1, "failed": 0, "cancelled": 0,
    }  # fmt: skip
    assert (told["created"], told["started"], told["completed"], told["failed"]) == (3, 2, 1, 0)
    assert told["wait"]["count"] == 2
    assert told["run"]["count"] == 1
    assert 0 < told["wait"]["p50"] <= told["wait"]["p99"] < 60
    assert told["completed_per_second"] > 0
    yesterday = datetime.now(UTC) - timedelta(days=1)
    before = get(service, "/v1/stats", queue=queue, to=yesterday.isoformat())
    assert before["items"][0]["created"] == 0
    assert before["run"] == {"count": 0, "p50": None, "p90": None, "p95": None, "p99": None}


@pytest.mark.parametrize("name", ["a/b", "/", "a//b/", "%2F", "a%2Fb", "../x", "ü/é", "pauses", "a/pauses"])
def test_a_queue_of_any_name_is_paused(service: Service, queue: str, name: str) -> None:
    called = f"{name}{queue}/{name}"
    service.create(queue=called)
    place = f"/v1/queues/{quote(called, '')}/pauses"
    assert service.http.post(place, json={"reason": "out of paper"}).status_code == 201
    assert queue_of(service, called)["paused"]["reason"] == "out of paper"
    assert service.http.delete(place).status_code == 204
    assert queue_of(service, called)["paused"] is None
    assert service.http.post(f"/v1/queues/{called}/paused", json={"reason": "r"}).status_code == 404


def test_a_paused_queue_gives_no_claims_until_it_is_not(service: Service, queue: str) -> None:
    answer = service.http.post(f"/v1/queues/{queue}/pauses", json={"reason": "out of paper"})
    assert answer.status_code == 201
    pause = answer.json()
    assert (pause["by"], pause["reason"]) == ("anonymous", "out of paper")
    again = service.http.post(f"/v1/queues/{queue}/pauses", json={"reason": "still"})
    assert again.json() == pause
    job = first_unclaimed(service, queue)
    service.create(queue=f"{queue}-other")
    body = {"worker": "w1", "queues": [queue, f"{queue}-other"], "max": 10}
    assert [one["queue"] for one in service.http.post("/v1/claims", json=body).json()["jobs"]] == [f"{queue}-other"]
    why = get(service, f"/v1/jobs/{job}/why")["reasons"]
    assert why[0].startswith(f"queue '{queue}' is paused since ")
    assert why[0].endswith("by anonymous: out of paper")
    assert queue_of(service, queue)["paused"] == pause

    assert service.http.delete(f"/v1/queues/{queue}/pauses").status_code == 204
    assert service.http.delete(f"/v1/queues/{queue}/pauses").status_code == 204
    eventually(lambda: [one["id"] for one in service.claim(queue)] == [job])
    assert queue_of(service, queue)["paused"] is None


def test_what_runs_when_its_queue_is_paused_goes_on(service: Service, queue: str) -> None:
    service.create(queue=queue)
    [running] = service.claim(queue, claim_id="held")
    assert service.http.post(f"/v1/queues/{queue}/pauses", json={"reason": "stop"}).status_code == 201
    first_unclaimed(service, queue)
    assert [one["id"] for one in service.claim(queue, claim_id="held")] == [running["id"]]
    assert service.report({"job_id": running["id"], "attempt": 1, "type": "completed", "result": None})[0]["ok"]


def test_a_pause_reaches_another_server_within_two_seconds(
    service: Service, dsn: str, start: Start, queue: str
) -> None:
    other = Service(start("api", "--port", "0", DATABASE_URL=dsn).url, dsn)
    other.create(queue=queue)
    assert len(other.claim(queue)) == 1
    pause = service.http.post(f"/v1/queues/{queue}/pauses", json={"reason": "stop"}).json()
    first_unclaimed(other, queue)
    started = [event["at"] for event in get(service, "/v1/events", type="job.started", limit=10_000)["items"]]
    late = datetime.fromisoformat(pause["since"]) + timedelta(seconds=2)
    assert all(datetime.fromisoformat(at) <= late for at in started)
    other.close()


def first_unclaimed(service: Service, queue: str) -> str:
    """The first job that is not handed out any more."""
    unclaimed: list[str] = []

    def paused() -> bool:
        id = service.create(queue=queue)["id"]
        if not service.claim(queue):
            unclaimed.append(id)
        return bool(unclaimed)

    eventually(paused)
    return unclaimed[0]


def test_queues_say_what_waits_and_runs(service: Service, queue: str) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    service.running(queue)
    service.create(queue=queue)
    service.create(queue=queue, priority=5)
    service.create(queue=queue, run_at=tomorrow)
    told = queue_of(service, queue)
    assert (told["ready"], told["scheduled"], told["running"], told["paused"]) == (2, 1, 1, None)
    assert 0 <= told["oldest_waiting_seconds"] < 60
    first = get(service, "/v1/queues", limit=1)
    assert first["next"] == first["items"][0]["name"]
    assert get(service, "/v1/queues", limit=1, cursor=first["next"])["items"][0]["name"] > first["next"]


def test_workers_are_shown_with_what_they_hold(service: Service, queue: str) -> None:
    name = f"worker-{queue}"
    done = service.running(queue, worker=name)
    assert service.report({"job_id": done["id"], "attempt": 1, "type": "completed", "result": None}, worker=name)
    held = service.running(queue, worker=name)

    def worker() -> Json:
        found = [one for one in get(service, "/v1/workers", limit=1000)["items"] if one["name"] == name]
        return found[0] if found and found[0]["started"] == 2 and found[0]["completed"] == 1 else None

    eventually(worker)
    told = worker()
    assert (told["holding"], told["failed"], told["missed"], told["released"]) == (1, 0, 0, 0)
    assert [(job["job_id"], job["attempt"]) for job in told["jobs"]] == [(held["id"], 1)]
    assert told["first_seen"] < told["last_seen"]


def test_workers_that_only_wait_are_shown_with_what_they_ask_for(service: Service, queue: str) -> None:
    idle = {"worker": f"idle-{queue}", "queues": [queue, f"{queue}-2"], "kinds": ["paint"]}

    def worker() -> Json:
        assert service.http.post("/v1/claims", json=idle).json() == {"jobs": []}
        return next((w for w in get(service, "/v1/workers", limit=1000)["items"] if w["name"] == idle["worker"]), None)

    eventually(worker)
    told = worker()
    assert (told["queues"], told["kinds"], told["holding"], told["started"]) == (idle["queues"], ["paint"], 0, 0)


def test_failures_are_listed_last_seen_first(service: Service, queue: str) -> None:
    ids = [failing(service, queue, message, kind=queue) for message in ("no paper 1", "no ink 2", "no paper 3")]

    def listed() -> Json:
        items = get(service, "/v1/failures", limit=1000)["items"]
        found = [item for item in items if item["kind"] == queue]
        return found if sum(item["count"] for item in found) == 3 else None

    eventually(listed)
    assert [(item["message"], item["count"], item["final"]) for item in listed()] == [
        ("no paper 3", 2, 2),
        ("no ink 2", 1, 1),
    ]
    assert listed()[0]["examples"] == [ids[0], ids[2]]
    first = get(service, "/v1/failures", limit=1)
    assert first["items"] == [listed()[0]]
    assert get(service, "/v1/failures", limit=1, cursor=first["next"])["items"] == [listed()[1]]
    crafted = urlsafe_b64encode(encode((datetime.now(UTC), "a\0", "", "", b""))).decode()
    for cursor in ("bm9uZQ==", crafted):
        assert service.invalid(service.http.get("/v1/failures", params={"cursor": cursor})) == ["cursor"]


def test_usage_is_summed_by_what_is_asked_for(service: Service, queue: str) -> None:
    """Since the day it begins on, which may be over, and with it the month, before it ends."""
    begun = datetime.now(UTC).date()
    since = {"from": begun.isoformat()}
    job = service.running(queue, kind=queue)
    output = {"usage": {"model": "m1", "input_tokens": 100, "output_tokens": 7}}
    said = {"job_id": job["id"], "attempt": 1}
    [done, ended] = service.report(
        {**said, "type": "progressed", "step": "ask", "output": output},
        {**said, "type": "completed", "result": None},
    )
    assert done["ok"]
    assert ended["ok"]
    eventually(lambda: len([u for u in get(service, "/v1/usage", **since)["items"] if u["kind"] == queue]) == 2)
    items = {item["model"]: item for item in get(service, "/v1/usage", **since)["items"] if item["kind"] == queue}
    assert (items["m1"]["input_tokens"], items["m1"]["output_tokens"], items["m1"]["attempts"]) == (100, 7, 0)
    assert items[""]["attempts"] == 1
    assert items[""]["seconds"] > 0
    assert begun.isoformat() <= items[""]["day"] <= datetime.now(UTC).date().isoformat()
    by_model = {item["model"]: item for item in get(service, "/v1/usage", group="model", **since)["items"]}
    assert by_model["m1"]["input_tokens"] == 100
    assert by_model["m1"]["kind"] is None
    assert get(service, "/v1/usage", to="2020-01-31")["items"] == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/usage?from=2026-02-01&to=2026-01-01", "from"),
        ("/v1/usage?group=size", "group[0]"),
        ("/v1/stats?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("/v1/workers?seen_within=0", "seen_within"),
        ("/v1/queues?limit=0", "limit"),
        ("/v1/projections?what=1", "what"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_by_name(service: Service, path: str, field: str) -> None:
    assert service.invalid(service.http.get(path)) == [field]


def test_projections_that_nobody_knows_are_not_found(service: Service) -> None:
    for what in ("rebuilds", "verifications"):
        service.problem(service.http.post(f"/v1/projections/nothing/{what}", json={"reason": "why"}), 404, "not-found")
    body = {"action": "skip", "reason": "why"}
    service.problem(service.http.post("/v1/projections/nothing/resumptions", json=body), 404, "not-found")
    service.problem(service.http.post("/v1/projections/stats/resumptions", json=body), 409, "conflict")
    rebuilt = service.http.post("/v1/projections/jobs/rebuilds", json={"reason": "why"}).json()
    assert (rebuilt["rebuild"], rebuilt["verification"]["mends"]) == (None, True)
