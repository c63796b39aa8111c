"""In open mode, on loopback without keys: no foreign page may drive the service through somebody's browser."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from litestar import Request
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from interfaces.http.problems import HTTPProblem, answer_problem

LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def only_from_loopback(app: ASGIApp) -> ASGIApp:
    """Answer only requests whose Host is loopback and whose Origin, if any, is this service's own."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP and (reason := _foreign(dict(scope["headers"]))):
            request: Request[object, object, object] = Request(scope, receive, send)  # type: ignore[type-var]
            response = answer_problem(request, HTTPProblem("forbidden", reason))
            await response.to_asgi_response(None, request)(scope, receive, send)
            return
        await app(scope, receive, send)

    return guarded


def _foreign(headers: dict[bytes, bytes]) -> str | None:
    """Why a request is not from here, if so."""
    host = headers.get(b"host", b"").decode("latin-1")
    try:
        name = urlsplit(f"//{host}").hostname
        origin = headers.get(b"origin")
        own = origin is None or urlsplit(origin.decode("latin-1")).netloc == host
    except ValueError:
        return "the Host or the Origin cannot be read"
    if name is None or not _is_loopback(name):
        return f"without keys this service answers only on loopback, not as {host[:200]!r}"
    return None if own else "without keys this service answers no page of another origin"


def _is_loopback(name: str) -> bool:
    """Names are taken from the list only: one that looks like an address (127.example.org) may lead anywhere."""
    try:
        return name in LOOPBACK or ip_address(name).is_loopback
    except ValueError:
        return False
