"""Following jobs and the whole log over HTTP: live, in pages and by waiting, on whichever server."""

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit
from uuid import UUID, uuid4

import httpx2
import psycopg
import pytest

from application.following import Following, History, LogEntry, LogFilter
from application.jobs import EventView, Jobs
from domain.job import Cause
from infrastructure.news import LocalNews
from tests.followers import PATIENCE, Follower
from tests.infrastructure.nodes import Node, new_job
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.interfaces.conftest import Service

Json = Any
SOON = 3.0
"""Seconds within which news from another server must come; it takes some milliseconds."""
SILENCE = 0.5
"""Seconds in which what must not come does not."""
WRITERS = 3
BATCHES = 40


@pytest.fixture(scope="module")
def other(service: "Service", dsn: str, start_for_module: "Start") -> Iterator["Service"]:
    """Another API server over the same database."""
    speaker = type(service)(start_for_module("api", "--port", "0", DATABASE_URL=dsn).url, dsn)
    yield speaker
    speaker.close()


@pytest.fixture
def node(dsn: str) -> Iterator[Node]:
    """A writer whose transactions the test holds open."""
    with Node(dsn) as writer:
        yield writer


def of_job(service: "Service", id: str, last_id: str | int | None = None) -> Follower:
    return Follower(f"{service.url}/v1/jobs/{id}/events", last_id)


def of_log(service: "Service", last_id: str | int | None = None, **query: str) -> Follower:
    return Follower(f"{service.url}/v1/events?{urlencode(query)}", last_id)


def progress(service: "Service", job: Json, *fractions: float) -> None:
    said = {"job_id": job["id"], "attempt": job["attempt"], "type": "progressed"}
    assert all(result["ok"] for result in service.report(*({**said, "progress": each} for each in fractions)))


def complete(service: "Service", job: Json) -> None:
    [done] = service.report({"job_id": job["id"], "attempt": job["attempt"], "type": "completed"})
    assert done["ok"]


def lived(service: "Service", queue: str) -> Json:
    """A job with five events that has completed."""
    job = service.running(queue)
    progress(service, job, 0.25, 0.5)
    complete(service, job)
    return service.job(job["id"])


def whole_log(service: "Service", after: str, **query: Json) -> list[Json]:
    """What the log has above a position, once all of it is safe to read: an open transaction anywhere holds it back."""
    answer = service.http.get("/v1/events", params={"after": after, "limit": 10_000, **query})
    assert answer.status_code == 200, answer.text
    assert answer.json()["next"] is None
    items: list[Json] = answer.json()["items"]
    return items


def log_with(service: "Service", after: str, position: str, **query: Json) -> list[Json]:
    """The log above a position, once it reaches another one."""
    until = time.monotonic() + PATIENCE
    while True:
        items = whole_log(service, after)
        if any(int(item["position"]) >= int(position) for item in items):
            return whole_log(service, after, **query) if query else items
        assert time.monotonic() < until, "the log does not get there"
        time.sleep(0.05)


# One job, live


def test_a_jobs_events_come_as_they_are_recorded_on_another_server(
    service: "Service", other: "Service", queue: str
) -> None:
    job = service.running(queue)
    with of_job(service, job["id"]) as follower:
        follower.wait_for(2, SOON)
        for fraction in (0.25, 0.5, 0.75):
            progress(other, job, fraction)
            follower.wait_for(len(other.events(job["id"])), SOON)
        complete(other, job)
        messages = follower.wait_for_end(SOON)
    assert (follower.status, follower.media_type) == (200, "text/event-stream; charset=utf-8")
    assert follower.comment_first
    recorded = other.events(job["id"])
    assert [message.data for message in messages] == recorded
    assert [(message.id, message.type) for message in messages] == [(str(e["version"]), e["type"]) for e in recorded]


def test_a_follower_goes_on_exactly_where_it_was_on_another_server(
    service: "Service", other: "Service", queue: str
) -> None:
    job = service.running(queue)
    progress(service, job, 0.25, 0.5, 0.75)
    for seen in range(6):
        with of_job(other, job["id"], seen) as follower:
            if seen < 5:
                follower.wait_for(5 - seen, SOON)
            assert not follower.begun().over
            assert follower.ids == list(range(seen + 1, 6))
    with of_job(other, job["id"], 5) as follower:
        follower.begun()
        complete(service, job)
        assert [message.id for message in follower.wait_for_end(SOON)] == ["6"]


def test_after_version_is_where_a_follower_without_an_id_begins(service: "Service", queue: str) -> None:
    id = lived(service, queue)["id"]
    with Follower(f"{service.url}/v1/jobs/{id}/events?after_version=3") as follower:
        assert [message.id for message in follower.wait_for_end()] == ["4", "5"]
    with Follower(f"{service.url}/v1/jobs/{id}/events?after_version=1", 4) as follower:
        assert [message.id for message in follower.wait_for_end()] == ["5"]


@pytest.mark.parametrize("seen", [5, 6, 2**63 - 1, 10**19 - 1])
def test_a_follower_of_a_finished_job_that_has_seen_its_end_is_told_to_stop(
    service: "Service", other: "Service", queue: str, seen: int
) -> None:
    id = lived(service, queue)["id"]
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(seen)}
    answer = other.http.get(f"/v1/jobs/{id}/events", headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_job_that_was_sent_round_again_is_followed_past_its_old_end(
    service: "Service", other: "Service", queue: str
) -> None:
    id = lived(service, queue)["id"]
    retried = service.http.post(f"/v1/jobs/{id}/retries", json={"reason": "once more"})
    assert retried.status_code == 202
    with of_job(other, id) as whole, of_job(other, id, 5) as resumed:
        whole.wait_for(6, SOON)
        [job] = service.claim(queue)
        complete(service, job)
        assert [message.id for message in whole.wait_for_end(SOON)] == [str(n) for n in range(1, 9)]
        assert [message.type for message in resumed.wait_for_end(SOON)] == [
            "job.requeued",
            "job.started",
            "job.completed",
        ]


@pytest.mark.parametrize("id", ["-1", "1.5", "abc", "1,2", "٣", "1" * 20, '"3"'])
def test_an_id_that_was_never_given_out_is_refused(service: "Service", queue: str, id: str) -> None:
    job = service.create(queue=queue)["id"]
    for path in (f"/v1/jobs/{job}/events", "/v1/events"):
        headers = {b"Accept": b"text/event-stream", b"Last-Event-ID": id.encode()}
        assert service.invalid(service.http.get(path, headers=headers)) == ["Last-Event-ID"]


def test_an_id_beyond_all_versions_disturbs_no_other_follower(service: "Service", queue: str) -> None:
    job = service.running(queue)
    with ExitStack() as followers:
        beyond = [followers.enter_context(of_job(service, job["id"], 10**19 - 1)) for _ in range(5)]
        proper = [followers.enter_context(of_job(service, job["id"])) for _ in range(5)]
        for follower in (*beyond, *proper):
            follower.begun()
        progress(service, job, 0.5)
        complete(service, job)
        for follower in proper:
            assert [message.id for message in follower.wait_for_end(SOON)] == ["1", "2", "3", "4"]
        assert [follower.messages for follower in beyond] == [[]] * 5


def test_nobody_follows_an_unknown_job(service: "Service") -> None:
    headers = {"Accept": "text/event-stream"}
    service.problem(service.http.get(f"/v1/jobs/{uuid4()}/events", headers=headers), 404, "not-found")


def test_a_slow_reader_loses_nothing(service: "Service", other: "Service", queue: str) -> None:
    job = service.running(queue)
    said = {"job_id": job["id"], "attempt": 1, "type": "progressed"}
    with _open(service.url, f"/v1/jobs/{job['id']}/events", receive_buffer=4096) as slow:
        for hundred in range(20):
            results = other.report(*({**said, "message": f"{hundred * 100 + n} {'x' * 1900}"} for n in range(100)))
            assert all(result["ok"] for result in results)
        complete(other, job)
        text = b"".join(iter(lambda: slow.recv(65536), b"")).decode()
    ids = [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]
    assert ids == list(range(1, 2004))


def test_a_server_that_stops_ends_its_streams_and_another_goes_on(
    service: "Service", queue: str, dsn: str, start: "Start"
) -> None:
    stopping = start("api", "--port", "0", DATABASE_URL=dsn)
    job = service.running(queue)
    begin = service.job(job["id"])["position"]
    with Follower(f"{stopping.url}/v1/jobs/{job['id']}/events") as one:
        with Follower(f"{stopping.url}/v1/events?after={begin}") as all:
            one.wait_for(2)
            all.begun()
            assert stopping.stop() == 0
            all.wait_for_end(SOON)
        one.wait_for_end(SOON)
    complete(service, job)
    with of_job(service, job["id"], one.messages[-1].id) as follower:
        assert [message.id for message in follower.wait_for_end(SOON)] == ["3"]


# One job, in lines


def test_a_jobs_history_comes_in_lines(service: "Service", queue: str) -> None:
    id = lived(service, queue)["id"]
    recorded = service.events(id)
    for query, expected in (
        ("", recorded),
        ("?after_version=2", recorded[2:]),
        ("?after_version=1&limit=2", recorded[1:3]),
        ("?after_version=5", []),
    ):
        answer = service.http.get(f"/v1/jobs/{id}/events{query}", headers={"Accept": "application/x-ndjson"})
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        assert [json.loads(line) for line in answer.text.splitlines()] == expected


def test_a_long_history_comes_whole_in_lines_and_in_pages(service: "Service", queue: str) -> None:
    job = service.running(queue)
    for third in range(3):
        progress(service, job, *((third * 700 + n) / 2100 for n in range(1, 701)))
    answer = service.http.get(f"/v1/jobs/{job['id']}/events", headers={"Accept": "application/x-ndjson"})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["version"] for line in lines] == list(range(1, 2103))
    paged: list[Json] = []
    after: int | None = 0
    while after is not None:
        page = service.http.get(f"/v1/jobs/{job['id']}/events?after_version={after}&limit=800").json()
        paged += page["items"]
        after = page["next"]
    assert paged == lines


# The whole log


def test_the_log_is_read_in_pages_complete_and_in_order(service: "Service", other: "Service", queue: str) -> None:
    begin = service.create(queue=queue)["position"]
    jobs = [lived(each, f"{queue}-{n}") for n, each in enumerate((service, other, service, other))]
    log_with(service, begin, max((job["position"] for job in jobs), key=int))
    paged: list[Json] = []
    after: str | None = begin
    while after is not None:
        page = other.http.get("/v1/events", params={"after": after, "limit": 3}).json()
        assert len(page["items"]) <= 3
        paged += page["items"]
        after = page["next"]
    positions = [int(item["position"]) for item in paged]
    assert all(one < next for one, next in pairwise([int(begin), *positions]))
    for job in jobs:
        assert [item for item in paged if item["job_id"] == job["id"]] == service.events(job["id"])
    assert len(paged) == 5 * len(jobs)


def test_the_log_is_filtered_by_type_kind_actor_and_time(service: "Service", queue: str) -> None:
    begin = service.create(queue=queue)["position"]
    jobs = {}
    for name in ("a", "b"):
        job = service.running(f"{queue}-{name}", kind=f"{name}-{queue}", worker=f"{name}-worker")
        service.report({"job_id": job["id"], "attempt": 1, "type": "completed"}, worker=f"{name}-worker")
        jobs[name] = service.job(job["id"])
    all = log_with(service, begin, jobs["b"]["position"])
    assert [item["type"] for item in all] == ["job.created", "job.started", "job.completed"] * 2
    third, fourth = (datetime.fromisoformat(all[n]["at"]) for n in (2, 3))
    for query, expected in (
        ({"type": "job.started"}, [all[1], all[4]]),
        ({"type": ["job.started", "job.completed"]}, [all[1], all[2], all[4], all[5]]),
        ({"kind": f"b-{queue}"}, all[3:]),
        ({"kind": [f"b-{queue}", f"a-{queue}"]}, all),
        ({"actor": "worker:a-worker"}, all[1:3]),
        ({"actor": ["worker:b-worker", "anonymous"]}, [all[0], all[3], all[4], all[5]]),
        ({"from": third.isoformat()}, all[2:]),
        ({"to": third.isoformat()}, all[:2]),
        ({"from": third.isoformat(), "to": (fourth + timedelta(microseconds=1)).isoformat()}, all[2:4]),
        ({"kind": f"a-{queue}", "type": "job.created", "actor": "anonymous"}, all[:1]),
        ({"kind": f"a-{queue}", "actor": "worker:b-worker"}, []),
    ):
        assert whole_log(service, begin, **query) == expected, query
        lines = service.http.get(
            "/v1/events", params={"after": begin, **query}, headers={"Accept": "application/x-ndjson"}
        )
        assert [json.loads(line) for line in lines.text.splitlines()] == expected, query
        with Follower(f"{service.url}/v1/events?{urlencode({'after': begin, **query}, doseq=True)}") as follower:
            follower.begun().wait_for(len(expected), SOON)
            assert [message.data for message in follower.messages] == expected, query


def test_a_type_that_no_event_has_is_refused(service: "Service") -> None:
    assert service.invalid(service.http.get("/v1/events?type=job.exploded")) == ["type"]


def test_the_log_comes_in_cloudevents_envelopes(service: "Service", queue: str) -> None:
    begin = service.create(queue=queue)["position"]
    job = lived(service, f"{queue}-2")
    events = log_with(service, begin, job["position"])
    expected = [
        {
            "specversion": "1.0",
            "id": f"{event['job_id']}/{event['version']}",
            "source": f"/v1/jobs/{event['job_id']}",
            "type": event["type"],
            "subject": event["job_id"],
            "time": event["at"],
            "datacontenttype": "application/json",
            "data": event,
        }
        for event in events
    ]
    assert whole_log(service, begin, format="cloudevents") == expected
    headers = {"Accept": "application/x-ndjson"}
    lines = service.http.get(f"/v1/events?after={begin}&format=cloudevents", headers=headers)
    assert [json.loads(line) for line in lines.text.splitlines()] == expected
    with of_log(service, after=begin, format="cloudevents") as follower:
        messages = follower.wait_for(len(expected), SOON)
    assert [message.data for message in messages] == expected
    assert [(message.id, message.type) for message in messages] == [(e["position"], e["type"]) for e in events]


def test_nothing_comes_after_the_last_position_there_can_be(service: "Service") -> None:
    page = service.http.get("/v1/events", params={"after": "9" * 19}).json()
    assert page == {"items": [], "next": None}


def test_the_log_is_followed_live_and_resumed_on_another_server(
    service: "Service", other: "Service", queue: str
) -> None:
    begin = service.create(queue=queue)["position"]
    with of_log(service, after=begin) as follower:
        assert follower.begun().comment_first
        job = other.running(f"{queue}-2")
        follower.wait_for(2, SOON)
        progress(service, job, 0.5)
        complete(other, job)
        messages = follower.wait_for(4, SOON)
    assert [message.data for message in messages] == other.events(job["id"])
    for n, seen in enumerate((begin, *(message.id for message in messages))):
        with of_log(other, seen, after="0") as resumed:
            resumed.wait_for(4 - n, SOON)
            resumed.begun()
            assert resumed.messages == messages[n:]


def test_a_follower_of_the_log_waits_for_a_transaction_that_is_still_open(
    service: "Service", other: "Service", node: Node, queue: str
) -> None:
    begin = service.create(queue=queue)["position"]
    with of_log(service, after=begin) as here, of_log(other, after=begin) as there:
        here.begun()
        there.begun()
        with node.ledger.batch() as batch:
            (slow,) = batch.new_jobs(1)
            batch.record(slow, [new_job().created("default", Cause(batch.now, "key:slow"), None)])
            quick = lived(other, f"{queue}-2")
            assert len(service.events(quick["id"])) == 5, "one job's history waits for nobody"
            assert not here.wait(lambda follower: follower.messages, SILENCE)
            assert not there.messages
            assert whole_log(service, begin) == []
        for follower in (here, there):
            messages = follower.wait_for(6, SOON)
            assert messages[0].data["job_id"] == str(slow.id)
            assert [message.data for message in messages[1:]] == service.events(quick["id"])
            assert not follower.wait(lambda follower: len(follower.messages) > 6, SILENCE)


def test_no_follower_of_the_log_misses_or_doubles_what_writers_commit_out_of_order(
    service: "Service", other: "Service", dsn: str, queue: str
) -> None:
    begin = service.create(queue=queue)["position"]
    with (
        of_log(service, after=begin) as here,
        of_log(other, after=begin) as there,
        Hopping((service.url, other.url), begin) as hopping,
    ):
        with ThreadPoolExecutor(WRITERS) as pool:
            written = [id for ids in pool.map(lambda seed: _write(dsn, seed), range(WRITERS)) for id in ids]
        for follower in (here, there):
            follower.wait_for(len(written))
        hopping.wait_for(len(written))
        told = [item["position"] for item in whole_log(service, begin)]
        assert sorted(item["job_id"] for item in whole_log(other, begin)) == sorted(written)
        assert [message.id for message in here.messages] == told
        assert [message.id for message in there.messages] == told
        assert hopping.ids == told


def _write(dsn: str, seed: int) -> list[str]:
    """Create jobs in transactions that are held open for a while, each for another one; the jobs."""
    dice = random.Random(seed)
    written = []
    with Node(dsn) as node:
        for _ in range(BATCHES):
            with node.ledger.batch() as batch:
                for job in batch.new_jobs(dice.randint(1, 5)):
                    batch.record(job, [new_job().created("default", Cause(batch.now, "key:test"), None)])
                    written.append(str(job.id))
                threading.Event().wait(dice.choice((0, 0, 0.01, 0.05)))
    return written


class Hopping:
    """A follower that hangs up after every few messages and goes on at another server."""

    def __init__(self, urls: Sequence[str], begin: str) -> None:
        self.ids: list[str] = []
        self._urls = urls
        self._begin = begin
        self._enough = threading.Event()
        self._wanted = 2**31
        self._thread = threading.Thread(target=self._hop, daemon=True)

    def __enter__(self) -> "Hopping":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join(PATIENCE)

    def wait_for(self, count: int) -> None:
        self._wanted = count
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), f"{len(self.ids)} of {count}"

    def _hop(self) -> None:
        hops = 0
        while len(self.ids) < self._wanted and not self._enough.is_set():
            hops += 1
            seen = self.ids[-1] if self.ids else self._begin
            with Follower(f"{self._urls[hops % len(self._urls)]}/v1/events", seen) as follower:
                follower.wait(lambda f: len(f.messages) >= 7 or len(self.ids) + len(f.messages) >= self._wanted, 0.5)
            self.ids += [message.id for message in follower.messages]


# Few queries for many followers


class Counted:
    """The views, counting how often they are asked."""

    def __init__(self, node: Node) -> None:
        self._views = node.views
        self.queries = 0

    def histories(self, wanted: Sequence[History]) -> list[list[EventView]]:
        self.queries += 1
        return self._views.histories(wanted)

    def versions(self, ids: Collection[UUID]) -> dict[UUID, int]:
        return self._views.versions(ids)

    def log(self, after: int, limit: int, wanted: LogFilter | None) -> list[LogEntry]:
        return self._views.log(after, limit, wanted)

    def log_end(self) -> tuple[int, bool]:
        return self._views.log_end()


def test_news_of_a_job_costs_a_query_and_not_one_for_each_follower(node: Node) -> None:
    (id,) = node.create(new_job(queue="followed"))

    async def follow(following: Following, seen: asyncio.Queue[int]) -> int:
        count = 0
        async for events in following.events(id, 0, heartbeat=PATIENCE):
            count += len(events)
            seen.put_nowait(count)
        return count

    async def several() -> None:
        counted, news = Counted(node), LocalNews()
        jobs = Jobs(node.ledger, node.views)
        following = Following(jobs, counted, news)
        seen: asyncio.Queue[int] = asyncio.Queue()
        followers = [asyncio.create_task(follow(following, seen)) for _ in range(400)]
        async with asyncio.timeout(PATIENCE):
            for _ in followers:
                assert await seen.get() == 1
            before = counted.queries
            await asyncio.to_thread(node.claim, queue="followed")
            news.tell([f"job/{id.hex}"])
            for _ in followers:
                assert await seen.get() == 2
            assert counted.queries - before <= 5
            for follower in followers:
                follower.cancel()
            await asyncio.gather(*followers, return_exceptions=True)
        following.close()
        jobs.close()

    asyncio.run(several())


# Waiting for a job


def wait(service: "Service", id: str, seconds: int, version: int | None = None) -> httpx2.Response:
    known = {} if version is None else {"If-None-Match": f'"{version}"'}
    return service.http.get(f"/v1/jobs/{id}", headers={"Prefer": f"wait={seconds}", **known})


def waiting(
    service: "Service", id: str, version: int | None, act: Callable[[], object]
) -> tuple[httpx2.Response, float]:
    """The answer to one who waits while another acts, and the seconds it took after that."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(wait, service, id, 20, version)
        with pytest.raises(TimeoutError):
            answer.result(SILENCE)
        act()
        begun = time.monotonic()
        return answer.result(PATIENCE), time.monotonic() - begun


def test_who_waits_is_answered_when_another_server_moves_the_job(
    service: "Service", other: "Service", queue: str
) -> None:
    id = service.create(queue=queue)["id"]
    answer, seconds = waiting(service, id, 1, lambda: other.claim(queue))
    assert (answer.status_code, answer.json()["version"], answer.headers["etag"]) == (200, 2, '"2"')
    assert answer.headers["preference-applied"] == "wait=20"
    assert seconds < SOON


def test_who_waits_for_a_version_that_is_past_is_answered_at_once(service: "Service", queue: str) -> None:
    job = service.running(queue)
    begun = time.monotonic()
    answer = wait(service, job["id"], 20, 1)
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    assert time.monotonic() - begun < SOON


def test_who_waits_in_vain_is_told_that_nothing_changed(service: "Service", queue: str) -> None:
    id = service.create(queue=queue)["id"]
    begun = time.monotonic()
    answer = wait(service, id, 1, 1)
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"1"')
    assert 1 <= time.monotonic() - begun < 1 + SOON


def test_who_waits_without_a_version_is_answered_when_the_job_has_finished(
    service: "Service", other: "Service", queue: str
) -> None:
    job = service.running(queue)

    def act() -> None:
        progress(other, job, 0.5)
        complete(other, job)

    answer, seconds = waiting(service, job["id"], None, act)
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    assert seconds < SOON
    assert wait(other, job["id"], 20).json() == answer.json()


def test_who_waits_in_vain_for_the_end_gets_the_job_as_it_is(service: "Service", queue: str) -> None:
    job = service.running(queue)
    begun = time.monotonic()
    answer = wait(service, job["id"], 1)
    assert (answer.status_code, answer.json()["status"]) == (200, "running")
    assert 1 <= time.monotonic() - begun < 1 + SOON


def test_nobody_waits_for_an_unknown_job(service: "Service") -> None:
    service.problem(wait(service, str(uuid4()), 20, 1), 404, "not-found")


# Claims whose callers hang up


def _open(url: str, path: str, body: Json = None, receive_buffer: int | None = None) -> socket.socket:
    """A connection on which a request was sent and no answer was read."""
    address = urlsplit(url)
    connection = socket.socket()
    connection.settimeout(PATIENCE)
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect((address.hostname, address.port))
    content = b"" if body is None else json.dumps(body).encode()
    head = [
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
        f"Host: {address.netloc}",
        "Accept: text/event-stream",
        "Connection: close",
        f"Content-Length: {len(content)}",
        "Content-Type: application/json",
        "",
        "",
    ]
    connection.sendall("\r\n".join(head).encode() + content)
    return connection


def claiming(service: "Service", queue: str, **fields: Json) -> socket.socket:
    return _open(service.url, "/v1/claims", {"worker": "hasty", "queues": [queue], "wait": 30, **fields})


def silent(connection: socket.socket) -> bool:
    """Whether nothing comes on a connection for a while."""
    connection.settimeout(SILENCE)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    return False


def test_a_claim_that_was_hung_up_while_it_waited_takes_no_job(
    service: "Service", other: "Service", queue: str
) -> None:
    waiting = [claiming(service, queue) for _ in range(20)]
    assert silent(waiting[-1])
    for connection in waiting:
        connection.close()
    for _ in range(20):
        id = other.create(queue=queue)["id"]
        [job] = other.claim(queue, "patient", wait=5)
        assert (job["id"], job["attempt"]) == (id, 1)
        assert other.types(id) == ["job.created", "job.started"]


def test_a_claim_that_was_hung_up_while_it_was_recorded_is_given_back_and_costs_no_attempt(
    service: "Service", other: "Service", dsn: str, queue: str
) -> None:
    id = service.create(queue=queue, max_attempts=1)["id"]
    with psycopg.connect(dsn) as holding, psycopg.connect(dsn, autocommit=True) as looking:
        holding.execute("LOCK TABLE events IN SHARE MODE")
        connection = claiming(service, queue)
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass"
        eventually(lambda: looking.execute(waits).fetchone() == (1,), PATIENCE)
        connection.close()
        assert service.http.get("/livez").status_code == 200
    [job] = other.claim(queue, "patient", wait=20)
    assert (job["id"], job["attempt"]) == (id, 2)
    assert other.types(id) == ["job.created", "job.started", "job.released", "job.started"]
    error = {"type": "Broken", "message": "the only attempt that counts"}
    other.report({"job_id": id, "attempt": 2, "type": "failed", "error": error}, worker="patient")
    assert other.job(id)["status"] == "failed"


def test_claims_that_hang_up_at_once_leave_no_job_behind(service: "Service", other: "Service", queue: str) -> None:
    ids = {service.create(queue=queue, max_attempts=1)["id"] for _ in range(20)}
    for n in range(60):
        claiming((service, other)[n % 2], queue).close()
    taken: set[str] = set()
    while len(taken) < len(ids):
        jobs = other.claim(queue, "patient", wait=20, max=20)
        assert jobs, f"{len(ids) - len(taken)} jobs are held by nobody"
        taken |= {job["id"] for job in jobs}
    assert taken == ids


def test_what_a_repeated_claim_is_answered_is_not_given_back_for_the_first_that_hung_up(
    service: "Service", queue: str
) -> None:
    def end(jobs: list[Json]) -> set[str]:
        """Their ids; each is a job that is held."""
        for type in ("heartbeat", "completed"):
            reports = [{"job_id": job["id"], "attempt": job["attempt"], "type": type} for job in jobs]
            assert all(result["ok"] for result in service.report(*reports, worker="hasty"))
        return {job["id"] for job in jobs}

    for n in range(30):
        left = {service.create(queue=queue, max_attempts=1)["id"] for _ in range(2)}
        claiming(service, queue, max=2, claim_id=f"cut-{n}").close()
        claim_id: str | None = f"cut-{n}"
        while left:  # one may be with a claim of before that hung up and has not been given back yet
            jobs = service.claim(queue, "hasty", max=2, claim_id=claim_id, wait=20)
            assert jobs, "what is not held is there to be claimed"
            left -= end(jobs)
            claim_id = None


def test_a_claim_whose_answer_was_lost_is_repeated_on_another_server(
    service: "Service", other: "Service", queue: str
) -> None:
    ids = {service.create(queue=queue)["id"] for _ in range(3)}
    with claiming(service, queue, max=3, claim_id="lost") as connection:
        assert connection.recv(1)
    again = other.claim(queue, "hasty", max=3, claim_id="lost")
    assert {job["id"] for job in again} == ids
    assert {job["attempt"] for job in again} == {1}
