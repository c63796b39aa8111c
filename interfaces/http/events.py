"""The whole log over HTTP: in pages, as lines, or live."""

from collections.abc import AsyncIterator, Awaitable
from datetime import datetime
from typing import Annotated, Any, Literal

from litestar import Request, Response, get
from litestar.response import Stream
from msgspec import Meta, Struct
from msgspec.json import encode

from application.errors import FieldError, Invalid
from application.following import Following, LogEntry, LogFilter
from application.jobs import EventView, Moment, Name
from domain.events import TAGS
from interfaces.http.answers import JSON
from interfaces.http.audit import archives_link
from interfaces.http.guard import AUDITOR
from interfaces.http.requests import asked as asked_by
from interfaces.http.requests import namespace, query
from interfaces.http.streams import (
    COMMENT,
    COMMENT_SECONDS,
    LARGEST,
    begun,
    gather,
    in_pieces,
    last_event_id,
    ndjson,
    server_sent,
    sse,
    wanted_format,
)

LINES_PAGE = 100
Position = Annotated[str, Meta(pattern="^[0-9]{1,19}$")]


class CloudEvent(Struct, frozen=True, kw_only=True):
    """An event in a CloudEvents 1.0 envelope (JSON format)."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    data: EventView


class LogPage(Struct, frozen=True):
    """`next` is what to pass as `after` for the events that follow; null at the end."""

    items: list[EventView]
    next: str | None


class CloudEventPage(Struct, frozen=True):
    """The same, in CloudEvents envelopes."""

    items: list[CloudEvent]
    next: str | None


class LogQuery(Struct, frozen=True, forbid_unknown_fields=True, rename={"begin": "from", "end": "to"}):
    """`after` is a position; `from` and `to` bound the events' times, the second one exclusively."""

    after: Position | None = None
    type: list[Annotated[str, Meta(extra_json_schema={"enum": sorted(TAGS.values())})]] = []
    kind: list[Name] = []
    actor: list[Name] = []
    begin: Moment | None = None
    end: Moment | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    format: Literal["cloudevents"] | None = None


@get("/v1/events", roles=AUDITOR)
async def get_log(request: Request[Any, Any, Any]) -> Response[bytes] | Stream:
    asked = query(request, LogQuery)
    if unknown := sorted(set(asked.type) - set(TAGS.values())):
        raise Invalid(FieldError("type", f"{unknown[0]!r} is no type of event"))
    wanted = LogFilter(
        namespace=namespace(request),
        type=tuple(asked.type),
        kind=tuple(asked.kind),
        actor=tuple(asked.actor),
        begin=asked.begin,
        end=asked.end,
    )
    after = min(int(asked.after or 0), LARGEST)
    following: Following = request.app.state.service.following
    enveloped, seen = asked.format is not None, last_event_id(request)
    match wanted_format(request):
        case "sse":
            after = after if seen is None else seen
            return sse(request, _live(following, after, wanted, enveloped), await archives_link(request, after))
        case "ndjson":
            if not request.scope.get("head"):
                await request.app.state.service.audit.record(
                    asked_by(request).by, "export", filter=request.scope["query_string"].decode()
                )
            lines = await begun(_lines(following, after, asked.limit, wanted, enveloped))
            return ndjson(request, lines, await archives_link(request, after))
        case "json":
            limit = asked.limit or 1000

            def read(after: int, limit: int) -> Awaitable[list[LogEntry]]:
                return following.log_page(after, limit, wanted)

            entries, more = await gather(read, after, limit, lambda entry: entry.position, lambda entry: entry.event)
            following_page = str(entries[-1].position) if more else None
            items: list[Any] = [_shown(entry, enveloped) for entry in entries]
            page = CloudEventPage(items, following_page) if enveloped else LogPage(items, following_page)
            return Response(encode(page), media_type=JSON, headers=await archives_link(request, after))


async def _live(following: Following, after: int, wanted: LogFilter, enveloped: bool) -> AsyncIterator[bytes]:
    yield COMMENT
    async for entries in following.log.follow(after, wanted, COMMENT_SECONDS):
        for piece in in_pieces(server_sent(e.position, e.event, _shown(e, enveloped)) for e in entries):
            yield piece
        if not entries:
            yield COMMENT


async def _lines(
    following: Following, after: int, limit: int | None, wanted: LogFilter, enveloped: bool
) -> AsyncIterator[bytes]:
    """The events there are now, a page in memory at a time."""
    left = limit if limit is not None else 2**62
    while left > 0:
        entries = await following.log_page(after, min(left, LINES_PAGE), wanted)
        for piece in in_pieces(encode(_shown(entry, enveloped)) + b"\n" for entry in entries):
            yield piece
        if len(entries) < min(left, LINES_PAGE):
            return
        after, left = entries[-1].position, left - len(entries)


def _shown(entry: LogEntry, enveloped: bool) -> EventView | CloudEvent:
    event = entry.event
    if not enveloped:
        return event
    return CloudEvent(
        id=f"{event.job_id}/{event.version}",
        source=f"/v1/jobs/{event.job_id}",
        type=event.type,
        subject=str(event.job_id),
        time=event.at,
        data=event,
    )
