"""A job whose moment comes is picked up without anybody having to look now and then: the tests let nobody."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from application.alarm import Due
from application.claims import Claim
from application.handlers import JobContext, RetryLater
from application.jobs import Retry
from infrastructure.postgres.alarm import next_due
from tests.application.services import Play, Shop, in_shop

NEVER = 3600.0


@pytest.fixture
def play(dsn: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Runs a story in a shop with an alarm, in which nobody looks for work unless told of it."""
    monkeypatch.setattr("infrastructure.postgres.notifications.LOOK_SECONDS", 0.05)  # how long closing takes
    monkeypatch.setattr("application.worker.POLL_SECONDS", NEVER)
    monkeypatch.setattr("application.claims.POLL_SECONDS", NEVER)

    def run(story: Callable[[Shop], Awaitable[None]]) -> None:
        async def with_alarm(shop: Shop) -> None:
            alarm = asyncio.create_task(shop.service.alarm.run())
            try:
                await story(shop)
            finally:
                alarm.cancel()
                with suppress(asyncio.CancelledError):
                    await alarm

        in_shop(dsn, tmp_path, str(request.node.name), with_alarm)

    return run


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def test_a_retry_is_picked_up_when_its_moment_comes(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.alarm.PERIOD", NEVER)

    async def work(job: JobContext, input: dict[str, int]) -> str:
        if job.attempt < 4:
            raise RetryLater((0, 0.001, 0.3, 0.05)[job.attempt])
        return "done"

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            jobs = [await shop.create(max_attempts=5, retry=Retry(initial=NEVER, max=NEVER)) for _ in range(3)]
            for id in jobs:
                job = await shop.finished(id)
                assert (job.status, job.attempt) == ("completed", 4)

    play(story)


def test_a_job_scheduled_for_later_is_found_before_its_moment(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrastructure.postgres.batch.NEAR", timedelta(0))  # nobody is told of it
    monkeypatch.setattr("application.alarm.PERIOD", 0.1)

    async def work(job: JobContext, input: dict[str, int]) -> str:
        return "done"

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            job = await shop.finished(await shop.create(run_at=soon(0.5)))
            assert job.started_at is not None
            assert job.started_at >= job.run_at

    play(story)


def test_a_claim_that_waits_is_answered_when_a_job_is_due(play: Play) -> None:
    async def story(shop: Shop) -> None:
        claiming = asyncio.create_task(shop.service.claims.claim(Claim(worker="w", queues=[shop.queue], wait=30)))
        await asyncio.sleep(0)
        id = await shop.create(run_at=soon(0.3))
        ((job,), _) = await asyncio.gather(claiming, shop.status(id, "running"))
        assert job.id == id

    play(story)


def test_a_job_that_came_due_does_not_hide_the_next(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.alarm.PERIOD", NEVER)

    async def work(job: JobContext, input: dict[str, int]) -> str:
        return "done"

    async def story(shop: Shop) -> None:
        moments = [soon(0.3), soon(0.5), soon(0.7)]
        ids = [await shop.create(run_at=moment) for moment in moments]
        async with shop.working(work=work):
            for id in ids:
                await shop.finished(id)

    play(story)


def test_what_came_due_since_the_last_look_is_told_apart_from_what_was_due_before(play: Play) -> None:
    async def story(shop: Shop) -> None:
        def look(since: datetime | None) -> Due:
            return next_due(shop.service._log.reads, [shop.queue, "nobody"], since)

        before = look(None)
        assert (before.came, before.next) == ([], None)
        await shop.create(priority=5, run_at=soon(NEVER))
        ahead = look(before.now)
        assert ahead.came == []
        assert ahead.next is not None
        assert NEVER - 60 < ahead.next <= NEVER
        await shop.create()
        for since, came in ((before, [shop.queue]), (ahead, [shop.queue]), (look(None), [])):
            later = look(since.now)
            assert later.came == came
            assert later.next is not None
            assert 0 < later.next < ahead.next

    play(story)
