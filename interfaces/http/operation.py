"""What a call of the contract is described by: its answers, and the headers it takes and gives."""

from typing import Any

from msgspec import Struct

from interfaces.http.requests import ENTITY_TAGS, IDEMPOTENCY_KEY, LONGEST_KEY

Json = dict[str, Any]
ID = "01a20032-d14b-79ae-8f97-c9b5fd507266"
"""The job of the examples."""


class Answer(Struct, frozen=True):
    """A response that is no problem."""

    status: int
    description: str
    body: type | None = None
    or_body: type | None = None
    media_type: str = "application/json"
    also: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


def content_of(media_type: str) -> tuple[Answer, ...]:
    """The answers of a file, whole or in part."""
    return (
        Answer(200, "The content", media_type=media_type, headers=("ETag",)),
        Answer(206, "A part of it", media_type=media_type, headers=("ETag", "Content-Range")),
        Answer(304, "The caller has it", headers=("ETag",)),
    )


class Operation(Struct, frozen=True, kw_only=True):
    """One call of the contract."""

    method: str
    path: str
    id: str
    summary: str
    tag: str
    answers: tuple[Answer, ...]
    problems: tuple[str, ...] = ()
    query: type | None = None
    body: type | None = None
    example: Any = None
    request_headers: tuple[str, ...] = ()
    upload: bool = False
    file: bool = False
    description: str = ""


HEADERS: dict[str, Json] = {
    "ETag": {
        "description": 'The version of the job, or the SHA-256 of the file, quoted: "3"',
        "schema": {"type": "string"},
    },
    "Location": {"description": "Where the job or the file is", "schema": {"type": "string"}},
    "Link": {
        "description": 'The next page: rel="next"; of the log, what left it: rel="archives"',
        "schema": {"type": "string"},
    },
    "Idempotency-Replayed": {
        "description": "true when the key was used before and this is the job of that time",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Preference-Applied": {"description": "How long the answer was held at most", "schema": {"type": "string"}},
    "Cache-Control": {"description": "How long the answer may be kept", "schema": {"type": "string"}},
    "Content-Disposition": {"description": "A name for the file", "schema": {"type": "string"}},
    "Content-Range": {"description": "Which bytes these are", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
}
REQUEST_HEADERS: dict[str, Json] = {
    "Idempotency-Key": {
        "description": "A name for this request, kept for 24 hours: sent again, it is answered with the same jobs.",
        "schema": {"type": "string", "pattern": IDEMPOTENCY_KEY, "maxLength": LONGEST_KEY},
    },
    "If-Match": {
        "description": 'Act only on this version of the job: "3"',
        "schema": {"type": "string", "pattern": ENTITY_TAGS},
        "example": '"3"',
    },
    "If-None-Match": {"description": 'Answer 304 for this version: "3"', "schema": {"type": "string"}},
    "Prefer": {
        "description": "wait=20: hold the answer, 60 s at most, until the job moves on from the version that "
        "If-None-Match names or, without one, has finished; proofs and bundles, until the event is sealed.",
        "schema": {"type": "string"},
    },
    "Last-Event-ID": {
        "description": "Go on after this message.",
        "schema": {"type": "string", "pattern": "^[0-9]{0,19}$"},
    },
    "Range": {"description": "Which bytes to send: bytes=0-999", "schema": {"type": "string"}},
    "If-Range": {"description": "Send a part only of this version, else the whole", "schema": {"type": "string"}},
    "Content-Digest": {
        "description": "The SHA-256 that the content must have (RFC 9530): sha-256=:<base64>:",
        "schema": {"type": "string", "pattern": "^sha-256=:[A-Za-z0-9+/]{43}=:$"},
    },
}
