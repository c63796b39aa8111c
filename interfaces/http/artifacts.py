"""The files of jobs over HTTP: listed, and downloaded whole or in part."""

import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

from litestar import Request, Response, get
from litestar.response import Stream
from msgspec import Struct
from msgspec.json import encode

from application.artifacts import Artifacts
from application.errors import NotFound
from application.jobs import JobView
from domain.events import Artifact
from interfaces.http.answers import JSON
from interfaces.http.jobs import NoQuery
from interfaces.http.problems import HTTPProblem
from interfaces.http.requests import job_id, query

UNTRUSTED = {"Content-Security-Policy": "sandbox; default-src 'none'", "X-Content-Type-Options": "nosniff"}
"""A file that a job made never runs with our origin's rights."""


class ArtifactView(Struct, frozen=True, kw_only=True):
    """A file of a job; `url` is where its content is."""

    name: str
    sha256: str
    size: int
    media_type: str
    url: str


class ArtifactPage(Struct, frozen=True):
    items: list[ArtifactView]
    next: None = None


@get("/v1/jobs/{job_id:str}/artifacts")
async def list_artifacts(request: Request[Any, Any, Any]) -> Response[bytes]:
    query(request, NoQuery)
    job: JobView = await request.app.state.service.jobs.get(job_id(request))
    items = [
        ArtifactView(name=a.name, sha256=a.sha256, size=a.size, media_type=a.media_type, url=artifact_url(job, a.name))
        for a in job.artifacts
    ]
    return Response(encode(ArtifactPage(items)), media_type=JSON)


@get("/v1/jobs/{job_id:str}/artifacts/{name:str}")
async def get_artifact(request: Request[Any, Any, Any]) -> Response[bytes] | Stream:
    query(request, NoQuery)
    job: JobView = await request.app.state.service.jobs.get(job_id(request))
    name = request.path_params["name"]
    artifact = next((a for a in job.artifacts if a.name == name), None)
    if artifact is None:
        raise NotFound(f"job {job.id} has no file {name!r}")
    disposition = f"attachment; filename*=UTF-8''{quote(artifact.name, safe='')}"
    return await send(request, artifact, {**UNTRUSTED, "Content-Disposition": disposition})


def artifact_url(job: JobView, name: str) -> str:
    return f"/v1/jobs/{job.id}/artifacts/{quote(name, safe='')}"


async def send(
    request: Request[Any, Any, Any], artifact: Artifact, headers: dict[str, str]
) -> Response[bytes] | Stream:
    """The content, or the part that a Range header asks for (RFC 9110, 14), or 304 when the caller has it."""
    etag = f'"{artifact.sha256}"'
    headers = {**headers, "ETag": etag, "Accept-Ranges": "bytes", "Content-Type": artifact.media_type}
    if request.headers.get("if-none-match") in (etag, "*"):
        return Response(b"", status_code=304, headers=headers)
    start, end = 0, artifact.size
    part = _range(request, artifact, etag)
    if part is not None:
        start, end = part
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{artifact.size}"
    headers["Content-Length"] = str(end - start)
    artifacts: Artifacts = request.app.state.service.artifacts
    content = await _begun(artifacts.read(artifact, start, end), artifact)
    return Stream(content, status_code=200 if part is None else 206, headers=headers, media_type=artifact.media_type)


async def _begun(content: AsyncIterator[bytes], artifact: Artifact) -> AsyncIterator[bytes]:
    """The same content, known to be there: its first bytes are read before an answer is begun."""
    try:
        first = await anext(content, b"")
    except FileNotFoundError as error:
        raise NotFound(f"the content of {artifact.name!r} (sha256 {artifact.sha256}) is not in the store") from error

    async def whole() -> AsyncIterator[bytes]:
        yield first
        async for chunk in content:
            yield chunk

    return whole()


def _range(request: Request[Any, Any, Any], artifact: Artifact, etag: str) -> tuple[int, int] | None:
    """The one range asked for, as start and end; None for the whole. Raises a problem for one beyond the end."""
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""), re.ASCII)
    if asked is None or not any(asked.groups()) or request.headers.get("if-range", etag) != etag:
        return None
    first, last = asked.groups()
    if first:
        start, end = int(first), min(int(last) + 1 if last else artifact.size, artifact.size)
        if last and int(last) < int(first):
            return None
    else:
        start, end = max(artifact.size - int(last), 0), artifact.size
    if start >= end:
        raise HTTPProblem(
            "range-not-satisfiable",
            f"the file has {artifact.size} bytes",
            {"Content-Range": f"bytes */{artifact.size}"},
        )
    return start, end
