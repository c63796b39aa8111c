"""Workers over HTTP: claiming jobs, and saying what became of them."""

import threading
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service

Json = Any


def test_a_claimed_job_has_all_its_worker_needs(service: "Service", queue: str) -> None:
    service.create(queue=queue, kind="resize", input={"n": [1]}, heartbeat_timeout=4000.5, time_limit=60)
    [claimed] = service.claim(queue)
    started = datetime.fromisoformat(service.job(claimed["id"])["started_at"])
    assert claimed == {
        "id": claimed["id"],
        "kind": "resize",
        "queue": queue,
        "attempt": 1,
        "input": {"n": [1]},
        "steps": {},
        "handles": {},
        "deadline": claimed["deadline"],
        "lease_expires_at": claimed["lease_expires_at"],
        "heartbeat_timeout": 4000.5,
        "time_limit": 60.0,
        "progress": 0.0,
        "trace": None,
    }
    assert datetime.fromisoformat(claimed["deadline"]) == started + timedelta(seconds=60)
    assert datetime.fromisoformat(claimed["lease_expires_at"]) == started + timedelta(seconds=4000.5)


def test_a_claim_makes_the_job_run(service: "Service", queue: str) -> None:
    job = service.job(service.running(queue, worker="builder")["id"])
    assert (job["status"], job["worker"], job["attempt"], job["version"]) == ("running", "builder", 1, 2)
    assert job["started_at"] == job["updated_at"] == job["heartbeat_at"]


def test_higher_priority_goes_first_and_the_oldest_within_one(service: "Service", queue: str) -> None:
    made = {
        name: service.create(queue=queue, priority=priority)["id"]
        for name, priority in (("low", -5), ("old", 0), ("high", 100), ("young", 0), ("higher than low", -4))
    }
    taken = [service.claim(queue)[0]["id"] for _ in range(2)] + [job["id"] for job in service.claim(queue, max=10)]
    assert taken == [made[name] for name in ("high", "old", "young", "higher than low", "low")]


def test_the_oldest_goes_first_whatever_its_kind(service: "Service", queue: str) -> None:
    ids = [service.create(queue=queue, kind=kind)["id"] for kind in ("z", "a", "m", "a")]
    assert [job["id"] for job in service.claim(queue, max=10)] == ids


def test_a_job_of_the_future_is_not_claimed(service: "Service", queue: str) -> None:
    service.create(queue=queue, run_at="2040-01-01T00:00:00Z", priority=100)
    due = service.create(queue=queue, run_at="2020-01-01T00:00:00Z")
    assert [job["id"] for job in service.claim(queue, max=10)] == [due["id"]]


def test_a_job_is_claimed_once_its_moment_has_come(service: "Service", queue: str) -> None:
    now = datetime.fromisoformat(service.create()["created_at"])
    job = service.create(queue=queue, run_at=(now + timedelta(seconds=0.7)).isoformat())
    assert service.claim(queue) == []
    [claimed] = service.claim(queue, wait=20)
    assert claimed["id"] == job["id"]
    assert service.job(job["id"])["started_at"] >= job["run_at"]


def test_only_the_kinds_that_were_named_are_claimed(service: "Service", queue: str) -> None:
    a, _, c = (service.create(queue=queue, kind=kind)["id"] for kind in ("a", "b", "c"))
    assert [job["id"] for job in service.claim(queue, kinds=["c", "a", "unheard-of"], max=10)] == [a, c]
    assert service.claim(queue, kinds=["unheard-of"]) == []


def test_jobs_of_several_queues_are_claimed_by_priority(service: "Service", queue: str) -> None:
    one = service.create(queue=queue)["id"]
    two = service.create(queue=f"{queue}-2", priority=1)["id"]
    service.create(queue=f"{queue}-3", priority=2)
    claimed = service.claim(queue, queues=[queue, f"{queue}-2", queue], max=10)
    assert [(job["id"], job["queue"]) for job in claimed] == [(two, f"{queue}-2"), (one, queue)]


def test_no_more_than_asked_are_claimed_and_none_twice(service: "Service", queue: str) -> None:
    body = {"jobs": [{"kind": "test", "input": n, "queue": queue} for n in range(7)]}
    ids = service.http.post("/v1/jobs/batch", json=body).json()["ids"]
    claims = [[job["id"] for job in service.claim(queue, f"w{n}", max=3)] for n in range(4)]
    assert [len(claim) for claim in claims] == [3, 3, 1, 0]
    assert [id for claim in claims for id in claim] == ids


def test_a_cancelled_job_is_not_claimed(service: "Service", queue: str) -> None:
    service.cancel(service.create(queue=queue)["id"])
    assert service.claim(queue) == []


def test_a_waiting_claim_is_answered_as_soon_as_a_job_is_created(service: "Service", queue: str) -> None:
    made: list[Json] = []
    creator = threading.Timer(0.5, lambda: made.append(service.create(queue=queue)))
    begun = time.monotonic()
    creator.start()
    [claimed] = service.claim(queue, wait=30)
    taken = time.monotonic() - begun
    creator.join()
    assert claimed["id"] == made[0]["id"]
    assert 0.5 <= taken < 10


def test_a_waiting_claim_is_answered_as_soon_as_a_job_is_given_back(service: "Service", queue: str) -> None:
    job = service.running(queue)
    said = {"job_id": job["id"], "attempt": 1, "type": "released", "reason": "deploy"}
    giver = threading.Timer(0.5, lambda: service.report(said))
    giver.start()
    [claimed] = service.claim(queue, wait=30)
    giver.join()
    assert (claimed["id"], claimed["attempt"]) == (job["id"], 2)


def test_a_claim_without_work_ends_when_its_wait_does(service: "Service", queue: str) -> None:
    begun = time.monotonic()
    assert service.claim(queue, wait=0.6) == []
    assert 0.6 <= time.monotonic() - begun < 10


def test_a_repeated_claim_answers_the_same_jobs_and_costs_no_attempt(service: "Service", queue: str) -> None:
    for _ in range(4):
        service.create(queue=queue)
    claim_id = uuid4().hex
    first = service.claim(queue, max=3, claim_id=claim_id)
    before = service.recorded()
    again = service.claim(queue, max=3, claim_id=claim_id)
    assert [(job["id"], job["attempt"]) for job in again] == [(job["id"], 1) for job in first]
    assert len(first) == 3
    assert service.recorded() == before


def test_a_repeated_claim_answers_only_what_it_still_holds(service: "Service", queue: str) -> None:
    for _ in range(3):
        service.create(queue=queue)
    claim_id = uuid4().hex
    ended, kept = service.claim(queue, max=2, claim_id=claim_id)
    service.report({"job_id": ended["id"], "attempt": 1, "type": "completed"})
    assert [job["id"] for job in service.claim(queue, max=2, claim_id=claim_id)] == [kept["id"]]


def test_a_claim_id_is_its_workers_own(service: "Service", queue: str) -> None:
    service.create(queue=queue)
    service.create(queue=queue)
    [mine] = service.claim(queue, "w1", claim_id="shared")
    [theirs] = service.claim(queue, "w2", claim_id="shared")
    assert mine["id"] != theirs["id"]


def test_a_heartbeat_extends_the_lease_and_records_nothing(service: "Service", queue: str) -> None:
    job = service.running(queue)
    before, recorded = service.job(job["id"])["heartbeat_at"], service.recorded()
    [beat] = service.report({"job_id": job["id"], "attempt": 1, "type": "heartbeat"})
    assert beat == {"ok": True, "version": 2, "cancel_requested": False}
    assert service.job(job["id"])["heartbeat_at"] > before
    assert service.recorded() == recorded


def test_progress_is_shown_and_handed_to_the_next_attempt(service: "Service", queue: str) -> None:
    job = service.running(queue)
    said = {"job_id": job["id"], "attempt": 1, "type": "progressed"}
    results = [
        service.report({**said, "progress": 0.25, "step": "analysis", "output": {"n": 1}})[0],
        service.report({**said, "progress": 0.5, "step": "render", "handle": "outside-7", "message": "rendering"})[0],
    ]
    assert results == [{"ok": True, "version": version, "cancel_requested": False} for version in (3, 4)]
    shown = service.job(job["id"])
    assert (shown["progress"], shown["step"], shown["message"]) == (0.5, "render", "rendering")
    service.report({"job_id": job["id"], "attempt": 1, "type": "released", "reason": "deploy"})
    [again] = service.claim(queue, "w2")
    assert again["attempt"] == 2
    assert again["steps"] == {"analysis": {"n": 1}}
    assert again["handles"] == {"render": "outside-7"}
    assert again["progress"] == 0.5


def test_progress_never_falls_within_an_attempt(service: "Service", queue: str) -> None:
    job = service.running(queue)
    said = {"job_id": job["id"], "attempt": 1, "type": "progressed"}
    service.report({**said, "progress": 0.75})
    [lower] = service.report({**said, "progress": 0.5, "message": "going on"})
    assert lower["ok"]
    assert service.job(job["id"])["progress"] == 0.75


def test_a_step_is_recorded_once(service: "Service", queue: str) -> None:
    job = service.running(queue)
    said = {"job_id": job["id"], "attempt": 1, "type": "progressed", "step": "s"}
    service.report({**said, "output": 1})
    [other] = service.report({**said, "output": 2})
    assert other["problem"]["code"] == "conflict"
    service.report({"job_id": job["id"], "attempt": 1, "type": "released", "reason": "deploy"})
    assert service.claim(queue)[0]["steps"] == {"s": 1}


def test_an_output_without_a_step_is_refused(service: "Service", queue: str) -> None:
    job = service.running(queue)
    [refused] = service.report({"job_id": job["id"], "attempt": 1, "type": "progressed", "output": 1})
    assert refused["problem"]["code"] == "invalid"
    assert [error["field"] for error in refused["problem"]["errors"]] == ["step"]
    assert service.job(job["id"])["version"] == 2


def test_a_completed_job_shows_its_result(service: "Service", queue: str) -> None:
    job = service.completed(queue, result={"answer": [42, None]})
    assert (job["status"], job["result"], job["progress"]) == ("completed", {"answer": [42, None]}, 1.0)
    assert job["finished_at"] == job["updated_at"]
    assert (job["worker"], job["heartbeat_at"], job["error"]) == ("w1", None, None)


def test_a_failed_attempt_is_tried_again_when_it_asks_to(service: "Service", queue: str) -> None:
    job = service.running(queue)
    error = {"type": "Busy", "message": "try me later", "detail": {"seconds": 0}}
    [result] = service.report({"job_id": job["id"], "attempt": 1, "type": "failed", "error": error, "retry_in": 0})
    assert result == {"ok": True, "version": 3, "cancel_requested": False}
    shown = service.job(job["id"])
    assert (shown["status"], shown["error"], shown["worker"]) == ("queued", error, None)
    assert [(again["id"], again["attempt"]) for again in service.claim(queue)] == [(job["id"], 2)]


def test_a_failed_attempt_is_not_tried_again_before_its_time(service: "Service", queue: str) -> None:
    job = service.running(queue)
    error = {"type": "Busy", "message": "in an hour"}
    service.report({"job_id": job["id"], "attempt": 1, "type": "failed", "error": error, "retry_in": 3600})
    shown = service.job(job["id"])
    waits = datetime.fromisoformat(shown["run_at"]) - datetime.fromisoformat(shown["updated_at"])
    assert (shown["status"], waits) == ("queued", timedelta(hours=1))
    assert service.claim(queue) == []


def test_a_final_failure_is_not_tried_again(service: "Service", queue: str) -> None:
    job = service.running(queue)
    error = {"type": "GiveUp", "message": "cannot work"}
    service.report({"job_id": job["id"], "attempt": 1, "type": "failed", "error": error, "final": True})
    shown = service.job(job["id"])
    assert (shown["status"], shown["error"], shown["attempt"]) == ("failed", error, 1)


def test_the_last_attempt_to_fail_fails_the_job(service: "Service", queue: str) -> None:
    id = service.create(queue=queue, max_attempts=2)["id"]
    for attempt, status in ((1, "queued"), (2, "failed")):
        service.claim(queue)
        error = {"type": "Broken", "message": f"attempt {attempt} broke"}
        service.report({"job_id": id, "attempt": attempt, "type": "failed", "error": error, "retry_in": 0})
        assert service.job(id)["status"] == status
    assert service.job(id)["error"]["message"] == "attempt 2 broke"


def test_a_released_job_is_queued_again_and_costs_no_attempt(service: "Service", queue: str) -> None:
    id = service.create(queue=queue, max_attempts=1)["id"]
    for attempt in (1, 2):
        service.claim(queue)
        service.report({"job_id": id, "attempt": attempt, "type": "released", "reason": "deploy"})
        assert service.job(id)["status"] == "queued"
    assert service.claim(queue)[0]["attempt"] == 3


def test_a_job_nobody_asked_to_cancel_is_not_cancelled_by_its_worker(service: "Service", queue: str) -> None:
    job = service.running(queue)
    [refused] = service.report({"job_id": job["id"], "attempt": 1, "type": "cancelled"})
    assert refused["problem"]["code"] == "conflict"
    assert service.job(job["id"])["status"] == "running"


def test_heartbeats_and_progress_hear_of_a_cancellation(service: "Service", queue: str) -> None:
    job = service.running(queue)
    service.cancel(job["id"])
    said = {"job_id": job["id"], "attempt": 1}
    [beat] = service.report({**said, "type": "heartbeat"})
    [progressed] = service.report({**said, "type": "progressed", "progress": 0.5})
    assert (beat["ok"], beat["cancel_requested"]) == (True, True)
    assert (progressed["ok"], progressed["cancel_requested"]) == (True, True)


def test_a_completion_after_a_cancellation_completes_the_job(service: "Service", queue: str) -> None:
    job = service.running(queue)
    service.cancel(job["id"])
    [done] = service.report({"job_id": job["id"], "attempt": 1, "type": "completed", "result": "too late"})
    assert done["ok"]
    shown = service.job(job["id"])
    assert (shown["status"], shown["result"], shown["error"]) == ("completed", "too late", None)


@pytest.mark.parametrize(
    "said",
    [
        {"type": "released", "reason": "deploy"},
        {"type": "failed", "error": {"type": "Broken", "message": "it broke"}, "retry_in": 0},
    ],
    ids=["released", "failed"],
)
def test_a_job_that_is_given_up_while_cancelling_is_cancelled(service: "Service", queue: str, said: Json) -> None:
    job = service.running(queue)
    service.cancel(job["id"], "enough")
    service.report({"job_id": job["id"], "attempt": 1, **said})
    assert service.job(job["id"])["status"] == "cancelled"
    assert service.types(job["id"])[-2:] == [f"job.{said['type']}", "job.cancelled"]


def test_each_report_is_answered_on_its_own_merits_and_in_order(service: "Service", queue: str) -> None:
    good = service.running(queue)["id"]
    stale = service.running(queue)["id"]
    service.report({"job_id": stale, "attempt": 1, "type": "released", "reason": "deploy"})
    service.claim(queue)
    foreign = service.running(queue, worker="w2")["id"]
    finished = service.completed(queue)["id"]
    beating = service.running(queue)["id"]
    waiting = service.create(queue=queue)["id"]
    unknown = str(uuid4())
    completed = {"attempt": 1, "type": "completed"}
    results = service.report(
        {"job_id": good, **completed, "result": 1},
        {"job_id": stale, **completed},
        {"job_id": foreign, **completed},
        {"job_id": unknown, **completed},
        {"job_id": finished, **completed, "result": "another"},
        {"job_id": finished, **completed, "result": None},
        {"job_id": beating, "attempt": 1, "type": "heartbeat"},
        {"job_id": stale, "attempt": 1, "type": "heartbeat"},
        {"job_id": foreign, "attempt": 1, "type": "heartbeat"},
        {"job_id": unknown, "attempt": 1, "type": "heartbeat"},
        {"job_id": finished, "attempt": 1, "type": "heartbeat"},
        {"job_id": waiting, **completed},
        {"job_id": beating, "attempt": 2, "type": "completed"},
    )
    assert [result["ok"] or result["problem"]["code"] for result in results] == [
        True,
        "lease-lost",
        "lease-lost",
        "not-found",
        "job-finished",
        True,
        True,
        "lease-lost",
        "lease-lost",
        "not-found",
        "job-finished",
        "lease-lost",
        "lease-lost",
    ]
    statuses = {"lease-lost": 409, "not-found": 404, "job-finished": 409}
    for result in results:
        if not result["ok"]:
            told = result["problem"]
            assert result.keys() == {"ok", "problem"}
            assert (told["type"], told["status"]) == (f"/problems/{told['code']}", statuses[told["code"]])
    assert service.job(good)["status"] == "completed"
    assert service.job(stale)["status"] == service.job(foreign)["status"] == "running"
    assert service.job(finished)["result"] is None


@pytest.mark.parametrize(
    "said",
    [
        {"type": "completed", "result": {"n": 1}},
        {"type": "failed", "error": {"type": "Broken", "message": "it broke", "detail": [1]}, "final": True},
        {"type": "failed", "error": {"type": "Broken", "message": "it broke"}, "retry_in": 3600},
        {"type": "released", "reason": "deploy"},
        {"type": "progressed", "progress": 0.5, "step": "s", "output": {"n": 1}, "message": "half"},
    ],
    ids=["completed", "failed for good", "failed", "released", "progressed"],
)
def test_an_exact_repeat_is_answered_as_done_and_recorded_once(service: "Service", queue: str, said: Json) -> None:
    report = {"job_id": service.running(queue)["id"], "attempt": 1, **said}
    first = service.report(report)
    before = service.recorded()
    assert service.report(report) == first
    assert service.report(report, report) == [*first, *first]
    assert first[0]["ok"]
    assert service.recorded() == before


def test_a_repeat_from_before_another_attempt_is_answered_as_done(service: "Service", queue: str) -> None:
    job = service.running(queue)
    report = {"job_id": job["id"], "attempt": 1, "type": "released", "reason": "deploy"}
    service.report(report)
    service.claim(queue, "w2")
    before = service.recorded()
    [again] = service.report(report)
    assert again["ok"]
    assert service.recorded() == before
    assert service.job(job["id"])["worker"] == "w2"


def test_two_workers_who_report_the_same_attempt_do_not_both_win(service: "Service", queue: str) -> None:
    job = service.running(queue, worker="w1")
    said = {"job_id": job["id"], "attempt": 1, "type": "completed", "result": "mine"}
    [theirs], [mine] = service.report(said, worker="w2"), service.report(said, worker="w1")
    assert (theirs["problem"]["code"], mine["ok"]) == ("lease-lost", True)


def test_no_reports_have_no_results(service: "Service") -> None:
    assert service.report() == []


def test_a_result_that_is_too_large_is_refused_alone(service: "Service", queue: str) -> None:
    large, small = service.running(queue)["id"], service.running(queue)["id"]
    results = service.report(
        {"job_id": large, "attempt": 1, "type": "completed", "result": "x" * (256 * 1024)},
        {"job_id": small, "attempt": 1, "type": "completed", "result": "x" * (256 * 1024 - 2)},
    )
    assert (results[0]["problem"]["code"], results[1]["ok"]) == ("too-large", True)
    assert service.job(large)["status"] == "running"


def test_an_expired_lease_is_rescued_and_its_worker_has_lost_it(service: "Service", queue: str) -> None:
    job = service.running(queue, heartbeat_timeout=0.3, retry={"initial": 0})
    [rescued] = service.claim(queue, "w2", wait=30)
    assert (rescued["id"], rescued["attempt"]) == (job["id"], 2)
    said = {"job_id": job["id"], "attempt": 1}
    late = service.report({**said, "type": "completed"}, {**said, "type": "heartbeat"}, {**said, "type": "progressed"})
    assert [result["problem"]["code"] for result in late] == ["lease-lost"] * 3
    assert service.types(job["id"])[:4] == ["job.created", "job.started", "job.heartbeat_missed", "job.started"]
