"""A collector of traces: a real OTLP/HTTP server, which keeps the spans it is sent."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Span:
    """A span as it was exported: ids in hex, times in nanoseconds."""

    def __init__(self, span: Any, resource: dict[str, Any]) -> None:
        self.name: str = span.name
        self.trace: str = span.trace_id.hex()
        self.id: str = span.span_id.hex()
        self.parent: str = span.parent_span_id.hex()
        self.begun: int = span.start_time_unix_nano
        self.ended: int = span.end_time_unix_nano
        self.failed: bool = span.status.code == span.status.STATUS_CODE_ERROR
        self.events = [event.name for event in span.events]
        self.attributes = {one.key: _value(one.value) for one in span.attributes}
        self.resource = resource


class Collector:
    """What was sent to `endpoint` so far."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.bodies: list[bytes] = []
        self._lock = threading.Lock()

    @property
    def environment(self) -> dict[str, str]:
        """What sends spans here, without much delay."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}

    def take(self, body: bytes) -> None:
        with self._lock:
            self.bodies.append(body)

    @property
    def spans(self) -> list[Span]:
        with self._lock:
            requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [
            Span(span, {one.key: _value(one.value) for one in resource.resource.attributes})
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def of(self, trace: str) -> list[Span]:
        """The spans of a trace, in the order in which they began."""
        return sorted((span for span in self.spans if span.trace == trace), key=lambda span: span.begun)


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            assert self.headers["Content-Type"] == "application/x-protobuf"
            collecting.take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        collecting = Collector(f"http://127.0.0.1:{server.server_address[1]}")
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        serving.start()
        try:
            yield collecting
        finally:
            server.shutdown()
            serving.join(10)


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))
