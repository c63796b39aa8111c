"""Visualizations over HTTP: a question in, a page out."""

import re
from pathlib import PurePath
from typing import Any, TypeVar
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.datastructures import UploadFile
from litestar.response import Stream
from msgspec import MsgspecError, Raw, Struct
from msgspec.json import decode, encode

from application.errors import FieldError, Invalid, NotFound
from application.jobs import Jobs, JobView, NewJob, unknown
from application.language import VISIBLE, Analysis, Question, Story
from application.multiple_choice import read_question
from application.page import PAGE_POLICY
from application.payload import LARGEST, check_size
from application.visualization import KIND, PAGE, Drawn, Visualization
from domain.events import JobError
from domain.job import Job
from interfaces.http.answers import JSON, JSONAnswer
from interfaces.http.artifacts import UNTRUSTED, send
from interfaces.http.guard import CLIENT, READER
from interfaces.http.jobs import NoQuery, answer_job
from interfaces.http.problems import HTTPProblem
from interfaces.http.requests import BODY, Arriving, asked, check_plain, header, job_id, json_body, namespace, query
from interfaces.http.signed_links import LinkQuery, check_link, signed

T = TypeVar("T")
HEARTBEAT_SECONDS = 10
TEXT_FILES = {".txt", ".md"}


class VisualizationView(Struct, frozen=True, kw_only=True):
    """A visualization as it is shown: what is recorded so far, and `html_url`, a signed link to the page that is good
    for a day or two, once it is there.
    """

    id: str
    status: str
    progress: float
    step: str | None
    question: str | None
    options: list[str]
    answer: str | None
    analysis: Analysis | None
    story: Story | None
    html_url: str | None
    provider: str | None
    error: JobError | None


@post("/v1/visualizations", request_max_body_size=BODY, roles=CLIENT)
async def create_visualization(request: Request[Any, Any, Any]) -> JSONAnswer:
    query(request, NoQuery)
    question = await _question(request)
    body = encode(question)
    new = NewJob(kind=KIND, input=Raw(body), heartbeat_timeout=HEARTBEAT_SECONDS)
    jobs: Jobs = request.app.state.service.jobs
    return await answer_job(request, await jobs.create([new], asked(request, body)))


@get("/v1/visualizations/{job_id:str}", roles=READER)
async def get_visualization(request: Request[Any, Any, Any]) -> Response[bytes]:
    query(request, NoQuery)
    jobs: Jobs = request.app.state.service.jobs
    view = await _visualization(request)
    job = await jobs.fold(view.id)
    url = await signed(request, page_path(view.id)) if view.status == "completed" else None
    return Response(encode(_shown(view, job, url)), media_type=JSON, headers={"ETag": f'"{view.version}"'})


@get("/v1/visualizations/{job_id:str}/html", roles=READER, signed=True)
async def get_page(request: Request[Any, Any, Any]) -> Response[bytes] | Stream:
    await check_link(request, page_path(job_id(request)), query(request, LinkQuery))
    view = await _visualization(request)
    page = next((a for a in view.artifacts if a.name == PAGE), None)
    if page is None or view.status != "completed":
        raise NotFound(f"visualization {view.id} is {view.status} and has no page yet; look at it again")
    return await send(request, page, {**UNTRUSTED, "Content-Security-Policy": PAGE_POLICY})


def page_path(id: UUID) -> str:
    return f"/v1/visualizations/{id}/html"


async def _visualization(request: Request[Any, Any, Any]) -> JobView:
    jobs: Jobs = request.app.state.service.jobs
    view = await jobs.get(job_id(request), namespace(request))
    if view.kind != KIND:
        raise unknown(view.id)
    return view


def _shown(view: JobView, job: Job, html_url: str | None) -> VisualizationView:
    asked_for = _read(view.input, Question)
    result = _read(view.result, Visualization)
    drawn = _read(job.steps.get("redraw", job.steps.get("page")), Drawn)
    return VisualizationView(
        id=str(view.id),
        status=view.status,
        progress=view.progress,
        step=view.step,
        question=asked_for.question if asked_for else None,
        options=asked_for.options if asked_for else [],
        answer=asked_for.answer if asked_for else None,
        analysis=_read(job.steps.get("analysis"), Analysis),
        story=_read(job.steps.get("story"), Story),
        html_url=html_url,
        provider=drawn.provider if drawn and drawn.provider else result.provider if result else None,
        error=view.error,
    )


def _read(json: Raw | None, type: type[T]) -> T | None:
    """What is recorded, or None for nothing; a job of this kind may have been created with any input."""
    try:
        return decode(json, type=type) if json is not None else None
    except MsgspecError:
        return None


async def _question(request: Request[Any, Any, Any]) -> Question:
    """The question, sent as JSON or as a file of text. Raises Invalid, or a problem for another media type.

    A file may have 256 KiB itself: as JSON, with its quotes and line breaks escaped, it is longer than that.
    """
    if (header(request, "Content-Type") or "").lower().startswith("multipart/form-data"):
        return await _uploaded(request)
    question = await json_body(request, Question)
    check_size(encode(question), "question")
    return question


async def _uploaded(request: Request[Any, Any, Any]) -> Question:
    check_plain(request)
    try:
        async with Arriving():
            parts = list((await request.form()).multi_items())
    except (UnicodeDecodeError, LookupError) as error:
        raise Invalid(FieldError("file", "is no text in UTF-8")) from error
    if foreign := [name for name, _ in parts if name != "file"]:
        raise Invalid(FieldError(foreign[0], "is not taken: send one file, in the field `file`"))
    if len(parts) != 1:
        raise Invalid(FieldError("file", "is given more than once" if parts else "is missing: send a .txt or .md file"))
    text = await _text(parts[0][1])
    if (size := len(text.encode())) > LARGEST:
        raise HTTPProblem("too-large", f"the file has {size} bytes, and at most {LARGEST} are taken")
    if "\0" in text:
        raise Invalid(FieldError("file", "has a NUL character: it is no text"))
    if not re.search(VISIBLE, text):
        raise Invalid(FieldError("file", "is empty"))
    return read_question(text)


async def _text(part: UploadFile | str) -> str:
    """What a part of a form says: a named file's text, or a field's without a name, which is text already."""
    if isinstance(part, str):
        return part
    if PurePath(part.filename).suffix.lower() not in TEXT_FILES:
        raise HTTPProblem("unsupported-media-type", "the file must be named .txt or .md")
    try:
        return (await part.read()).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid(FieldError("file", "is no text in UTF-8")) from error
