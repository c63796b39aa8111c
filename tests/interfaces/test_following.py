"""Following a job over HTTP, live and in lines, on whichever server."""

import asyncio
import json
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from application.following import Following, History, LogEntry, LogFilter
from application.jobs import EventView, Jobs
from infrastructure.news import LocalNews
from tests.followers import PATIENCE, Follower
from tests.infrastructure.nodes import Node, new_job
from tests.interfaces.followed import SOON, complete, lived, of_job, progress, unread

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.interfaces.conftest import Service

Json = Any


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
    with unread(service.url, f"/v1/jobs/{job['id']}/events", receive_buffer=4096) as slow:
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
