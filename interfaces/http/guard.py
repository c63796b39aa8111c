"""Who is let in: with keys, whoever sends one; without any, only this machine, and no foreign page."""

import asyncio
from collections.abc import Iterable, Sequence
from functools import lru_cache
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from litestar import Request
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from application.errors import ApplicationError, Forbidden
from application.keys import ANYBODY, Caller, Keys, Role, Unauthenticated
from interfaces.http.problems import refuse

COOKIE = "jobledger_key"
"""Holds the key of somebody who signed in to the console: HttpOnly and SameSite=Strict."""
SAFE = ("GET", "HEAD", "OPTIONS")
ANYONE: tuple[Role, ...] = ()
CLIENT: tuple[Role, ...] = ("client", "operator", "admin")
READER: tuple[Role, ...] = ("client", "auditor", "operator", "admin")
WORKER: tuple[Role, ...] = ("worker", "admin")
AUDITOR: tuple[Role, ...] = ("auditor", "admin")
OPERATOR: tuple[Role, ...] = ("operator", "admin")
ADMIN: tuple[Role, ...] = ("admin",)
"""Who may make a call, as its handler says in `roles`; one that says nothing is for admins."""


def guarded(app: ASGIApp, keys: Keys, origins: Sequence[str] = ()) -> ASGIApp:
    """Find out who asks, for `may` to judge by what they ask for. `origins` are pages elsewhere that may ask, too."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        named = _Named(scope["headers"])
        if len(named.hosts) > 1 or (not named.hosts and scope["http_version"] != "1.0"):
            await refuse(send, "invalid", "a request names one Host")
            return
        caller = await _caller(keys, named, scope["method"])
        if caller is ANYBODY and (reason := _not_from_here(named, origins)):
            await refuse(send, "forbidden", reason)
            return
        scope["caller"] = caller  # type: ignore[typeddict-unknown-key]
        if isinstance(caller, Caller) and caller.key_id is not None:
            await _while_good(keys, caller.key_id, app, scope, receive, send)
        else:
            await app(scope, receive, send)

    return answer


async def may(request: Request[Any, Any, Any]) -> None:
    """Whether the caller's role may make this call. Raises Unauthenticated and Forbidden.

    A call that is `signed` is let through with a signed link, which its handler checks. It runs before each request
    rather than as one of litestar's guards, for each of which litestar copies the handler.
    """
    said = request.route_handler.opt
    roles: tuple[Role, ...] = said.get("roles", ADMIN)
    if roles == ANYONE or request.scope["method"] == "OPTIONS":  # the description tells as much to anybody
        return
    caller = request.scope["caller"]  # type: ignore[typeddict-item]
    if isinstance(caller, ApplicationError):
        if said.get("signed") and b"signature=" in request.scope["query_string"]:
            return
        raise caller
    if caller.role not in roles:
        raise Forbidden(f"{caller.actor} is a key for {caller.role} calls; this one is for {_listed(roles)}")


def caller_of(scope: Any) -> Caller | None:
    """Who sends the request; None for somebody who has no more than a signed link."""
    caller = scope["caller"]
    return caller if isinstance(caller, Caller) else None


def is_from_own_page(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a browser says that a page of this service sends the request."""
    return _own_origin(_Named(headers))


class _Named:
    """The headers by which a request says what it is for and from whom."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.hosts: list[bytes] = []
        self.origin: bytes | None = None
        self.authorizations: list[bytes] = []
        self.cookie: bytes = b""
        for name, value in headers:
            if name == b"host":
                self.hosts.append(value)
            elif name == b"origin" and self.origin is None:
                self.origin = value
            elif name == b"authorization":
                self.authorizations.append(value)
            elif name == b"cookie":
                self.cookie += b"; " * bool(self.cookie) + value


async def _caller(keys: Keys, named: _Named, method: str) -> Caller | ApplicationError:
    """Who asks, or why that is not known. A cookie, which browsers send unasked, changes nothing for another page."""
    try:
        if await keys.is_open(to_a_key=_sends_a_key(named)):
            return ANYBODY
    except ApplicationError as unknown:
        return unknown
    secret, by_cookie = _secret(named)
    if isinstance(secret, ApplicationError):
        return secret
    if by_cookie and method not in SAFE and not _own_origin(named):
        return Forbidden("a page of this service only may change something for somebody who is signed in")
    try:
        return await keys.caller(secret)
    except ApplicationError as refusal:
        return refusal


def _sends_a_key(named: _Named) -> bool:
    return bool(named.authorizations) or COOKIE.encode() in named.cookie


def _secret(named: _Named) -> tuple[str | ApplicationError, bool]:
    """The key that was sent, and whether a cookie holds it."""
    if len(named.authorizations) > 1:
        return Unauthenticated("send one Authorization header"), False
    if named.authorizations:
        scheme, _, secret = named.authorizations[0].decode("latin-1").strip().partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            return Unauthenticated("send the key as Authorization: Bearer <key>"), False
        return secret.strip(), False
    if named.cookie and (held := _in_cookie(named.cookie)):
        return held, True
    return Unauthenticated("this call needs a key; send it as Authorization: Bearer <key>"), False


def _in_cookie(cookie: bytes) -> str | None:
    try:
        found = SimpleCookie(cookie.decode("latin-1")).get(COOKIE)
    except CookieError:
        return None
    return found.value if found else None


def _own_origin(named: _Named) -> bool:
    try:
        return named.origin is not None and urlsplit(named.origin).netloc == named.hosts[0]
    except (ValueError, IndexError):
        return False


async def _while_good(keys: Keys, key_id: Any, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a request for as long as its key is good: one that waits or streams ends when the key is revoked."""
    task = asyncio.current_task()
    assert task is not None
    started = False

    async def noted(message: Message) -> None:
        nonlocal started
        started = True
        await send(message)

    keys.serving(key_id, task)
    try:
        await app(scope, receive, noted)
    except asyncio.CancelledError:
        if not keys.is_revoked(key_id):
            raise
        task.uncancel()
        if started:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await refuse(send, "unauthenticated", "this key was revoked; ask an admin for a new one")
    finally:
        keys.served(key_id, task)


def _not_from_here(named: _Named, origins: Sequence[str]) -> str | None:
    if not named.hosts:
        return "without keys this service must be told a Host"
    if named.origin is not None and named.origin.decode("latin-1") in origins:
        return _foreign(named.hosts[0], None)
    return _foreign(named.hosts[0], named.origin)


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


def _listed(roles: Sequence[Role]) -> str:
    return ", ".join(roles[:-1]) + f" or {roles[-1]} keys" if len(roles) > 1 else f"{roles[0]} keys"
