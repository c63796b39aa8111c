"""Presentations by Elai, over a real socket: one order whatever happens, and the film as it was delivered."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from msgspec import UNSET
from PIL import Image

from application.handlers import handler_for
from application.jobs import Cancel, JobView, Requeue, Retry
from application.presentation import Presentation, Slide, Video
from application.studio import LONGEST_WAIT, studio_handler
from domain.events import Progressed
from infrastructure.elai import Elai
from tests import studios
from tests.application.services import ASKED, Shop, in_shop
from tests.studios import HEIGHT, KEY, SECONDS, WIDTH, Fault

DECK = Presentation(
    "Event sourcing",
    [
        Slide("Why a log?", bullets=["Facts do not change", "State is what they add up to"], notes="Let us begin."),
        Slide("Thank you", bullets=["And good night"]),
    ],
)
FINAL = [
    (401, "ELAI_API_KEY"),
    (403, "ELAI_API_KEY"),
    (402, "not enough minutes"),
    (400, "Slide 1 is too long"),
    (422, "Slide 1 is too long"),
]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return studios.film_of(tmp_path_factory.mktemp("film") / "film.mp4")


@pytest.fixture
def elai(film: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[studios.Elai]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with studios.open_for_work(film) as studio:
        yield studio


class Filming:
    """A shop, and workers whose studio is the small one."""

    def __init__(self, shop: Shop, studio: studios.Elai) -> None:
        self.shop = shop
        self.studio = studio

    async def create(self, deck: Presentation = DECK, **fields: Any) -> UUID:
        retry = Retry(initial=0.01, factor=1.0, max=1.0)
        return await self.shop.create("presentation", msgspec.json.encode(deck), retry=retry, **fields)

    @asynccontextmanager
    async def working(
        self, name: str = "w1", *, key: str = KEY, wait: float = LONGEST_WAIT, answer: float = 5.0, grace: float = 10.0
    ) -> AsyncIterator[None]:
        client = Elai(key, self.studio.base_url, answer)
        run = studio_handler(client, first_pause=0.01, longest_pause=0.05, longest_wait=wait)
        try:
            async with self.shop.working(name=name, grace=grace, presentation=handler_for("presentation", run)):
                yield
        finally:
            await client.aclose()

    async def made(self, **working: Any) -> JobView:
        """A job of one deck, once it has ended."""
        id = await self.create()
        async with self.working(**working):
            return await self.shop.finished(id)

    async def asked_for(self, call: str, times: int = 1) -> None:
        """Until the studio was asked that."""

        async def was() -> bool:
            return self.studio.calls.count(call) >= times

        await self.shop.until(was)


Play = Callable[[Callable[[Filming], Awaitable[None]]], None]


@pytest.fixture
def play(dsn: str, tmp_path: Path, elai: studios.Elai) -> Play:
    """Runs a story with a service, a worker's studio, and a queue of its own."""

    def run(story: Callable[[Filming], Awaitable[None]]) -> None:
        in_shop(dsn, tmp_path, uuid4().hex, lambda shop: story(Filming(shop, elai)))

    return run


def video_of(job: JobView) -> Video:
    assert job.status == "completed", job.error
    assert job.result is not None
    return msgspec.json.decode(job.result, type=Video)


def why(job: JobView) -> str:
    assert job.status == "failed"
    assert job.error is not None
    assert KEY not in job.error.message
    return job.error.message


def test_deck_becomes_a_video(play: Play, elai: studios.Elai) -> None:
    async def story(filming: Filming) -> None:
        job = await filming.made()
        video = video_of(job)
        assert video.video.sha256 == hashlib.sha256(elai.film).hexdigest()
        assert video.video.size == len(elai.film)
        assert (video.video.name, video.video.media_type) == ("video.mp4", "video/mp4")
        assert (video.width, video.height, video.renderer, video.slides) == (WIDTH, HEIGHT, "elai", [])
        assert video.duration == pytest.approx(SECONDS, rel=0.02)
        assert (video.thumbnail.name, video.thumbnail.media_type) == ("thumbnail.jpg", "image/jpeg")
        assert [file.name for file in job.artifacts] == ["video.mp4", "thumbnail.jpg"]
        [ordered] = elai.videos.values()
        assert ordered["name"] == f"Event sourcing ({job.id})"
        assert ordered["tags"] == ["jobledger", f"{job.id}:video"]
        assert [slide["speech"] for slide in ordered["slides"]] == ["Let us begin.", "Thank you. And good night"]
        assert [slide["id"] for slide in ordered["slides"]] == [1, 2]
        keys = {call: key for call, key in elai.keys if call.startswith("POST")}
        assert keys == {"POST /videos": f"{job.id}:video", "POST /videos/render/{id}": f"{job.id}:render"}
        assert "GET /videos" not in elai.calls  # the first attempt has nothing to look for

    play(story)


def test_ids_are_recorded_before_anything_waits_and_progress_only_rises(play: Play, elai: studios.Elai) -> None:
    async def story(filming: Filming) -> None:
        job = await filming.made()
        events = await asyncio.to_thread(filming.shop.service._log.stream, job.id)
        told = [event for event in events if isinstance(event, Progressed)]
        assert [event.step for event in told if event.handle is not UNSET] == ["video", "render"]
        rising = [event.progress for event in told]
        assert rising == sorted(rising)
        assert rising[-1] > 0.5

    play(story)


def test_its_thumbnail_is_taken_where_it_gives_one(play: Play, elai: studios.Elai) -> None:
    drawn = BytesIO()
    Image.new("RGB", (8, 8), "red").save(drawn, "PNG")
    elai.thumbnail = drawn.getvalue()

    async def story(filming: Filming) -> None:
        thumbnail = video_of(await filming.made()).thumbnail
        assert (thumbnail.name, thumbnail.media_type) == ("thumbnail.png", "image/png")
        assert thumbnail.sha256 == hashlib.sha256(elai.thumbnail or b"").hexdigest()

    play(story)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("call", ["POST /videos", "POST /videos/render/{id}", "GET /videos/{id}"])
def test_busy_studio_is_asked_again(play: Play, elai: studios.Elai, call: str, status: int) -> None:
    elai.faults[call] = Fault(status, times=2)

    async def story(filming: Filming) -> None:
        job = await filming.made()
        assert video_of(job).duration
        assert len(elai.videos) == 1
        assert elai.calls.count(call) >= 3
        assert job.attempt == 3

    play(story)


def test_failing_looks_cost_no_attempt_once_it_is_ordered(play: Play, elai: studios.Elai) -> None:
    elai.hold.clear()

    async def story(filming: Filming) -> None:
        id = await filming.create(max_attempts=1)
        async with filming.working():
            await filming.asked_for("GET /videos/{id}", 3)
            elai.faults["GET /videos/{id}"] = Fault(500, times=5)
            elai.hold.set()
            assert video_of(await filming.shop.finished(id)).duration

    play(story)


def test_retry_after_is_honoured(play: Play, elai: studios.Elai) -> None:
    elai.faults["POST /videos"] = Fault(429, retry_after="3600")

    async def story(filming: Filming) -> None:
        id = await filming.create()
        async with filming.working():
            await filming.asked_for("POST /videos")

            async def failed() -> bool:
                return (await filming.shop.job(id)).error is not None

            await filming.shop.until(failed)
            job = await filming.shop.status(id, "queued")
            assert 3500 < (job.run_at - job.updated_at).total_seconds() <= 3601

    play(story)


@pytest.mark.parametrize("tags_listed", [True, False])
def test_order_whose_answer_was_lost_is_found_again(play: Play, elai: studios.Elai, tags_listed: bool) -> None:
    elai.tags_listed = tags_listed
    elai.faults["POST /videos"] = Fault(503, done=True)

    async def story(filming: Filming) -> None:
        video_of(await filming.made())
        assert (elai.orders, elai.renders, len(elai.videos)) == (1, 1, 1)

    play(story)


def test_order_is_found_among_many(play: Play, elai: studios.Elai) -> None:
    for n in range(250):
        elai.create({"name": f"Another ({n})", "tags": ["jobledger", f"{n}:video"]})
    elai.faults["POST /videos"] = Fault(503, done=True)

    async def story(filming: Filming) -> None:
        video_of(await filming.made())
        assert elai.orders == 1
        assert elai.calls.count("GET /videos") == 3

    play(story)


def test_render_whose_answer_was_lost_is_not_ordered_again(play: Play, elai: studios.Elai) -> None:
    elai.faults["POST /videos/render/{id}"] = Fault(503, done=True)

    async def story(filming: Filming) -> None:
        video_of(await filming.made())
        assert (elai.orders, elai.renders) == (1, 1)

    play(story)


@pytest.mark.parametrize(("status", "said"), FINAL)
def test_refusal_is_final_and_says_what_to_mend(play: Play, elai: studios.Elai, status: int, said: str) -> None:
    elai.faults["POST /videos"] = Fault(status, message=f"Slide 1 is too long, dear {KEY}")

    async def story(filming: Filming) -> None:
        job = await filming.made()
        assert said in why(job)
        assert job.attempt == 1
        assert elai.orders == 1

    play(story)


def test_wrong_key_is_told_without_it(play: Play, elai: studios.Elai) -> None:
    async def story(filming: Filming) -> None:
        job = await filming.made(key="another-key-0123456789")
        assert "ELAI_API_KEY" in why(job)
        assert "another-key" not in why(job)

    play(story)


def test_wrong_address_names_its_setting(play: Play, elai: studios.Elai) -> None:
    elai.faults["POST /videos"] = Fault(404)

    async def story(filming: Filming) -> None:
        assert "ELAI_BASE_URL" in why(await filming.made())

    play(story)


def test_render_that_vanished_is_reported_as_such_and_ordered_again_afresh(play: Play, elai: studios.Elai) -> None:
    elai.hold.clear()

    async def story(filming: Filming) -> None:
        id = await filming.create()
        async with filming.working():
            await filming.asked_for("GET /videos/{id}", 3)
            (gone,) = elai.videos
            with elai.lock:
                elai.videos.clear()
            assert f"video {gone} is no longer there" in why(await filming.shop.finished(id))
            elai.hold.set()
            await filming.shop.service.jobs.execute(Requeue(job_id=id, reason="again", afresh=True, asked=ASKED))
            await filming.shop.status(id, "completed")
            assert elai.orders == 2

    play(story)


def test_render_that_failed_is_final_and_says_why(play: Play, elai: studios.Elai) -> None:
    elai.hold.clear()

    async def story(filming: Filming) -> None:
        id = await filming.create()
        async with filming.working():
            await filming.asked_for("GET /videos/{id}", 3)
            with elai.lock:
                (video,) = elai.videos.values()
                video |= {"status": "error", "error": {"message": "the voice is hoarse"}}
            job = await filming.shop.finished(id)
            assert "the voice is hoarse" in why(job)
            assert job.attempt == 1

    play(story)


def test_silent_studio_is_not_waited_for_for_ever(play: Play, elai: studios.Elai) -> None:
    elai.hold.clear()

    async def story(filming: Filming) -> None:
        id = await filming.create(max_attempts=1)
        async with filming.working(answer=1.0):
            await filming.asked_for("GET /videos/{id}", 3)
            elai.faults["GET /videos/{id}"] = Fault(0, hang=True)
            elai.hold.set()
            assert video_of(await filming.shop.finished(id)).duration

    play(story)


def test_cut_download_is_fetched_again_whole(play: Play, elai: studios.Elai) -> None:
    elai.cut_downloads = 2

    async def story(filming: Filming) -> None:
        video = video_of(await filming.made()).video
        assert video.sha256 == hashlib.sha256(elai.film).hexdigest()
        assert elai.calls.count("GET /media") == 3

    play(story)


def test_link_that_has_expired_is_looked_up_again(play: Play, elai: studios.Elai) -> None:
    elai.broken_links = 1

    async def story(filming: Filming) -> None:
        looks = elai.looks_until_ready
        video_of(await filming.made())
        assert elai.calls.count("GET /videos/{id}") > looks + 1
        assert elai.calls.count("GET /media") == 2

    play(story)


def test_what_is_no_video_is_refused(play: Play, elai: studios.Elai) -> None:
    elai.garbage = True

    async def story(filming: Filming) -> None:
        assert "cannot be read as one" in why(await filming.made())

    play(story)


def test_wait_is_bounded_and_a_retry_goes_on_with_the_same_order(play: Play, elai: studios.Elai) -> None:
    elai.hold.clear()

    async def story(filming: Filming) -> None:
        id = await filming.create()
        async with filming.working(wait=0.5):
            assert "was not there within 0.5 s" in why(await filming.shop.finished(id))
        elai.hold.set()
        await filming.shop.service.jobs.execute(Requeue(job_id=id, reason="again", asked=ASKED))
        async with filming.working():
            video_of(await filming.shop.status(id, "completed"))
        assert (elai.orders, elai.renders) == (1, 1)

    play(story)


def test_cancelling_deletes_it_there(play: Play, elai: studios.Elai) -> None:
    elai.hold.clear()
    elai.faults["DELETE /videos/{id}"] = Fault(503)

    async def story(filming: Filming) -> None:
        id = await filming.create(heartbeat_timeout=1)
        async with filming.working():
            await filming.asked_for("GET /videos/{id}", 3)
            await filming.shop.service.jobs.execute(Cancel(job_id=id, reason="enough", asked=ASKED))
            await filming.shop.status(id, "cancelled")
        assert elai.videos == {}

    play(story)


def test_cancelling_deletes_also_what_is_not_recorded_yet(play: Play, elai: studios.Elai) -> None:
    elai.faults["POST /videos"] = Fault(0, done=True, hang=True)

    async def story(filming: Filming) -> None:
        id = await filming.create(heartbeat_timeout=1)
        async with filming.working():
            await filming.asked_for("POST /videos")
            await filming.shop.service.jobs.execute(Cancel(job_id=id, reason="enough", asked=ASKED))
            await filming.shop.status(id, "cancelled")
        assert elai.videos == {}

    play(story)


def test_worker_that_stops_leaves_the_render_to_the_next(play: Play, elai: studios.Elai) -> None:
    elai.hold.clear()

    async def story(filming: Filming) -> None:
        id = await filming.create()
        async with filming.working(grace=0.2):
            await filming.asked_for("GET /videos/{id}", 3)
        assert len(elai.videos) == 1
        elai.hold.set()
        async with filming.working("w2"):
            video_of(await filming.shop.finished(id))
        assert (elai.orders, elai.renders) == (1, 1)

    play(story)


def test_studio_may_die_and_come_back(dsn: str, tmp_path: Path, film: bytes) -> None:
    async def story(shop: Shop) -> None:
        with studios.open_for_work(film) as first:
            first.hold.clear()
            filming = Filming(shop, first)
            id = await filming.create(max_attempts=1)
            working = filming.working()
            await working.__aenter__()
            await filming.asked_for("GET /videos/{id}", 3)
        try:

            async def noticed() -> bool:
                return "cannot be reached" in ((await shop.job(id)).message or "")

            await shop.until(noticed)
            with studios.open_for_work(film, first.server_port) as second:
                second.videos = first.videos
                assert video_of(await shop.finished(id)).duration
                assert second.orders == 0
        finally:
            await working.__aexit__(None, None, None)

    in_shop(dsn, tmp_path, uuid4().hex, story)
