"""Steps and progress: what is on record is not done twice, and is said no more often than it is worth."""

import asyncio
from typing import Any

import pytest
from msgspec import UNSET, Raw

from application.handlers import JobContext, handler_for
from domain.events import Progressed
from tests.application.services import AT_ONCE, Order, Page, Play, Shop


def test_a_recorded_step_is_replayed_to_the_next_attempt_and_not_called_again(play: Play) -> None:
    called: list[str] = []
    given: list[Any] = []

    async def write(words: int) -> Page:
        called.append("write")
        return Page(url="/page", words=["w"] * words)

    async def count(page: Page) -> int:
        called.append("count")
        return len(page.words)

    async def work(job: JobContext, order: Order) -> int:
        page = await job.step("write", write, order.count)
        given.append(page)
        if job.attempt == 1:
            raise RuntimeError("the power went")
        number = await job.step("count", count, page)
        assert await job.step("count", count, page) == number
        return number

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create(input=b'{"count": 2}', retry=AT_ONCE)
            job = await shop.finished(id)
        assert (job.status, job.attempt, job.result) == ("completed", 2, Raw(b"2"))
        assert called == ["write", "count"]
        assert given == [Page(url="/page", words=["w", "w"])] * 2
        assert await shop.topics(id) == [
            "created",
            "started",
            "progressed",
            "failed",
            "started",
            "progressed",
            "completed",
        ]

    play(story)


def test_a_step_on_record_that_no_longer_fits_its_type_fails_for_good(play: Play) -> None:
    async def old(n: int) -> int:
        return n

    async def new(n: int) -> Page:
        raise AssertionError("never called again")

    async def work(job: JobContext, order: Order) -> None:
        await job.step("step", old, 7)
        await job.step("step", new, 7)

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            job = await shop.finished(await shop.create())
        assert (job.status, job.attempt) == ("failed", 1)
        assert job.error is not None
        assert "was the step's type changed" in job.error.message

    play(story)


def test_a_step_result_that_is_too_large_fails_for_good(play: Play) -> None:
    async def large() -> str:
        return "x" * 256 * 1024

    async def work(job: JobContext, order: Order) -> None:
        await job.step("large", large)

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create()
            job = await shop.finished(id)
        assert (job.status, job.attempt) == ("failed", 1)
        assert job.error is not None
        assert "result of step 'large' has 262146 bytes" in job.error.message
        assert await shop.topics(id) == ["created", "started", "failed"]

    play(story)


def test_progress_that_is_said_too_often_is_merged_and_the_last_is_never_lost(play: Play) -> None:
    async def file(job: JobContext) -> None:
        await job.save_artifact("page", b"<html>", "text/html")

    async def work(job: JobContext, order: Order) -> None:
        for n in range(1, 10_001):
            await job.progress(n / 40_000, f"row {n}")
        await job.step("file", file, job)
        await job.progress(0.5, "half")
        await job.progress(0.75, "most")

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create()
            job = await shop.finished(id)
        assert job.status == "completed"
        said = [e for e in await asyncio.to_thread(shop.service._log.stream, id) if isinstance(e, Progressed)]
        stored, step = (next(n for n, e in enumerate(said) if found(e)) for found in (has_artifact, has_output))
        assert (said[0].message, said[stored - 1].message) == ("row 1", "row 10000")
        assert [e.message for e in said[step + 1 :]][-1] == "most"
        assert len(said) < 100  # of the 10 002

    play(story)


def test_progress_that_waits_for_its_time_is_recorded_although_nothing_follows(play: Play) -> None:
    go_on = asyncio.Event()

    async def work(job: JobContext, order: Order) -> None:
        await job.progress(0.1, "begun")
        await job.progress(0.2, "waiting")
        await go_on.wait()

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create()

            async def heard() -> bool:
                return (await shop.job(id)).message == "waiting"

            await shop.until(heard)
            go_on.set()
            await shop.finished(id)

    play(story)


def test_an_order_is_placed_once_and_its_handle_is_given_to_the_next_attempt(play: Play) -> None:
    ordered: list[tuple[int, str]] = []
    given: list[str] = []

    async def place(count: int, *, idempotency_key: str) -> str:
        ordered.append((count, idempotency_key))
        return "render-7"

    async def work(job: JobContext, order: Order) -> str:
        given.append(await job.submit("render", place, order.count))
        if job.attempt == 1:
            raise RuntimeError("the power went")
        return await job.submit("render", place, order.count)

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create(retry=AT_ONCE)
            job = await shop.finished(id)
        assert (job.status, job.attempt, job.result) == ("completed", 2, Raw(b'"render-7"'))
        assert (ordered, given) == ([(1, f"{id}:render")], ["render-7", "render-7"])
        (said,) = [e for e in await asyncio.to_thread(shop.service._log.stream, id) if isinstance(e, Progressed)]
        assert (said.step, said.handle, said.output) == ("render", Raw(b'"render-7"'), UNSET)

    play(story)


def test_steps_side_by_side_run_at_once_and_each_only_once(play: Play) -> None:
    ran: list[str] = []
    both = asyncio.Barrier(2)

    async def meet(name: str) -> str:
        ran.append(name)
        await both.wait()
        return name

    async def work(job: JobContext, order: Order) -> list[str]:
        steps = [job.step(name, meet, name) for name in ("left", "right", "left")]
        return list(await asyncio.gather(*steps))

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            job = await shop.finished(await shop.create(max_attempts=1))
        assert (job.status, job.result) == ("completed", Raw(b'["left","right","left"]'))
        assert sorted(ran) == ["left", "right"]

    play(story)


def test_a_step_that_is_asked_for_twice_and_fails_fails_for_both_and_may_be_tried_again(play: Play) -> None:
    ran: list[int] = []

    async def flaky() -> int:
        ran.append(len(ran))
        await asyncio.sleep(0)
        if len(ran) == 1:
            raise ValueError("not yet")
        return len(ran)

    async def work(job: JobContext, order: Order) -> list[str]:
        failed = await asyncio.gather(*[job.step("flaky", flaky) for _ in range(2)], return_exceptions=True)
        return [str(error) for error in failed] + [str(await job.step("flaky", flaky))]

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            job = await shop.finished(await shop.create(max_attempts=1))
        assert job.result == Raw(b'["not yet","not yet","2"]')

    play(story)


def test_a_step_whose_caller_gave_it_up_is_run_for_the_other_one(play: Play) -> None:
    ran: list[int] = []
    begun, never = asyncio.Event(), asyncio.Event()

    async def stuck_at_first() -> int:
        ran.append(len(ran))
        begun.set()
        if len(ran) == 1:
            await never.wait()
        return len(ran)

    async def work(job: JobContext, order: Order) -> int:
        first = asyncio.create_task(job.step("step", stuck_at_first))
        second = asyncio.create_task(job.step("step", stuck_at_first))
        await begun.wait()
        first.cancel()
        return await second

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            job = await shop.finished(await shop.create(max_attempts=1))
        assert (job.status, job.result) == ("completed", Raw(b"2"))

    play(story)


def test_a_step_inside_a_step_is_refused(play: Play) -> None:
    async def inner() -> int:
        raise AssertionError("never called")

    async def outer(job: JobContext) -> int:
        return await job.step("inner", inner)

    async def work(job: JobContext, order: Order) -> None:
        await job.step("outer", outer, job)

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            job = await shop.finished(await shop.create())
        assert job.error is not None
        assert (job.status, job.attempt) == ("failed", 1)
        assert "step 'inner' is asked for inside 'outer'" in job.error.message

    play(story)


@pytest.mark.parametrize(("retired", "status"), [([], "failed"), (["old name"], "completed")])
def test_a_recorded_step_that_is_no_longer_asked_for_fails_the_job_unless_it_is_retired(
    play: Play, retired: list[str], status: str
) -> None:
    async def one() -> int:
        return 1

    async def work(job: JobContext, order: Order) -> None:
        if job.attempt == 1:
            await job.step("old name", one)
            raise RuntimeError("and now a new release")
        await job.step("new name", one)

    async def story(shop: Shop) -> None:
        async with shop.working(work=handler_for("work", work, retired=retired)):
            job = await shop.finished(await shop.create(retry=AT_ONCE, max_attempts=5))
        assert (job.status, job.attempt) == (status, 2)
        if job.error is not None:
            assert job.error.type == "step-renamed"
            assert "step 'old name' of an earlier attempt is on record" in job.error.message

    play(story)


def has_artifact(event: Progressed) -> bool:
    return event.artifact is not None


def has_output(event: Progressed) -> bool:
    return event.output is not UNSET
