"""In open mode, on loopback without keys: no foreign page may drive the service through somebody's browser."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from interfaces.http.problems import refuse


def only_from_loopback(app: ASGIApp) -> ASGIApp:
    """Answer only requests whose Host is loopback and whose Origin, if any, is this service's own."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            hosts, origin = _named(scope["headers"])
            if len(hosts) > 1 or (not hosts and scope["http_version"] != "1.0"):
                await refuse(send, "invalid", "a request names one Host")
                return
            if reason := _foreign(hosts[0], origin) if hosts else "without keys this service must be told a Host":
                await refuse(send, "forbidden", reason)
                return
        await app(scope, receive, send)

    return guarded


def _named(headers: Iterable[tuple[bytes, bytes]]) -> tuple[list[bytes], bytes | None]:
    """The Hosts of a request, which should be one (RFC 9112, 3.2), and its Origin."""
    hosts: list[bytes] = []
    origin: bytes | None = None
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"origin" and origin is None:
            origin = value
    return hosts, origin


@lru_cache(maxsize=256)
def _foreign(given_host: bytes, given_origin: bytes | None) -> str | None:
    """Why a request is not from here, if so."""
    host = given_host.decode("latin-1")
    try:
        name = urlsplit(f"//{host}").hostname
        own = given_origin is None or urlsplit(given_origin.decode("latin-1")).netloc == host
    except ValueError:
        return "the Host or the Origin cannot be read"
    if name is None or not is_loopback(name):
        return f"without keys this service answers only on loopback, not as {host[:200]!r}"
    return None if own else "without keys this service answers no page of another origin"


def is_loopback(name: str) -> bool:
    """A loopback address, or `localhost`; any other name may lead anywhere, also one like 127.example.org."""
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
