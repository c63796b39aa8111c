"""The two calls of older front ends, which keep their pollers: answers in the shapes that those read."""

import asyncio
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Request, Response, get
from msgspec import Meta, Struct
from msgspec.json import encode

from application.archives import Gone
from application.errors import NotFound, Unavailable
from application.jobs import Jobs, JobView, unknown
from application.presentation import KIND as PRESENTATION
from application.visualization import KIND as VISUALIZATION
from interfaces.http.answers import JSON
from interfaces.http.guard import READER
from interfaces.http.presentations import file_link
from interfaces.http.problems import RETRY_AFTER
from interfaces.http.requests import namespace

PATIENCE_SECONDS = 8.0
"""For the database to come back before a poller is told 503: one that gives up after five errors outlasts 50 s."""
PAUSE_SECONDS = 0.2

OlderStatus = Literal["queued", "processing", "completed", "failed"]
Percent = Annotated[int, Meta(ge=0, le=100)]


class OlderPresentation(Struct, frozen=True, rename="camel"):
    """A presentation as older pollers read it. `success` says that the job is known, not how it went; a cancelled one
    has failed. The links are there once it is completed, signed, and good for a day or two.
    """

    success: bool
    status: OlderStatus
    progress: Percent
    video_url: str | None
    thumbnail_url: str | None
    error: str | None


class OlderVisualization(Struct, frozen=True, rename="camel"):
    """A visualization as older pollers read it; `visualization_id` is the job's id."""

    success: bool
    status: OlderStatus
    progress: Percent
    current_step: str | None
    visualization_id: UUID
    error: str | None


class OlderError(Struct, frozen=True):
    """Why there is nothing to tell."""

    success: bool
    error: str


@get("/presentations/{job_id:str}", roles=READER)
async def poll_presentation(request: Request[Any, Any, Any]) -> Response[bytes]:
    try:
        job = await _job(request, PRESENTATION)
        shown = OlderPresentation(
            success=True,
            status=_status(job),
            progress=_percent(job),
            video_url=await file_link(request, job, "video"),
            thumbnail_url=await file_link(request, job, "thumbnail"),
            error=_error(job),
        )
    except (NotFound, Unavailable) as error:
        return _refused(error)
    return Response(encode(shown), media_type=JSON)


@get("/api/process/{job_id:str}", roles=READER)
async def poll_visualization(request: Request[Any, Any, Any]) -> Response[bytes]:
    try:
        job = await _job(request, VISUALIZATION)
    except (NotFound, Unavailable) as error:
        return _refused(error)
    shown = OlderVisualization(
        success=True,
        status=_status(job),
        progress=_percent(job),
        current_step=job.message or job.step,
        visualization_id=job.id,
        error=_error(job),
    )
    return Response(encode(shown), media_type=JSON)


async def _job(request: Request[Any, Any, Any], kind: str) -> JobView:
    """The job. Raises NotFound for any other id, also one that another service gave out, and Unavailable."""
    given = request.path_params["job_id"]
    try:
        id = msgspec.convert(given, type=UUID)
    except msgspec.ValidationError:
        raise NotFound(f"there is no job {given[:100]!r}") from None
    job = await _patiently(request.app.state.service.jobs, id, namespace(request))
    if job.kind != kind:
        raise unknown(id)
    return job


async def _patiently(jobs: Jobs, id: UUID, namespace: str | None) -> JobView:
    """The job, waiting for a database that is away for a moment. Raises NotFound and Unavailable."""
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE_SECONDS
    while True:
        try:
            return await jobs.get(id, namespace)
        except Unavailable:
            if loop.time() >= until:
                raise
        await asyncio.sleep(PAUSE_SECONDS)


def _status(job: JobView) -> OlderStatus:
    match job.status:
        case "running" | "cancelling":
            return "processing"
        case "cancelled":
            return "failed"
        case same:
            return same


def _percent(job: JobView) -> int:
    return 100 if job.status == "completed" else min(int(job.progress * 100), 99)


def _error(job: JobView) -> str | None:
    return job.error.message if job.error is not None and job.status in ("failed", "cancelled") else None


def _refused(error: NotFound | Unavailable) -> Response[bytes]:
    told = encode(OlderError(success=False, error=str(error)))
    if isinstance(error, NotFound):
        return Response(told, status_code=410 if isinstance(error, Gone) else 404, media_type=JSON)
    return Response(told, status_code=503, media_type=JSON, headers={"Retry-After": str(RETRY_AFTER)})
