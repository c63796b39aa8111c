"""What auditors look at: the whole log as it happens, and the seal."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

from litestar import Request, Response, get
from msgspec import Meta, Struct

from application.audit import Audit
from application.errors import NotFound
from application.jobs import Name
from domain.events import TAGS
from interfaces.console.forms import as_meant
from interfaces.console.frame import page
from interfaces.http.audit import AccessQuery
from interfaces.http.guard import AUDITOR
from interfaces.http.requests import namespace, query
from interfaces.http.streams import LARGEST


class TailQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The filters of the log, and how many minutes back it begins."""

    type: list[str] = []
    kind: list[Name] = []
    actor: list[Name] = []
    minutes: Annotated[int, Meta(ge=1, le=1440)] = 15


@get("/log", roles=AUDITOR)
async def show_log(request: Request[Any, Any, Any]) -> Response[Any]:
    """The page follows the log by itself, from a moment on."""
    if (elsewhere := as_meant(request)) is not None:
        return elsewhere
    wanted = query(request, TailQuery)
    begin = datetime.now(UTC) - timedelta(minutes=wanted.minutes)
    asked = [
        *(("type", type) for type in wanted.type),
        *(("kind", kind) for kind in wanted.kind),
        *(("actor", actor) for actor in wanted.actor),
        ("from", f"{begin:%Y-%m-%dT%H:%M:%SZ}"),
    ]
    return page(
        request, "log.html", wanted=wanted, types=sorted(TAGS.values()), events=f"/v1/events?{urlencode(asked)}"
    )


@get("/audit", roles=AUDITOR)
async def show_audit(request: Request[Any, Any, Any]) -> Response[Any]:
    wanted = query(request, AccessQuery)
    audit: Audit = request.app.state.service.audit
    before = min(int(wanted.cursor), LARGEST) if wanted.cursor is not None else LARGEST
    found = await audit.accesses(before, wanted.limit + 1) if namespace(request) is None else []
    accesses = found[: wanted.limit]
    try:
        sealed, refusal = await audit.sealed_to(), None
    except NotFound as error:
        sealed, refusal = None, str(error)
    return page(
        request,
        "audit.html",
        sealed=sealed,
        refusal=refusal,
        keys=await audit.keys(),
        accesses=accesses,
        limited=namespace(request) is not None,
        following=accesses[-1].number if len(found) > len(accesses) else None,
    )
