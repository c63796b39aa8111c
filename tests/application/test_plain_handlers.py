"""Plain handlers run in processes of their own: they record as others do, are stopped, and may die."""

import asyncio
import json
import os
import select
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import msgspec
import psutil  # type: ignore[import-untyped]
import pytest
from msgspec import Raw

from application.handlers import Handler, JobContext, PlainJobContext, handler_for, handles
from application.jobs import Cancel
from application.plain import LENGTH_BYTES, Begin
from application.processes import PROGRAM
from application.worker import Room
from domain.events import Failed, Progressed
from tests.application import plain_handlers
from tests.application.services import ASKED, AT_ONCE, Play, Shop, claimed, in_shop


@pytest.fixture
def play(dsn: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Runs a story in a shop with a queue of the test's own; nothing that it started is left."""
    monkeypatch.setattr("infrastructure.postgres.notifications.LOOK_SECONDS", 0.05)  # how long closing takes

    def run(story: Callable[[Shop], Awaitable[None]]) -> None:
        in_shop(dsn, tmp_path, str(request.node.name), story)
        assert [child for child in psutil.Process().children() if PROGRAM in child.cmdline()] == []

    return run


@pytest.fixture
def marks(tmp_path: Path) -> Callable[[], list[str]]:
    return lambda: (tmp_path / "marks").read_text().splitlines() if (tmp_path / "marks").exists() else []


def where(folder: Path, do: str = "") -> bytes:
    return msgspec.json.encode(plain_handlers.Where(str(folder), do))


async def marked(shop: Shop, marks: Callable[[], list[str]], name: str) -> None:
    async def there() -> bool:
        return name in marks()

    await shop.until(there)


async def recorded(shop: Shop, id: UUID, step: str) -> bool:
    return step in (await shop.service.jobs.fold(id)).steps


def test_it_runs_in_another_process_which_the_next_job_finds_still_there(play: Play) -> None:
    async def story(shop: Shop) -> None:
        async with shop.working(capacity=1, work=plain_handlers.pid):
            pids = [(await shop.finished(await shop.create())).result for _ in range(3)]
        assert len({bytes(pid or b"") for pid in pids}) == 1
        assert pids[0] != Raw(str(os.getpid()).encode())

    play(story)


def test_its_steps_orders_progress_and_files_are_recorded(
    play: Play, tmp_path: Path, marks: Callable[[], list[str]]
) -> None:
    async def story(shop: Shop) -> None:
        async with shop.working(work=plain_handlers.steps):
            id = await shop.create(input=where(tmp_path), retry=AT_ONCE)
            job = await shop.finished(id)
        assert (job.status, job.attempt) == ("completed", 2)
        assert marks() == ["one", f"{id}:order"]
        assert [(file.name, file.size) for file in job.artifacts] == [("page", 6), ("film", 100_000)]
        said = [e for e in await asyncio.to_thread(shop.service._log.stream, id) if isinstance(e, Progressed)]
        assert [e.message for e in said if e.message] == ["half"]
        assert msgspec.json.decode(job.result or b"")["order"] == f"{id}:order"

    play(story)


def test_it_reads_the_files_that_an_earlier_attempt_saved(play: Play, tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        async with shop.working(work=plain_handlers.reread):
            job = await shop.finished(await shop.create(input=where(tmp_path), retry=AT_ONCE))
        assert (job.result, job.attempt) == (Raw(b'"same"'), 2)

    play(story)


def test_the_input_chooses_among_the_handlers_of_a_kind(play: Play, tmp_path: Path) -> None:
    async def here(job: JobContext, given: plain_handlers.Where) -> int:
        return os.getpid()

    def choose(given: plain_handlers.Where) -> Handler:
        return plain if given.do == "plain" else handler_for("work", here)

    plain = handler_for("work", plain_handlers.pid)
    read = msgspec.json.Decoder(plain_handlers.Where).decode
    chooses = Handler("work", choose, plain_handlers.Where, int, read, choose=choose)

    async def story(shop: Shop) -> None:
        async with shop.working(work=chooses):
            one, other, none = [await shop.create(input=json) for json in (where(tmp_path, "plain"), b"{}", b"7")]
            assert (await shop.finished(one)).result != Raw(str(os.getpid()).encode())
            assert (await shop.finished(other)).result == Raw(str(os.getpid()).encode())
            error = (await shop.finished(none)).error
        assert error is not None
        assert error.type == "invalid-input"

    play(story)


def test_a_handler_that_hogs_its_process_keeps_its_lease(
    play: Play, tmp_path: Path, marks: Callable[[], list[str]]
) -> None:
    async def story(shop: Shop) -> None:
        async with shop.working(work=plain_handlers.hog):
            id = await shop.create(input=where(tmp_path), heartbeat_timeout=1)
            begun = (await shop.status(id, "running")).heartbeat_at
            assert begun is not None

            async def outlived_three_leases() -> bool:
                beat = (await shop.job(id)).heartbeat_at
                return beat is not None and (beat - begun).total_seconds() > 3

            await shop.until(outlived_three_leases)
            (tmp_path / "go").touch()
            job = await shop.finished(id)
        assert (job.status, job.attempt) == ("completed", 1)

    play(story)


@pytest.mark.parametrize(
    ("do", "kind", "message"),
    [
        ("segfault", "process-died", "the process of the handler was ended by SIGSEGV"),
        ("exit", "process-died", "the process of the handler ended with exit status 3"),
        ("leave", "SystemExit", "leaving"),
    ],
)
def test_a_process_that_dies_fails_its_attempt_and_no_other(
    play: Play, tmp_path: Path, do: str, kind: str, message: str
) -> None:
    go_on = asyncio.Event()

    async def other(job: JobContext, input: dict[str, int]) -> int:
        await go_on.wait()
        return job.attempt

    async def story(shop: Shop) -> None:
        async with shop.working(work=plain_handlers.end, other=other):
            bystander = await shop.create("other")
            id = await shop.create(input=where(tmp_path, do), retry=AT_ONCE)
            job = await shop.finished(id)
            go_on.set()
            assert (await shop.finished(bystander)).result == Raw(b"1")
        assert (job.status, job.attempt) == ("completed", 2)
        (failed,) = [e for e in await asyncio.to_thread(shop.service._log.stream, id) if isinstance(e, Failed)]
        assert (failed.error.type, failed.error.message) == (kind, message)

    play(story)


def test_a_worker_holds_no_more_plain_jobs_than_it_has_processes_whatever_its_capacity(
    play: Play, tmp_path: Path
) -> None:
    processes = os.cpu_count() or 1

    async def other(job: JobContext, input: dict[str, int]) -> str:
        return "done"

    async def story(shop: Shop) -> None:
        ids = [await shop.create(input=where(tmp_path)) for _ in range(2 * processes)]

        async def held() -> Counter[str | None]:
            jobs = [await shop.job(id) for id in ids]
            return Counter(job.worker for job in jobs if job.status == "running")

        async def all_run() -> bool:
            return (await held()).total() == len(ids)

        async with shop.working(name="w1", capacity=100, work=plain_handlers.hog, other=other):
            await shop.status(ids[processes - 1], "running")
            for _ in range(3):  # each is claimed, so there was time to claim more of the others
                assert (await shop.finished(await shop.create("other"))).status == "completed"
            assert await held() == {"w1": processes}
            async with shop.working(name="w2", capacity=100, work=plain_handlers.hog):
                await shop.until(all_run)
                assert await held() == {"w1": processes, "w2": processes}
                (tmp_path / "go").touch()
                for id in ids:
                    assert (await shop.finished(id)).attempt == 1

    play(story)


def test_its_process_ends_when_the_worker_is_killed_before_it_read_what_was_said() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        program = [sys.executable, "-c", PROGRAM, json.dumps(sys.path), str(theirs.fileno())]
        process = subprocess.Popen(program, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
    try:
        begin = msgspec.json.encode(Begin(job=claimed(), address="nowhere:at_all", retired=[]))
        ours.sendall(len(begin).to_bytes(LENGTH_BYTES, "big") + begin)
        assert select.select([ours], [], [], 60)[0], "it did not say how its handler ended"
        ours.close()  # unread, so that the other end is reset
        assert process.wait(60) == 1
    finally:
        process.kill()
        process.wait()


def test_what_processes_do_in_a_tenth_of_a_second_is_held_ahead() -> None:
    room = Room(["plain"], 2, 50, asyncio.Event(), asyncio.Event())
    assert room.free == 2
    room.ended(0.01)
    assert room.free == 22
    room.running = room.held = 22
    assert room.free == 0
    room.running = 21  # one has ended, and its report is on its way
    assert room.free == 1
    room.ended(0.3)
    assert room.free == -19
    for _ in range(30):
        room.ended(0.0099)
    assert room.free == 1
    room.held = 50
    assert room.free == 0
    room.running = room.held = 0
    room.ended(0.0)
    assert room.free <= 50


def test_a_handler_that_is_cancelled_stops_at_its_next_call_and_keeps_what_it_had(
    play: Play, tmp_path: Path, marks: Callable[[], list[str]]
) -> None:
    async def story(shop: Shop) -> None:
        async with shop.working(work=plain_handlers.polite, after=plain_handlers.pid):
            id = await shop.create(input=where(tmp_path), heartbeat_timeout=1)
            await shop.until(lambda: recorded(shop, id, "one"))
            await shop.service.jobs.execute(Cancel(job_id=id, reason="changed our minds", asked=ASKED))
            job = await shop.finished(id)
            assert (await shop.finished(await shop.create("after"))).status == "completed"
        assert job.status == "cancelled"
        assert marks() == ["one", "stopped"]
        assert await shop.topics(id) == ["created", "started", "progressed", "cancel_requested", "cancelled"]

    play(story)


def test_a_step_under_way_when_the_handler_is_to_stop_is_recorded(
    play: Play, tmp_path: Path, marks: Callable[[], list[str]]
) -> None:
    async def story(shop: Shop) -> None:
        async with shop.working(work=plain_handlers.finishing):
            id = await shop.create(input=where(tmp_path), heartbeat_timeout=1)
            await marked(shop, marks, "begun")
            await shop.service.jobs.execute(Cancel(job_id=id, reason="changed our minds", asked=ASKED))
            job = await shop.finished(id)
        assert job.status == "cancelled"
        assert marks() == ["begun", "went on"]
        assert (await shop.service.jobs.fold(id)).steps == {"long": Raw(b'"kept"')}

    play(story)


def test_a_handler_that_does_not_stop_when_it_is_cancelled_is_killed(
    play: Play, tmp_path: Path, marks: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("application.worker.ASKED_SECONDS", 0.2)

    async def story(shop: Shop) -> None:
        async with shop.working(work=plain_handlers.hog, after=plain_handlers.pid):
            id = await shop.create(input=where(tmp_path), heartbeat_timeout=1)
            await marked(shop, marks, "begun")
            await shop.service.jobs.execute(Cancel(job_id=id, reason="changed our minds", asked=ASKED))
            assert (await shop.finished(id)).status == "cancelled"
            assert (await shop.finished(await shop.create("after"))).status == "completed"

    play(story)


def test_the_time_limit_ends_a_handler_and_its_process(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("application.worker.ASKED_SECONDS", 0.2)

    async def story(shop: Shop) -> None:
        async with shop.working(work=plain_handlers.hog):
            id = await shop.create(input=where(tmp_path), time_limit=0.3, max_attempts=1)
            job = await shop.finished(id)
        assert job.error is not None
        assert (job.status, job.error.type) == ("failed", "time-limit")

    play(story)


def test_draining_gives_a_handler_back_that_does_not_end_in_time(
    play: Play, tmp_path: Path, marks: Callable[[], list[str]]
) -> None:
    async def story(shop: Shop) -> None:
        async with shop.working(work=plain_handlers.hog, grace=0.5):
            id = await shop.create(input=where(tmp_path), max_attempts=1)
            await marked(shop, marks, "begun")
        assert (await shop.job(id)).status == "queued"
        assert await shop.topics(id) == ["created", "started", "released"]

    play(story)


def test_an_input_that_does_not_fit_is_refused_in_the_process_too(play: Play) -> None:
    async def story(shop: Shop) -> None:
        async with shop.working(work=plain_handlers.pid):
            job = await shop.finished(await shop.create(input=b'{"folder": 1}'))
        assert job.error is not None
        assert (job.status, job.attempt, job.error.type) == ("failed", 1, "invalid-input")
        assert "$.folder" in job.error.message

    play(story)


def test_a_plain_handler_that_another_process_cannot_import_is_refused_when_it_is_registered() -> None:
    def local(job: PlainJobContext, input: int) -> int:
        return input

    with pytest.raises(TypeError, match=r"cannot import .*<locals>\.local; define it with `def` at the top level"):
        handles("local")(local)
