"""A worker stops a handler when it is told to, or has lost its job, and gives back what it cannot end."""

import asyncio
from typing import Any

from msgspec import Raw

from application.handlers import JobContext
from application.jobs import Cancel
from application.ledger import Expired
from application.rescue import MissHeartbeat
from tests.application.services import ASKED, AT_ONCE, Order, Play, Shop
from tests.infrastructure.nodes import ask


def test_a_running_job_that_is_cancelled_is_stopped_by_its_next_heartbeat(play: Play) -> None:
    stopped: list[str] = []

    async def work(job: JobContext, order: Order) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append("handler")

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create(heartbeat_timeout=0.6)
            await shop.status(id, "running")
            await shop.service.jobs.execute(Cancel(job_id=id, reason="changed our minds", asked=ASKED))
            job = await shop.finished(id)
        assert (job.status, stopped) == ("cancelled", ["handler"])
        assert job.error is not None
        assert job.error.message == "changed our minds"
        assert await shop.topics(id) == ["created", "started", "cancel_requested", "cancelled"]

    play(story)


def test_a_handler_that_ends_before_it_hears_of_the_cancellation_completes(play: Play) -> None:
    go_on = asyncio.Event()

    async def work(job: JobContext, order: Order) -> str:
        await go_on.wait()
        return "too late to stop"

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create()
            await shop.status(id, "running")
            await shop.service.jobs.execute(Cancel(job_id=id, reason="changed our minds", asked=ASKED))
            go_on.set()
            job = await shop.finished(id)
        assert (job.status, job.result) == ("completed", Raw(b'"too late to stop"'))

    play(story)


def test_a_worker_that_lost_its_lease_stops_the_handler_and_discards_its_work(play: Play, dsn: str) -> None:
    stopped: list[int] = []

    async def work(job: JobContext, order: Order) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(job.attempt)

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create(heartbeat_timeout=0.6, max_attempts=1)
            await shop.status(id, "running")
            rescued = await rescue(shop, dsn, id)
            assert rescued == "failed"

            async def handler_stopped() -> object:
                return stopped

            await shop.until(handler_stopped)
        assert stopped == [1]
        assert await shop.topics(id) == ["created", "started", "heartbeat_missed", "failed"]

    play(story)


def test_a_late_result_of_a_lost_attempt_changes_nothing(play: Play, dsn: str) -> None:
    go_on = asyncio.Event()

    async def work(job: JobContext, order: Order) -> str:
        await go_on.wait()
        return "late"

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create(max_attempts=1)
            await shop.status(id, "running")
            assert await rescue(shop, dsn, id) == "failed"
            go_on.set()
        assert (await shop.job(id)).status == "failed"
        assert await shop.topics(id) == ["created", "started", "heartbeat_missed", "failed"]

    play(story)


def test_a_lost_attempt_on_the_same_worker_is_stopped_and_the_next_one_keeps_its_lease(play: Play, dsn: str) -> None:
    ended: list[int] = []
    both = asyncio.Event()
    go_on = asyncio.Event()

    async def work(job: JobContext, order: Order) -> str:
        if job.attempt == 2:
            both.set()
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            ended.append(job.attempt)
            raise
        return f"by attempt {job.attempt}"

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create(heartbeat_timeout=0.6, retry=AT_ONCE)
            await shop.status(id, "running")
            shop.line.deaf = True
            assert await rescue(shop, dsn, id) == "queued"
            await asyncio.wait_for(both.wait(), 20)
            shop.line.deaf = False

            async def first_stopped() -> object:
                return ended

            try:
                async with asyncio.timeout(2):
                    await shop.until(first_stopped)
            finally:
                go_on.set()
            job = await shop.finished(id)
        assert ended == [1]
        assert job.result == Raw(b'"by attempt 2"')

    play(story)


def test_heartbeats_keep_a_long_job_alive(play: Play) -> None:
    go_on = asyncio.Event()

    async def work(job: JobContext, order: Order) -> str:
        await go_on.wait()
        return "done"

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create(heartbeat_timeout=0.6)
            begun = (await shop.status(id, "running")).heartbeat_at
            assert begun is not None

            async def outlived_two_leases() -> bool:
                beat = (await shop.job(id)).heartbeat_at
                return beat is not None and (beat - begun).total_seconds() > 1.2

            await shop.until(outlived_two_leases)
            assert await asyncio.to_thread(expired, shop) == []
            go_on.set()
            await shop.finished(id)
        assert await shop.topics(id) == ["created", "started", "completed"]

    play(story)


def test_draining_releases_what_does_not_end_in_time_without_costing_an_attempt(play: Play) -> None:
    async def stuck(job: JobContext, order: Order) -> None:
        await asyncio.Event().wait()

    async def work(job: JobContext, order: Order) -> str:
        return f"by attempt {job.attempt}"

    async def story(shop: Shop) -> None:
        async with shop.working(work=stuck, grace=0.05):
            id = await shop.create(max_attempts=1)
            await shop.status(id, "running")
        assert (await shop.job(id)).status == "queued"
        async with shop.working(name="w2", work=work):
            job = await shop.finished(id)
        assert (job.status, job.result) == ("completed", Raw(b'"by attempt 2"'))
        assert await shop.topics(id) == ["created", "started", "released", "started", "completed"]

    play(story)


def test_draining_lets_end_what_ends_in_time(play: Play) -> None:
    begun = asyncio.Event()
    go_on = asyncio.Event()

    async def work(job: JobContext, order: Order) -> str:
        begun.set()
        await go_on.wait()
        return "done"

    async def story(shop: Shop) -> None:
        async with shop.working(work=work) as worker:
            id = await shop.create()
            await begun.wait()
            worker.stop()
            unclaimed = await shop.create()
            go_on.set()
        assert (await shop.job(id)).status == "completed"
        assert (await shop.job(unclaimed)).status == "queued"

    play(story)


async def rescue(shop: Shop, dsn: str, id: Any) -> Any:
    """What becomes of a job whose lease runs out now."""
    query = "UPDATE leases SET expires_at = now() - interval '1 s' WHERE job_id = %s RETURNING attempt, heartbeat_at"
    ((attempt, heartbeat_at),) = await asyncio.to_thread(ask, dsn, query, [id])
    return await shop.service.jobs.execute(MissHeartbeat(expired=Expired(id, attempt, heartbeat_at)))


def expired(shop: Shop) -> list[Any]:
    with shop.service._log.database.connection() as connection:
        return connection.execute("SELECT job_id FROM leases WHERE expires_at < clock_timestamp()").fetchall()
