"""A worker is killed at every moment of a video that Elai makes: it is ordered and rendered once."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import studios
from tests.acceptance.test_first_light import create, job
from tests.studios import KEY, Fault
from tests.waiting import eventually

Start = Callable[..., Any]
WaitUntil = Callable[[Callable[[], Any], str], Any]
DECK = {"title": "Event sourcing", "slides": [{"title": "Why a log?"}], "renderer": "elai"}
MOMENTS = ["POST /videos", "POST /videos/render/{id}", "GET /videos/{id}", "GET /media"]
"""The calls in whose midst a worker is killed: what they ask for is done, and the answer never read."""


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[studios.Elai]:
    with studios.open_for_work(studios.film_of(tmp_path / "film.mp4")) as studio:
        yield studio


def test_one_order_however_many_workers_die(
    start: Start, dsn: str, studio: studios.Elai, wait_until: WaitUntil
) -> None:
    url = start("api", "--port", "0", DATABASE_URL=dsn).url
    elai = {"DATABASE_URL": dsn, "ELAI_API_KEY": KEY, "ELAI_BASE_URL": studio.base_url, "NO_PROXY": "127.0.0.1"}
    retry = {"initial": 0, "factor": 1, "max": 0}
    id = create(url, "presentation", input=DECK, heartbeat_timeout=1, max_attempts=10, retry=retry)
    for moment in MOMENTS:
        studio.faults[moment] = Fault(0, done=True, hang=True)
        worker = start("worker", **elai)
        eventually(partial(_met, studio, moment), 60.0)
        worker.kill()
    start("worker", **elai)
    wait_until(lambda: job(url, id)["status"] == "completed", "the video")
    assert (studio.orders, studio.renders, len(studio.videos)) == (1, 1, 1)
    assert job(url, id)["attempt"] == len(MOMENTS) + 1
    assert job(url, id)["result"]["video"]["size"] == len(studio.film)


def _met(studio: studios.Elai, moment: str) -> bool:
    return studio.faults[moment].times == 0
