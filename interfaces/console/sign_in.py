"""Signing in with a key, which a cookie holds from then on, and out."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.response import Redirect

from application.errors import ApplicationError, Forbidden
from application.keys import ANYBODY, Keys
from interfaces.console.frame import HEADERS, page, places
from interfaces.http.guard import ANYONE, COOKIE, caller_of, is_from_own_page
from interfaces.http.requests import Arriving

LARGEST_FORM = 8 * 1024


@get("/sign-in", roles=ANYONE)
async def show_sign_in(request: Request[Any, Any, Any]) -> Response[Any]:
    """There is nothing to sign in to without keys."""
    wanted = _own_path(request.query_params.get("next", "/"))
    return _to(wanted) if caller_of(request.scope) is ANYBODY else page(request, "sign_in.html", next=wanted, error="")


@post("/sign-in", request_max_body_size=LARGEST_FORM, roles=ANYONE)
async def sign_in(request: Request[Any, Any, Any]) -> Response[Any]:
    _check_origin(request)
    async with Arriving():
        form = await request.form()
    secret, wanted = str(form.get("key", "")).strip(), _own_path(str(form.get("next", "/")))
    keys: Keys = request.app.state.service.keys
    if await keys.is_open(to_a_key=True):
        return _to(wanted)
    try:
        await keys.caller(secret)
    except ApplicationError as refusal:
        return page(request, "sign_in.html", 503 if refusal.code == "unavailable" else 401, next=wanted, error=refusal)
    answer = _to(wanted)
    answer.set_cookie(_cookie(request, secret))
    return answer


@post("/sign-out", request_max_body_size=LARGEST_FORM, roles=ANYONE)
async def sign_out(request: Request[Any, Any, Any]) -> Response[Any]:
    _check_origin(request)
    answer = _to("/sign-in")
    answer.delete_cookie(COOKIE)
    return answer


@get("/", roles=("client", "worker", "auditor", "operator", "admin"))
async def show_first(request: Request[Any, Any, Any]) -> Response[Any]:
    """The first of the pages that the caller may see."""
    first = next(iter(places(request)), None)
    return page(request, "nothing.html") if first is None else _to(first.path)


def _cookie(request: Request[Any, Any, Any], secret: str) -> Cookie:
    return Cookie(
        key=COOKIE, value=secret, path="/", httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )


def _to(path: str) -> Response[Any]:
    return Redirect(path, status_code=303, headers=dict(HEADERS))


def _own_path(wanted: str) -> str:
    """A path of ours, which leads nowhere else."""
    return wanted if wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable() else "/"


def _check_origin(request: Request[Any, Any, Any]) -> None:
    """Raises Forbidden: no other page signs anybody in or out."""
    if not is_from_own_page(request.scope["headers"]):
        raise Forbidden("only a page of this service signs in and out")
