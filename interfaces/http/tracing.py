"""A span for each request, in the trace that its `traceparent` names."""

import re

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from opentelemetry.trace import StatusCode, format_trace_id

from application.tracing import Tracing

QUIET = ("/livez", "/readyz", "/metrics")
"""Asked again and again by machines, which would be most of all traces."""
TYPE = re.compile(":[a-z]+(?=})")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


def traced(app: ASGIApp, tracing: Tracing) -> ASGIApp:
    """The application, with spans; what it answers is not changed."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["path"] in QUIET:
            await app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        with tracing.request(method, _carried(scope)) as span:
            scope["trace"] = format_trace_id(span.get_span_context().trace_id)  # type: ignore[typeddict-unknown-key]

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                        span.set_attribute("error.type", str(message["status"]))
                await send(message)

            try:
                await app(scope, receive, noted)
            finally:
                if template := scope.get("path_template"):
                    route = TYPE.sub("", template)
                    span.update_name(f"{method} {route}")
                    span.set_attribute("http.route", route)

    return answer


def _carried(scope: Scope) -> dict[str, str]:
    """The headers that name a trace, if each is there once."""
    named = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    carried = {name: value for name, value in named if name in ("traceparent", "tracestate")}
    return {} if [name for name, _ in named].count("traceparent") > 1 else carried
