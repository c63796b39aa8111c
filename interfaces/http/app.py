"""The HTTP application: its routes, and how errors leave it."""

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.datastructures import MutableScopeHeaders, State
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from interfaces.console.routes import console
from interfaces.http.artifacts import get_artifact, list_artifacts, put_artifact
from interfaces.http.audit import (
    get_bundle,
    get_checkpoint,
    get_consistency,
    get_inclusion,
    get_inclusion_in_job,
    get_sealing_keys,
    get_tile,
    list_accesses,
    list_archives,
)
from interfaces.http.bulk import cancel_jobs, requeue_jobs
from interfaces.http.events import get_log
from interfaces.http.guard import guarded, may
from interfaces.http.health import explain_problem, live, ready
from interfaces.http.jobs import (
    cancel_job,
    create_job,
    create_jobs,
    get_diff,
    get_events,
    get_job,
    get_why,
    list_jobs,
    retry_job,
)
from interfaces.http.keys import create_key, list_keys, revoke_key
from interfaces.http.metrics import get_metrics
from interfaces.http.older_pollers import poll_presentation, poll_visualization
from interfaces.http.openapi import get_description
from interfaces.http.operations import (
    get_stats,
    get_usage,
    list_failures,
    list_projections,
    list_queues,
    list_workers,
    pause_queue,
    rebuild_projection,
    resume_projection,
    unpause_queue,
    verify_projection,
)
from interfaces.http.presentations import (
    create_presentation,
    get_presentation,
    get_slide,
    get_thumbnail,
    get_video,
)
from interfaces.http.problems import allow, answer_problem, refuse
from interfaces.http.requests import StrictRequest
from interfaces.http.safety import safe
from interfaces.http.tracing import traced
from interfaces.http.visualizations import create_visualization, get_page, get_visualization
from interfaces.http.workers import claim_jobs, report

TYPE = b"content-type"


def create_app(service: Any, *, older_pollers: bool = True) -> ASGIApp:
    """The application over a `interfaces.bootstrap.Service`."""
    app = Litestar(
        route_handlers=[
            create_job,
            create_jobs,
            list_jobs,
            get_job,
            get_diff,
            get_why,
            get_events,
            get_log,
            cancel_job,
            retry_job,
            cancel_jobs,
            requeue_jobs,
            get_checkpoint,
            get_tile,
            get_consistency,
            get_inclusion,
            get_inclusion_in_job,
            get_sealing_keys,
            list_archives,
            get_bundle,
            list_accesses,
            list_artifacts,
            get_artifact,
            put_artifact,
            claim_jobs,
            report,
            create_key,
            list_keys,
            revoke_key,
            create_visualization,
            get_visualization,
            get_page,
            create_presentation,
            get_presentation,
            get_video,
            get_thumbnail,
            get_slide,
            list_projections,
            rebuild_projection,
            verify_projection,
            resume_projection,
            list_queues,
            pause_queue,
            unpause_queue,
            list_workers,
            list_failures,
            get_usage,
            get_stats,
            live,
            ready,
            get_metrics,
            explain_problem,
            get_description,
            console(),
            *([poll_presentation, poll_visualization] if older_pollers else []),
        ],
        state=State({"service": service, "older_pollers": older_pollers}),
        request_class=StrictRequest,
        before_request=may,
        exception_handlers={Exception: answer_problem},
        cors_config=_cors(service.origins),
        openapi_config=None,
        logging_config=None,
    )
    door = safe(_answering_when_stopped(guarded(_with_methods(_with_queues(app)), service.keys, service.origins)))
    return door if service.tracing is None else traced(door, service.tracing)


def _cors(origins: Sequence[str]) -> CORSConfig | None:
    """Pages of these origins may call the service, with a key and without cookies; without any, no page elsewhere."""
    if not origins:
        return None
    return CORSConfig(
        allow_origins=list(origins),
        allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
        allow_headers=[
            "Authorization",
            "Content-Digest",
            "Content-Type",
            "Idempotency-Key",
            "If-Match",
            "If-None-Match",
            "If-Range",
            "Last-Event-ID",
            "Prefer",
            "Range",
            "X-Request-Id",
            "traceparent",
        ],
        expose_headers=[
            "ETag",
            "Location",
            "Link",
            "Idempotency-Replayed",
            "Retry-After",
            "X-Request-Id",
            "Content-Range",
            "Preference-Applied",
        ],
        max_age=600,
    )


def _answering_when_stopped(app: ASGIApp) -> ASGIApp:
    """What a server that stops cannot wait for, such as the rest of a slow body, is told as a problem.

    The server cancels it, and would answer in plain text that something went wrong here.
    """

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await app(scope, receive, noted)
        except asyncio.CancelledError:
            if started or scope["type"] != ScopeType.HTTP:
                raise
            await refuse(send, "unavailable", "this server stopped before the request had its answer; send it again")

    return answered


def _with_methods(app: ASGIApp) -> ASGIApp:
    """HEAD is answered wherever GET is (RFC 9110, 9.3.2); the server leaves the content out.

    `head` in the scope tells those who would read a large file for it. litestar answers OPTIONS with the methods of the
    first handler of an address, of which there may be more.
    """

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", "head": True}  # type: ignore[assignment]
        elif scope["type"] == ScopeType.HTTP and scope["method"] == "OPTIONS":
            send = _refusing_foreign(_allowing_all(scope, send))
        await app(scope, receive, send)

    return answered


def _with_queues(app: ASGIApp) -> ASGIApp:
    """A slash in a queue's name is sent as %2F, and servers hand paths on decoded: the router is shown one without.

    What the queue is called is read from the path as it was sent.
    """

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP and scope["path"].startswith("/v1/queues/"):
            sent = scope["raw_path"].split(b"/")
            if len(sent) == 5 and scope["path"].count("/") > 4:
                scope = {**scope, "path": f"/v1/queues/named/{unquote(sent[4])}"}
        await app(scope, receive, send)

    return answered


def _allowing_all(scope: Scope, send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start" and (path := scope.get("path_template")):
            routes = (route for route in scope["litestar_app"].routes if route.path_format == path)
            for route in routes:
                MutableScopeHeaders(message)["Allow"] = allow(route.methods)
        await send(message)

    return answer


def _refusing_foreign(send: Send) -> Send:
    """litestar tells a page elsewhere in plain text that it may not ask what it is about to."""
    refused = False

    async def answer(message: Message) -> None:
        nonlocal refused
        if message["type"] == "http.response.start" and message["status"] == 400:
            refused = any(value.startswith(b"text/plain") for name, value in message["headers"] if name == TYPE)
        if not refused:
            await send(message)
        elif message["type"] == "http.response.body":
            told = message["body"].decode().removeprefix("Disallowed CORS ").lower()
            await refuse(send, "forbidden", f"pages elsewhere may not ask so; not allowed: {told}")

    return answer
