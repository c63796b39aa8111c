"""Postgres away: refusals at once while it is gone, everything as before once it is back, and no attempt charged."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.followers import Follower
from tests.plugs import Plug

Start = Callable[..., Any]
WaitUntil = Callable[[Callable[[], Any], str], Any]
Json = Any
REFUSED_SECONDS = 2.0
"""Within which a request is refused while the database is gone."""
BACK_SECONDS = 10.0
"""Within which everything serves again; it takes about one second."""
HEARTBEAT_TIMEOUT = 1.5
AWAY_SECONDS = 2 * HEARTBEAT_TIMEOUT
SAID = {"attempt": 1, "type": "progressed", "progress": 0.5}


class Client:
    """Speaks to one server, and notes how long the answers took that told of an outage."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.refusals: list[float] = []
        self._http = httpx2.Client(base_url=url, timeout=90)

    def __call__(self, method: str, path: str, body: Json = None, **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        begun = time.monotonic()
        answer = self._http.request(method, path, json=body, headers=named)
        if answer.status_code == 503:
            self.refusals.append(time.monotonic() - begun)
        return answer

    def create(self, **fields: Json) -> str:
        answer = self("POST", "/v1/jobs", {"kind": "nobody-handles-this", "input": {}, **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def close(self) -> None:
        self._http.close()


def requests(id: str) -> Iterator[tuple[str, str, Json, dict[str, str]]]:
    """One of each kind."""
    new = {"kind": "nobody-handles-this", "input": {}}
    yield "POST", "/v1/jobs", new, {}
    yield "POST", "/v1/jobs", new, {"Idempotency_Key": uuid4().hex}
    yield "POST", "/v1/jobs/batch", {"jobs": [new]}, {}
    yield "GET", "/v1/jobs", None, {}
    yield "GET", f"/v1/jobs/{id}", None, {}
    yield "GET", f"/v1/jobs/{id}", None, {"Prefer": "wait=20"}
    yield "GET", f"/v1/jobs/{id}?at_version=1", None, {}
    yield "GET", f"/v1/jobs/{id}?as_of=2026-01-01T00:00:00Z", None, {}
    yield "GET", f"/v1/jobs/{id}/diff?from=1&to=2", None, {}
    yield "GET", f"/v1/jobs/{id}/events", None, {}
    yield "GET", f"/v1/jobs/{id}/events", None, {"Accept": "application/x-ndjson"}
    yield "GET", f"/v1/jobs/{id}/events", None, {"Accept": "text/event-stream"}
    yield "GET", f"/v1/jobs/{id}/artifacts", None, {}
    yield "GET", "/v1/events", None, {}
    yield "GET", "/v1/events", None, {"Accept": "application/x-ndjson"}
    yield "POST", f"/v1/jobs/{id}/cancellations", {"reason": "enough"}, {}
    yield "POST", f"/v1/jobs/{id}/retries", {"reason": "again"}, {}
    yield "POST", "/v1/claims", {"worker": "w", "queues": ["a"], "wait": 20}, {}
    yield "POST", "/v1/visualizations", {"question": "What is 15 % of 80?"}, {}
    yield "GET", f"/v1/visualizations/{id}", None, {}


@contextmanager
def creating(url: str) -> Iterator[dict[str, str]]:
    """Jobs created all the while under keys, asking again until each is acknowledged: key to job."""
    acknowledged: dict[str, str] = {}
    slowest: list[float] = []
    enough = threading.Event()

    def create(number: int) -> None:
        client = Client(url)
        count = 0
        while not enough.is_set():
            count += 1
            key = f"{number}-{count}"
            while True:
                answer = client("POST", "/v1/jobs", {"kind": "kept", "input": key}, Idempotency_Key=key)
                if answer.status_code == 202:
                    acknowledged[key] = answer.json()["id"]
                    break
                assert answer.status_code == 503, answer.text
                enough.wait(0.05)
                if enough.is_set():
                    break
        slowest.append(max(client.refusals, default=0.0))
        client.close()

    with ThreadPoolExecutor(4) as pool:
        running: list[Future[None]] = [pool.submit(create, number) for number in range(4)]
        try:
            yield acknowledged
        finally:
            enough.set()
        for each in running:
            each.result()
    print(f"slowest refusal of a creation that was under way: {max(slowest):.2f} s")
    assert max(slowest) < REFUSED_SECONDS


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["fast shutdown", "kill -9"])
def test_what_is_asked_while_postgres_is_away_is_refused_at_once_and_nothing_is_lost(
    start: Start, handlers: Any, wait_until: WaitUntil, tmp_path: Path, how: signal.Signals
) -> None:
    with Plug(tmp_path / "postgres") as postgres, ThreadPoolExecutor(4) as pool:
        api = start("api", "--port", "0", DATABASE_URL=postgres.dsn)
        start("worker", DATABASE_URL=postgres.dsn, **handlers.environment)
        ask = Client(api.url)
        before = [ask.create() for _ in range(20)]
        running = ask.create(kind="three-steps", heartbeat_timeout=HEARTBEAT_TIMEOUT, max_attempts=1)
        wait_until(lambda: "two" in handlers.calls, "the second step")
        claimer, looker = Client(api.url), Client(api.url)
        claim = pool.submit(claimer, "POST", "/v1/claims", {"worker": "w", "queues": ["a"], "wait": 10})
        look = pool.submit(looker, "GET", f"/v1/jobs/{running}", Prefer="wait=60")
        follower, of_all = Follower(f"{api.url}/v1/jobs/{running}/events"), Follower(f"{api.url}/v1/events")
        with follower, of_all:
            follower.wait_for(3)
            of_all.wait_for(23)
            with creating(api.url) as acknowledged:
                wait_until(lambda: len(acknowledged) > 50, "some jobs")
                postgres.pull(how)
                gone = time.monotonic()
                _check_refusals(ask, running)
                while time.monotonic() < gone + AWAY_SECONDS:
                    assert ask("GET", "/livez").status_code == 200
                    assert ask("GET", f"/v1/jobs/{running}").status_code == 503
                    time.sleep(0.1)
                postgres.put_in()
                back = time.monotonic()
                _until_served(ask, running)
                served = time.monotonic() - back
                count = len(acknowledged)
                wait_until(lambda: len(acknowledged) > count + 20, "more jobs")
            print(f"refused within {max(ask.refusals):.2f} s, served again after {served:.2f} s")
            assert max(ask.refusals) < REFUSED_SECONDS
            assert served < BACK_SECONDS
            assert claim.result().status_code in (200, 503)

            handlers.go()
            assert look.result().status_code in (200, 503)
            wait_until(lambda: ask("GET", f"/v1/jobs/{running}").json()["status"] == "completed", "the job's end")
            history = ask("GET", f"/v1/jobs/{running}/events").json()["items"]
            assert [message.data for message in follower.wait_for_end()] == history
            log = ask("GET", "/v1/events?limit=10000").json()["items"]
            assert [message.data for message in of_all.wait_for(len(log))] == log
        assert ask("GET", f"/v1/jobs/{running}").json()["attempt"] == 1
        assert handlers.calls == ["one", "two", "three"]
        assert {ask("GET", f"/v1/jobs/{id}").status_code for id in (*before, *acknowledged.values())} == {200}
        kept = [event for event in log if event["type"] == "job.created" and event["data"]["kind"] == "kept"]
        keys = [event["data"]["idempotency_key"] for event in kept]
        assert len(set(keys)) == len(keys)
        assert set(keys) >= acknowledged.keys()
        for client in (ask, claimer, looker):
            client.close()


def _check_refusals(ask: Client, id: str) -> None:
    for method, path, body, headers in requests(id):
        answer = ask(method, path, body, **headers)
        assert answer.status_code == 503, f"{method} {path}: {answer.text}"
        assert (answer.json()["code"], answer.headers["retry-after"]) == ("unavailable", "1"), path
    said = {"worker": "w", "reports": [{"job_id": id, **SAID}, {"job_id": id, "attempt": 1, "type": "heartbeat"}]}
    results = ask("POST", "/v1/reports", said).json()["results"]
    assert [result["problem"]["code"] for result in results] == ["unavailable", "unavailable"]
    ready = ask("GET", "/readyz")
    assert (ready.status_code, ready.json()["status"], len(ready.json()["reasons"])) == (503, "not-ready", 1)
    assert ask("GET", "/livez").status_code == 200


def _until_served(ask: Client, id: str) -> None:
    """Until each kind of request is served again, and the worker works."""
    until = time.monotonic() + BACK_SECONDS
    new = {"kind": "visualization", "input": {"question": "What is 15 % of 80?"}}
    done = None
    while done is None or ask("GET", f"/v1/jobs/{done}").json().get("status") != "completed":
        assert time.monotonic() < until, "not served again"
        if done is None and (answer := ask("POST", "/v1/jobs", new)).status_code == 202:
            done = answer.json()["id"]
        time.sleep(0.01)
    for path in (f"/v1/jobs/{id}", "/v1/jobs", "/v1/events", f"/v1/jobs/{id}?at_version=1", "/readyz"):
        assert ask("GET", path).status_code == 200, path
