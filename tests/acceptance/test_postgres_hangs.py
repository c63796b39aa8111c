"""Postgres hangs: it is there and does not answer. Reads are refused, nothing piles up, and nobody is rescued."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import psutil  # type: ignore[import-untyped]
import pytest

from tests.plugs import Plug

WaitUntil = Callable[[Callable[[], Any], str], Any]
ANSWERED_SECONDS = 15.0
"""Within which a read is refused; it takes two to five."""
AT_ONCE = 24
MOST_NEW_THREADS = 20
MOST_CONNECTIONS = 30


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Plug]:
    with Plug(tmp_path / "postgres") as postgres:
        yield postgres


def reads(id: str) -> list[tuple[str, dict[str, str]]]:
    return [
        ("/v1/jobs", {}),
        ("/v1/jobs?status=queued&kind=test&sort=-updated_at", {}),
        (f"/v1/jobs/{id}", {}),
        (f"/v1/jobs/{id}?at_version=1", {}),
        (f"/v1/jobs/{id}?as_of=2026-01-01T00:00:00Z", {}),
        (f"/v1/jobs/{id}/diff?from=1&to=1", {}),
        (f"/v1/jobs/{id}/why", {}),
        (f"/v1/jobs/{id}/events", {}),
        ("/v1/events", {}),
        ("/v1/events?type=job.created", {"accept": "application/x-ndjson"}),
        ("/readyz", {}),
    ]


def test_reads_are_refused_in_time_while_postgres_hangs_and_served_when_it_goes_on(
    start: Callable[..., Any], postgres: Plug, wait_until: WaitUntil
) -> None:
    api = start("api", "--port", "0", DATABASE_URL=postgres.dsn)
    process = psutil.Process(api.process.pid)
    limits = httpx2.Limits(max_connections=AT_ONCE)
    with httpx2.Client(base_url=api.url, timeout=90, limits=limits) as http, ThreadPoolExecutor(AT_ONCE) as pool:
        new = {"kind": "test", "input": 0, "run_at": "2090-01-01T00:00:00Z"}
        id = http.post("/v1/jobs", json=new).json()["id"]

        def get(wanted: tuple[str, dict[str, str]]) -> tuple[str, httpx2.Response, float]:
            begun = time.monotonic()
            answer = http.get(wanted[0], headers=wanted[1])
            return wanted[0], answer, time.monotonic() - begun

        for path, answer, _ in pool.map(get, reads(id)):
            assert answer.status_code in (200, 404), path  # in January 2026 the job was not there
        threads = process.num_threads()
        with postgres.frozen():
            slowest = 0.0
            for path, answer, took in pool.map(get, 4 * reads(id)):
                assert answer.status_code == 503, f"{path}: {answer.text}"
                if path != "/readyz":
                    assert answer.json()["code"] == "unavailable"
                slowest = max(slowest, took)
                assert took < ANSWERED_SECONDS, path
            print(f"slowest refusal: {slowest:.1f} s")
            assert http.get("/livez").status_code == 200
            assert process.num_threads() <= threads + MOST_NEW_THREADS
        for wanted in reads(id):
            wait_until(lambda wanted=wanted: get(wanted)[1].status_code in (200, 404), wanted[0])  # type: ignore[misc]
        assert len(process.net_connections("unix")) <= MOST_CONNECTIONS


def test_workers_that_a_hanging_postgres_could_not_hear_are_not_rescued(
    start: Callable[..., Any], postgres: Plug, handlers: Any, wait_until: WaitUntil
) -> None:
    api = start("api", "--port", "0", DATABASE_URL=postgres.dsn)
    worker = psutil.Process(start("worker", DATABASE_URL=postgres.dsn, **handlers.environment).process.pid)
    with httpx2.Client(base_url=api.url, timeout=90) as http:
        new = {"kind": "three-steps", "input": {}, "heartbeat_timeout": 3}
        id = http.post("/v1/jobs", json=new).json()["id"]

        def beat() -> datetime:
            return datetime.fromisoformat(http.get(f"/v1/jobs/{id}").json()["heartbeat_at"])

        wait_until(lambda: "two" in handlers.calls, "the second step")
        first = beat()
        wait_until(lambda: beat() - first > timedelta(seconds=4), "contact for more than a lease")
        with postgres.frozen():
            worker.suspend()  # so that its heartbeat does not come at the very moment when Postgres goes on
            refused = [http.get(f"/v1/jobs/{id}").status_code for _ in range(3)]  # after two seconds each
        thawed = datetime.now(UTC)
        wait_until(lambda: http.get(f"/v1/jobs/{id}").status_code == 200, "an answer")
        worker.resume()
        wait_until(lambda: beat() > thawed, "a heartbeat")
        handlers.go()
        wait_until(lambda: http.get(f"/v1/jobs/{id}").json()["status"] == "completed", "the end")
        types = [event["type"].removeprefix("job.") for event in http.get(f"/v1/jobs/{id}/events").json()["items"]]
    assert refused == [503] * 3
    assert [type for type in types if type != "progressed"] == ["created", "started", "completed"]
    assert handlers.calls == ["one", "two", "three"]
