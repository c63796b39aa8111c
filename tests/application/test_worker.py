"""A worker over a real ledger: what it recorded is not done twice, and it stops when it is told to."""

import asyncio
import hashlib
import resource
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec import UNSET, Raw, Struct

from application.claims import Claim, ClaimedJob
from application.handlers import GiveUp, JobContext, RetryLater, handler_for
from application.jobs import Cancel, Retry
from application.ledger import Expired
from application.reports import AnyReport, Reported
from application.rescue import MissHeartbeat
from application.worker import Worker
from domain.events import Failed, Progressed
from infrastructure.news import LocalNews
from tests.application.services import ASKED, Shop, claimed, in_shop
from tests.infrastructure.nodes import PATIENCE, ask

AT_ONCE = Retry(initial=0, factor=1, max=0)
Story = Callable[[Shop], Awaitable[None]]
Play = Callable[[Story], None]


class Order(Struct):
    count: int = 1


class Page(Struct):
    url: str
    words: list[str]


@pytest.fixture
def play(dsn: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Runs a story in a shop with a queue of the test's own."""
    monkeypatch.setattr("infrastructure.postgres.notifications.LOOK_SECONDS", 0.05)  # how long closing takes
    return lambda story: in_shop(dsn, tmp_path, str(request.node.name), story)


def test_a_job_is_done_and_its_result_recorded(play: Play) -> None:
    async def work(job: JobContext, order: Order) -> Page:
        await job.progress(0.25, "a quarter")
        return Page(url=f"/{job.attempt}", words=["x"] * order.count)

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create(input=b'{"count": 3}')
            job = await shop.finished(id)
        assert (job.status, job.progress, job.worker, job.attempt) == ("completed", 1.0, "w1", 1)
        assert job.result == Raw(b'{"url":"/1","words":["x","x","x"]}')
        assert await shop.topics(id) == ["created", "started", "progressed", "completed"]

    play(story)


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


def test_giving_up_fails_the_job_for_good(play: Play) -> None:
    async def work(job: JobContext, order: Order) -> None:
        raise GiveUp("there is no such customer")

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create(max_attempts=9)
            job = await shop.finished(id)
        assert (job.status, job.attempt) == ("failed", 1)
        assert job.error is not None
        assert (job.error.type, job.error.message) == ("GiveUp", "there is no such customer")
        assert await shop.topics(id) == ["created", "started", "failed"]

    play(story)


def test_a_moment_asked_for_is_granted(play: Play) -> None:
    async def work(job: JobContext, order: Order) -> str:
        if job.attempt == 1:
            raise RetryLater(0.2, "the printer is warming up")
        return "printed"

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create(retry=Retry(initial=3600, factor=1, max=3600))
            job = await shop.finished(id)
        assert (job.status, job.attempt) == ("completed", 2)
        (failed,) = [e for e in await asyncio.to_thread(shop.service._log.stream, id) if isinstance(e, Failed)]
        assert failed.retry_at is not None
        assert (failed.retry_at - failed.at).total_seconds() == pytest.approx(0.2)
        assert job.started_at is not None
        assert job.started_at >= failed.retry_at

    play(story)


def test_a_failure_is_tried_again_until_no_attempt_is_left(play: Play) -> None:
    async def work(job: JobContext, order: Order) -> None:
        raise ValueError(f"boom {job.attempt}")

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create(max_attempts=3, retry=AT_ONCE)
            job = await shop.finished(id)
        assert (job.status, job.attempt) == ("failed", 3)
        assert job.error is not None
        assert (job.error.type, job.error.message) == ("ValueError", "boom 3")
        assert await shop.topics(id) == ["created", *["started", "failed"] * 3]

    play(story)


@pytest.mark.parametrize(
    ("input", "field"), [(b'{"count": "three"}', "$.count"), (b"[]", "Expected `object`"), (b"null", "`object`")]
)
def test_an_input_that_does_not_fit_fails_for_good_and_names_the_field(play: Play, input: bytes, field: str) -> None:
    async def work(job: JobContext, order: Order) -> None:
        raise AssertionError("never run")

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            job = await shop.finished(await shop.create(input=input))
        assert (job.status, job.attempt) == ("failed", 1)
        assert job.error is not None
        assert job.error.type == "invalid-input"
        assert field in job.error.message

    play(story)


def test_an_attempt_that_takes_longer_than_its_time_limit_fails(play: Play) -> None:
    stopped: list[int] = []

    async def work(job: JobContext, order: Order) -> str:
        if job.attempt == 2:
            return "in time"
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(job.attempt)
        return "never"

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create(time_limit=0.1, retry=AT_ONCE)
            job = await shop.finished(id)
        assert (job.status, job.attempt, stopped) == ("completed", 2, [1])
        failed = [e for e in await asyncio.to_thread(shop.service._log.stream, id) if isinstance(e, Failed)]
        assert [e.error.type for e in failed] == ["time-limit"]

    play(story)


def test_a_time_out_of_the_handlers_own_is_an_ordinary_failure(play: Play) -> None:
    async def work(job: JobContext, order: Order) -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            job = await shop.finished(await shop.create(time_limit=60, max_attempts=1))
        assert job.error is not None
        assert (job.status, job.error.type) == ("failed", "TimeoutError")

    play(story)


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


def test_a_result_that_is_too_large_fails_for_good(play: Play) -> None:
    async def work(job: JobContext, order: Order) -> str:
        return "x" * 256 * 1024

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            job = await shop.finished(await shop.create())
        assert job.error is not None
        assert (job.status, job.attempt, job.error.type) == ("failed", 1, "too-large")

    play(story)


@pytest.mark.parametrize(
    "text", ["n\0l", "a file named \udcff", "x" * 3_000, ""], ids=["NUL", "surrogate", "long", "none"]
)
def test_whatever_an_error_says_it_is_recorded(play: Play, text: str) -> None:
    async def work(job: JobContext, order: Order) -> None:
        raise ValueError(text)

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            job = await shop.finished(await shop.create(max_attempts=1))
        assert job.error is not None
        assert (job.status, job.error.type) == ("failed", "ValueError")

    play(story)


def test_progress_and_files_are_recorded_while_it_runs(play: Play) -> None:
    async def work(job: JobContext, order: Order) -> str:
        await job.progress(0.5)
        await job.progress(7.0)
        await job.progress(0.2, "no step back")
        artifact = await job.save_artifact("page.html", b"<html>", "text/html")
        return artifact.sha256

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create()
            job = await shop.finished(id)
        assert [(a.name, a.size, a.media_type) for a in job.artifacts] == [("page.html", 6, "text/html")]
        assert msgspec.json.decode(job.result or b"") == job.artifacts[0].sha256
        said = [e for e in await asyncio.to_thread(shop.service._log.stream, id) if isinstance(e, Progressed)]
        assert [(e.progress, e.message) for e in said] == [(0.5, None), (1.0, "no step back"), (1.0, None)]

    play(story)


def test_a_file_of_any_size_is_saved_from_its_path(play: Play, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(bytes(range(256)) * 20_000)

    async def work(job: JobContext, order: Order) -> str:
        return (await job.save_artifact("film", film, "video/mp4")).sha256

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            job = await shop.finished(await shop.create())
        (file,) = job.artifacts
        assert (file.size, file.sha256) == (film.stat().st_size, hashlib.sha256(film.read_bytes()).hexdigest())
        pieces = [piece async for piece in shop.service.artifacts.read(file.sha256, 0, file.size)]
        assert b"".join(pieces) == film.read_bytes()

    play(story)


def test_a_disk_that_is_full_fails_the_attempt_with_that_reason_and_the_next_one_may_find_room(play: Play) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def work(job: JobContext, order: Order) -> None:
        if job.attempt == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # the kernel refuses to write beyond
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await job.save_artifact("film", bytes(200_000), "video/mp4")

    async def story(shop: Shop) -> None:
        async with shop.working(work=work):
            id = await shop.create(retry=AT_ONCE)
            job = await shop.finished(id)
        assert (job.status, job.attempt, len(job.artifacts)) == ("completed", 2, 1)
        (failed,) = [e for e in await asyncio.to_thread(shop.service._log.stream, id) if isinstance(e, Failed)]
        assert failed.error.type == "NoSpace"
        assert "no space left" in failed.error.message

    try:
        play(story)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


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


async def rescue(shop: Shop, dsn: str, id: Any) -> Any:
    """What becomes of a job whose lease runs out now."""
    query = "UPDATE leases SET expires_at = now() - interval '1 s' WHERE job_id = %s RETURNING attempt, heartbeat_at"
    ((attempt, heartbeat_at),) = await asyncio.to_thread(ask, dsn, query, [id])
    return await shop.service.jobs.execute(MissHeartbeat(expired=Expired(id, attempt, heartbeat_at)))


def expired(shop: Shop) -> list[Any]:
    with shop.service._log.database.connection() as connection:
        return connection.execute("SELECT job_id FROM leases WHERE expires_at < clock_timestamp()").fetchall()
