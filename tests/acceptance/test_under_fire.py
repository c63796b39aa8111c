"""Under fire: servers, workers and the database are killed at random, and every job ends exactly once."""

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from signal import SIGKILL
from types import TracebackType
from typing import Any, Self

import httpx2
import psycopg
from msgspec.json import decode

from domain.audit import GENESIS, chain
from tests.followers import Follower
from tests.plugs import Plug
from tests.waiting import eventually

Start = Callable[..., Any]
Json = Any
JOBS = 5_000
SEED = 20
CALLERS = 8
SERVERS = 3
WORKERS = 2
STRIKES = 8
PATIENCE = 120.0
ENDS = {"job.completed", "job.failed", "job.cancelled"}
LASTING = {"worker": "lasting", "queues": ["lasting"]}
HANDLERS = '''
"""Two steps of some milliseconds."""

import asyncio
import random

from application.handlers import JobContext, handles


async def work(n: int) -> int:
    await asyncio.sleep(random.uniform(0.01, 0.05))
    return n


@handles("brief")
async def brief(job: JobContext, input: int) -> list[int]:
    one = await job.step("one", work, input)
    two = await job.step("two", work, one)
    return [one, two]
'''


class Fleet:
    """Servers at fixed addresses, workers and a database, each of which is struck and started again."""

    def __init__(self, start: Start, postgres: Plug, environment: dict[str, str]) -> None:
        self._start = start
        self._postgres = postgres
        self._environment = {"DATABASE_URL": postgres.dsn, **environment}
        self._ports = [_free_port() for _ in range(SERVERS)]
        self._servers = [self._server(port) for port in self._ports]
        self._workers = [self._worker() for _ in range(WORKERS)]
        self.urls = [server.url for server in self._servers]
        self.strikes: Counter[str] = Counter()

    def strike_server(self, number: int) -> None:
        self.strikes["servers"] += 1
        self._servers[number].kill()
        self._servers[number] = self._server(self._ports[number])

    def strike_worker(self, number: int) -> None:
        self.strikes["workers"] += 1
        self._workers[number].kill()
        self._workers[number] = self._worker()

    def strike_postgres(self) -> None:
        self.strikes["postgres"] += 1
        self._postgres.pull(SIGKILL)
        self._postgres.put_in()

    def _server(self, port: int) -> Any:
        return self._start("api", "--port", str(port), **self._environment)

    def _worker(self) -> Any:
        return self._start("worker", **self._environment)


class Caller:
    """A client that asks again, another server each time, until it is answered."""

    def __init__(self, urls: list[str], seed: int) -> None:
        self._urls = urls
        self._dice = random.Random(seed)
        self._http = httpx2.Client(timeout=20)

    def __call__(self, method: str, path: str, body: Json = None, **headers: str) -> Json:
        until = time.monotonic() + PATIENCE
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        while True:
            try:
                answer = self._http.request(method, self._dice.choice(self._urls) + path, json=body, headers=named)
                if answer.is_success:
                    return answer.json()
                assert answer.status_code >= 500, answer.text
            except httpx2.TransportError:
                pass
            assert time.monotonic() < until, f"{method} {path} is not answered"
            time.sleep(0.02)

    def report(self, **said: Json) -> None:
        """Say one thing of a job, until it is heard."""
        until = time.monotonic() + PATIENCE
        while True:
            [result] = self("POST", "/v1/reports", {"worker": "lasting", "reports": [said]})["results"]
            if result["ok"]:
                return
            assert result["problem"]["code"] == "unavailable", result
            assert time.monotonic() < until, "the report is not heard"
            time.sleep(0.02)

    def close(self) -> None:
        self._http.close()


class EventSource:
    """Follows a job to its end, going on at the next server whenever its stream breaks off."""

    def __init__(self, urls: list[str], path: str) -> None:
        self.on = 0
        self.hops = 0
        self.ids: list[int] = []
        self._urls = urls
        self._path = path
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._enough = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """It follows on to the job's end, which comes later, unless the test failed."""
        if error is not None:
            self._enough.set()
            self._thread.join(PATIENCE)

    def wait_for_end(self) -> list[int]:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), f"not ended after {len(self.ids)} messages"
        return self.ids

    def _follow(self) -> None:
        while not self._enough.is_set():
            seen = self.ids[-1] if self.ids else None
            with Follower(self._urls[self.on] + self._path, seen) as follower:
                while not follower.wait(lambda f: f.over, 0.2) and not self._enough.is_set():
                    pass
            self.ids += follower.ids
            if follower.status == 204 or (follower.messages and follower.messages[-1].type in ENDS):
                return
            self.on = (self.on + 1) % len(self._urls)
            self.hops += follower.status == 200


@contextmanager
def lasting(caller: Caller) -> Iterator[str]:
    """A job that reports progress all the while, and completes after that."""
    body = {"kind": "lasting", "queue": "lasting", "input": None, "heartbeat_timeout": 3600}
    id: str = caller("POST", "/v1/jobs", body, Idempotency_Key="lasting")["id"]
    [job] = caller("POST", "/v1/claims", {**LASTING, "wait": 10, "claim_id": "lasting"})["jobs"]
    said = {"job_id": job["id"], "attempt": job["attempt"]}
    enough = threading.Event()

    def work() -> None:
        count = 0
        while not enough.wait(0.02):
            count += 1
            caller.report(**said, type="progressed", progress=1 - 1 / (1 + count), message=f"step {count}")
        caller.report(**said, type="completed")

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            yield id
        finally:
            enough.set()
        working.result()


def test_every_acknowledged_job_ends_exactly_once_and_every_server_tells_the_same_story(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "brief_handlers.py").write_text(HANDLERS)
    begun = time.monotonic()
    with Plug(tmp_path / "postgres") as postgres, ExitStack() as stack:
        fleet = Fleet(start, postgres, {"JOBLEDGER_HANDLERS": "brief_handlers"})
        lasting_caller, *callers = (
            stack.enter_context(closing(Caller(fleet.urls, SEED + n))) for n in range(CALLERS + 1)
        )
        with (
            lasting(lasting_caller) as id,
            EventSource(fleet.urls, f"/v1/jobs/{id}/events") as follower,
            ThreadPoolExecutor(CALLERS) as pool,
        ):
            acknowledged: dict[str, str] = {}
            creating = [pool.submit(_create, caller, n, acknowledged) for n, caller in enumerate(callers)]
            _strike(fleet, follower, acknowledged)
            for each in creating:
                each.result()
            created = time.monotonic()
            _wait_for_all(callers[0], acknowledged)
            ended = time.monotonic()
        versions = follower.wait_for_end()
        assert versions == list(range(1, len(versions) + 1))
        assert follower.hops >= 2

        log = _check_log(postgres.dsn, acknowledged)
        assert log[id] == len(versions)
        stories = [_story(url) for url in fleet.urls]
        assert stories[1] == stories[0]
        assert stories[2] == stories[0]
    print(
        f"{len(acknowledged)} jobs, {sum(log.values())} events; struck {dict(fleet.strikes)}; created in "
        f"{created - begun:.1f} s, all ended {ended - created:.1f} s later; the follower saw {len(versions)} versions "
        f"over {follower.hops} hops"
    )


def _create(caller: Caller, number: int, acknowledged: dict[str, str]) -> None:
    """This caller's share of the jobs; now and then a request is repeated that was answered before."""
    dice = random.Random(number)
    for n in range(number, JOBS, CALLERS):
        retry = {"initial": 0.1, "factor": 1, "max": 0.1}
        body = {"kind": "brief", "input": n, "heartbeat_timeout": 2, "max_attempts": 1000, "retry": retry}
        for _ in range(dice.choice((1, 1, 2))):
            id = caller("POST", "/v1/jobs", body, Idempotency_Key=f"job {n}")["id"]
            assert acknowledged.setdefault(f"job {n}", id) == id


def _strike(fleet: Fleet, follower: EventSource, acknowledged: dict[str, str]) -> None:
    """Strike whenever another part of the jobs was acknowledged: twice the follower's server, once the database."""
    dice = random.Random(SEED)
    for strike in range(STRIKES):
        eventually(lambda: len(acknowledged) >= strike * JOBS // STRIKES, PATIENCE, "more jobs")  # noqa: B023  asked at once
        if strike in (2, 6):
            seen = len(follower.ids)
            fleet.strike_server(follower.on)
            eventually(lambda: len(follower.ids) > seen, PATIENCE, "what the follower saw before")  # noqa: B023
        elif strike == 4:
            fleet.strike_postgres()
        elif dice.random() < 0.5:
            fleet.strike_server(dice.randrange(SERVERS))
        else:
            fleet.strike_worker(dice.randrange(WORKERS))


def _wait_for_all(caller: Caller, acknowledged: dict[str, str]) -> None:
    left = set(acknowledged.values())
    until = time.monotonic() + PATIENCE
    while left:
        left = {id for id in left if caller("GET", f"/v1/jobs/{id}")["status"] != "completed"}
        assert time.monotonic() < until, f"{len(left)} jobs have not ended"


def _check_log(dsn: str, acknowledged: dict[str, str]) -> Counter[str]:
    """How many events each job has, once the whole log was found in order."""
    query = """
        SELECT originator_id, originator_version, topic, state, hash FROM events
        ORDER BY originator_id, originator_version
    """
    versions: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    keys: dict[str, str] = {}
    before = GENESIS
    with psycopg.connect(dsn) as connection:
        for id, version, topic, state, hash in connection.execute(query):
            versions[str(id)] += 1
            assert version == versions[str(id)]
            before = chain(before if version > 1 else GENESIS, id, version, topic, state)
            assert before == hash
            ends[str(id)] += topic in ENDS
            if topic == "job.created":
                key = decode(state)["idempotency_key"]
                assert keys.setdefault(key, str(id)) == str(id), f"{key} made two jobs"
    assert {**acknowledged, "lasting": keys["lasting"]} == keys
    assert set(ends.values()) == {1}
    assert len(keys) == JOBS + 1
    return versions


def _story(url: str) -> list[Json]:
    """All that a server tells: the jobs, the log, and the histories of some."""
    jobs: list[Json] = []
    cursor: str | None = ""
    with httpx2.Client(base_url=url, timeout=60) as http:
        while cursor is not None:
            page = http.get("/v1/jobs", params={"limit": 1000} | ({"cursor": cursor} if cursor else {})).json()
            jobs += page["items"]
            cursor = page["next"]
        assert len(jobs) == JOBS + 1
        log = http.get("/v1/events", headers={"Accept": "application/x-ndjson"}).text
        ids = [job["id"] for job in jobs[:: JOBS // 20]]
        return [jobs, log, *(http.get(f"/v1/jobs/{id}/events").json() for id in ids)]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
