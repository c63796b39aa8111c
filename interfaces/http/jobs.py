"""Jobs over HTTP: asking for them, changing their course, and looking at them."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.response import Stream
from msgspec import Meta, Raw, Struct
from msgspec.json import encode

from application.bulk import KIND as BULK
from application.differences import Diff, changes
from application.errors import FieldError, Invalid, TooLarge
from application.following import Following
from application.jobs import (
    Accepted,
    Cancel,
    EventView,
    Filter,
    Jobs,
    JobView,
    Label,
    ListedStatus,
    Moment,
    Name,
    NewJob,
    Reason,
    Requeue,
    Sort,
    names_and_values,
)
from application.payload import check_size
from application.why import why
from interfaces.http.answers import JSON, JSONAnswer
from interfaces.http.guard import CLIENT, READER
from interfaces.http.requests import (
    BODY,
    LARGE_BODY,
    asked,
    header_list,
    if_match,
    job_id,
    json_body,
    namespace,
    off_the_loop,
    query,
    raw_body,
    read_elements,
    read_json,
    sent_body,
    versions,
    wait,
)
from interfaces.http.signed_links import linked
from interfaces.http.streams import (
    COMMENT,
    COMMENT_SECONDS,
    SSE,
    begun,
    gather,
    in_pieces,
    last_event_id,
    ndjson,
    server_sent,
    sse,
    wanted_format,
)

MOST_IN_BATCH = 10_000
MOST_AT_ONCE = 10_000
"""Events of a job in one answer."""
LINES_PAGE = 100
Cursor = Annotated[
    str,
    Meta(
        pattern="^[A-Za-z0-9_-]{1,500}={0,2}$",
        description="The `next` of a page of the same list: the same filters, in the same order. Any other is refused.",
    ),
]


class NewJobs(Struct, frozen=True, forbid_unknown_fields=True):
    """Jobs to create, all or none."""

    jobs: Annotated[list[NewJob], Meta(min_length=1, max_length=MOST_IN_BATCH)]


class _RawJobs(Struct, frozen=True, forbid_unknown_fields=True):
    jobs: Annotated[list[Raw], Meta(min_length=1, max_length=MOST_IN_BATCH)]


class CreatedJobs(Struct, frozen=True):
    """The ids of the new jobs, in the order they were sent, and the position of the last one's creation."""

    ids: list[UUID]
    position: str


class Cancellation(Struct, frozen=True, forbid_unknown_fields=True):
    reason: Reason


class RetryRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`afresh` forgets the recorded steps; else the next attempt goes on from them."""

    reason: Reason
    afresh: bool = False


class JobPage(Struct, frozen=True):
    """`next` is what to pass as `cursor` for the jobs that follow; null at the end."""

    items: list[JobView]
    next: str | None


class EventPage(Struct, frozen=True):
    """`next` is what to pass as `after_version` for the events that follow; null at the end."""

    items: list[EventView]
    next: int | None


class JobsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    status: list[ListedStatus] = []
    kind: list[Name] = []
    queue: list[Name] = []
    label: list[Label] = []
    worker: list[Name] = []
    created_after: Moment | None = None
    created_before: Moment | None = None
    sort: Sort = "-created_at"
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    cursor: Cursor | None = None

    def filter(self, namespace: str | None) -> Filter:
        return Filter(
            namespace=namespace,
            status=tuple(self.status),
            kind=tuple(self.kind),
            queue=tuple(self.queue),
            label=names_and_values(self.label),
            worker=tuple(self.worker),
            created_after=self.created_after,
            created_before=self.created_before,
        )


class EventsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    after_version: Annotated[int, Meta(ge=0, le=2**53)] = 0
    limit: Annotated[int, Meta(ge=1, le=MOST_AT_ONCE)] | None = None


class MomentQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A version of the job, or a moment of its history."""

    at_version: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    as_of: Moment | None = None


class DiffQuery(Struct, frozen=True, forbid_unknown_fields=True, rename={"begin": "from", "end": "to"}):
    begin: Annotated[int, Meta(ge=1, le=2**53)]
    end: Annotated[int, Meta(ge=1, le=2**53)]


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    pass


@post("/v1/jobs", request_max_body_size=BODY, roles=CLIENT)
async def create_job(request: Request[Any, Any, Any]) -> JSONAnswer:
    query(request, NoQuery)
    body = await raw_body(request)
    new = read_json(body, NewJob)
    _check(new)
    accepted = await _jobs(request).create([new], asked(request, body))
    return await answer_job(request, accepted)


@post("/v1/jobs/batch", request_max_body_size=LARGE_BODY, roles=CLIENT)
async def create_jobs(request: Request[Any, Any, Any]) -> Response[bytes]:
    query(request, NoQuery)
    body = await sent_body(request)
    accepted = await _jobs(request).create(await off_the_loop(body, _new_jobs), asked(request, body))
    created = CreatedJobs(list(accepted.job_ids), str(accepted.position))
    return Response(encode(created), status_code=202, media_type=JSON, headers=_replayed(accepted))


@get("/v1/jobs", roles=READER)
async def list_jobs(request: Request[Any, Any, Any]) -> Response[bytes]:
    wanted = query(request, JobsQuery)
    items, following = await _jobs(request).page(
        wanted.filter(namespace(request)), wanted.sort, wanted.limit, wanted.cursor
    )
    headers = {}
    if following is not None:
        kept = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
        headers["Link"] = f'</v1/jobs?{urlencode([*kept, ("cursor", following)])}>; rel="next"'
    page = JobPage([await linked(request, job) for job in items], following)
    return Response(encode(page), media_type=JSON, headers=headers)


@get("/v1/jobs/{job_id:str}", roles=READER)
async def get_job(request: Request[Any, Any, Any]) -> JSONAnswer:
    moment = query(request, MomentQuery)
    id, seen = job_id(request), namespace(request)
    if moment.at_version is not None and moment.as_of is not None:
        raise Invalid(FieldError("as_of", "and at_version exclude each other"))
    if moment.at_version is not None:
        return _answer(request, await _jobs(request).at_version(id, moment.at_version, seen))
    if moment.as_of is not None:
        return _answer(request, await _jobs(request).as_of(id, moment.as_of, seen))
    if (seconds := wait(request)) is not None:
        known = versions(header_list(request, "If-None-Match"))
        view = await _following(request).changed(id, known, seconds, seen)
        return _answer(request, await linked(request, view), {"Preference-Applied": f"wait={seconds}"})
    return _answer(request, await linked(request, await _jobs(request).get(id, seen)))


@get("/v1/jobs/{job_id:str}/diff", roles=READER)
async def get_diff(request: Request[Any, Any, Any]) -> Response[bytes]:
    asked_for = query(request, DiffQuery)
    id, jobs = job_id(request), _jobs(request)
    now = await jobs.get(id, namespace(request))
    for field, version in (("from", asked_for.begin), ("to", asked_for.end)):
        if version > now.version:
            raise Invalid(FieldError(field, f"must be 1 to {now.version}, the versions of job {id}"))
    if asked_for.begin > asked_for.end:
        raise Invalid(FieldError("from", "must not be above `to`"))
    before, after = await jobs.at_version(id, asked_for.begin), await jobs.at_version(id, asked_for.end)
    events = await _following(request).page(id, asked_for.begin, asked_for.end - asked_for.begin)
    diff = Diff(id, asked_for.begin, asked_for.end, changes(before, after), events)
    return Response(encode(diff), media_type=JSON)


@get("/v1/jobs/{job_id:str}/why", roles=READER)
async def get_why(request: Request[Any, Any, Any]) -> Response[bytes]:
    query(request, NoQuery)
    reasons = await why(_jobs(request), request.app.state.service.facts, job_id(request), namespace(request))
    return Response(encode(reasons), media_type=JSON)


@get("/v1/jobs/{job_id:str}/events", roles=READER)
async def get_events(request: Request[Any, Any, Any]) -> Response[bytes] | Stream:
    wanted = query(request, EventsQuery)
    id, following, seen = job_id(request), _following(request), last_event_id(request)
    job = await _jobs(request).get(id, namespace(request))
    match wanted_format(request):
        case "sse":
            after = wanted.after_version if seen is None else seen
            if job.finished_at is not None and after >= job.version:
                return Response(b"", status_code=204, media_type=SSE)
            return sse(request, _live(following, id, after))
        case "ndjson":
            return ndjson(request, await begun(_lines(following, job, wanted.after_version, wanted.limit)))
        case "json":
            limit = wanted.limit or 1000
            read = partial(following.history, id, known=job.version)
            items, more = await gather(read, wanted.after_version, limit, _version, lambda event: event)
            page = EventPage(items, items[-1].version if more else None)
            return Response(encode(page), media_type=JSON)


@post("/v1/jobs/{job_id:str}/cancellations", request_max_body_size=BODY, roles=CLIENT)
async def cancel_job(request: Request[Any, Any, Any]) -> JSONAnswer:
    query(request, NoQuery)
    id, wanted = job_id(request), await json_body(request, Cancellation)
    await _jobs(request).check_seen([id], namespace(request))
    command = Cancel(job_id=id, reason=wanted.reason, asked=asked(request), if_match=if_match(request))
    return await answer_job(request, await _jobs(request).execute(command))


@post("/v1/jobs/{job_id:str}/retries", request_max_body_size=BODY, roles=CLIENT)
async def retry_job(request: Request[Any, Any, Any]) -> JSONAnswer:
    query(request, NoQuery)
    id, wanted = job_id(request), await json_body(request, RetryRequest)
    await _jobs(request).check_seen([id], namespace(request))
    command = Requeue(
        job_id=id,
        reason=wanted.reason,
        afresh=wanted.afresh,
        asked=asked(request, await request.body()),
        if_match=if_match(request),
    )
    return await answer_job(request, await _jobs(request).execute(command))


async def answer_job(request: Request[Any, Any, Any], accepted: Accepted) -> JSONAnswer:
    """202 with the job that a command created or moved, at its present version when the command is a repeat."""
    view = accepted.view or await _jobs(request).get(accepted.job_ids[0])
    headers = {"Location": view.links.self, "ETag": f'"{view.version}"', **_replayed(accepted)}
    return JSONAnswer(encode(await linked(request, view)), 202, headers)


def _jobs(request: Request[Any, Any, Any]) -> Jobs:
    jobs: Jobs = request.app.state.service.jobs
    return jobs


def _following(request: Request[Any, Any, Any]) -> Following:
    following: Following = request.app.state.service.following
    return following


def _answer(request: Request[Any, Any, Any], view: JobView, headers: dict[str, str] | None = None) -> JSONAnswer:
    """The job, or 304 when the caller has that version already."""
    headers = {**(headers or {}), "ETag": f'"{view.version}"'}
    if _matches(header_list(request, "If-None-Match"), view.version):
        return JSONAnswer(b"", 304, headers)
    return JSONAnswer(encode(view), headers=headers)


async def _live(following: Following, id: UUID, after: int) -> AsyncIterator[bytes]:
    yield COMMENT
    async for events in following.events(id, after, COMMENT_SECONDS):
        for piece in in_pieces(server_sent(event.version, event, event) for event in events):
            yield piece
        if not events:
            yield COMMENT


def _version(event: EventView) -> int:
    return event.version


async def _lines(following: Following, job: JobView, after: int, limit: int | None) -> AsyncIterator[bytes]:
    """The events there are now, a page in memory at a time."""
    left = limit if limit is not None else 2**62
    while left > 0:
        events = await following.history(job.id, after, min(left, LINES_PAGE), job.version)
        for piece in in_pieces(encode(event) + b"\n" for event in events):
            yield piece
        if len(events) < min(left, LINES_PAGE):
            return
        after, left = events[-1].version, left - len(events)


def _replayed(accepted: Accepted) -> dict[str, str]:
    return {"Idempotency-Replayed": "true"} if accepted.replayed else {}


def _matches(if_none_match: str | None, version: int) -> bool:
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or version in (versions(if_none_match) or ())


def _check(new: NewJob) -> None:
    """Raises TooLarge for too much input, and Invalid for a moment outside the calendar and for the kind `bulk`.

    A bulk job names the actor of what it does.
    """
    if new.kind == BULK:
        raise Invalid(FieldError("kind", "'bulk' is made by POST /v1/jobs/requeues and /v1/jobs/cancellations only"))
    check_size(bytes(new.input), "input")
    if new.run_at is not None and not 1970 <= new.run_at.year <= 2999:
        raise Invalid(FieldError("run_at", "must lie in the years 1970 to 2999"))


def _check_in_batch(new: NewJob) -> None:
    try:
        _check(new)
    except TooLarge as error:
        raise Invalid(FieldError("input", str(error))) from error


def _new_jobs(body: bytes) -> list[NewJob]:
    """The jobs of a batch. Raises Invalid with the errors of every job that is at fault."""
    elements = read_json(body, _RawJobs).jobs
    jobs, errors = read_elements(elements, NewJob, "jobs", _check_in_batch)
    if errors:
        raise Invalid(
            *errors, detail=f"{len(elements) - len(jobs)} of {len(elements)} jobs are at fault; none was created"
        )
    return jobs
