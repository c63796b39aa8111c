"""A poller that gives up after five errors in a row, as older front ends do, never has to."""

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from tests.plugs import Plug

Start = Callable[..., Any]
WaitUntil = Callable[[Callable[[], Any], str], Any]
PERIOD = 2.0
"""Theirs: the service has ten seconds to come back."""
PATIENCE = 90.0
DECK = {"title": "Event sourcing", "slides": [{"title": f"Slide {n}", "seconds": 1} for n in range(1, 9)]}


class Poller:
    """Polls on a thread of its own until the job has ended, or five errors came in a row; keeps what it saw."""

    def __init__(self, url: str) -> None:
        self.statuses: list[int] = []
        self.told: list[Any] = []
        self.gave_up = False
        self._url = url
        self._errors = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()

    def ended(self) -> bool:
        self._thread.join(PATIENCE)
        return not self._thread.is_alive()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(PATIENCE)

    def _poll(self) -> None:
        while not self._stopping.is_set() and not self._done():
            self._stopping.wait(PERIOD)

    def _done(self) -> bool:
        try:
            answer = httpx2.get(self._url, timeout=30)
        except httpx2.TransportError:
            return self._failed(0)
        if answer.status_code != 200:
            return self._failed(answer.status_code)
        self.statuses.append(200)
        self.told.append(answer.json())
        self._errors = 0
        return bool(self.told[-1]["status"] in ("completed", "failed"))

    def _failed(self, status: int) -> bool:
        self.statuses.append(status)
        self._errors += 1
        self.gave_up = self._errors >= 5
        return self.gave_up


def test_pollers_of_both_products_outlast_kill_9_of_the_api(start: Start, dsn: str, wait_until: WaitUntil) -> None:
    server = start("api", "--port", "0", DATABASE_URL=dsn)
    url = server.url
    page = httpx2.post(f"{url}/v1/visualizations", json={"question": "What is 15 % of 80?"}, timeout=30).json()["id"]
    video = httpx2.post(f"{url}/v1/presentations", json=DECK, timeout=30).json()["id"]
    pollers = [Poller(f"{url}/api/process/{page}"), Poller(f"{url}/presentations/{video}")]
    try:
        wait_until(lambda: all(poller.told for poller in pollers), "their first answers")
        for round in range(2):
            server.kill()
            server = start("api", "--port", str(urlsplit(url).port), DATABASE_URL=dsn)
            server.wait_for_line("listening")
            if round == 0:
                start("worker", DATABASE_URL=dsn)
                wait_until(lambda: _status(url, video) != "queued", "the video's beginning")
        for poller in pollers:
            assert poller.ended()
            assert not poller.gave_up, poller.statuses
            assert 404 not in poller.statuses
            assert (poller.told[0]["status"], poller.told[-1]["status"]) == ("queued", "completed")
            percents = [told["progress"] for told in poller.told]
            assert percents == sorted(percents)
            assert percents[-1] == 100
    finally:
        for poller in pollers:
            poller.close()


def _status(url: str, id: str) -> str:
    return str(httpx2.get(f"{url}/v1/jobs/{id}", timeout=30).json()["status"])


def test_database_that_is_away_is_waited_for_and_then_told(start: Start, tmp_path: Path) -> None:
    with Plug(tmp_path / "postgres") as plug, ThreadPoolExecutor(1) as pool:
        url = start("api", "--port", "0", DATABASE_URL=plug.dsn).url
        job = httpx2.post(f"{url}/v1/presentations", json=DECK, timeout=30).json()["id"]
        poll = f"{url}/presentations/{job}"
        plug.pull(signal.SIGKILL)
        away = httpx2.get(poll, timeout=60)
        assert (away.status_code, away.json()["success"]) == (503, False)
        assert int(away.headers["retry-after"]) > 0
        held = pool.submit(httpx2.get, poll, timeout=60)
        plug.put_in()
        assert (held.result().status_code, held.result().json()["status"]) == (200, "queued")
