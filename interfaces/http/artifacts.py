"""The files of jobs over HTTP: uploaded by workers, listed, and downloaded whole or in part."""

import asyncio
import re
import unicodedata
from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, unquote

import structlog
from litestar import Request, Response, get, put
from litestar.exceptions import InternalServerException
from litestar.response import Stream
from msgspec import Struct
from msgspec.json import encode

from application.artifacts import LARGEST_FILE, Artifacts, checked_name
from application.errors import FieldError, Forbidden, Invalid, NotFound
from application.jobs import ArtifactView, JobView, Name
from interfaces.http.answers import JSON
from interfaces.http.guard import READER, WORKER, caller_of
from interfaces.http.jobs import NoQuery
from interfaces.http.problems import HTTPProblem
from interfaces.http.requests import (
    attempt,
    check_plain,
    header,
    header_list,
    job_id,
    key_actor,
    namespace,
    query,
    trace,
)
from interfaces.http.signed_links import LinkQuery, artifact_path, check_link, linked, linked_file
from interfaces.http.streams import begun

log = structlog.get_logger()
UNTRUSTED = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Referrer-Policy": "no-referrer",
}
"""A file that a job made never runs with our origin's rights, and tells nobody the link that led to it."""
STALLED_SECONDS = 60.0
"""For the next bytes of an upload to arrive; it may take as long as it likes while they do."""
_SHA256 = re.compile(r"(?:^|[\s,])sha-256\s*=\s*([^\s,;]*)", re.ASCII)


class ArtifactPage(Struct, frozen=True):
    items: list[ArtifactView]
    next: None = None


class UploadQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The worker that holds the attempt."""

    worker: Name


@get("/v1/jobs/{job_id:str}/artifacts", roles=READER)
async def list_artifacts(request: Request[Any, Any, Any]) -> Response[bytes]:
    query(request, NoQuery)
    job: JobView = await request.app.state.service.jobs.get(job_id(request), namespace(request))
    return Response(encode(ArtifactPage((await linked(request, job)).artifacts)), media_type=JSON)


@get("/v1/jobs/{job_id:str}/artifacts/{name:path}", roles=(*READER, "worker"), signed=True)
async def get_artifact(request: Request[Any, Any, Any]) -> Response[bytes] | Stream:
    """A worker reads what an attempt before its own has made, while the job runs."""
    link, id, name = query(request, LinkQuery), job_id(request), _name(request)
    await check_link(request, artifact_path(id, name), link)
    job: JobView = await request.app.state.service.jobs.get(id, namespace(request))
    caller = caller_of(request.scope)
    if caller and caller.role == "worker" and job.status not in ("running", "cancelling"):
        raise Forbidden(f"job {job.id} is {job.status}; a worker's key reads the files of jobs that run")
    artifact = next((a for a in job.artifacts if unicodedata.normalize("NFC", a.name) == name), None)
    if artifact is None:
        raise NotFound(f"job {job.id} has no file {name!r}")
    return await send(request, artifact, {**UNTRUSTED, "Content-Disposition": _disposition(artifact.name)})


@put(
    "/v1/jobs/{job_id:str}/attempts/{attempt:str}/artifacts/{name:path}",
    request_max_body_size=LARGEST_FILE,
    roles=WORKER,
)
async def put_artifact(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The upload keeps the attempt's lease alive for as long as its bytes move."""
    wanted, id, number = query(request, UploadQuery), job_id(request), attempt(request)
    name, sha256 = checked_name(_name(request)), _digest(request)
    check_plain(request)
    if "content-range" in request.headers:
        raise Invalid(FieldError("Content-Range", "is not taken: send the whole file"))
    artifacts: Artifacts = request.app.state.service.artifacts
    media_type = header(request, "Content-Type")
    if media_type is None:
        media_type = "application/octet-stream"
    content = moving(request.stream(), STALLED_SECONDS)
    who = (trace(request), key_actor(request), namespace(request))
    upload = await artifacts.upload(wanted.worker, id, number, name, content, media_type, sha256, *who)
    view = await linked_file(request, id, ArtifactView.of(upload.artifact))
    headers = {"Location": artifact_path(id, name)}
    return Response(encode(view), status_code=201 if upload.new else 200, media_type=JSON, headers=headers)


async def moving(body: AsyncIterator[bytes], seconds: float) -> AsyncIterator[bytes]:
    """The chunks of a body. Raises a problem when none comes for so many seconds, or its sender hung up."""
    while True:
        try:
            async with asyncio.timeout(seconds):
                chunk = await anext(body, None)
        except TimeoutError:
            raise HTTPProblem("invalid", f"nothing of the body arrived for {seconds:g} s") from None
        except InternalServerException:
            raise HTTPProblem("invalid", "the body ended before all of it was there") from None
        if chunk is None:
            return
        yield chunk


async def send(
    request: Request[Any, Any, Any], artifact: ArtifactView, headers: dict[str, str]
) -> Response[bytes] | Stream:
    """The content, or the part that a Range header asks for (RFC 9110, 14), or 304 when the caller has it."""
    etag = f'"{artifact.sha256}"'
    headers = {**headers, "ETag": etag, "Accept-Ranges": "bytes", "Content-Type": artifact.media_type}
    if _is_known(header_list(request, "If-None-Match") or "", etag):
        return Response(b"", status_code=304, headers=headers)
    start, end = 0, artifact.size
    part = _range(request, artifact.size, etag)
    if part is not None:
        start, end = part
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{artifact.size}"
    headers["Content-Length"] = str(end - start)
    status = 200 if part is None else 206
    artifacts: Artifacts = request.app.state.service.artifacts
    try:
        content = await begun(artifacts.read(artifact.sha256, start, end))
    except FileNotFoundError as error:
        log.warning("artifact.missing", name=artifact.name, sha256=artifact.sha256)
        raise NotFound(f"the content of {artifact.name!r} (sha256 {artifact.sha256}) is not in the store") from error
    if request.scope.get("head"):
        return Response(b"", status_code=status, headers=headers, media_type=artifact.media_type)
    return Stream(content, status_code=status, headers=headers, media_type=artifact.media_type)


def _name(request: Request[Any, Any, Any]) -> str:
    """All that stands behind `/artifacts/`, as it was sent: the router drops slashes at either end. Raises Invalid."""
    sent = request.scope["raw_path"].decode().partition("/artifacts/")[2]
    try:
        name = unquote(sent, errors="strict")
    except UnicodeDecodeError as error:
        raise Invalid(FieldError("name", "is no UTF-8")) from error
    if "\0" in name:
        raise Invalid(FieldError("name", "has a NUL character, which is not taken"))
    return unicodedata.normalize("NFC", name)


def _disposition(name: str) -> str:
    """To be saved, not shown; with a name in ASCII for those who do not read the other (RFC 6266, RFC 8187)."""
    ascii = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r'["\\%]', "_", ascii) or "file"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _digest(request: Request[Any, Any, Any]) -> str | None:
    """The SHA-256 of the body in hex that a Content-Digest or Repr-Digest names (RFC 9530). Raises Invalid."""
    digests = set()
    for field in ("Content-Digest", "Repr-Digest"):
        for given in _SHA256.findall(", ".join(request.headers.getall(field, []))):
            if not re.fullmatch(r":[A-Za-z0-9+/]{43}=:", given):
                raise Invalid(FieldError(field, "sha-256 must be 32 bytes in base64 between colons"))
            digests.add(b64decode(given.strip(":")).hex())
    if len(digests) > 1:
        raise Invalid(FieldError("Repr-Digest", "names another SHA-256 than Content-Digest"))
    return digests.pop() if digests else None


def _is_known(if_none_match: str, etag: str) -> bool:
    return if_none_match.strip() == "*" or etag in re.findall(r'"[^"]*"', if_none_match)


def _range(request: Request[Any, Any, Any], size: int, etag: str) -> tuple[int, int] | None:
    """The one range asked for, as start and end; None for the whole, also for HEAD and when several are asked for.

    Raises a problem for one beyond the end.
    """
    asked = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", request.headers.get("range", "").strip(), re.IGNORECASE)
    if (
        asked is None
        or request.scope.get("head")
        or not any(asked.groups())
        or request.headers.get("if-range", etag) != etag
    ):
        return None
    first, last = asked.groups()
    if first:
        start, end = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < int(first):
            return None
    else:
        start, end = max(size - int(last), 0), size
    if start >= end:
        raise HTTPProblem("range-not-satisfiable", f"the file has {size} bytes", {"Content-Range": f"bytes */{size}"})
    return start, end
