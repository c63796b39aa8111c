"""The frame of every page: who looks at it, what they may see, and how pages and errors leave."""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import MediaType, Request, Response
from litestar.response import Redirect
from msgspec import Struct
from msgspec.json import decode, encode
from msgspec.json import format as indented

from application.jobs import JobView
from application.keys import ANYBODY, Role, Unauthenticated
from interfaces.console.compression import takes_gzip, zipped
from interfaces.console.timeline import details
from interfaces.http.guard import ADMIN, AUDITOR, CLIENT, OPERATOR, READER, caller_of
from interfaces.http.problems import KINDS, Problem, answer_problem

TEMPLATES = Path(__file__).with_name("templates")
MOST_SHOWN = 20_000
"""Characters of a JSON value that a page shows; the API has all of it."""
BRIEF = 240
"""Characters of a message among others: what stands below it stays in sight, and the job's page has all of it."""
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; media-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers would send forms with the Origin `null`
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


class Place(Struct, frozen=True):
    """A page that the navigation leads to, for some roles."""

    path: str
    name: str
    roles: tuple[Role, ...]


PLACES = (
    Place("/overview", "Overview", OPERATOR),
    Place("/jobs", "Jobs", READER),
    Place("/new", "New", CLIENT),
    Place("/log", "Log", AUDITOR),
    Place("/failures", "Failures", OPERATOR),
    Place("/workers", "Workers", OPERATOR),
    Place("/queues", "Queues", OPERATOR),
    Place("/projections", "Projections", OPERATOR),
    Place("/audit", "Audit", AUDITOR),
    Place("/keys", "Keys", ADMIN),
)


def page(
    request: Request[Any, Any, Any], template: str, status: int = 200, *, secret: bool = False, **values: Any
) -> Response[bytes]:
    """A page of ours, with what its caller may go to. It is `secret` if a signed link stands in it."""
    caller = caller_of(request.scope)
    html = (
        _templates()
        .get_template(template)
        .render(
            who=caller,
            signed_in=caller is not None and caller is not ANYBODY,
            places=places(request),
            here=request.url.path,
            may=lambda roles: caller is not None and caller.role in roles,
            **values,
        )
    )
    content, headers = html.encode(), dict(HEADERS)
    if not secret:
        headers["Vary"] = "Accept-Encoding"
        if takes_gzip(request):
            content = zipped(content)
            headers["Content-Encoding"] = "gzip"
    return Response(content, status_code=status, media_type=MediaType.HTML, headers=headers)


def places(request: Request[Any, Any, Any]) -> list[Place]:
    """Where the caller may go."""
    caller = caller_of(request.scope)
    return [place for place in PLACES if caller is not None and caller.role in place.roles]


def answer_error(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """The page for what went wrong; to somebody who has not signed in, the page to do that."""
    if isinstance(error, Unauthenticated):
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return Redirect(f"/sign-in?next={quote(wanted, safe='')}", status_code=303, headers=dict(HEADERS))
    answer = answer_problem(request, error)
    told = decode(answer.content, type=Problem)
    answered = page(request, "error.html", told.status, problem=told, advice=KINDS[told.code].advice)
    answered.headers.update({name: value for name, value in answer.headers.items() if name.lower() != "content-type"})
    return answered


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"CLIENT": CLIENT, "AUDITOR": AUDITOR, "OPERATOR": OPERATOR}
    environment.filters |= {"json": _json, "moment": moment, "duration": duration, "bytes": _bytes}
    environment.filters |= {"said": details, "says": _says, "segment": _segment, "brief": brief}
    return environment


def _json(value: Any, most: int = MOST_SHOWN) -> str:
    text = indented(encode(value), indent=2).decode()
    return text if len(text) <= most else f"{text[:most]}\n… ({len(text)} characters)"


def _says(job: JobView) -> str:
    """What a list says of a job: why it failed or waits, else what it does."""
    if job.error is not None and job.status in ("queued", "failed"):
        return f"{job.error.type}: {job.error.message}"
    if job.status == "queued" and job.run_at > job.created_at:
        return f"runs from {moment(job.run_at)}"
    return job.message or job.step or ""


def brief(text: str) -> str:
    return text if len(text) <= BRIEF else f"{text[:BRIEF]}…"


def moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def duration(seconds: float) -> str:
    """A length of time as people say it: 340 ms, 7.2 s, 3 min 20 s, 2 h 5 min, 4 d 3 h."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    for large, large_name, small, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= large:
            rest = int(seconds % large // small)
            return f"{int(seconds // large)} {large_name}" + (f" {rest} {small_name}" if rest else "")
    raise AssertionError


def _segment(name: str) -> str:
    """A name as one segment of a path: a slash in it, too, which jinja's own filter leaves alone."""
    return quote(name, safe="")


def _bytes(size: int) -> str:
    for limit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= limit:
            return f"{size / limit:.1f} {name}"
    return f"{size} bytes"
