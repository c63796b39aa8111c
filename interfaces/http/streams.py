"""Events as they come: server-sent events (WHATWG HTML, 9.2) and newline-delimited JSON."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias, TypeVar

from litestar import Request
from litestar.response import Stream
from msgspec import Raw
from msgspec.json import encode

from application.errors import FieldError, Invalid
from application.jobs import EventView
from interfaces.http.requests import header, header_list

T = TypeVar("T")
SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
MOST_BYTES = 16 * 1024 * 1024
"""Of payload in one page of events; it ends early when they are large."""
GATHERED = 100
COMMENT_SECONDS = 15.0
"""Silence after which a comment tells the client, and every proxy between, that we are there."""
LARGEST = 2**63 - 1
"""The largest version and position that Postgres can be asked for."""
Format: TypeAlias = Literal["json", "ndjson", "sse"]
FORMATS: dict[str, Format] = {
    "application/json": "json",
    "application/*": "json",
    "*/*": "json",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "text/event-stream": "sse",
}
_WEIGHT = re.compile(r"(?:^|;)\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*(?:;|$)", re.ASCII | re.IGNORECASE)
COMMENT = b": still here\n\n"
PIECE = 64 * 1024
NONE: Mapping[str, str] = {}
UNBUFFERED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def wanted_format(request: Request[Any, Any, Any]) -> Format:
    """The one of our formats that the Accept header likes best, of equals the first; JSON without one."""
    wanted: Format = "json"
    most = 0.0
    for part in (header_list(request, "Accept") or "").split(","):
        name, _, parameters = part.partition(";")
        format, weight = FORMATS.get(name.strip().lower()), _weight(parameters)
        if format is not None and weight > most:
            wanted, most = format, weight
    return wanted


def last_event_id(request: Request[Any, Any, Any]) -> int | None:
    """The id that a client has seen last. Raises Invalid for one that we cannot have given."""
    given = (header(request, "Last-Event-ID") or "").strip()
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= 19):
        raise Invalid(FieldError("Last-Event-ID", "is none that was given out here"))
    return min(int(given), LARGEST)


def server_sent(id: int | str, event: EventView, data: object) -> bytes:
    """One message. JSON has no line breaks, so it fits one data line."""
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (str(id).encode(), event.type.encode(), encode(data))


def in_pieces(messages: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, `PIECE` or a little more at a time: a reader who is slow has no whole page waiting for it."""
    piece, size = [], 0
    for message in messages:
        piece.append(message)
        size += len(message)
        if size >= PIECE:
            yield b"".join(piece)
            piece, size = [], 0
    if piece:
        yield b"".join(piece)


async def begun(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same lines, the first of them at hand: what goes wrong there is still told as a problem."""
    first = await anext(lines, b"")

    async def whole() -> AsyncIterator[bytes]:
        yield first
        async for more in lines:
            yield more

    return whole()


def sse(request: Request[Any, Any, Any], messages: AsyncIterator[bytes], headers: Mapping[str, str] = NONE) -> Stream:
    return _streamed(request, messages, SSE, headers)


def ndjson(request: Request[Any, Any, Any], lines: AsyncIterator[bytes], headers: Mapping[str, str] = NONE) -> Stream:
    return _streamed(request, lines, NDJSON, headers)


async def gather(
    read: Callable[[int, int], Awaitable[list[T]]],
    after: int,
    limit: int,
    place: Callable[[T], int],
    event: Callable[[T], EventView],
) -> tuple[list[T], bool]:
    """`limit` events after a place, fewer when they are large, and whether there are more.

    They are read `GATHERED` at a time, so that no more than an answer's worth is in memory.
    """
    items: list[T] = []
    room = MOST_BYTES
    while True:
        wanted = min(limit + 1 - len(items), GATHERED)
        page = await read(after, wanted)
        for item in page:
            if len(items) == limit or (items and room <= 0):
                return items, True
            items.append(item)
            room -= sum(len(bytes(value)) for value in event(item).data.values() if isinstance(value, Raw))
        if len(page) < wanted:
            return items, False
        after = place(items[-1])


def _streamed(
    request: Request[Any, Any, Any], content: AsyncIterator[bytes], media_type: str, headers: Mapping[str, str]
) -> Stream:
    """HEAD is not shown the content, and would keep its connection until that ends."""
    shown = _nothing() if request.scope.get("head") else content
    return Stream(shown, media_type=media_type, headers={**UNBUFFERED, **headers})


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


def _weight(parameters: str) -> float:
    """The weight that a part of an Accept header has (RFC 9110, 12.4.2)."""
    found = _WEIGHT.search(parameters)
    return float(found[1]) if found else 1.0
