"""The seal over HTTP: checkpoint, tiles and proofs, a job in one file, and who took what out of the log."""

import re
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, get
from litestar.response import Stream
from msgspec import Meta, Struct
from msgspec.json import encode

from application.archives import ArchiveView
from application.audit import Access, Audit, BundledEvent, Inclusion, SealingKey
from application.errors import Forbidden, NotFound
from domain.merkle import WIDTH
from interfaces.http.answers import JSON, JSONAnswer
from interfaces.http.guard import AUDITOR
from interfaces.http.jobs import NoQuery
from interfaces.http.requests import asked, job_id, namespace, query, wait
from interfaces.http.streams import LARGEST, UNBUFFERED, begun

TILE = re.compile(r"/([0-7]|entries)/((?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")
"""tlog-tiles: level, index in groups of three digits, and the width of a tile that was not full."""
FOREVER = {"Cache-Control": "max-age=31536000, immutable"}
Size = Annotated[int, Meta(ge=0, le=LARGEST)]
Cursor = Annotated[str, Meta(pattern="^[0-9]{1,19}$")]


class ConsistencyQuery(Struct, frozen=True, forbid_unknown_fields=True, rename={"begin": "from", "end": "to"}):
    """Two sizes of the tree; the second is the present one by default."""

    begin: Size
    end: Annotated[int, Meta(ge=1, le=LARGEST)] | None = None


class PositionQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """An event, by its position in the log."""

    position: Cursor


class VersionQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """An event of a job."""

    version: Annotated[int, Meta(ge=1, le=LARGEST)]


class AccessQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`cursor` is the `next` of the page before."""

    cursor: Cursor | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50


class ArchivesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Only archives with events after this position of the log."""

    after: Cursor | None = None


class ArchivePage(Struct, frozen=True):
    """The months that left the log, the oldest first. A `month` is told by its first day."""

    items: list[ArchiveView]
    next: None = None


class SealingKeyPage(Struct, frozen=True):
    """The public keys that signed checkpoints, the first one first."""

    items: list[SealingKey]
    next: None = None


class AccessPage(Struct, frozen=True):
    """Who took what, the latest first; `next` is what to pass as `cursor`, null at the end."""

    items: list[Access]
    next: str | None


class Bundle(Struct, frozen=True):
    """A job in one file, see docs/audit.md; `unsealed` counts newer events, which it leaves out."""

    format: str
    job_id: UUID
    unsealed: int
    keys: list[SealingKey]
    inclusion: Inclusion
    events: list[BundledEvent]


@get("/v1/audit/checkpoint", roles=AUDITOR)
async def get_checkpoint(request: Request[Any, Any, Any]) -> Response[str]:
    query(request, NoQuery)
    sealed = await _audit(request).sealed_to()
    return Response(sealed.checkpoint, media_type="text/plain", headers={"Cache-Control": "no-cache"})


@get(["/v1/audit/tiles/{tile:path}", "/v1/audit/tile/{tile:path}"], roles=AUDITOR)
async def get_tile(request: Request[Any, Any, Any]) -> Response[bytes]:
    query(request, NoQuery)
    found = TILE.fullmatch(str(request.path_params["tile"]))
    index = int(re.sub("[x/]", "", found[2])) if found else 0
    if found is None or found[2] != tile_path(index) or int(found[3] or 1) >= WIDTH:
        raise NotFound("a tile is named <level>/<index in groups of three digits>[.p/<width below 256>]")
    width = int(found[3] or WIDTH)
    audit = _audit(request)
    content = (
        await audit.entries(index, width) if found[1] == "entries" else await audit.tile(int(found[1]), index, width)
    )
    return Response(content, media_type="application/octet-stream", headers=FOREVER)


@get("/v1/audit/consistency", roles=AUDITOR)
async def get_consistency(request: Request[Any, Any, Any]) -> JSONAnswer:
    sizes = query(request, ConsistencyQuery)
    return JSONAnswer(encode(await _audit(request).consistency(sizes.begin, sizes.end)))


@get("/v1/audit/inclusion", roles=AUDITOR)
async def get_inclusion(request: Request[Any, Any, Any]) -> JSONAnswer:
    position = min(int(query(request, PositionQuery).position), LARGEST)
    return JSONAnswer(encode(await _audit(request).inclusion(position, namespace(request), wait(request) or 0)))


@get("/v1/audit/jobs/{job_id:str}/inclusion", roles=AUDITOR)
async def get_inclusion_in_job(request: Request[Any, Any, Any]) -> JSONAnswer:
    place = job_id(request), query(request, VersionQuery).version
    return JSONAnswer(encode(await _audit(request).inclusion(place, namespace(request), wait(request) or 0)))


@get("/v1/audit/keys", roles=AUDITOR)
async def get_sealing_keys(request: Request[Any, Any, Any]) -> JSONAnswer:
    query(request, NoQuery)
    return JSONAnswer(encode(SealingKeyPage(await _audit(request).keys())))


@get("/v1/audit/archives", roles=AUDITOR)
async def list_archives(request: Request[Any, Any, Any]) -> JSONAnswer:
    after = min(int(query(request, ArchivesQuery).after or 0), LARGEST)
    if namespace(request) is not None:
        raise Forbidden("archives have the jobs of all namespaces, and this key is limited to one")
    return JSONAnswer(encode(ArchivePage(await _audit(request).archives(after))))


async def archives_link(request: Request[Any, Any, Any], after: int) -> dict[str, str]:
    """A header that leads whoever reads the log from a position on to what has left it since then."""
    if namespace(request) is not None or not await _audit(request).archives(after):
        return {}
    return {"Link": f'</v1/audit/archives?after={after}>; rel="archives"'}


@get("/v1/audit/jobs/{job_id:str}/bundle", roles=AUDITOR)
async def get_bundle(request: Request[Any, Any, Any]) -> Stream:
    query(request, NoQuery)
    id = job_id(request)
    taker = None if request.scope.get("head") else asked(request).by
    content = await _audit(request).bundle(id, namespace(request), taker, wait(request) or 0)
    named = {"Content-Disposition": f'attachment; filename="job-{id}.json"'}
    return Stream(await begun(content), media_type=JSON, headers={**UNBUFFERED, **named})


@get("/v1/audit/accesses", roles=AUDITOR)
async def list_accesses(request: Request[Any, Any, Any]) -> JSONAnswer:
    wanted = query(request, AccessQuery)
    if namespace(request) is not None:
        raise Forbidden("accesses are of all namespaces, and this key is limited to one")
    before = min(int(wanted.cursor), LARGEST) if wanted.cursor is not None else LARGEST
    page = await _audit(request).accesses(before, wanted.limit + 1)
    items = page[: wanted.limit]
    return JSONAnswer(encode(AccessPage(items, str(items[-1].number) if len(page) > len(items) else None)))


def tile_path(index: int) -> str:
    """The index of a tile as it is written in its path: 1234067 is x001/x234/067."""
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])


def _audit(request: Request[Any, Any, Any]) -> Audit:
    audit: Audit = request.app.state.service.audit
    return audit
