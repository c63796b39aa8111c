"""Workers as processes: killed, stopped, frozen and drained, and every job is done once."""

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import psutil  # type: ignore[import-untyped]
import pytest
from msgspec.json import encode

Start = Callable[..., Any]
Wait = Callable[[Callable[[], Any], str], Any]
ROOT = Path(__file__).parents[2]
MANY = 500
HANDLERS = '''
"""Handlers that leave marks, wait for files, burn the processor, and order renders."""

import asyncio
import os
from pathlib import Path

import httpx2

from application.handlers import JobContext, PlainJobContext, handles

HERE = Path(__file__).parent


def mark(*words: object) -> None:
    with (HERE / "calls").open("a") as calls:
        calls.write(" ".join(map(str, words)) + "\\n")


@handles("hold")
async def hold(job: JobContext, file: str) -> int:
    mark(job.id, job.attempt)
    while not (HERE / file).exists():
        await asyncio.sleep(0.05)
    return job.attempt


@handles("hog")
def hog(job: PlainJobContext, file: str) -> int:
    mark(os.getpid())
    while not (HERE / file).exists():
        sum(range(1_000_000))
    return job.attempt


async def order(url: str, *, idempotency_key: str) -> str:
    async with httpx2.AsyncClient(timeout=60) as http:
        answer = await http.post(url, headers={"Idempotency-Key": idempotency_key})
        return str(answer.json()["id"])


async def rendered(url: str, id: str) -> str:
    async with httpx2.AsyncClient(timeout=60) as http:
        while not (film := (await http.get(f"{url}/{id}")).json()["film"]):
            await asyncio.sleep(0.05)
        return film


@handles("film")
async def film(job: JobContext, url: str) -> str:
    return await job.step("film", rendered, url, await job.submit("render", order, url))
'''


class Works:
    """An API server, workers with the handlers above, and what these leave behind."""

    def __init__(self, start: Start, dsn: str, http: httpx2.Client, folder: Path) -> None:
        (folder / "works.py").write_text(HANDLERS)
        self.folder = folder
        self._start = start
        self._environment = {"DATABASE_URL": dsn, "JOBLEDGER_HANDLERS": "works"}
        self._http = http

    def worker(self, *arguments: str, **environment: str) -> Any:
        """A worker process, once it works."""
        worker = self._start("worker", *arguments, **{**self._environment, **environment})
        worker.wait_for_line("worker.started")
        return worker

    def create(self, *jobs: dict[str, Any]) -> list[str]:
        body = {
            "jobs": [{"heartbeat_timeout": 1, "retry": {"initial": 0, "factor": 1, "max": 0}, **job} for job in jobs]
        }
        answer = self._http.post("/v1/jobs/batch", json=body)
        assert answer.is_success, answer.text
        return list(answer.json()["ids"])

    def job(self, id: str) -> Any:
        return self._http.get(f"/v1/jobs/{id}").json()

    def events(self, id: str) -> list[Any]:
        return list(self._http.get(f"/v1/jobs/{id}/events").json()["items"])

    def types(self, id: str) -> list[str]:
        return [event["type"].removeprefix("job.") for event in self.events(id)]

    @property
    def calls(self) -> list[str]:
        calls = self.folder / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

    def go(self, file: str = "go") -> None:
        (self.folder / file).touch()


@pytest.fixture
def works(start: Start, dsn: str, api: str, tmp_path: Path) -> Iterator[Works]:
    with httpx2.Client(base_url=api, timeout=30) as http:
        yield Works(start, dsn, http, tmp_path)


class Renders(ThreadingHTTPServer):
    """A render farm that takes an order once per key. It keeps answers back, and films, until it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        self.posts: list[str] = []
        self.orders: dict[str, str] = {}
        self.polls = 0
        self.film = ""
        self.answers = threading.Event()
        super().__init__(("127.0.0.1", 0), _Render)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Render(BaseHTTPRequestHandler):
    server: Renders

    def do_POST(self) -> None:
        key = self.headers["Idempotency-Key"]
        id = self.server.orders.setdefault(key, f"render-{len(self.server.orders) + 1}")
        self.server.posts.append(key)
        self.server.answers.wait(60)
        self._answer({"id": id})

    def do_GET(self) -> None:
        assert self.path.removeprefix("/") in self.server.orders.values()
        self.server.polls += 1
        self._answer({"film": self.server.film})

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""

    def _answer(self, body: dict[str, str]) -> None:
        said = encode(body)
        try:
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)
        except ConnectionError:  # who asked was killed
            self.close_connection = True


@pytest.fixture
def renders() -> Iterator[Renders]:
    with Renders() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield server
        server.answers.set()
        server.shutdown()
        thread.join()


def test_a_worker_killed_in_step_two_of_three_leaves_steps_two_and_three_to_the_next(
    works: Works, handlers: Any, wait_until: Wait
) -> None:
    first = works.worker(**handlers.environment)
    (id,) = works.create({"kind": "three-steps", "input": {}})
    wait_until(lambda: handlers.calls == ["one", "two"], "step two")
    first.kill()
    handlers.go()
    works.worker(**handlers.environment)
    job = wait_until(lambda: ended(works.job(id)), "the end")
    assert (job["status"], job["attempt"], job["result"]) == ("completed", 2, ["one", "two", "three"])
    assert handlers.calls == ["one", "two", "two", "three"]


def test_a_worker_that_was_frozen_until_its_lease_was_lost_is_refused(works: Works, wait_until: Wait) -> None:
    frozen = works.worker()
    (id,) = works.create({"kind": "hold", "input": "go"})
    wait_until(lambda: works.calls == [f"{id} 1"], "the first attempt")
    frozen.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: "heartbeat_missed" in works.types(id), "the rescue")
        works.worker()
        wait_until(lambda: works.calls == [f"{id} 1", f"{id} 2"], "the second attempt")
        works.go()
        wait_until(lambda: ended(works.job(id)), "the end")
    finally:
        frozen.process.send_signal(signal.SIGCONT)
    frozen.wait_for_line("lease-lost")
    assert works.types(id) == ["created", "started", "heartbeat_missed", "started", "completed"]
    assert works.job(id)["result"] == 2


def test_a_worker_told_to_stop_with_500_jobs_lets_them_end_or_gives_them_back(works: Works, wait_until: Wait) -> None:
    files = ["soon" if n % 2 else "late" for n in range(MANY)]
    ids = works.create(*[{"kind": "hold", "input": file, "max_attempts": 1} for file in files])
    first = works.worker("--concurrency", str(MANY), "--grace", "3")
    wait_until(lambda: len(works.calls) == MANY, "all of them run")
    first.process.send_signal(signal.SIGTERM)
    first.wait_for_line("worker.draining")
    works.go("soon")
    assert first.process.wait(60) == 0
    stories = {id: works.types(id) for id in ids}
    for id, file in zip(ids, files, strict=True):
        assert stories[id][2:] == (["completed"] if file == "soon" else ["released"])
        if file == "late":
            assert works.events(id)[-1]["data"]["reason"] == "the worker is stopping"
    works.go("late")
    works.worker("--concurrency", str(MANY))
    wait_until(lambda: len(works.calls) == MANY + MANY // 2, "the rest")
    wait_until(
        lambda: all(ended(works.job(id)) for id, file in zip(ids, files, strict=True) if file == "late"), "the end"
    )
    for id, file in zip(ids, files, strict=True):
        again = [] if file == "soon" else ["released", "started"]
        assert works.types(id) == ["created", "started", *again, "completed"]
    assert max(Counter(works.calls).values()) == 1


def test_a_render_is_ordered_once_whenever_its_worker_is_killed(
    works: Works, renders: Renders, wait_until: Wait
) -> None:
    first = works.worker()
    (id,) = works.create({"kind": "film", "input": renders.url, "max_attempts": 5})
    wait_until(lambda: len(renders.posts) == 1, "the order")
    first.kill()  # it never heard what became of the order
    renders.answers.set()
    second = works.worker()
    wait_until(lambda: renders.polls > 0, "the first look")
    second.kill()  # it waited for the film
    polls = renders.polls
    third = works.worker()
    wait_until(lambda: renders.polls > polls + 1, "another look")
    third.kill()
    renders.film = "film.mp4"
    works.worker()
    job = wait_until(lambda: ended(works.job(id)), "the end")
    assert (job["status"], job["attempt"], job["result"]) == ("completed", 4, "film.mp4")
    assert renders.orders == {f"{id}:render": "render-1"}
    assert len(renders.posts) == 2


def test_a_plain_handler_that_hogs_its_process_keeps_its_lease(works: Works, wait_until: Wait) -> None:
    works.worker()
    (id,) = works.create({"kind": "hog", "input": "go"})

    def outlived_three_leases() -> bool:
        job = works.job(id)
        return seconds(job["started_at"], job["heartbeat_at"]) > 3

    wait_until(outlived_three_leases, "heartbeats for three leases")
    works.go()
    job = wait_until(lambda: ended(works.job(id)), "the end")
    assert (job["status"], works.types(id)) == ("completed", ["created", "started", "completed"])


def test_the_process_of_a_plain_handler_dies_with_its_worker(works: Works, wait_until: Wait) -> None:
    first = works.worker()
    (id,) = works.create({"kind": "hog", "input": "go"})
    wait_until(lambda: len(works.calls) == 1, "the handler")
    pid = int(works.calls[0])
    assert psutil.pid_exists(pid)
    first.kill()
    wait_until(lambda: not running(pid), "its end")
    works.go()
    works.worker()
    assert wait_until(lambda: ended(works.job(id)), "the end")["result"] == 2


def test_an_installed_package_brings_its_handlers_along(works: Works, wait_until: Wait) -> None:
    site = works.folder / "site"
    about = site / "press-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: press\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[jobledger.handlers]\npress = press.handlers\n")
    (site / "press").mkdir()
    (site / "press" / "__init__.py").touch()
    (site / "press" / "handlers.py").write_text(
        "from application.handlers import JobContext, PlainJobContext, handles\n"
        "@handles('shout')\n"
        "async def shout(job: JobContext, words: str) -> str:\n"
        "    return words.upper()\n"
        "@handles('print')\n"
        "def print(job: PlainJobContext, words: str) -> str:\n"
        "    return words.title()\n"
    )
    works.worker(PYTHONPATH=f"{ROOT}:{site}", JOBLEDGER_HANDLERS="")
    ids = works.create({"kind": "shout", "input": "extra extra"}, {"kind": "print", "input": "extra extra"})
    results = [wait_until(partial(done, works, id), "the end")["result"] for id in ids]
    assert results == ["EXTRA EXTRA", "Extra Extra"]


def done(works: Works, id: str) -> Any:
    return ended(works.job(id))


def ended(job: Any) -> Any:
    return job if job["finished_at"] else None


def running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def seconds(since: str | None, until: str | None) -> float:
    if since is None or until is None:
        return 0.0
    return (datetime.fromisoformat(until) - datetime.fromisoformat(since)).total_seconds()
