"""Whether this server lives, and whether it can serve; and the pages that explain problems."""

import asyncio
import html
from collections.abc import Callable
from typing import Any, Literal

from litestar import MediaType, Request, Response, get
from msgspec import Struct
from msgspec.json import encode

from application.errors import NotFound
from application.readiness import Finding, Ready
from interfaces.http.answers import JSON
from interfaces.http.guard import ANYONE
from interfaces.http.problems import KINDS

PATIENCE = 2.0


class Live(Struct, frozen=True):
    status: Literal["live"] = "live"


Check = Callable[[], Ready]


@get("/livez", roles=ANYONE)
async def live() -> Response[bytes]:
    return Response(encode(Live()), media_type=JSON)


@get("/readyz", roles=ANYONE)
async def ready(request: Request[Any, Any, Any]) -> Response[bytes]:
    answer = await readiness(request)
    return Response(encode(answer), status_code=200 if answer.status == "ready" else 503, media_type=JSON)


async def readiness(request: Request[Any, Any, Any]) -> Ready:
    """Whether this server can serve, as far as it can be found out in time."""
    check: Check = request.app.state.service.readiness
    try:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.to_thread(check)
    except TimeoutError:
        return Ready.of([Finding("database-away", f"the database gave no answer within {PATIENCE:g} s")])


@get("/problems/{code:str}", media_type=MediaType.HTML, roles=ANYONE)
async def explain_problem(code: str) -> str:
    """The page that a problem's `type` points to."""
    kind = KINDS.get(code)
    if kind is None:
        raise NotFound(f"there is no problem {code!r}")
    title = html.escape(kind.title)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<h1>{title}</h1><p><code>{code}</code>, HTTP {kind.status}</p><p>{html.escape(kind.advice)}</p></html>"
    )
