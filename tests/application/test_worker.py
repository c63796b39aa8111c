"""A worker over a real ledger: what its handlers return, raise and save is what is recorded."""

import asyncio
import hashlib
import resource
from pathlib import Path

import msgspec
import pytest
from msgspec import Raw

from application.handlers import GiveUp, JobContext, RetryLater
from application.jobs import Retry
from domain.events import Failed, Progressed
from tests.application.services import AT_ONCE, Order, Page, Play, Shop


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
