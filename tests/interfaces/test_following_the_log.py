"""The whole log over HTTP: in pages, in lines and live, complete and in order on whichever server."""

import json
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from domain.job import Cause
from tests.followers import PATIENCE, Follower
from tests.infrastructure.nodes import Node, new_job
from tests.interfaces.followed import SILENCE, SOON, complete, lived, of_log, progress
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service

Json = Any
WRITERS = 3
BATCHES = 40


def whole_log(service: "Service", after: str, **query: Json) -> list[Json]:
    """What the log has above a position, once all of it is safe to read: an open transaction anywhere holds it back."""
    answer = service.http.get("/v1/events", params={"after": after, "limit": 10_000, **query})
    assert answer.status_code == 200, answer.text
    assert answer.json()["next"] is None
    items: list[Json] = answer.json()["items"]
    return items


def log_with(service: "Service", after: str, position: str, **query: Json) -> list[Json]:
    """The log above a position, once it reaches another one."""

    def reached() -> bool:
        return any(int(item["position"]) >= int(position) for item in whole_log(service, after))

    eventually(reached, PATIENCE, "the log above it")
    return whole_log(service, after, **query)


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
