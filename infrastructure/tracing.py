"""Where spans go: to an OTLP/HTTP collector, by OpenTelemetry's SDK and its standard settings, when one is named."""

import logging
import os
import threading
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import structlog

from application.errors import ApplicationError
from application.tracing import FROM_THE_LOG, Tracing, next_span_id

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = structlog.get_logger()
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
LAST_SECONDS = 2.0
"""For what is left to export when a process ends."""


class NotTraceable(ApplicationError):
    """Traces are asked for, and cannot be made."""


def endpoint() -> str | None:
    """Where traces are to go; None when nobody asked for any. Raises NotTraceable when that is not possible here."""
    named = next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), None)
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    if named is None or off:
        return None
    protocol = next((os.environ[name] for name in PROTOCOLS if os.environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        raise NotTraceable(
            f"traces are sent by http/protobuf only, and OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; collectors take "
            "it at port 4318"
        )
    if not _installed():
        raise NotTraceable(
            f"traces are to go to {_without_secrets(named)}, and OpenTelemetry's SDK is not installed: install "
            "its extra, `pip install -c requirements.lock '.[traces]'`, or unset OTEL_EXPORTER_OTLP_ENDPOINT"
        )
    return _without_secrets(named)


def _installed() -> bool:
    try:
        return all(find_spec(f"opentelemetry.{part}") for part in ("sdk", "exporter.otlp.proto.http"))
    except ModuleNotFoundError:
        return False


def _without_secrets(address: str) -> str:
    """An address as it may be told: without a user, a password and a query."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def start_tracing() -> Tracing | None:
    """Tracing, if somebody asked for it. Raises NotTraceable."""
    where = endpoint()
    if where is None:
        return None
    provider = _provider(where)
    tracer = provider.get_tracer("jobledger", version("jobledger"))
    return Tracing(tracer, lambda: _shut_down(provider))


def _provider(where: str) -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # these take 0.2 s to import
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
    from opentelemetry.trace import get_current_span

    class Ids(RandomIdGenerator):
        """Random ones, but for spans whose id follows from the job."""

        def generate_span_id(self) -> int:
            given = next_span_id.get()
            return super().generate_span_id() if given is None else given

    class ByTraceId(Sampler):
        """Of a parent known from the log it is not known whether it was sampled: decides as for the trace's root."""

        def __init__(self, configured: Sampler) -> None:
            self._configured = configured

        def should_sample(self, parent_context: Any, trace_id: int, *said: Any, **named: Any) -> SamplingResult:
            parent = get_current_span(parent_context).get_span_context()
            from_the_log = parent.is_remote and parent.trace_state == FROM_THE_LOG
            asked = None if from_the_log else parent_context
            return self._configured.should_sample(asked, trace_id, *said, **named)

        def get_description(self) -> str:
            return self._configured.get_description()

    class Telling(SpanExporter):
        """Says once that the collector is away, and once that it is back; the exporter would at each try."""

        def __init__(self, exporter: SpanExporter) -> None:
            self._exporter = exporter
            self._away = False

        def export(self, spans: Sequence[Any]) -> SpanExportResult:
            result = self._exporter.export(spans)
            away = result is not SpanExportResult.SUCCESS
            if away and not self._away:
                log.warning("traces.unavailable", endpoint=where, advice="spans are dropped until it answers")
            elif self._away and not away:
                log.info("traces.resumed", endpoint=where)
            self._away = away
            return result

        def shutdown(self) -> None:
            self._exporter.shutdown()

    for name in ("opentelemetry.exporter", "opentelemetry.sdk"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    said = {"service.version": version("jobledger"), "service.instance.id": str(uuid4())}
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "jobledger"}
    provider = TracerProvider(resource=Resource.create({**said, **named}), id_generator=Ids(), shutdown_on_exit=False)
    provider.sampler = ByTraceId(provider.sampler)
    provider.add_span_processor(BatchSpanProcessor(Telling(OTLPSpanExporter())))
    return provider


def _shut_down(provider: "TracerProvider") -> None:
    """Export what is left, for a moment: a collector that is away keeps no process from ending."""
    ending = threading.Thread(target=provider.shutdown, daemon=True)
    ending.start()
    ending.join(LAST_SECONDS)
