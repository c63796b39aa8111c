"""The service as commands ask it: patiently, and through any restart."""

import sys
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx2

from application.errors import ApplicationError, RateLimited, Unavailable
from application.texts import plain
from interfaces.settings import Settings

FINISHED = {"completed", "failed", "cancelled"}
POLL_SECONDS = 0.2
LONGEST_PAUSE = 2.0
LONGEST_WAIT = 60
Job = dict[str, Any]


class NotTheService(Unavailable):
    """Something answers at the address, and it is no jobledger: a proxy, or another program. To ask again is vain."""

    def __init__(self, place: str, response: httpx2.Response) -> None:
        what = response.headers.get("content-type", "").partition(";")[0] or "nothing that says what it is"
        super().__init__(
            f"{place} does not answer as jobledger (HTTP {response.status_code}, {what}); is the address right, and "
            "does a proxy in between let this through?"
        )


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
    return plain(job["message"] if job["status"] == "running" and job["message"] else job["status"])


def ask(client: httpx2.Client, method: str, path: str, **rest: Any) -> Any:
    """The JSON of an answer, None for one without content. Raises Unavailable, and what the service refused with."""
    try:
        response = client.request(method, path, **rest)
    except httpx2.RequestError as error:
        raise _away(client, str(error) or type(error).__name__) from error
    if response.status_code == 204:
        return None
    answer = _object(response)
    detail = f"{answer['title']}: {answer['detail']}" if answer.keys() >= {"title", "detail"} else None
    if response.status_code in (502, 503, 504):
        raise _away(client, detail or f"HTTP {response.status_code}")
    if response.is_success and answer:
        return answer
    if response.is_success or detail is None:
        raise NotTheService(_place(client), response)
    if response.status_code in (401, 403):
        raise ApplicationError(f"{detail} ({_whose_key(client)})")
    if response.status_code == 429:
        raise RateLimited(detail, _seconds(response))
    raise ApplicationError(detail)


def _patiently(call: Callable[[], Job], patient: Callable[[], bool]) -> Job:
    """The answer, asked for again while the service is away, or we ask too often, and we are patient.

    Why we wait for it is said once. Raises what it refused with.
    """
    pause, said = POLL_SECONDS, False
    while True:
        try:
            return call()
        except NotTheService:
            raise
        except (Unavailable, RateLimited) as later:
            if not patient():
                raise
            least = later.retry_after or 0
            if not said and isinstance(later, Unavailable):
                print(f"jobledger: {plain(later)} Trying again…", file=sys.stderr, flush=True)
                said = True
        time.sleep(max(pause, least))
        pause = min(pause * 2, LONGEST_PAUSE)


def _away(client: httpx2.Client, reason: str) -> Unavailable:
    return Unavailable(f"{_place(client)} does not answer ({reason}); is `jobledger up` running?")


def _whose_key(client: httpx2.Client) -> str:
    if "authorization" in client.headers:
        return "the key is that of JOBLEDGER_KEY"
    return "JOBLEDGER_KEY is not set: set it to your key"


def _place(client: httpx2.Client) -> str:
    return str(client.base_url).rstrip("/")


def _object(response: httpx2.Response) -> dict[str, Any]:
    """The object that a body is as JSON; empty for any other body."""
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _seconds(response: httpx2.Response) -> int:
    """How long the service asks us to let pass."""
    named = response.headers.get("retry-after", "")
    return min(int(named), LONGEST_WAIT) if named.isdecimal() else 1
