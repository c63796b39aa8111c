"""How a worker fills its room: claims, reports under way, and what one job leaves for the next."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import pytest

from application.claims import Claim, ClaimedJob
from application.handlers import JobContext, handler_for
from application.reports import AnyReport, Reported
from application.worker import Worker
from infrastructure.news import LocalNews
from tests.application.services import Order, Play, Shop, claimed
from tests.infrastructure.nodes import PATIENCE


def test_a_worker_that_can_no_longer_report_ends_instead_of_holding_jobs_in_silence(play: Play) -> None:
    async def work(job: JobContext, order: Order) -> str:
        return "done"

    async def story(shop: Shop) -> None:
        async def muddled(worker: str, reports: Sequence[AnyReport]) -> Sequence[Reported | Exception]:
            return []  # one answer for each is what was agreed

        shop.line.report = muddled  # type: ignore[method-assign]
        await shop.create()
        with pytest.raises(ValueError, match="argument 2 is shorter"):
            await asyncio.wait_for(shop.worker(work=work).run(), PATIENCE)

    play(story)


def test_a_claim_that_fails_in_a_way_nobody_knew_is_made_again(play: Play) -> None:
    async def work(job: JobContext, order: Order) -> str:
        return "done"

    async def story(shop: Shop) -> None:
        ask = shop.line.claim
        failed: list[Claim] = []

        async def once(claim: Claim) -> Sequence[ClaimedJob]:
            if not failed:
                failed.append(claim)
                raise OSError("the first one fails")
            return await ask(claim)

        shop.line.claim = once  # type: ignore[method-assign]
        async with shop.working(work=work):
            assert (await shop.finished(await shop.create())).status == "completed"
        assert failed

    play(story)


def test_no_more_jobs_run_at_once_than_there_is_room_for(play: Play) -> None:
    running, most = 0, 0
    full: asyncio.Event

    async def work(job: JobContext, order: Order) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            full.set()
        await job.progress(0.5)
        async with asyncio.timeout(20):
            await full.wait()
        running -= 1

    async def story(shop: Shop) -> None:
        nonlocal full
        full = asyncio.Event()
        ids = [await shop.create() for _ in range(20)]
        async with shop.working(work=work, capacity=3):
            for id in ids:
                await shop.finished(id)

    play(story)
    assert most == 3


class Desk:
    """The first claim comes back full; later ones wait at the gate, and come back empty. Implements Service."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.two_wait = asyncio.Event()
        self.waiting = 0
        self.given = False

    async def claim(self, claim: Claim) -> Sequence[ClaimedJob]:
        if not self.given:
            self.given = True
            return [claimed() for _ in range(claim.max)]
        self.waiting += 1
        if self.waiting == 2:
            self.two_wait.set()
        await self.gate.wait()
        return []

    async def report(self, worker: str, reports: Sequence[AnyReport]) -> Sequence[Reported | Exception]:
        return [Reported(version=3, cancel_requested=False) for _ in reports]

    async def save_artifact(self, *_: Any) -> Any:
        raise AssertionError("no handler here saves a file")

    async def read_artifact(self, *_: Any) -> Any:
        raise AssertionError("no handler here reads a file")


def test_a_worker_that_is_told_to_stop_ends_though_two_claims_are_under_way() -> None:
    async def work(job: JobContext, order: Order) -> None: ...

    async def story() -> None:
        desk = Desk()
        worker = Worker("w1", {"work": handler_for("work", work)}, desk, LocalNews(), capacity=2000)
        running = asyncio.create_task(worker.run())
        async with asyncio.timeout(PATIENCE):
            await desk.two_wait.wait()
            worker.stop()
            desk.gate.set()
            await running

    asyncio.run(story())


def test_with_room_for_one_job_none_is_left_waiting(play: Play) -> None:
    """Two claims are under way while there is work, and one that comes back empty gives its room to the other."""

    async def work(job: JobContext, order: Order) -> None: ...

    async def story(shop: Shop) -> None:
        async with shop.working(work=work, capacity=1):
            for _ in range(40):
                await shop.finished(await shop.create())

    play(story)


def test_a_job_finds_nothing_of_the_job_that_was_run_before_it(play: Play) -> None:
    """They may share a task, since quick handlers are run one after the other in one."""
    left: ContextVar[UUID | None] = ContextVar("left", default=None)
    found: list[tuple[UUID | None, int]] = []

    async def work(job: JobContext, order: Order) -> None:
        task = asyncio.current_task()
        assert task is not None
        found.append((left.get(), task.cancelling()))
        if order.count == 2:
            left.set(job.id)
        if order.count == 3:
            task.cancel()

    async def story(shop: Shop) -> None:
        ids = [await shop.create(input=b'{"count": %d}' % (1 + n % 3)) for n in range(30)]
        async with shop.working(work=work, capacity=30):
            for id in ids:
                await shop.finished(id)

    play(story)
    assert found == [(None, 0)] * len(found)
    assert len(found) >= 30
