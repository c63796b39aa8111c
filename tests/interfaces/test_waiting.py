"""Who waits for a job, with `Prefer: wait`, is answered when it moves or ends, on whichever server."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx2
import pytest

from tests.followers import PATIENCE
from tests.interfaces.followed import SILENCE, SOON, complete, progress

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service


def wait(service: "Service", id: str, seconds: int, version: int | None = None) -> httpx2.Response:
    known = {} if version is None else {"If-None-Match": f'"{version}"'}
    return service.http.get(f"/v1/jobs/{id}", headers={"Prefer": f"wait={seconds}", **known})


def waiting(
    service: "Service", id: str, version: int | None, act: Callable[[], object]
) -> tuple[httpx2.Response, float]:
    """The answer to one who waits while another acts, and the seconds it took after that."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(wait, service, id, 20, version)
        with pytest.raises(TimeoutError):
            answer.result(SILENCE)
        act()
        begun = time.monotonic()
        return answer.result(PATIENCE), time.monotonic() - begun


def test_who_waits_is_answered_when_another_server_moves_the_job(
    service: "Service", other: "Service", queue: str
) -> None:
    id = service.create(queue=queue)["id"]
    answer, seconds = waiting(service, id, 1, lambda: other.claim(queue))
    assert (answer.status_code, answer.json()["version"], answer.headers["etag"]) == (200, 2, '"2"')
    assert answer.headers["preference-applied"] == "wait=20"
    assert seconds < SOON


def test_who_waits_for_a_version_that_is_past_is_answered_at_once(service: "Service", queue: str) -> None:
    job = service.running(queue)
    begun = time.monotonic()
    answer = wait(service, job["id"], 20, 1)
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    assert time.monotonic() - begun < SOON


def test_who_waits_in_vain_is_told_that_nothing_changed(service: "Service", queue: str) -> None:
    id = service.create(queue=queue)["id"]
    begun = time.monotonic()
    answer = wait(service, id, 1, 1)
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"1"')
    assert 1 <= time.monotonic() - begun < 1 + SOON


def test_who_waits_without_a_version_is_answered_when_the_job_has_finished(
    service: "Service", other: "Service", queue: str
) -> None:
    job = service.running(queue)

    def act() -> None:
        progress(other, job, 0.5)
        complete(other, job)

    answer, seconds = waiting(service, job["id"], None, act)
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    assert seconds < SOON
    assert wait(other, job["id"], 20).json() == answer.json()


def test_who_waits_in_vain_for_the_end_gets_the_job_as_it_is(service: "Service", queue: str) -> None:
    job = service.running(queue)
    begun = time.monotonic()
    answer = wait(service, job["id"], 1)
    assert (answer.status_code, answer.json()["status"]) == (200, "running")
    assert 1 <= time.monotonic() - begun < 1 + SOON


def test_nobody_waits_for_an_unknown_job(service: "Service") -> None:
    service.problem(wait(service, str(uuid4()), 20, 1), 404, "not-found")
