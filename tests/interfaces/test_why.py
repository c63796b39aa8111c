"""Why a job is where it is, over HTTP."""

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest

from tests.waiting import eventually


@pytest.fixture
def ask(api: str) -> Callable[..., Any]:
    """Sends JSON, or asks, and returns what is answered."""

    def send(path: str, body: Any = None) -> Any:
        answer = httpx2.post(f"{api}{path}", json=body, timeout=30) if body is not None else httpx2.get(f"{api}{path}")
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    return send


def reason(ask: Callable[..., Any], id: str) -> str:
    return str(ask(f"/v1/jobs/{id}/why")["reasons"][0])


def create(ask: Callable[..., Any], queue: str, **fields: Any) -> str:
    return str(ask("/v1/jobs", {"kind": "k", "input": {}, "queue": queue, **fields})["id"])


def subscribe(ask: Callable[..., Any], dsn: str, queue: str, worker: str = "w7", **wanted: Any) -> None:
    """A worker asks for jobs of a queue in which there are none for it, and the server has written that down."""
    assert ask("/v1/claims", {"worker": worker, "queues": [queue], **wanted})["jobs"] == []
    with psycopg.connect(dsn, autocommit=True) as connection:
        query = "SELECT FROM claimers WHERE worker = %s AND %s = ANY(queues) AND kinds IS NOT DISTINCT FROM %s::text[]"
        values = (worker, queue, wanted.get("kinds"))
        eventually(lambda: connection.execute(query, values).fetchone() is not None)


def test_a_queue_to_which_no_worker_subscribes_is_told(ask: Callable[..., Any], dsn: str) -> None:
    queue = str(uuid4())
    id = create(ask, queue)
    assert reasons(ask, id) == [f'no worker subscribes to queue "{queue}"']
    late = create(ask, queue, run_at="2098-01-01T00:00:00Z")
    assert reasons(ask, late)[1] == f'no worker subscribes to queue "{queue}"'
    second = create(ask, queue)
    assert reasons(ask, second)[0] == f'no worker subscribes to queue "{queue}"'
    assert reasons(ask, second)[1].startswith("queued behind 1 job of")


def test_a_kind_that_no_worker_of_its_queue_handles_is_told(ask: Callable[..., Any], dsn: str) -> None:
    id = create(ask, queue := str(uuid4()))
    subscribe(ask, dsn, queue, kinds=["other"])
    assert reasons(ask, id) == [f'no worker of queue "{queue}" handles kind "k"']


def test_a_worker_that_has_not_asked_for_a_minute_subscribes_no_more_unless_it_holds_jobs(
    ask: Callable[..., Any], dsn: str
) -> None:
    queue, worker = str(uuid4()), str(uuid4())
    subscribe(ask, dsn, queue, worker)
    held, waiting = create(ask, queue, heartbeat_timeout=3600), create(ask, queue)
    with psycopg.connect(dsn, autocommit=True) as connection:
        age = "UPDATE claimers SET last_seen_at = now() - interval '2 minutes' WHERE worker = %s"
        connection.execute(age, (worker,))
        assert reason(ask, held) == f'no worker subscribes to queue "{queue}"'
        claim(ask, queue, worker)
        connection.execute(age, (worker,))
        assert "1 worker handles kind 'k'" in reason(ask, waiting)


def test_a_queued_job_is_told_how_many_go_first(ask: Callable[..., Any], dsn: str) -> None:
    queue = str(uuid4())
    subscribe(ask, dsn, queue)
    first, second = create(ask, queue), create(ask, queue)
    create(ask, queue, priority=5)
    assert f"behind 1 job of queue {queue!r} that has a higher priority or is older;" in reason(ask, first)
    assert "behind 2 jobs" in reason(ask, second)


def test_the_next_job_is_told_how_many_workers_it_waits_for(ask: Callable[..., Any], dsn: str) -> None:
    queue = str(uuid4())
    subscribe(ask, dsn, queue, "w1")
    subscribe(ask, dsn, queue, "w1", kinds=["k", "other"])
    subscribe(ask, dsn, queue, "w2", kinds=["k"])
    subscribe(ask, dsn, queue, "w3", kinds=["other"])
    waits = "2 workers handle kind 'k', once there is room; no worker holds a job of it"
    assert reasons(ask, create(ask, queue)) == [f"next in queue {queue!r}; {waits}"]


def test_a_scheduled_job_is_told_when_it_starts(ask: Callable[..., Any]) -> None:
    id = create(ask, str(uuid4()), run_at="2098-01-01T00:00:00Z")
    assert reason(ask, id).startswith("scheduled in ")


def claim(ask: Callable[..., Any], queue: str, worker: str = "w7") -> None:
    assert ask("/v1/claims", {"worker": worker, "queues": [queue], "wait": 20})["jobs"]


def say(ask: Callable[..., Any], id: str, **report: Any) -> None:
    [result] = ask("/v1/reports", {"worker": "w7", "reports": [{"job_id": id, "attempt": 1, **report}]})["results"]
    assert result["ok"], result


def reasons(ask: Callable[..., Any], id: str) -> list[str]:
    told = ask(f"/v1/jobs/{id}/why")
    assert told["status"] == ask(f"/v1/jobs/{id}")["status"]
    return list(told["reasons"])


FAILURE = {"type": "failed", "error": {"type": "E", "message": "no luck"}}


def test_a_queue_of_which_no_worker_holds_a_job_is_told(ask: Callable[..., Any], dsn: str) -> None:
    queue = str(uuid4())
    subscribe(ask, dsn, queue)
    first, second = create(ask, queue), create(ask, queue)
    assert "no worker holds a job of it" in reason(ask, second)
    claim(ask, queue)
    assert reason(ask, first).startswith("attempt 1 runs")
    assert "1 job of it is running" in reason(ask, second)


def test_a_running_job_is_told_who_runs_it_and_how_far_it_is(ask: Callable[..., Any]) -> None:
    id = create(ask, queue := str(uuid4()))
    claim(ask, queue)
    say(ask, id, type="progressed", progress=0.5, message="half of it")
    runs, said = reasons(ask, id)
    assert re.fullmatch("attempt 1 runs on worker 'w7', last beat [0-9]+ s ago, the lease ends in [0-9]+ s", runs)
    assert said == "at 50%, half of it"


def test_a_job_past_its_time_limit_is_told_so(ask: Callable[..., Any]) -> None:
    id = create(ask, queue := str(uuid4()), time_limit=0.001)
    claim(ask, queue)
    assert reasons(ask, id)[1].endswith("past its time limit of 0 s; its worker has not stopped it")


def test_a_job_whose_lease_has_run_out_is_due_for_rescue(ask: Callable[..., Any], dsn: str) -> None:
    id = create(ask, queue := str(uuid4()), heartbeat_timeout=3600)
    claim(ask, queue)
    with psycopg.connect(dsn) as connection:  # of a timeout so long that no server rescues it meanwhile
        connection.execute("UPDATE leases SET expires_at = now() WHERE job_id = %s", (id,))
    assert reason(ask, id).endswith("rescue due")


def test_a_job_that_is_to_stop_is_told_who_asked_and_why(ask: Callable[..., Any]) -> None:
    id = create(ask, queue := str(uuid4()))
    claim(ask, queue)
    ask(f"/v1/jobs/{id}/cancellations", {"reason": "not needed"})
    say(ask, id, type="progressed", progress=0.5)
    asked = reasons(ask, id)[1]
    assert asked.startswith("anonymous asked to stop it, at 20")
    assert asked.endswith(": not needed; its worker has not answered yet")


def test_a_job_that_waits_for_another_attempt_is_told_which_and_what_failed(ask: Callable[..., Any], dsn: str) -> None:
    queue = str(uuid4())
    subscribe(ask, dsn, queue)
    id = create(ask, queue)
    claim(ask, queue)
    say(ask, id, **FAILURE, retry_in=900)
    again, failed = reasons(ask, id)
    assert again.startswith("attempt 2 of 3 in 15 min, at 20")
    assert failed.startswith("attempt 1 failed, at 20")
    assert failed.endswith(": no luck")


def test_a_job_whose_worker_was_lost_is_told_which(ask: Callable[..., Any]) -> None:
    id = create(ask, queue := str(uuid4()), heartbeat_timeout=0.1, retry={"initial": 0})
    claim(ask, queue)
    assert any(ask(f"/v1/jobs/{id}")["status"] == "queued" for _ in range(5000))
    assert reasons(ask, id)[1].startswith("attempt 1 was lost: no heartbeat from worker 'w7' since 20")


def test_a_job_that_was_given_back_is_told_by_whom_and_why(ask: Callable[..., Any], dsn: str) -> None:
    queue = str(uuid4())
    subscribe(ask, dsn, queue)
    id = create(ask, queue)
    claim(ask, queue)
    say(ask, id, type="released", reason="a deploy")
    waits, released = reasons(ask, id)
    assert waits.startswith("next in queue")
    assert released.startswith("worker 'w7' gave it back, at 20")
    assert released.endswith(": a deploy")


def test_a_finished_job_is_told_how_it_ended(ask: Callable[..., Any]) -> None:
    done, broken, stopped = (create(ask, str(uuid4()), max_attempts=1) for _ in range(3))
    given_up = create(ask, str(uuid4()))
    for id in (done, broken, given_up):
        claim(ask, ask(f"/v1/jobs/{id}")["queue"])
    say(ask, given_up, **FAILURE, final=True)
    assert reasons(ask, given_up)[1] == "its handler gave up, with 1 of 3 attempts used"
    say(ask, done, type="completed", result=1)
    say(ask, broken, **FAILURE)
    ask(f"/v1/jobs/{stopped}/cancellations", {"reason": "not needed"})
    moment = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    assert re.fullmatch(f"completed by 'w7' in attempt 1, at {moment}", reasons(ask, done)[0])
    assert reasons(ask, broken)[0].startswith("failed in attempt 1, at 20")
    assert reasons(ask, broken)[0].endswith(": no luck")
    assert reasons(ask, broken)[1] == "1 attempt failed, and no more are allowed"
    assert reasons(ask, stopped)[0].startswith("cancelled by anonymous, at 20")
    assert reasons(ask, stopped)[0].endswith(": not needed")


def test_a_requeued_job_is_told_by_whom_and_whether_it_kept_its_steps(ask: Callable[..., Any], dsn: str) -> None:
    queue = str(uuid4())
    subscribe(ask, dsn, queue)
    id = create(ask, queue)
    for afresh, steps in ((False, "with its recorded steps"), (True, "without its recorded steps")):
        ask(f"/v1/jobs/{id}/cancellations", {"reason": "not needed"})
        ask(f"/v1/jobs/{id}/retries", {"reason": "needed", "afresh": afresh})
        waits, requeued = reasons(ask, id)
        assert waits.startswith("next in queue")
        assert requeued.startswith(f"requeued by anonymous {steps}, at 20")
        assert requeued.endswith(": needed")


def test_an_unknown_job_has_no_reasons(api: str) -> None:
    assert httpx2.get(f"{api}/v1/jobs/{uuid4()}/why").status_code == 404
