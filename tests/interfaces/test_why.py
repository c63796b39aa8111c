"""Why a job is where it is, over HTTP."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx2
import pytest


@pytest.fixture
def ask(api: str) -> Callable[..., Any]:
    """Sends JSON, or asks, and returns what is answered."""

    def send(path: str, body: Any = None) -> Any:
        answer = httpx2.post(f"{api}{path}", json=body) if body is not None else httpx2.get(f"{api}{path}")
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    return send


def reason(ask: Callable[..., Any], id: str) -> str:
    return str(ask(f"/v1/jobs/{id}/why")["reasons"][0])


def create(ask: Callable[..., Any], queue: str, **fields: Any) -> str:
    return str(ask("/v1/jobs", {"kind": "k", "input": {}, "queue": queue, **fields})["id"])


def test_a_queued_job_is_told_how_many_go_first(ask: Callable[..., Any]) -> None:
    queue = str(uuid4())
    first, second = create(ask, queue), create(ask, queue)
    create(ask, queue, priority=5)
    assert "behind 1 jobs" in reason(ask, first)
    assert "behind 2 jobs" in reason(ask, second)


def test_the_next_job_is_told_which_worker_it_waits_for(ask: Callable[..., Any]) -> None:
    queue = str(uuid4())
    assert "for a worker of kind 'k' with room" in reason(ask, create(ask, queue))


def test_a_scheduled_job_is_told_when_it_starts(ask: Callable[..., Any]) -> None:
    id = create(ask, str(uuid4()), run_at="2098-01-01T00:00:00Z")
    assert reason(ask, id).startswith("scheduled in ")


def test_a_job_goes_through_its_life_with_a_reason_for_each_state(ask: Callable[..., Any]) -> None:
    queue = str(uuid4())
    id = create(ask, queue, retry={"initial": 1000, "max": 1000})
    ask("/v1/claims", {"worker": "w7", "queues": [queue]})
    assert reason(ask, id).startswith("attempt 1 runs on worker 'w7', last beat 0 s ago, the lease ends in ")

    failed = {
        "job_id": id,
        "attempt": 1,
        "type": "failed",
        "error": {"type": "E", "message": "no luck"},
        "retry_in": 900,
    }
    ask("/v1/reports", {"worker": "w7", "reports": [failed]})
    assert reason(ask, id).startswith("attempt 2 starts in 15 min")
    assert ask(f"/v1/jobs/{id}/why")["reasons"][1] == "the last attempt failed: no luck"

    ask(f"/v1/jobs/{id}/cancellations", {"reason": "not needed"})
    assert reason(ask, id).endswith("not needed")


def test_an_unknown_job_has_no_reasons(api: str) -> None:
    assert httpx2.get(f"{api}/v1/jobs/{uuid4()}/why").status_code == 404
