"""Workers as processes: killed, stopped, frozen and drained, and every job is done once."""

import random
import signal
import threading
import time
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
KILLS = 10
KILLS_SEED = 4
BESIDE = {"kind": "hold", "input": "go", "max_attempts": 20}
HANDLERS = '''
"""Handlers that leave marks, wait for files, burn the processor, and order renders."""

import asyncio
import os
import resource
import signal
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
    try:
        while not (HERE / file).exists():
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        mark(job.id, job.attempt, "stopped")
        raise
    return job.attempt


@handles("stand-still")
async def stand_still(job: JobContext, input: None) -> int:
    mark(job.id, job.attempt)
    if job.attempt == 1:
        os.kill(os.getpid(), signal.SIGSTOP)  # and when it goes on, the handler is at its end
    return job.attempt


@handles("devour")
async def devour(job: JobContext, input: None) -> None:
    mark(job.id, job.attempt)
    os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out


@handles("devour-alone")
def devour_alone(job: PlainJobContext, input: None) -> None:
    mark(job.id, job.attempt)
    os.kill(os.getpid(), signal.SIGKILL)


@handles("write")
async def write(job: JobContext, file: str) -> None:
    """Runs out of disk in the midst of a file at the first attempt; the next one waits, and finds room."""
    mark(job.id, job.attempt)
    if job.attempt == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        while not (HERE / file).exists():
            await asyncio.sleep(0.05)
    await job.save_artifact("film.mp4", bytes(3_000_000), "video/mp4")


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
        worker = self.starting(*arguments, **environment)
        worker.wait_for_line("worker.started")
        return worker

    def starting(self, *arguments: str, **environment: str) -> Any:
        """A worker process that has just begun to start."""
        return self._start("worker", *arguments, **{**self._environment, **environment})

    def server(self) -> str:
        """The address of an API server that keeps artifacts where the workers do."""
        return str(self._start("api", "--port", "0", **self._environment).url)

    def supervised(self) -> Any:
        """A server and a worker that are started again when they die, once they are ready."""
        up = self._start("up", "--port", "0", **self._environment)
        up.wait_for_line("jobledger listening on")
        return up

    def create(self, *jobs: dict[str, Any]) -> list[str]:
        body = {
            "jobs": [{"heartbeat_timeout": 1, "retry": {"initial": 0, "factor": 1, "max": 0}, **job} for job in jobs]
        }
        answer = self._http.post("/v1/jobs/batch", json=body)
        assert answer.is_success, answer.text
        return list(answer.json()["ids"])

    def job(self, id: str) -> Any:
        return self._http.get(f"/v1/jobs/{id}").json()

    def cancel(self, id: str) -> None:
        self._http.post(f"/v1/jobs/{id}/cancellations", json={"reason": "the test is over"}).raise_for_status()

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


def test_a_heartbeat_of_a_lost_lease_is_refused_and_stops_the_handler(works: Works, wait_until: Wait) -> None:
    frozen = works.worker()
    (id,) = works.create({"kind": "hold", "input": "go"})
    wait_until(lambda: works.calls == [f"{id} 1"], "the first attempt")
    frozen.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: "heartbeat_missed" in works.types(id), "the rescue")
        works.worker()
        wait_until(lambda: works.calls == [f"{id} 1", f"{id} 2"], "the second attempt")
    finally:
        frozen.process.send_signal(signal.SIGCONT)
    frozen.wait_for_line("lease-lost")
    wait_until(lambda: f"{id} 1 stopped" in works.calls, "the end of the first handler")
    works.go()
    wait_until(lambda: ended(works.job(id)), "the end")
    assert works.calls == [f"{id} 1", f"{id} 2", f"{id} 1 stopped"]
    assert works.types(id) == ["created", "started", "heartbeat_missed", "started", "completed"]
    assert works.job(id)["result"] == 2


def test_a_late_completion_is_refused_and_the_job_completes_once(works: Works, wait_until: Wait) -> None:
    """Its process stands still in the last line of its handler, so that the next thing it says is the completion."""
    frozen = works.worker()
    (id,) = works.create({"kind": "stand-still", "input": None})
    wait_until(lambda: psutil.Process(frozen.process.pid).status() == psutil.STATUS_STOPPED, "the standstill")
    try:
        works.worker()
        wait_until(lambda: ended(works.job(id)), "the end")
    finally:
        frozen.process.send_signal(signal.SIGCONT)
    assert "report=completed" in frozen.wait_for_line("lease-lost")
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


@pytest.mark.parametrize("request_number", [signal.SIGTERM, signal.SIGINT])
def test_told_twice_a_worker_gives_its_jobs_back_at_once(
    works: Works, wait_until: Wait, request_number: signal.Signals
) -> None:
    worker = works.worker("--grace", "3600")
    ids = works.create(*[{"kind": "hold", "input": "never", "max_attempts": 1} for _ in range(5)])
    wait_until(lambda: len(works.calls) == len(ids), "all of them run")
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for_line("worker.draining")

    def told_again() -> bool:
        if stopped := any("worker.stopped" in line for line in worker.output):
            return stopped
        worker.process.send_signal(request_number)
        return False

    wait_until(told_again, "the worker's end")
    assert worker.process.wait(60) == 0
    for id in ids:
        assert works.types(id) == ["created", "started", "released"]
        works.cancel(id)


def test_a_render_is_ordered_once_though_its_worker_is_killed_at_ten_random_moments(
    works: Works, renders: Renders, wait_until: Wait
) -> None:
    chance = random.Random(KILLS_SEED)
    killed: set[int] = set()
    answered_from = chance.randint(3, 6)  # until then nobody hears what became of the order
    for _ in range(3):
        works.starting()
    (id,) = works.create({"kind": "film", "input": renders.url, "max_attempts": 3 * KILLS})

    def holder() -> int | None:
        worker = works.job(id)["worker"]
        pid = int(worker.split("-")[-2]) if worker else None
        return None if pid in killed else pid

    for kill in range(KILLS):
        if kill == answered_from:
            renders.answers.set()
        asked = len(renders.posts) + renders.polls
        pid = wait_until(holder, f"a worker that can be killed, after {kill}")
        if chance.random() < 0.7:
            wait_until(partial(more, renders, asked), "a request")
        time.sleep(chance.uniform(0, 0.3))  # the moment
        psutil.Process(pid).kill()
        killed.add(pid)
        works.starting()
    renders.film = "film.mp4"
    job = wait_until(lambda: ended(works.job(id)), "the end")
    types = works.types(id)
    assert (job["status"], job["result"]) == ("completed", "film.mp4")
    assert renders.orders == {f"{id}:render": "render-1"}
    assert len(renders.posts) > 1, "the order was never in doubt"
    assert types.count("heartbeat_missed") == job["attempt"] - 1 >= KILLS
    assert types.count("completed") == 1
    assert sum("handle" in event["data"] for event in works.events(id)) == 1


def test_a_job_that_kills_its_worker_is_failed_after_its_attempts_and_the_others_complete(
    works: Works, wait_until: Wait
) -> None:
    works.supervised()
    hungry, *others = works.create({"kind": "devour", "input": None}, *[BESIDE] * 5)
    assert wait_until(lambda: ended(works.job(hungry)), "the end of the hungry one")["status"] == "failed"
    works.go()
    for id in others:
        assert wait_until(partial(done, works, id), "the end of the others")["status"] == "completed"
    events = works.events(hungry)
    assert works.types(hungry) == ["created", *["started", "heartbeat_missed"] * 3, "failed"]
    assert [e["data"]["attempt"] for e in events if e["type"] == "job.heartbeat_missed"] == [1, 2, 3]
    assert works.job(hungry)["error"]["type"] == "heartbeat-missed"
    assert [call for call in works.calls if hungry in call] == [f"{hungry} {n}" for n in (1, 2, 3)]
    assert any("heartbeat_missed" in works.types(id) for id in others), "none was held beside it"


def test_a_plain_handler_that_runs_out_of_memory_takes_nobody_along(works: Works, wait_until: Wait) -> None:
    works.worker()
    hungry, other = works.create({"kind": "devour-alone", "input": None}, {"kind": "hold", "input": "go"})
    job = wait_until(lambda: ended(works.job(hungry)), "the end of the hungry one")
    assert (job["status"], job["error"]["type"]) == ("failed", "process-died")
    assert "SIGKILL" in job["error"]["message"]
    assert works.types(hungry) == ["created", *["started", "failed"] * 3]
    works.go()
    assert wait_until(lambda: ended(works.job(other)), "the end of the other")["attempt"] == 1


def test_a_disk_that_is_full_fails_the_attempt_and_half_a_file_is_never_served(works: Works, wait_until: Wait) -> None:
    api = works.server()
    works.worker()
    (id,) = works.create({"kind": "write", "input": "go"})
    film = f"{api}/v1/jobs/{id}/artifacts/film.mp4"
    wait_until(lambda: works.calls == [f"{id} 1", f"{id} 2"], "the second attempt")
    (failed,) = [event["data"] for event in works.events(id) if event["type"] == "job.failed"]
    assert failed["error"]["type"] == "NoSpace"
    assert "no space left" in failed["error"]["message"]
    assert works.job(id)["artifacts"] == []
    assert httpx2.get(film, timeout=30).status_code == 404
    kept = [path for path in (works.folder / "data").rglob("*") if path.is_file() and path.name != "owner"]
    assert kept == [], "something of the file was left"
    works.go()
    wait_until(lambda: ended(works.job(id)), "the end")
    assert httpx2.get(film, timeout=30).content == bytes(3_000_000)


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


def more(renders: Renders, asked: int) -> bool:
    """Whether the render farm was asked again."""
    return len(renders.posts) + renders.polls > asked


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
