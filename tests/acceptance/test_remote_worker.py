"""A worker without a database: `jobledger worker --url`, with real processes and plugs to pull."""

from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.acceptance.test_first_light import create, events, job
from tests.doors import door

Start = Callable[..., Any]
WaitUntil = Callable[[Callable[[], Any], str], Any]


@pytest.fixture
def server(start: Start, dsn: str) -> Any:
    return start("api", "--port", "0", DATABASE_URL=dsn)


def test_a_question_becomes_a_page_and_an_artifact_is_uploaded(
    start: Start, server: Any, wait_until: WaitUntil
) -> None:
    worker = start("worker", "--url", server.url)
    worker.wait_for_line(f"working at {server.url}")
    asked = httpx2.post(f"{server.url}/v1/visualizations", json={"question": "What is 15 % of 80?"}, timeout=30)
    id = asked.json()["id"]
    wait_until(lambda: job(server.url, id)["status"] == "completed", "the page")
    page = httpx2.get(f"{server.url}/v1/visualizations/{id}/html", timeout=30)
    assert page.headers["etag"] == f'"{job(server.url, id)["artifacts"][0]["sha256"]}"'
    assert worker.stop() == 0


def test_a_worker_takes_jobs_of_the_queues_it_is_told_to(
    start: Start, dsn: str, server: Any, handlers: Any, wait_until: WaitUntil
) -> None:
    """With a database or over HTTP; of no other queue, but for the first that of bulk jobs."""
    handlers.go()
    left = create(server.url, "three-steps")
    for queue, where in (("near", {"DATABASE_URL": dsn}), ("far", {"JOBLEDGER_URL": server.url})):
        worker = start("worker", "--queues", f"{queue},spare", **where, **handlers.environment)
        id = create(server.url, "three-steps", queue=queue)
        wait_until(lambda: job(server.url, id)["status"] == "completed", f"the job of {queue}")  # noqa: B023  asked at once
        assert worker.stop() == 0
    assert job(server.url, left)["status"] == "queued"
    queues = httpx2.get(f"{server.url}/v1/queues", timeout=30).json()["items"]
    assert [queue["name"] for queue in queues if queue["ready"]] == ["default"]
    httpx2.post(f"{server.url}/v1/jobs/{left}/cancellations", json={"reason": "left"}, timeout=30).raise_for_status()


def test_kill_9_of_the_server_costs_no_attempt_and_no_step(
    start: Start, dsn: str, server: Any, handlers: Any, wait_until: WaitUntil
) -> None:
    url = server.url
    worker = start("worker", "--url", url, **handlers.environment)
    id = create(url, "three-steps", heartbeat_timeout=60)
    wait_until(lambda: "two" in handlers.calls, "the second step")
    server.kill()
    handlers.go()
    worker.wait_for_line(".unavailable")
    start("api", "--port", str(urlsplit(url).port), DATABASE_URL=dsn).wait_for_line("listening")
    wait_until(lambda: job(url, id)["status"] == "completed", "the job's end")
    assert handlers.calls == ["one", "two", "three"]
    assert job(url, id)["attempt"] == 1
    told = events(url, id)
    assert [e["data"]["step"] for e in told if "output" in e["data"]] == ["one", "two", "three"]
    assert sum(".unavailable" in line for line in worker.output) == 1


def test_a_killed_worker_is_rescued_and_a_second_finishes(
    start: Start, server: Any, handlers: Any, wait_until: WaitUntil
) -> None:
    first = start("worker", "--url", server.url, **handlers.environment)
    id = create(server.url, "three-steps", heartbeat_timeout=1)
    wait_until(lambda: "two" in handlers.calls, "the second step")
    first.kill()
    handlers.go()
    start("worker", JOBLEDGER_URL=server.url, **handlers.environment)
    wait_until(lambda: job(server.url, id)["status"] == "completed", "the job's end")
    assert handlers.calls == ["one", "two", "two", "three"]
    assert [e["type"] for e in events(server.url, id)].count("job.heartbeat_missed") == 1


def test_a_drain_gives_the_job_back_without_costing_an_attempt(
    start: Start, server: Any, handlers: Any, wait_until: WaitUntil
) -> None:
    worker = start("worker", "--url", server.url, "--grace", "1", **handlers.environment)
    id = create(server.url, "three-steps", heartbeat_timeout=60)
    wait_until(lambda: "two" in handlers.calls, "the second step")
    assert worker.stop() == 0
    told = [event["type"] for event in events(server.url, id)]
    assert told[-1] == "job.released"
    assert "job.heartbeat_missed" not in told
    httpx2.post(f"{server.url}/v1/jobs/{id}/cancellations", json={"reason": "done"}, timeout=30).raise_for_status()


def test_a_cancellation_reaches_the_handler(start: Start, server: Any, handlers: Any, wait_until: WaitUntil) -> None:
    start("worker", "--url", server.url, **handlers.environment)
    id = create(server.url, "three-steps", heartbeat_timeout=1)
    wait_until(lambda: "two" in handlers.calls, "the second step")
    httpx2.post(f"{server.url}/v1/jobs/{id}/cancellations", json={"reason": "enough"}, timeout=30).raise_for_status()
    wait_until(lambda: job(server.url, id)["status"] == "cancelled", "the cancellation")
    assert handlers.calls == ["one", "two"]


def test_two_workers_share_200_jobs_and_run_each_once(
    start: Start, server: Any, handlers: Any, wait_until: WaitUntil
) -> None:
    handlers.go()
    workers = [start("worker", "--url", server.url, "--concurrency", "5", **handlers.environment) for _ in range(2)]
    for worker in workers:
        worker.wait_for_line("worker.started")
    wanted = [{"kind": "three-steps", "input": {}, "labels": {"of": "two"}} for _ in range(200)]
    httpx2.post(f"{server.url}/v1/jobs/batch", json={"jobs": wanted}, timeout=30).raise_for_status()
    done = {"label": "of:two", "status": "completed", "limit": "1000"}

    def completed() -> list[Any]:
        return list(httpx2.get(f"{server.url}/v1/jobs", params=done, timeout=30).json()["items"])

    wait_until(lambda: len(completed()) == 200, "the end of all")
    assert Counter(handlers.calls) == {"one": 200, "two": 200, "three": 200}
    assert len({job["worker"] for job in completed()}) == 2
    assert {job["attempt"] for job in completed()} == {1}


def test_without_a_service_named_it_is_wrong_usage(start: Start) -> None:
    worker = start("worker")
    worker.wait_for_line("DATABASE_URL is not set, nor is JOBLEDGER_URL")
    assert worker.process.wait(30) == 2
    assert start("worker", "--url", "example.org").process.wait(30) == 2


@pytest.mark.parametrize("status", [401, 403])
def test_a_worker_whose_key_is_refused_says_what_to_do_and_ends(start: Start, status: int) -> None:
    with door(status) as url:
        worker = start("worker", "--url", url, JOBLEDGER_KEY="jl_client_0")
        assert "JOBLEDGER_KEY" in worker.wait_for_line("key.refused")
        worker.wait_for_line("jobledger: ")
        assert worker.process.wait(60) == 1
