"""jobledger across HTTP, as a worker sees it that has no database."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx2
import msgspec
from msgspec import Struct

from application.archives import Gone
from application.claims import Claim, ClaimedJob
from application.errors import ApplicationError, FieldError, Invalid, KeyRefused, NotFound, TooLarge, Unavailable
from application.ledger import Ready
from application.reports import AnyReport, Reported
from application.tracing import current_headers
from domain.events import Artifact
from domain.refusals import Conflict, JobFinished, LeaseLost

T = TypeVar("T")
WAIT_SECONDS = 2.0
"""How long a claim waits at the server; a worker that is told to stop lets it end, so that no answer is lost."""
ANSWER_SECONDS = 10.0
STORED_SECONDS = 300.0
"""Until a server that has all of a file answers that it is safe."""
PAUSE_SECONDS = 1.0
LONGEST_PAUSE = 30.0
LARGEST_BODY = 32 * 1024 * 1024
CHUNK = 256 * 1024
TIMEOUT = httpx2.Timeout(ANSWER_SECONDS, read=WAIT_SECONDS + ANSWER_SECONDS, pool=None)
UPLOAD_TIMEOUT = httpx2.Timeout(ANSWER_SECONDS, read=STORED_SECONDS, write=60.0, pool=None)
LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=3.0)
"""No most: uploads must not keep heartbeats waiting. A server hangs up after five idle seconds; we do before."""
ERRORS: dict[str, type[Exception]] = {
    error.code: error for error in (Conflict, Gone, JobFinished, LeaseLost, NotFound, TooLarge)
}


class _Problem(Struct):
    code: str
    detail: str
    errors: tuple[FieldError, ...] = ()


class _Jobs(Struct):
    jobs: list[ClaimedJob]


class _Result(Struct):
    ok: bool
    version: int = 0
    cancel_requested: bool = False
    problem: _Problem | None = None


class _Results(Struct):
    results: list[_Result]


class RemoteService:
    """See the port, `application.worker.Service`; `close` it at the end."""

    def __init__(self, url: str, key: str | None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._url = url
        self._has_key = key is not None
        self._client = httpx2.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT, limits=LIMITS)
        self._unanswered: dict[Ready, list[Claim]] = {}
        self.pause = 0.0
        """Seconds to let pass before the next claim: none after an answer, which has waited at the server."""

    async def close(self) -> None:
        await self._client.aclose()

    async def claim(self, claim: Claim) -> list[ClaimedJob]:
        """A claim that was not answered is repeated under its id, and answers the jobs it holds already.

        Several may be under way: each is repeated by one claim that wants the same.
        """
        unanswered = self._unanswered.setdefault(claim.wanted, [])
        fresh = msgspec.structs.replace(claim, wait=WAIT_SECONDS, claim_id=uuid4().hex)
        asked = unanswered.pop() if unanswered else fresh
        try:
            answer = await self._post("/v1/claims", msgspec.json.encode(asked), _Jobs)
        except BaseException as error:
            unanswered.append(asked)
            if isinstance(error, Unavailable):
                self.pause = PAUSE_SECONDS if error.retry_after is None else error.retry_after
            raise
        self.pause = 0.0
        return answer.jobs

    async def report(self, worker: str, reports: Sequence[AnyReport]) -> Sequence[Reported | Exception]:
        """In one request, or in two where the server would refuse all for the size or the fault of some."""
        body = msgspec.json.encode({"worker": worker, "reports": reports})
        if len(body) > LARGEST_BODY and len(reports) > 1:
            return await self._report_halves(worker, reports)
        try:
            answer = await self._post("/v1/reports", body, _Results)
        except (Invalid, TooLarge) as error:
            return [error] if len(reports) == 1 else await self._report_halves(worker, reports)
        except ApplicationError as error:
            return [error] * len(reports)
        return [_answer(result) for result in answer.results]

    async def save_artifact(
        self, worker: str, job_id: UUID, attempt: int, name: str, content: bytes | Path, media_type: str
    ) -> Artifact:
        size = len(content) if isinstance(content, bytes) else (await asyncio.to_thread(content.stat)).st_size
        return await self._send(
            Artifact,
            "PUT",
            f"/v1/jobs/{job_id}/attempts/{attempt}/artifacts/{quote(name)}",
            params={"worker": worker},
            content=content if isinstance(content, bytes) else _chunks(content),
            headers={"Content-Type": media_type, "Content-Length": str(size)},
            timeout=UPLOAD_TIMEOUT,
        )

    async def read_artifact(self, job_id: UUID, artifact: Artifact) -> bytes:
        response = await self._request("GET", f"/v1/jobs/{job_id}/artifacts/{quote(artifact.name)}")
        if not response.is_success:
            raise self._refusal(response)
        if hashlib.sha256(response.content).hexdigest() != artifact.sha256:
            raise NotFound(f"{artifact.name!r} of job {job_id} is another file by now")
        return response.content

    async def _report_halves(self, worker: str, reports: Sequence[AnyReport]) -> Sequence[Reported | Exception]:
        half = len(reports) // 2
        first = await self.report(worker, reports[:half])
        if away := next((answer for answer in first if isinstance(answer, Unavailable | KeyRefused)), None):
            return [*first, *[away] * (len(reports) - half)]  # what was said first must be heard first
        return [*first, *await self.report(worker, reports[half:])]

    async def _post(self, path: str, body: bytes, answer: type[T]) -> T:
        return await self._send(answer, "POST", path, content=body, headers={"Content-Type": "application/json"})

    async def _send(self, answer: type[T], method: str, path: str, **request: Any) -> T:
        """The server's answer. Raises what it refused with, and Unavailable when it is away or overburdened."""
        response = await self._request(method, path, **request)
        if not response.is_success:
            raise self._refusal(response)
        return self._read(response, answer)

    async def _request(self, method: str, path: str, **request: Any) -> httpx2.Response:
        try:
            headers = {**request.pop("headers", {}), **current_headers()}
            response = await self._client.request(method, path, headers=headers, **request)
        except httpx2.TransportError as error:
            raise Unavailable(f"{self._url} does not answer: {error or type(error).__name__}") from error
        if response.status_code == 429 or response.status_code >= 500:
            raise Unavailable(f"{self._url} answers with HTTP {response.status_code}", _retry_after(response))
        if response.status_code in (401, 403):
            raise KeyRefused(self._key_refused(response.status_code))
        return response

    def _refusal(self, response: httpx2.Response) -> Exception:
        return _error(self._read(response, _Problem))

    def _read(self, response: httpx2.Response, answer: type[T]) -> T:
        try:
            return msgspec.json.decode(response.content, type=answer)
        except msgspec.MsgspecError as error:
            self.pause = PAUSE_SECONDS
            raise Unavailable(f"{self._url} does not answer as jobledger: HTTP {response.status_code}") from error

    def _key_refused(self, status: int) -> str:
        if status == 401 and not self._has_key:
            return f"{self._url} wants a key (HTTP 401): set JOBLEDGER_KEY to one with the role worker"
        if status == 401:
            return f"{self._url} does not know the key in JOBLEDGER_KEY (HTTP 401): set it to one with the role worker"
        return f"the key in JOBLEDGER_KEY may not do this at {self._url} (HTTP 403): set it to one with the role worker"


class Pauses:
    """News for who hears none, as its claims wait at the server: see the port, `application.news.News`."""

    def __init__(self, service: RemoteService) -> None:
        self._service = service

    @contextmanager
    def listen(self, topics: Collection[str]) -> Iterator["Pauses"]:
        yield self

    async def heard(self, seconds: float) -> bool:
        """Only lets the pause pass that the server asked for."""
        await asyncio.sleep(self._service.pause)
        return False


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk


def _answer(result: _Result) -> Reported | Exception:
    if result.problem is not None:
        return _error(result.problem)
    return Reported(version=result.version, cancel_requested=result.cancel_requested)


def _error(problem: _Problem) -> Exception:
    """The refusal that a problem tells of, in the server's words."""
    if problem.code == "invalid":
        return Invalid(*problem.errors, detail=problem.detail)
    if problem.code == Unavailable.code:
        return Unavailable(problem.detail)
    kind = ERRORS.get(problem.code, ApplicationError)
    return kind.__new__(kind, problem.detail)  # past `__init__`, which would make words of its own


def _retry_after(response: httpx2.Response) -> float | None:
    named = response.headers.get("retry-after", "")
    return min(float(named), LONGEST_PAUSE) if re.fullmatch(r"[0-9]{1,9}", named) else None
