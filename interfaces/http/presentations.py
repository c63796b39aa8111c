"""Presentations over HTTP: slides in, a video out."""

import re
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.response import Stream
from msgspec import MsgspecError, Raw, Struct
from msgspec.json import decode, encode

from application.errors import FieldError, Invalid, NotFound
from application.jobs import ArtifactView, Jobs, JobView, NewJob, unknown
from application.payload import check_size
from application.presentation import HEARTBEAT_SECONDS, KIND, MOST_SLIDES, Presentation, Renderer, Video, slide_image
from domain.events import JobError
from interfaces.http.answers import JSON, JSONAnswer
from interfaces.http.artifacts import UNTRUSTED, send
from interfaces.http.guard import CLIENT, READER
from interfaces.http.jobs import NoQuery, answer_job
from interfaces.http.requests import BODY, asked, job_id, namespace, query, raw_body, read_json
from interfaces.http.signed_links import LinkQuery, artifact_path, check_link, signed


class SlideView(Struct, frozen=True, kw_only=True):
    """A slide's image, a signed link once it is there; `continued` are those that a long slide goes on on."""

    image_url: str | None
    continued: list[str]


class PresentationView(Struct, frozen=True, kw_only=True):
    """A presentation as it is shown. The links are signed and good for a day or two; those to the video and its
    thumbnail are there once it is completed, and so is what is known of the video: `duration` in seconds, `size` in
    bytes, and `missing`, the characters that no font had.
    """

    id: str
    status: str
    progress: float
    message: str | None
    title: str | None
    slides: list[SlideView]
    renderer: Renderer | None
    video_url: str | None
    thumbnail_url: str | None
    duration: float | None
    size: int | None
    sha256: str | None
    width: int | None
    height: int | None
    missing: list[str]
    error: JobError | None
    created_at: datetime
    completed_at: datetime | None
    last_heartbeat: datetime | None


@post("/v1/presentations", request_max_body_size=BODY, roles=CLIENT)
async def create_presentation(request: Request[Any, Any, Any]) -> JSONAnswer:
    query(request, NoQuery)
    body = await raw_body(request)
    read_json(body, Presentation)
    check_size(body, "the presentation")
    new = NewJob(kind=KIND, input=Raw(body), heartbeat_timeout=HEARTBEAT_SECONDS)
    jobs: Jobs = request.app.state.service.jobs
    return await answer_job(request, await jobs.create([new], asked(request, body)))


@get("/v1/presentations/{job_id:str}", roles=READER)
async def get_presentation(request: Request[Any, Any, Any]) -> Response[bytes]:
    query(request, NoQuery)
    view = await _presentation(request)
    return Response(encode(await _shown(request, view)), media_type=JSON, headers={"ETag": f'"{view.version}"'})


@get("/v1/presentations/{job_id:str}/video", roles=READER, signed=True)
async def get_video(request: Request[Any, Any, Any]) -> Response[bytes] | Stream:
    return await _send_result(request, "video")


@get("/v1/presentations/{job_id:str}/thumbnail", roles=READER, signed=True)
async def get_thumbnail(request: Request[Any, Any, Any]) -> Response[bytes] | Stream:
    return await _send_result(request, "thumbnail")


@get("/v1/presentations/{job_id:str}/slides/{n:str}", roles=READER, signed=True)
async def get_slide(request: Request[Any, Any, Any]) -> Response[bytes] | Stream:
    number = _number(request)
    await check_link(request, _path(job_id(request), f"slides/{number}"), query(request, LinkQuery))
    view = await _presentation(request)
    image = next((file for file in view.artifacts if file.name == slide_image(number)), None)
    if image is None:
        raise NotFound(f"presentation {view.id} is {view.status} and has no image of slide {number}")
    return await send(request, image, UNTRUSTED)


async def _send_result(
    request: Request[Any, Any, Any], part: Literal["video", "thumbnail"]
) -> Response[bytes] | Stream:
    """The video or its thumbnail, once both are there."""
    await check_link(request, _path(job_id(request), part), query(request, LinkQuery))
    view = await _presentation(request)
    if (file := _file(view, part)) is None:
        raise NotFound(f"presentation {view.id} is {view.status} and has no {part} yet; look at it again")
    return await send(request, file, UNTRUSTED)


def _file(view: JobView, part: Literal["video", "thumbnail"]) -> ArtifactView | None:
    """The file of that name which the job itself has: a result alone gives no right to a content."""
    result = _result(view)
    name = getattr(result, part).name if result else None
    return next((file for file in view.artifacts if file.name == name), None)


async def file_link(request: Request[Any, Any, Any], view: JobView, part: Literal["video", "thumbnail"]) -> str | None:
    """A signed link to the video or its thumbnail, once it is there."""
    return await signed(request, _path(view.id, part)) if _file(view, part) else None


def _path(id: UUID, part: str) -> str:
    return f"/v1/presentations/{id}/{part}"


def _number(request: Request[Any, Any, Any]) -> int:
    """The slide in the path. Raises Invalid for what is no number of one."""
    given = request.path_params["n"]
    if not re.fullmatch(r"[1-9][0-9]{0,2}", given, re.ASCII) or int(given) > MOST_SLIDES:
        raise Invalid(FieldError("n", f"must be a number from 1 to {MOST_SLIDES}"))
    return int(given)


async def _presentation(request: Request[Any, Any, Any]) -> JobView:
    jobs: Jobs = request.app.state.service.jobs
    view = await jobs.get(job_id(request), namespace(request))
    if view.kind != KIND:
        raise unknown(view.id)
    return view


def _result(view: JobView) -> Video | None:
    """The result of a completed one; a worker elsewhere may have reported any."""
    try:
        return decode(view.result, type=Video) if view.status == "completed" and view.result is not None else None
    except MsgspecError:
        return None


def _deck(view: JobView) -> Presentation | None:
    """What was asked for; a job of this kind may have been created with any input."""
    try:
        return decode(view.input, type=Presentation)
    except MsgspecError:
        return None


async def _shown(request: Request[Any, Any, Any], view: JobView) -> PresentationView:
    deck, result = _deck(view), _result(view)
    video = _file(view, "video")
    return PresentationView(
        id=str(view.id),
        status=view.status,
        progress=view.progress,
        message=view.message,
        title=deck.title if deck else None,
        slides=await _slides(request, view, len(deck.slides) if deck else 0),
        renderer=deck.renderer if deck else None,
        video_url=await file_link(request, view, "video"),
        thumbnail_url=await file_link(request, view, "thumbnail"),
        duration=result.duration if result else None,
        size=video.size if video else None,
        sha256=video.sha256 if video else None,
        width=result.width if result else None,
        height=result.height if result else None,
        missing=result.missing if result else [],
        error=view.error,
        created_at=view.created_at,
        completed_at=view.finished_at if view.status == "completed" else None,
        last_heartbeat=view.heartbeat_at,
    )


async def _slides(request: Request[Any, Any, Any], view: JobView, count: int) -> list[SlideView]:
    """A view for each slide, also of those that are not drawn yet."""
    names = {file.name for file in view.artifacts}
    slides = []
    for number in range(1, count + 1):
        drawn = slide_image(number) in names
        image_url = await signed(request, _path(view.id, f"slides/{number}")) if drawn else None
        continued: list[str] = []
        while (name := slide_image(number, len(continued) + 2)) in names:
            continued.append(await signed(request, artifact_path(view.id, name)))
        slides.append(SlideView(image_url=image_url, continued=continued))
    return slides
