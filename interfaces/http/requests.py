"""Reading requests strictly: what is not understood is refused by name, before anything is recorded."""

import asyncio
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from functools import cache
from types import TracebackType
from typing import Any, TypeVar, cast
from urllib.parse import unquote, unquote_to_bytes
from uuid import UUID

import msgspec
import msgspec.inspect
from litestar import Request
from litestar.datastructures import Headers
from litestar.exceptions import InternalServerException as HungUp  # the framework's word for a sender who did
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.types import Empty, HTTPReceiveMessage
from msgspec.json import decode, encode

from application.errors import FieldError, Invalid
from application.jobs import DEFAULT, Asked
from application.ledger import IdempotencyKey
from application.payload import check_json
from interfaces.http.guard import caller_of
from interfaces.http.problems import HTTPProblem, field_error

T = TypeVar("T")
KIB = 1024
BODY = 1024 * KIB
LARGE_BODY = 32 * 1024 * KIB
LONGEST_KEY = 255
IDEMPOTENCY_KEY = "^[!-~]([ -~]*[!-~])?$"
"""Printable ASCII: what else a header holds is read differently from one program to the next."""
ENTITY_TAGS = r"""^(\*|(W/)?"[^"]*"([ \t]*,[ \t]*(W/)?"[^"]*")*)$"""
"""What If-Match may be (RFC 9110, 13.1.1)."""
LONGEST_WAIT = 60
BODY_SECONDS = 60.0
"""For a body to arrive; what does not is not waited for."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)


class StrictRequest(Request[Any, Any, Any]):
    """litestar's request, which by itself reads all headers anew for each that is asked for, and bodies piece by piece.

    Two generators for a body that is mostly there in one piece took a quarter of the time of a creation.
    """

    _named: Headers | None = None

    @property
    def headers(self) -> Headers:
        if self._named is None:
            self._named = Headers(self.scope["headers"])
        return self._named

    async def body(self) -> bytes:
        if self._body is Empty:
            self._body = await self._whole_body()
        return self._body

    async def _whole_body(self) -> bytes:
        most = self.route_handler.resolve_request_max_body_size() or math.inf
        if (self.content_length or 0) > most:
            raise RequestEntityTooLarge
        pieces: list[bytes] = []
        size, more = 0, True
        while more:
            message = cast("HTTPReceiveMessage", await self.receive())
            if message["type"] == "http.disconnect":
                raise HungUp
            pieces.append(message["body"])
            size += len(message["body"])
            if size > most:
                raise RequestEntityTooLarge
            more = message["more_body"]
        self.is_connected = False
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def json_body(request: Request[Any, Any, Any], type: type[T]) -> T:
    """The JSON body as `type`. Raises Invalid, or a problem for another media type or one that is too large."""
    read: T = read_json(await raw_body(request), type)
    return read


async def raw_body(request: Request[Any, Any, Any]) -> bytes:
    """The body, when it is JSON within our limits."""
    body = await sent_body(request)
    check_json(body)
    return body


async def sent_body(request: Request[Any, Any, Any]) -> bytes:
    """The body, when it says that it is JSON."""
    check_plain(request)
    media_type = header(request, "Content-Type")
    if media_type is None:
        media_type = "application/json"
    if not _JSON.fullmatch(media_type.strip()):
        raise HTTPProblem("unsupported-media-type", f"the body is {media_type!r}; send application/json")
    async with Arriving():
        return await request.body()


def check_plain(request: Request[Any, Any, Any]) -> None:
    """Raises a problem for a body that was packed (RFC 9110, 8.4): nothing is unpacked here."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        told = "send the body as it is, without a Content-Encoding"
        raise HTTPProblem("unsupported-media-type", told, {"Accept-Encoding": "identity"})


def header(request: Request[Any, Any, Any], name: str) -> str | None:
    """A header that is given once, if at all. Raises Invalid."""
    given = request.headers.getall(name, [])
    if len(given) > 1:
        raise Invalid(FieldError(name, "is given more than once"))
    return given[0] if given else None


def header_list(request: Request[Any, Any, Any], name: str) -> str | None:
    """A header that is a list, whose lines are one (RFC 9110, 5.3)."""
    given = request.headers.getall(name, [])
    return ", ".join(given) if given else None


class Arriving:
    """Around reading a body, which is not waited for without end, nor after its sender hung up. Raises a problem."""

    __slots__ = ("_within",)

    async def __aenter__(self) -> None:
        self._within = asyncio.timeout(BODY_SECONDS)
        await self._within.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._within.__aexit__(kind, error, trace)
        except TimeoutError:
            raise HTTPProblem("invalid", f"the body did not arrive within {BODY_SECONDS:g} s") from None
        if isinstance(error, HungUp):
            raise HTTPProblem("invalid", "the body ended before all of it was there") from None


async def off_the_loop(body: bytes, read: Callable[[bytes], T]) -> T:
    """What `read` makes of a body; a large one is read on a thread, so that other requests go on meanwhile."""
    return await asyncio.to_thread(read, body) if len(body) > BODY else read(body)


def read_json(json: bytes, type: Any) -> Any:
    """JSON as `type`. Raises Invalid."""
    try:
        return decode(json, type=type)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(field_error(error)) from error


def read_elements(
    elements: Sequence[msgspec.Raw], type: Any, within: str, check: Callable[[Any], None] = lambda _: None
) -> tuple[list[Any], list[FieldError]]:
    """The elements of a list as `type`, each checked by itself; and what is wrong with those that are left out.

    `check` raises Invalid for an element that fits its type and yet cannot be taken.
    """
    read: list[Any] = []
    errors: list[FieldError] = []
    for n, element in enumerate(elements):
        try:
            read.append(read_element(element, type, f"{within}[{n}]", check))
        except Invalid as invalid:
            errors.extend(invalid.errors)
    return read, errors


def read_element(element: msgspec.Raw, type: Any, within: str, check: Callable[[Any], None] = lambda _: None) -> Any:
    """An element as `type`. Raises Invalid with errors that name their place `within` the request."""
    try:
        check_json(bytes(element))
        item = read_json(element, type)
        check(item)
    except Invalid as invalid:
        raise Invalid(*(FieldError(_path(within, e.field), e.message) for e in invalid.errors)) from invalid
    return item


def _path(within: str, field: str) -> str:
    return within if field == "$" else f"{within}.{field}"


def query(request: Request[Any, Any, Any], type: type[T]) -> T:
    """The query parameters as `type`, whose list fields may repeat. Raises Invalid, also for unknown ones."""
    lists, numbers = _shape(type)  # type: ignore[arg-type]  # mypy takes type[T] for unhashable
    given: dict[str, Any] = {}
    _check_text(request.scope["query_string"])
    for name, values in request.query_params.dict().items() if request.scope["query_string"] else ():
        if name not in lists and len(values) > 1:
            raise Invalid(FieldError(name, "is given more than once"))
        if any("\0" in value for value in values):
            raise Invalid(FieldError(name, "has a NUL character, which is not taken"))
        number = name in numbers and re.fullmatch(r"-?[0-9]{1,30}", values[0], re.ASCII)
        given[name] = values if name in lists else int(values[0]) if number else values[0]
    try:
        return msgspec.convert(given, type=type)
    except msgspec.ValidationError as error:
        raise Invalid(field_error(error)) from error


def _check_text(query_string: bytes) -> None:
    """Raises Invalid for what is no UTF-8, which the framework would read as U+FFFD."""
    for parameter in query_string.split(b"&"):
        try:
            unquote_to_bytes(parameter).decode()
        except UnicodeDecodeError as error:
            name = unquote(parameter.partition(b"=")[0].decode("ascii", "replace"))
            raise Invalid(FieldError(name, "is no UTF-8")) from error


def job_id(request: Request[Any, Any, Any]) -> UUID:
    """The id in the path. Raises Invalid for what is no UUID."""
    given = request.path_params["job_id"]
    try:
        return msgspec.convert(given, type=UUID)
    except msgspec.ValidationError as error:
        raise Invalid(FieldError("job_id", f"{given[:100]!r} is no UUID")) from error


def attempt(request: Request[Any, Any, Any]) -> int:
    """The attempt in the path. Raises Invalid for what is no number of one."""
    given = request.path_params["attempt"]
    if not re.fullmatch(r"[0-9]{1,10}", given, re.ASCII) or not 1 <= int(given) < 2**31:
        raise Invalid(FieldError("attempt", "must be a number from 1 to 2147483647"))
    return int(given)


def asked(request: Request[Any, Any, Any], body: bytes | None = None) -> Asked:
    """Who asks, in which trace and, for a `body` that creates or requeues, under which Idempotency-Key."""
    key = header(request, "Idempotency-Key")
    return Asked(
        by=actor(request),
        namespace=namespace(request),
        trace=trace(request) or own_trace(request.scope),
        key=_key(request, key, body) if key is not None and body is not None else None,
        quota=caller.quota if (caller := caller_of(request.scope)) else None,
    )


def actor(request: Request[Any, Any, Any]) -> str:
    """Who sends the request, as it stands in the events it causes."""
    caller = caller_of(request.scope)
    return caller.actor if caller else "anonymous"


def key_actor(request: Request[Any, Any, Any]) -> str | None:
    """The same, where a key says so: else a worker is who it says it is."""
    caller = caller_of(request.scope)
    return caller.actor if caller and caller.key_id else None


def namespace(request: Request[Any, Any, Any]) -> str | None:
    """The one whose jobs the caller sees; None for all."""
    caller = caller_of(request.scope)
    return caller.namespace if caller else None


def trace(request: Request[Any, Any, Any]) -> str | None:
    """The trace id of a W3C `traceparent` header; what workers say without one is of their job's trace."""
    found = _TRACEPARENT.fullmatch(request.headers.get("traceparent", ""))
    return found[1] if found and found[1] != "0" * 32 else None


def own_trace(scope: Any) -> str | None:
    """The trace that this server began for a request, where traces are made."""
    began: str | None = scope.get("trace")
    return began


def if_match(request: Request[Any, Any, Any]) -> tuple[int, ...] | None:
    """The versions to act on; None for any. Raises Invalid for a header that names none, nor `*`."""
    given = header_list(request, "If-Match")
    if given is not None and not re.search(ENTITY_TAGS, given.strip()):
        raise Invalid(FieldError("If-Match", 'must name versions, such as "3", or be *'))
    return versions(given)


def versions(header: str | None) -> tuple[int, ...] | None:
    """The versions that an If-Match or If-None-Match header names; None for any (`*`), or without the header."""
    if header is None or header.strip() == "*":
        return None
    tags = re.findall(r'(?:W/)?"([^"]*)"', header)
    return tuple(int(tag) for tag in tags if re.fullmatch(r"[0-9]{1,18}", tag))


def wait(request: Request[Any, Any, Any]) -> int | None:
    """The seconds of a `Prefer: wait=…` header (RFC 7240), 60 at the most."""
    given = header_list(request, "Prefer")
    found = given and re.search(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,9})[0-9]*\b", given, re.IGNORECASE)
    return min(int(found[1]), LONGEST_WAIT) if found else None


@cache
def _shape(type: type[Any]) -> tuple[frozenset[str], frozenset[str]]:
    """The query parameters that may repeat, and those that are whole numbers."""
    info = msgspec.inspect.type_info(type)
    assert isinstance(info, msgspec.inspect.StructType)
    return (
        frozenset(f.encode_name for f in info.fields if isinstance(f.type, msgspec.inspect.ListType)),
        frozenset(f.encode_name for f in info.fields if _whole(f.type)),
    )


def _whole(type: msgspec.inspect.Type) -> bool:
    """A whole number, or one that may be absent: msgspec reads no such union from text."""
    alternatives = type.types if isinstance(type, msgspec.inspect.UnionType) else (type,)
    return any(isinstance(alternative, msgspec.inspect.IntType) for alternative in alternatives)


def _key(request: Request[Any, Any, Any], key: str, body: bytes) -> IdempotencyKey:
    """The fingerprint covers the operation and what the body says, however it is written; a large one, to the byte."""
    if len(key) > LONGEST_KEY or not re.search(IDEMPOTENCY_KEY, key):
        raise Invalid(FieldError("Idempotency-Key", f"must be 1 to {LONGEST_KEY} characters of printable ASCII"))
    said = encode(decode(body), order="sorted") if len(body) <= BODY else body
    operation = f"{request.method} {request.url.path}\n".encode()
    return IdempotencyKey(namespace(request) or DEFAULT, key, hashlib.sha256(operation + said).digest())
