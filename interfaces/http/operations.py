"""What operators see and ask over HTTP: projections, queues, workers, failures, usage, stats."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, ParamSpec, TypeVar
from urllib.parse import unquote

from litestar import Request, delete, get, post
from msgspec import Meta, Struct
from msgspec.json import encode

from application.errors import FieldError, Forbidden, Invalid
from application.jobs import Name, Reason
from application.operations import (
    FailureView,
    Group,
    Limit,
    Operations,
    ProjectionView,
    QueueView,
    StatsWanted,
    UsageView,
    UsageWanted,
    WorkerView,
)
from interfaces.http.answers import JSONAnswer
from interfaces.http.guard import OPERATOR
from interfaces.http.jobs import Cursor, NoQuery
from interfaces.http.requests import BODY, actor, json_body, namespace, query

P = ParamSpec("P")
T = TypeVar("T")
DAY = 24 * 3600


PlainMoment = Annotated[
    datetime,
    Meta(
        tz=True,
        description="In the years 1970 to 2999.",
        extra_json_schema={"pattern": "^(19[7-9][0-9]|2[0-9]{3})-"},
    ),
]


class ProjectionPage(Struct, frozen=True):
    """All of them: `next` is always null."""

    items: list[ProjectionView]
    next: None = None


class Resumption(Struct, frozen=True, forbid_unknown_fields=True):
    """`retry` folds the event again, `skip` passes over it for good; both are recorded."""

    action: Literal["retry", "skip"]
    reason: Reason


class Because(Struct, frozen=True, forbid_unknown_fields=True):
    """Why it is asked for, kept with who did."""

    reason: Reason


class NamesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    limit: Limit = 50
    cursor: Annotated[Name, Meta(description="The `next` of the page before: the last name on it.")] | None = None


class WorkersQuery(NamesQuery, frozen=True, forbid_unknown_fields=True):
    """`seen_within` is in seconds."""

    seen_within: Annotated[int, Meta(ge=1, le=366 * DAY)] = DAY


class FailuresQuery(Struct, frozen=True, forbid_unknown_fields=True):
    limit: Limit = 50
    cursor: Cursor | None = None


class UsageQuery(Struct, frozen=True, forbid_unknown_fields=True, rename={"begin": "from", "end": "to"}):
    """Days in UTC, both included."""

    begin: date | None = None
    end: date | None = None
    group: list[Group] = []


class StatsQuery(Struct, frozen=True, forbid_unknown_fields=True, rename={"begin": "from", "end": "to"}):
    begin: PlainMoment | None = None
    end: PlainMoment | None = None
    queue: list[Name] = []
    kind: list[Name] = []


class QueuePage(Struct, frozen=True):
    """`next` is what to pass as `cursor` for the queues that follow; null at the end."""

    items: list[QueueView]
    next: str | None


class WorkerPage(Struct, frozen=True):
    """`next` is what to pass as `cursor` for the workers that follow; null at the end."""

    items: list[WorkerView]
    next: str | None


class FailurePage(Struct, frozen=True):
    """`next` is what to pass as `cursor` for the failures that follow; null at the end."""

    items: list[FailureView]
    next: str | None


class UsagePage(Struct, frozen=True):
    """All of the span: `next` is always null."""

    items: list[UsageView]
    next: None = None


@get("/v1/projections", roles=OPERATOR)
async def list_projections(request: Request[Any, Any, Any]) -> JSONAnswer:
    query(request, NoQuery)
    return JSONAnswer(encode(ProjectionPage(await projections(request))))


@post("/v1/projections/{name:str}/rebuilds", request_max_body_size=BODY, roles=OPERATOR)
async def rebuild_projection(request: Request[Any, Any, Any]) -> JSONAnswer:
    query(request, NoQuery)
    wanted = await json_body(request, Because)
    await _read(request, _all_of_it(request).rebuild, _name(request), actor(request), wanted.reason)
    return await _projection(request)


@post("/v1/projections/{name:str}/verifications", request_max_body_size=BODY, roles=OPERATOR)
async def verify_projection(request: Request[Any, Any, Any]) -> JSONAnswer:
    query(request, NoQuery)
    wanted = await json_body(request, Because)
    await _read(request, _all_of_it(request).verify, _name(request), actor(request), wanted.reason)
    return await _projection(request)


@post("/v1/projections/{name:str}/resumptions", request_max_body_size=BODY, roles=OPERATOR)
async def resume_projection(request: Request[Any, Any, Any]) -> JSONAnswer:
    query(request, NoQuery)
    wanted = await json_body(request, Resumption)
    by = actor(request)
    await _read(request, _all_of_it(request).resume, _name(request), wanted.action, by, wanted.reason)
    return await _projection(request)


@get("/v1/queues", roles=OPERATOR)
async def list_queues(request: Request[Any, Any, Any]) -> JSONAnswer:
    wanted = query(request, NamesQuery)
    found = await _read(request, _operations(request).queues, namespace(request), wanted.cursor or "", wanted.limit + 1)
    items = found[: wanted.limit]
    return JSONAnswer(encode(QueuePage(items, items[-1].name if len(found) > len(items) else None)))


@post("/v1/queues/{name:str}/pauses", request_max_body_size=BODY, roles=OPERATOR)
async def pause_queue(request: Request[Any, Any, Any]) -> JSONAnswer:
    query(request, NoQuery)
    wanted = await json_body(request, Because)
    pause = await _read(request, _all_of_it(request).pause, _queue(request), actor(request), wanted.reason)
    return JSONAnswer(encode(pause), 201)


@delete("/v1/queues/{name:str}/pauses", status_code=204, roles=OPERATOR)
async def unpause_queue(request: Request[Any, Any, Any]) -> None:
    query(request, NoQuery)
    await _read(request, _all_of_it(request).unpause, _queue(request))


@get("/v1/workers", roles=OPERATOR)
async def list_workers(request: Request[Any, Any, Any]) -> JSONAnswer:
    wanted = query(request, WorkersQuery)
    after, limit = wanted.cursor or "", wanted.limit
    found = await _read(request, _operations(request).workers, namespace(request), wanted.seen_within, after, limit + 1)
    items = found[:limit]
    return JSONAnswer(encode(WorkerPage(items, items[-1].name if len(found) > limit else None)))


@get("/v1/failures", roles=OPERATOR)
async def list_failures(request: Request[Any, Any, Any]) -> JSONAnswer:
    wanted = query(request, FailuresQuery)
    page = await _read(request, _operations(request).failures, namespace(request), wanted.limit, wanted.cursor)
    return JSONAnswer(encode(FailurePage(*page)))


@get("/v1/usage", roles=OPERATOR)
async def get_usage(request: Request[Any, Any, Any]) -> JSONAnswer:
    asked_for = query(request, UsageQuery)
    end = asked_for.end or datetime.now(UTC).date()
    begin = asked_for.begin or end.replace(day=1)
    _check_order(begin, end)
    wanted = UsageWanted(begin=begin, end=end, group=asked_for.group or ("day", "kind", "model"))
    return JSONAnswer(encode(UsagePage(await _read(request, _operations(request).usage, namespace(request), wanted))))


@get("/v1/stats", roles=OPERATOR)
async def get_stats(request: Request[Any, Any, Any]) -> JSONAnswer:
    """The window is widened to whole minutes; without one, the last hour."""
    asked_for = query(request, StatsQuery)
    end = _moment("to", asked_for.end) if asked_for.end else datetime.now(UTC)
    begin = _moment("from", asked_for.begin) if asked_for.begin else _begun(end) - timedelta(hours=1)
    _check_order(begin, end)
    last = _begun(end) + timedelta(minutes=1)
    wanted = StatsWanted(begin=_begun(begin), end=last, queue=asked_for.queue, kind=asked_for.kind)
    return JSONAnswer(encode(await _read(request, _operations(request).stats, namespace(request), wanted)))


async def projections(request: Request[Any, Any, Any]) -> list[ProjectionView]:
    """All of them, as the caller may know them."""
    views: list[ProjectionView] = await _read(request, _operations(request).projections)
    return views if namespace(request) is None else [view.limited() for view in views]


def _operations(request: Request[Any, Any, Any]) -> Operations:
    operations: Operations = request.app.state.service.operations
    return operations


async def _read(request: Request[Any, Any, Any], call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """On a thread for what blocks."""
    answer: T = await request.app.state.service.jobs.read(call, *args, **kwargs)
    return answer


async def _projection(request: Request[Any, Any, Any]) -> JSONAnswer:
    """The projection as it is now; what was asked for is done by a projector."""
    views = await _read(request, _operations(request).projections)
    return JSONAnswer(encode(next(view for view in views if view.name == _name(request))), 202)


def _all_of_it(request: Request[Any, Any, Any]) -> Operations:
    """For what concerns all namespaces. Raises Forbidden."""
    if (limited := namespace(request)) is not None:
        raise Forbidden(f"this concerns all namespaces, and the key is limited to {limited!r}")
    return _operations(request)


def _name(request: Request[Any, Any, Any]) -> str:
    name: str = request.path_params["name"]
    return name


def _queue(request: Request[Any, Any, Any]) -> str:
    """The name in the path as it was sent, since it may have slashes. Raises Invalid for what cannot be a queue's."""
    name = unquote(request.scope["raw_path"].decode().partition("/queues/")[2].partition("/")[0])
    if not 0 < len(name) <= 200 or "\0" in name or "\ufffd" in name:
        raise Invalid(FieldError("name", "must be 1 to 200 characters in UTF-8, without NUL"))
    return name


def _moment(field: str, moment: datetime) -> datetime:
    """The moment in UTC. Raises Invalid."""
    if not 1970 <= moment.year < 3000:
        raise Invalid(FieldError(field, "must be in the years 1970 to 2999"))
    return moment.astimezone(UTC)


def _begun(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _check_order(begin: date, end: date) -> None:
    """Raises Invalid."""
    if begin > end:
        raise Invalid(FieldError("from", "lies after `to`"))
