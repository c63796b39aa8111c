"""The list of jobs, and the page of one."""

from datetime import UTC, datetime
from typing import Annotated, Any, get_args
from urllib.parse import urlencode
from uuid import UUID

from litestar import Request, Response, get
from msgspec import Meta, Struct

from application.audit import Audit, Inclusion
from application.differences import Change, changes
from application.errors import FieldError, Invalid
from application.jobs import EventView, Jobs, JobView, ListedStatus, Sort
from application.presentation import KIND as PRESENTATION
from application.visualization import KIND as VISUALIZATION
from application.visualization import PAGE
from application.why import why
from domain.refusals import Conflict
from interfaces.console.drawn import MOST_DRAWN, around, part
from interfaces.console.forms import as_meant
from interfaces.console.frame import page
from interfaces.console.timeline import draw
from interfaces.http.guard import AUDITOR, READER, caller_of
from interfaces.http.jobs import MOST_AT_ONCE, JobsQuery
from interfaces.http.presentations import file_link
from interfaces.http.requests import job_id, namespace, query
from interfaces.http.signed_links import linked, signed
from interfaces.http.visualizations import page_path

MOST_EVENTS = 100
"""Events of a job that its page tells of, those around the version that the slider stands at; the API has all."""
MOST_OF_EVENT = 4_000
"""Characters of each that it shows."""
UNTOLD = frozenset({"version", "position", "updated_at"})
"""Fields that every event changes."""


class JobQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The version that the slider stands at."""

    at_version: Annotated[int, Meta(ge=1, le=2**53)] | None = None


class Travel(Struct, frozen=True):
    """The job at a version: how it was, the event that made it so, and what that changed."""

    version: int
    job: JobView
    event: EventView
    changes: list[Change]


@get("/jobs", roles=READER)
async def show_jobs(request: Request[Any, Any, Any]) -> Response[Any]:
    """With the filters of the API. What a form leaves blank is no filter, and its times are in UTC."""
    if (elsewhere := as_meant(request)) is not None:
        return elsewhere
    wanted = query(request, JobsQuery)
    jobs: Jobs = request.app.state.service.jobs
    items, following = await jobs.page(wanted.filter(namespace(request)), wanted.sort, wanted.limit, wanted.cursor)
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    return page(
        request,
        "jobs.html",
        jobs=items,
        wanted=wanted,
        filtered=any(name not in ("sort", "limit") for name, _ in kept),
        first=urlencode(kept),
        following=urlencode([*kept, ("cursor", following)]) if following else None,
        statuses=get_args(ListedStatus),
        sorts=get_args(Sort),
    )


@get("/jobs/{job_id:str}", roles=READER)
async def show_job(request: Request[Any, Any, Any]) -> Response[Any]:
    service = request.app.state.service
    wanted, id, seen = query(request, JobQuery), job_id(request), namespace(request)
    job = await linked(request, await service.jobs.get(id, seen))
    version = _version(job, wanted.at_version)
    drawn = part(await _around(request, job, version, MOST_DRAWN), version, job.version, job.attempt)
    told = await _around(request, job, version, MOST_EVENTS)
    return page(
        request,
        "job.html",
        secret=True,
        job=job,
        events=told,
        most_of_event=MOST_OF_EVENT,
        most_at_once=MOST_AT_ONCE,
        timeline=draw(drawn.events, datetime.now(UTC) if drawn.last == job.version else drawn.events[-1].at),
        drawn=drawn,
        why=await why(service.jobs, service.facts, id, seen),
        travel=await _travel(request, job, version),
        page_url=await _page_url(request, job),
        video_url=await file_link(request, job, "video") if job.kind == PRESENTATION else None,
        thumbnail_url=await file_link(request, job, "thumbnail") if job.kind == PRESENTATION else None,
        seal=await _seal(request, job.id, job.version),
    )


def _version(job: JobView, wanted: int | None) -> int:
    """The version to look at, the last one unless another is wanted. Raises Invalid for one that there is not."""
    if wanted is not None and wanted > job.version:
        raise Invalid(FieldError("at_version", f"must be 1 to {job.version}, the versions of job {job.id}"))
    return wanted or job.version


async def _around(request: Request[Any, Any, Any], job: JobView, version: int, most: int) -> list[EventView]:
    """The events of so many versions around one, at the most."""
    wanted = around(version, job.version, most)
    found: list[EventView] = await request.app.state.service.following.page(job.id, wanted.start - 1, most)
    return [event for event in found if event.version in wanted]


async def _travel(request: Request[Any, Any, Any], job: JobView, version: int) -> Travel:
    service = request.app.state.service
    then = await service.jobs.at_version(job.id, version)
    [event] = await service.following.page(job.id, version - 1, 1)
    before = await service.jobs.at_version(job.id, version - 1) if version > 1 else None
    changed = [change for change in changes(before, then) if change.field not in UNTOLD] if before else []
    return Travel(version, then, event, changed)


async def _page_url(request: Request[Any, Any, Any], job: JobView) -> str | None:
    """A signed link to the page that a question became, once it is there."""
    drawn = job.kind == VISUALIZATION and job.status == "completed" and any(a.name == PAGE for a in job.artifacts)
    return await signed(request, page_path(job.id)) if drawn else None


async def _seal(request: Request[Any, Any, Any], id: UUID, version: int) -> Inclusion | str | None:
    """The proof of the job's last event, or why there is none yet; None for somebody who may not ask."""
    caller = caller_of(request.scope)
    if caller is None or caller.role not in AUDITOR:
        return None
    audit: Audit = request.app.state.service.audit
    try:
        return await audit.inclusion((id, version), caller.namespace, 0)
    except Conflict:
        return "Not sealed yet: a projector does that within a few seconds."
