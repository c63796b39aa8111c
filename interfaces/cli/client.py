"""The service as commands ask it: patiently, and through any restart."""

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx2

from application.errors import ApplicationError, Unavailable
from interfaces.settings import Settings

FINISHED = {"completed", "failed", "cancelled"}
POLL_SECONDS = 0.2
LONGEST_PAUSE = 2.0
Job = dict[str, Any]


def connect(settings: Settings) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {settings.key.get_secret_value()}"} if settings.key else {}
    return httpx2.Client(base_url=settings.url, headers=headers, timeout=10)


def create(client: httpx2.Client, path: str, body: Job, patience: float) -> Job:
    """The new job. One key for all tries, so that a lost answer makes no second job."""
    headers = {"Idempotency-Key": str(uuid4())}
    until = time.monotonic() + patience
    return _patiently(lambda: ask(client, "POST", path, json=body, headers=headers), lambda: time.monotonic() < until)


def look(client: httpx2.Client, id: str) -> Job:
    """The job now; a service that is away meanwhile is waited for."""
    return _patiently(lambda: ask(client, "GET", f"/v1/jobs/{id}"), lambda: True)


def doing(job: Job) -> str:
    """What a job is at, in a few words."""
    return str(job["message"] if job["status"] == "running" and job["message"] else job["status"])


def ask(client: httpx2.Client, method: str, path: str, **rest: Any) -> Any:
    """The JSON of an answer, None for one without content. Raises Unavailable, and what the service refused with."""
    try:
        response = client.request(method, path, **rest)
    except httpx2.TransportError as error:
        raise _away(client, str(error) or type(error).__name__) from error
    if response.status_code in (502, 503, 504):
        raise _away(client, _detail(response))
    if response.status_code >= 400:
        raise ApplicationError(_detail(response))
    return response.json() if response.content else None


def _patiently(call: Callable[[], Job], patient: Callable[[], bool]) -> Job:
    """The answer, asked for again while the service is away and we are patient. Raises what it refused with."""
    pause = POLL_SECONDS
    while True:
        try:
            return call()
        except Unavailable:
            if not patient():
                raise
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def _away(client: httpx2.Client, reason: str) -> Unavailable:
    place = str(client.base_url).rstrip("/")
    return Unavailable(f"{place} does not answer ({reason}); is `jobledger up` running?")


def _detail(response: httpx2.Response) -> str:
    try:
        problem = response.json()
        return f"{problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"
