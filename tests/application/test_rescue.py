"""Rescue: a lease that ran out costs an attempt, but neither an outage nor a late heartbeat does."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from application.claims import Claim
from application.errors import Unavailable
from application.jobs import Cancel
from application.ledger import Expired
from application.reports import CompletionReport, Heartbeat
from application.rescue import LONGEST_GAP, MissHeartbeat, Rescue, Unrescued
from domain.events import HeartbeatMissed
from domain.refusals import LeaseLost, Refused
from infrastructure.postgres.batch import PostgresBatch
from infrastructure.postgres.ledger import PostgresLedger
from interfaces.bootstrap import Service
from interfaces.settings import Settings
from tests.application.services import ASKED, AT_ONCE, Play, Shop, in_shop
from tests.infrastructure.nodes import ask


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Line(PostgresLedger):
    """The ledger over a database that can be away, or slow to answer."""

    def __init__(self, shop: Shop, clock: Clock) -> None:
        super().__init__(shop.service._log, shop.service._tell)
        self._clock = clock
        self.away = False
        self.slow = 0.0

    @contextmanager
    def batch(self, *args: Any, **kwargs: Any) -> Iterator[PostgresBatch]:
        self._clock.now += self.slow
        if self.away:
            raise Unavailable
        with super().batch(*args, **kwargs) as batch:
            yield batch


@pytest.fixture
def play(dsn: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Runs a story in a shop with a queue of the test's own."""
    monkeypatch.setattr("infrastructure.postgres.notifications.LOOK_SECONDS", 0.05)  # how long closing takes
    ask(dsn, "DELETE FROM leases")
    return lambda story: in_shop(dsn, tmp_path, str(request.node.name), story)


async def held(shop: Shop, **fields: Any) -> UUID:
    """A job that worker w1 holds."""
    id = await shop.create(**fields)
    (claimed,) = await shop.service.claims.claim(Claim(worker="w1", queues=[shop.queue]))
    assert claimed.id == id
    return id


async def run_out(dsn: str, *ids: UUID) -> None:
    query = "UPDATE leases SET expires_at = clock_timestamp() - interval '1 s' WHERE job_id = ANY(%s)"
    await asyncio.to_thread(ask, dsn, query, [list(ids)])


def rescuer(shop: Shop) -> tuple[Rescue, Line, Clock]:
    clock = Clock()
    line = Line(shop, clock)
    return Rescue(line, clock), line, clock


async def expired(dsn: str) -> Expired:
    """The one lease that has run out."""
    query = "SELECT job_id, attempt, heartbeat_at FROM leases WHERE expires_at < clock_timestamp()"
    (row,) = await asyncio.to_thread(ask, dsn, query)
    return Expired(*row)


async def keep_looking(rescue: Rescue, clock: Clock, seconds: float) -> int:
    """Look every second for so long; returns how many leases were found."""
    found = 0
    for _ in range(int(seconds)):
        clock.now += 1.0
        found += await rescue.run_once()
    return found


def test_a_lease_that_ran_out_is_missed_and_the_job_tried_again(play: Play, dsn: str) -> None:
    async def story(shop: Shop) -> None:
        id = await held(shop, heartbeat_timeout=2, retry=AT_ONCE)
        rescue, _, clock = rescuer(shop)
        await rescue.run_once()
        await run_out(dsn, id)
        assert await keep_looking(rescue, clock, 2) == 1
        job = await shop.job(id)
        assert (job.status, job.attempt, job.worker, job.heartbeat_at) == ("queued", 1, None, None)
        (missed,) = [e for e in await asyncio.to_thread(shop.service._log.stream, id) if isinstance(e, HeartbeatMissed)]
        assert (missed.attempt, missed.worker, missed.by) == (1, "w1", "system:rescue")
        assert missed.retry_at is not None
        assert missed.last_heartbeat <= missed.at
        (again,) = await shop.service.claims.claim(Claim(worker="w2", queues=[shop.queue]))
        assert (again.id, again.attempt) == (id, 2)
        with pytest.raises(LeaseLost):
            await shop.service.reports.say("w1", CompletionReport(job_id=id, attempt=1))

    play(story)


def test_the_last_missed_heartbeat_fails_the_job(play: Play, dsn: str) -> None:
    async def story(shop: Shop) -> None:
        id = await held(shop, heartbeat_timeout=1, max_attempts=1)
        rescue, _, clock = rescuer(shop)
        await rescue.run_once()
        await run_out(dsn, id)
        await keep_looking(rescue, clock, 3)
        job = await shop.job(id)
        assert job.error is not None
        assert (job.status, job.error.type) == ("failed", "heartbeat-missed")
        assert await shop.topics(id) == ["created", "started", "heartbeat_missed", "failed"]

    play(story)


def test_a_cancelled_job_whose_worker_is_gone_is_cancelled_by_the_rescue(play: Play, dsn: str) -> None:
    async def story(shop: Shop) -> None:
        id = await held(shop, heartbeat_timeout=1)
        await shop.service.jobs.execute(Cancel(job_id=id, reason="enough", asked=ASKED))
        rescue, _, clock = rescuer(shop)
        await rescue.run_once()
        await run_out(dsn, id)
        await keep_looking(rescue, clock, 2)
        assert await shop.topics(id) == ["created", "started", "cancel_requested", "heartbeat_missed", "cancelled"]

    play(story)


def test_nobody_is_rescued_before_as_long_a_contact_as_the_jobs_heartbeat_timeout(play: Play, dsn: str) -> None:
    async def story(shop: Shop) -> None:
        short, long = await held(shop, heartbeat_timeout=3), await held(shop, heartbeat_timeout=10)
        await run_out(dsn, short, long)
        rescue, _, clock = rescuer(shop)
        assert await rescue.run_once() == 0
        assert await keep_looking(rescue, clock, 2) == 0
        assert await keep_looking(rescue, clock, 1) == 1
        assert [(await shop.job(id)).status for id in (short, long)] == ["queued", "running"]
        assert await keep_looking(rescue, clock, 6) == 0
        assert await keep_looking(rescue, clock, 1) == 1
        assert (await shop.job(long)).status == "queued"

    play(story)


@pytest.mark.parametrize("broken", ["away", "a long gap", "a slow answer"])
def test_broken_contact_begins_anew(play: Play, dsn: str, broken: str) -> None:
    async def story(shop: Shop) -> None:
        id = await held(shop, heartbeat_timeout=3)
        rescue, line, clock = rescuer(shop)
        await rescue.run_once()
        assert await keep_looking(rescue, clock, 10) == 0
        await run_out(dsn, id)
        match broken:
            case "away":
                line.away = True
                with pytest.raises(Unavailable):
                    await rescue.run_once()
                line.away = False
            case "a long gap":
                clock.now += LONGEST_GAP
            case _:
                line.slow = LONGEST_GAP + 0.1
                assert await rescue.run_once() == 0
                line.slow = 0.0
        clock.now += 1.0
        assert await rescue.run_once() == 0
        assert await keep_looking(rescue, clock, 2) == 0
        assert (await shop.job(id)).status == "running"
        assert await keep_looking(rescue, clock, 1) == 1
        assert (await shop.job(id)).status == "queued"

    play(story)


def test_a_late_heartbeat_wins_over_the_rescue_that_had_found_it_missing(play: Play, dsn: str) -> None:
    async def story(shop: Shop) -> None:
        id = await held(shop)
        await run_out(dsn, id)
        found = await expired(dsn)
        assert found.job_id == id
        await shop.service.reports.say("w1", Heartbeat(job_id=id, attempt=1))
        with pytest.raises(Unrescued):
            await shop.service.jobs.execute(MissHeartbeat(expired=found))
        assert (await shop.job(id)).status == "running"
        assert await shop.topics(id) == ["created", "started"]

    play(story)


@pytest.mark.parametrize("first", ["completion", "rescue"])
def test_whoever_comes_first_stands_and_the_other_is_refused(play: Play, dsn: str, first: str) -> None:
    async def story(shop: Shop) -> None:
        id = await held(shop, max_attempts=1)
        await run_out(dsn, id)
        found = await expired(dsn)
        if first == "completion":
            await shop.service.reports.say("w1", CompletionReport(job_id=id, attempt=1))
            with pytest.raises((Refused, Unrescued)):
                await shop.service.jobs.execute(MissHeartbeat(expired=found))
            assert await shop.topics(id) == ["created", "started", "completed"]
        else:
            await shop.service.jobs.execute(MissHeartbeat(expired=found))
            with pytest.raises(Refused):
                await shop.service.reports.say("w1", CompletionReport(job_id=id, attempt=1))
            assert await shop.topics(id) == ["created", "started", "heartbeat_missed", "failed"]

    play(story)


def test_a_completion_that_races_with_rescues_of_two_servers_ends_the_job_once(
    play: Play, dsn: str, tmp_path: Path
) -> None:
    async def story(shop: Shop) -> None:
        async def race(other: Shop) -> None:
            for _ in range(15):
                id = await held(shop, max_attempts=1)
                await run_out(dsn, id)
                found = await expired(dsn)
                answers = await asyncio.gather(
                    shop.service.jobs.execute(MissHeartbeat(expired=found)),
                    other.service.reports.say("w1", CompletionReport(job_id=id, attempt=1)),
                    other.service.jobs.execute(MissHeartbeat(expired=found)),
                    return_exceptions=True,
                )
                assert len([a for a in answers if not isinstance(a, Refused | Unrescued)]) == 1, answers
                assert await shop.topics(id) in (
                    ["created", "started", "completed"],
                    ["created", "started", "heartbeat_missed", "failed"],
                )

        other = Service(Settings.model_validate({"DATABASE_URL": dsn, "JOBLEDGER_DATA": tmp_path}))
        try:
            await race(Shop(other, shop.queue))
        finally:
            await other.close()

    play(story)


def test_many_leases_are_rescued_at_once(play: Play, dsn: str) -> None:
    async def story(shop: Shop) -> None:
        ids = [await held(shop, heartbeat_timeout=1) for _ in range(30)]
        rescue, _, clock = rescuer(shop)
        await rescue.run_once()
        await run_out(dsn, *ids)
        assert await keep_looking(rescue, clock, 1) == 30
        assert {(await shop.job(id)).status for id in ids} == {"queued"}
        assert await keep_looking(rescue, clock, 1) == 0

    play(story)
