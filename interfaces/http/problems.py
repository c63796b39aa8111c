"""Errors as RFC 9457 problems: here, and only here, codes meet HTTP."""

import re
from collections.abc import Collection
from typing import Annotated, Any
from uuid import uuid4

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import Send
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.json import encode
from msgspec.structs import replace

from application.archives import Archive, Gone
from application.errors import ApplicationError, FieldError, Invalid, RateLimited
from application.jobs import NO_DOTS
from application.language import NOT_BLANK
from domain.refusals import Refused

log = structlog.get_logger()
PROBLEM_JSON = "application/problem+json"
RETRY_AFTER = 1
CHALLENGE = 'Bearer realm="jobledger"'
PATTERNS = {
    NOT_BLANK: "is blank",
    NO_DOTS: 'must not be "." or "..", which browsers and proxies take out of an address',
}
"""What text that does not match is told, which else would be the expression."""
MOMENTS = ("Invalid RFC3339 encoded datetime", "Expected `datetime` with a timezone component")
MOMENT = "such as 2026-01-31T02:30:00Z; one of a local clock has its offset, +01:00, in an address as %2B01:00"
"""What a moment looks like: in an address, a plus that is written as it is stands for a space."""
_PLACE = re.compile(r"(.*) - at (`key` in )?`\$([^`]*)`", re.DOTALL)


class Kind(Struct, frozen=True):
    """What a code means: its HTTP status, its title, and what to do about it."""

    status: int
    title: str
    advice: str


KINDS = {
    "invalid": Kind(400, "The request is invalid", "Mend the fields that `errors` names and send it again."),
    "unauthenticated": Kind(401, "A key is needed", "Send Authorization: Bearer <key>."),
    "forbidden": Kind(403, "Not allowed", "Use a key whose role allows this, from an origin that may."),
    "not-found": Kind(404, "Not found", "Check the address and the id; a job that exists is known to every server."),
    "method-not-allowed": Kind(405, "Method not allowed", "Use one of the methods that the Allow header names."),
    "job-finished": Kind(409, "The job has finished", "Nothing more is recorded of it; a retry sends it round again."),
    "lease-lost": Kind(409, "The lease is lost", "Stop the handler and discard its work; another attempt has the job."),
    "conflict": Kind(409, "Conflict with what is there", "Look at what `detail` names, and decide again."),
    "gone": Kind(
        410, "Gone", "Retention took it: `archive` names the file that has it, and when. An operator can bring it back."
    ),
    "precondition-failed": Kind(412, "Precondition failed", "The job has moved on; look at it, and decide again."),
    "too-large": Kind(413, "Too large", "Send less, or save what is large as an artifact and pass its reference."),
    "unsupported-media-type": Kind(415, "Unsupported media type", "Send what the operation's description says."),
    "range-not-satisfiable": Kind(416, "Range not satisfiable", "Ask for a range within the file's size."),
    "idempotency-mismatch": Kind(422, "Idempotency-Key used for another request", "Use a new key for a new request."),
    "rate-limited": Kind(429, "Too many requests", "Wait as long as Retry-After says."),
    "internal": Kind(500, "Something went wrong here", "Try again; if it goes on, give the operator the request_id."),
    "busy": Kind(503, "Too many connections", "Wait as long as Retry-After says, and use a connection again."),
    "unavailable": Kind(
        503, "The database or the store is away", "Wait as long as Retry-After says, then send it again."
    ),
}
BY_STATUS = {kind.status: code for code, kind in KINDS.items() if code not in ("job-finished", "lease-lost")}


class Problem(Struct, kw_only=True, frozen=True):
    """An RFC 9457 problem. `type` is a page of this service that explains the code; `archive` has what is `gone`."""

    type: str
    title: str
    status: int
    detail: str
    code: Annotated[str, Meta(extra_json_schema={"enum": list(KINDS)})]
    request_id: str
    errors: tuple[FieldError, ...] | UnsetType = UNSET
    archive: Archive | UnsetType = UNSET


class HTTPProblem(ApplicationError):
    """A problem of the HTTP exchange itself."""

    def __init__(self, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.problem_code = code
        self.headers = headers or {}


def problem_of(error: Exception, request_id: str) -> Problem:
    """The problem that tells of `error`; one that is not ours is told without its words."""
    if isinstance(error, HTTPProblem):
        return problem(error.problem_code, str(error), request_id)
    if isinstance(error, Refused | ApplicationError):
        errors = error.errors if isinstance(error, Invalid) and error.errors else UNSET
        told = problem(error.code, str(error), request_id, errors)
        return replace(told, archive=error.archive) if isinstance(error, Gone) else told
    if isinstance(error, HTTPException) and error.status_code in BY_STATUS:
        return problem(BY_STATUS[error.status_code], _words(error), request_id)
    return problem("internal", "the request failed here for a reason that is in the log", request_id)


def problem(code: str, detail: str, request_id: str, errors: tuple[FieldError, ...] | UnsetType = UNSET) -> Problem:
    kind = KINDS[code]
    return Problem(
        type=f"/problems/{code}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        code=code,
        request_id=request_id,
        errors=errors,
    )


def answer_problem(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The response for any exception that a handler, or the framework before it, raised."""
    request_id = request_id_of(request)
    told = problem_of(error, request_id)
    if told.status >= 500 and told.code != "unavailable":
        log.error("http.failed", path=request.url.path, request_id=request_id, exc_info=error)
    headers = dict(error.headers) if isinstance(error, HTTPProblem) else {}
    if isinstance(error, HTTPException) and error.headers:
        headers.update(error.headers)
    if "allow" in headers:  # as the framework writes it
        headers["allow"] = allow(headers["allow"].split(", "))
    if told.status in (429, 503):
        headers["Retry-After"] = str(error.retry_after if isinstance(error, RateLimited) else RETRY_AFTER)
    if told.status == 401:
        headers["WWW-Authenticate"] = CHALLENGE
    headers["X-Request-Id"] = request_id
    return Response(encode(told), status_code=told.status, media_type=PROBLEM_JSON, headers=headers)


def allow(methods: Collection[str]) -> str:
    """What an Allow header says where the framework knows of these methods: HEAD is answered wherever GET is."""
    return ", ".join(sorted({*methods, "HEAD"} if "GET" in methods else set(methods)))


async def refuse(send: Send, code: str, detail: str) -> None:
    """Answer with a problem before the framework has seen the request."""
    told = problem(code, detail, uuid4().hex)
    body = encode(told)
    headers = [
        (b"content-type", PROBLEM_JSON.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", told.request_id.encode()),
        *([(b"www-authenticate", CHALLENGE.encode())] if told.status == 401 else []),
        *([(b"retry-after", str(RETRY_AFTER).encode())] if told.status == 503 else []),
    ]
    await send({"type": "http.response.start", "status": told.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def request_id_of(request: Request[Any, Any, Any]) -> str:
    """The caller's X-Request-Id if it is a plain word, else a new one."""
    given = request.headers.get("x-request-id", "")
    return given if re.fullmatch(r"[\w.:-]{1,100}", given, re.ASCII) else uuid4().hex


def field_error(error: Exception, within: str = "") -> FieldError:
    """msgspec's words and path (`… - at `$.retry.max``, or `… - at `key` in `$.labels``) as a field and a message."""
    message, path = str(error), ""
    if placed := _PLACE.fullmatch(message):
        message, path = placed[1] + (" (a key)" if placed[2] else ""), placed[3]
    message = next((says for regex, says in PATTERNS.items() if message.endswith(f"matching regex {regex!r}")), message)
    if message in MOMENTS:
        message = f"{message}, {MOMENT}"
    field = within + path
    if named := re.search(r"(?:unknown|required) field `([^`]*)`", message):
        field = f"{field}.{named[1]}"
    return FieldError(field.lstrip(".") or "$", message)


def _words(error: HTTPException) -> str:
    return {
        404: "there is nothing at this address",
        405: "this address does not take that method",
        413: "the body is larger than this operation takes",
    }.get(error.status_code, error.detail)
