"""Spans of what requests, commands and attempts take, in the trace that events carry; OpenTelemetry's API alone.

An event carries its trace's id and no span's. So the spans that others hang under have ids that follow from the job:
its creation's, and that of each attempt's claim. Whoever reads the log knows them, in whatever process or year.
"""

import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from hashlib import sha256
from typing import Any, TypeVar
from uuid import UUID, uuid4

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from application.claims import Claim, ClaimedJob, Claims, Via
from application.commands import Command
from application.jobs import Accepted, Create, Jobs, Views
from application.ledger import Batch, IdempotencyKey, Ledger, Quota, Ready
from application.reports import FailureReport, Say

T = TypeVar("T")
FROM_THE_LOG = TraceState([("jobledger", "log")])
"""Marks a parent that is known from an event, which does not say whether the trace is sampled."""
CREATION = 0
"""In the place of an attempt's number, for the span of a job's creation."""
MOST_SPANS = 100
"""Jobs of one request whose creation has a span of its own; later ones hang in the trace without one."""
next_span_id: ContextVar[int | None] = ContextVar("next_span_id", default=None)
"""The id of the span that is begun next, where it follows from the job; whoever makes ids asks for it."""
_w3c = TraceContextTextMapPropagator()


def span_id(job_id: UUID, attempt: int) -> int:
    """The id of the span of a job's creation, or of the claim of one of its attempts."""
    return _number(b"span", job_id, attempt, 8)


def known(trace_id: str | None, job_id: UUID, attempt: int) -> Context:
    """The creation, or an attempt's claim, as a parent; a job without a trace has one that follows from its id."""
    of_trace = int(trace_id, 16) if trace_id else _number(b"trace", job_id, CREATION, 16)
    flags = TraceFlags(TraceFlags.SAMPLED)
    parent = SpanContext(of_trace, span_id(job_id, attempt), True, flags, FROM_THE_LOG)
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def current_headers() -> dict[str, str]:
    """The headers of a request that belongs to the span that is under way; none when there is none."""
    headers: dict[str, str] = {}
    _w3c.inject(headers)
    return headers


class Tracing:
    """Makes the spans. Where tracing is off there is none of these, and nothing is wrapped."""

    def __init__(self, tracer: trace.Tracer, close: Callable[[], None]) -> None:
        self._tracer = tracer
        self.close = close

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator[Span]:
        """A request from outside, in the trace that its headers name."""
        attributes = {"http.request.method": method}
        span = self._begin(method, _w3c.extract(headers, Context()), SpanKind.SERVER, attributes)
        with _ended(span), trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield span

    async def command(self, command: Command, submit: Callable[[Command], Awaitable[Any]]) -> Any:
        """Submit a command of the request under way; its span is the creation's, where it creates a job."""
        if not trace.get_current_span().is_recording():
            return await submit(command)
        asked, begun = _Asked(command), time.time_ns()
        error: BaseException | None = None
        try:
            return await submit(asked)
        except BaseException as refused:
            error = refused
            raise
        finally:
            kind = SpanKind.PRODUCER if isinstance(command, Create) else SpanKind.INTERNAL
            name, of = type(command).__name__.lower(), _of(asked.moved)
            span = self._begin(name, None, kind, of, begun, asked.span_id)
            within = trace.set_span_in_context(span)
            for id in asked.moved[1:MOST_SPANS] if isinstance(command, Create) else ():
                self._begin(name, within, kind, _of([id]), begun, span_id(id, CREATION)).end()
            _end(span, error)

    def appended(self, parents: Sequence[Context], begun: int, error: BaseException | None) -> None:
        """A batch was sent to the database at `begun`, in nanoseconds, for commands with these spans."""
        attributes: dict[str, str | int] = {"db.system.name": "postgresql", "jobledger.commands": len(parents)}
        for parent in parents:
            _end(self._begin("append", parent, SpanKind.CLIENT, attributes, begun), error)

    def claimed(self, job: ClaimedJob, worker: str) -> None:
        """An attempt begins: this was claimed just now."""
        parent = known(job.trace, job.id, CREATION)
        attributes: dict[str, str | int] = {**_attributes(job), "jobledger.worker": worker}
        begun = (job.lease_expires_at - timedelta(seconds=job.heartbeat_timeout)).timestamp()
        at = min(int(begun * 1e9), time.time_ns())  # the database's clock may be ahead of ours
        self._begin("claim", parent, SpanKind.INTERNAL, attributes, at, span_id(job.id, job.attempt)).end()

    async def attempt(self, job: ClaimedJob, run: Awaitable[T]) -> T:
        """An attempt from beginning to end, with a span that is the current one for its handler."""
        parent = known(job.trace, job.id, job.attempt)
        span = self._begin(f"attempt {job.kind}", parent, SpanKind.CONSUMER, _attributes(job))
        with _ended(span), trace.use_span(span, record_exception=False, set_status_on_exception=False):
            report = await run
            if isinstance(report, FailureReport):
                _fail(span, report.error.type)
            return report

    async def step(self, kept: str, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """A step's or submission's function, called because it is not on record."""
        span = self._begin(_verb(kept, name), None)
        with _ended(span), trace.use_span(span, record_exception=False, set_status_on_exception=False):
            return await call()

    def stepped(self, kept: str, name: str, seconds: float) -> None:
        """A step of another process took so long, until now."""
        self._begin(_verb(kept, name), None, begun=time.time_ns() - int(seconds * 1e9)).end()

    def _begin(
        self,
        name: str,
        parent: Context | None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, str | int] | None = None,
        begun: int | None = None,
        id: int | None = None,
    ) -> Span:
        """Without a parent, under the span that is under way."""
        token = next_span_id.set(id)
        try:
            return self._tracer.start_span(name, parent, kind, attributes, start_time=begun)
        finally:
            next_span_id.reset(token)


class TracedJobs(Jobs):
    """Jobs whose commands and appends have spans."""

    def __init__(self, ledger: Ledger, views: Views, tracing: Tracing) -> None:
        super().__init__(_TracedLedger(ledger, tracing), views)
        self._tracing = tracing

    async def execute(self, command: Command) -> Any:
        return await self._tracing.command(command, super().execute)

    async def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """What workers say belongs to the traces of their jobs."""
        return await super().execute_all([_Said(one) if isinstance(one, Say) else one for one in commands])


class TracedClaims(Claims):
    """Claims with spans in the traces of the jobs they hand out."""

    def __init__(self, tracing: Tracing, *parts: Any) -> None:
        super().__init__(*parts)
        self._tracing = tracing

    async def claim(
        self, claim: Claim, via: Via = "database", by: str | None = None, namespace: str | None = None
    ) -> list[ClaimedJob]:
        jobs = await super().claim(claim, via, by, namespace)
        for job in jobs:
            self._tracing.claimed(job, claim.worker)
        return jobs


class _Appending(threading.local):
    """The batch under way on this thread: the spans that its append belongs under."""

    def __init__(self) -> None:
        self.parents: list[Context] = []


_appending = _Appending()


class _Traced:
    """A command that tells, when it is run, whose append its batch is."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self.job_ids = command.job_ids
        self.idempotency_key = command.idempotency_key
        self.quota = command.quota
        self.weight = command.weight


class _Asked(_Traced):
    """A command of a request."""

    def __init__(self, command: Command) -> None:
        super().__init__(command)
        self._above = trace.get_current_span().get_span_context()
        self.span_id = uuid4().int >> 64 or 1
        self.moved: Sequence[UUID] = command.job_ids

    def run(self, batch: Batch) -> Any:
        answer = self._command.run(batch)
        if isinstance(answer, Accepted):
            self.moved = answer.job_ids
            if isinstance(self._command, Create) and not answer.replayed:
                self.span_id = span_id(answer.job_ids[0], CREATION)
        above = self._above
        parent = SpanContext(above.trace_id, self.span_id, False, above.trace_flags, above.trace_state)
        _appending.parents.append(trace.set_span_in_context(NonRecordingSpan(parent), Context()))
        return answer


class _Said(_Traced):
    """What a worker says, whose append belongs under its attempt's claim."""

    def __init__(self, command: Say) -> None:
        super().__init__(command)
        self._report = command.report

    def run(self, batch: Batch) -> Any:
        answer, report = self._command.run(batch), self._report
        _appending.parents.append(known(batch.job(report.job_id).trace, report.job_id, report.attempt))
        return answer


class _TracedLedger:
    """See the port, `application.ledger.Ledger`."""

    def __init__(self, ledger: Ledger, tracing: Tracing) -> None:
        self._ledger = ledger
        self._tracing = tracing

    @contextmanager
    def batch(
        self,
        job_ids: Collection[UUID] = (),
        keys: Collection[IdempotencyKey] = (),
        claim: tuple[Ready, int] | None = None,
        quotas: Collection[Quota] = (),
        new_only: bool = False,
    ) -> Iterator[Batch]:
        parents = _appending.parents = []
        begun, error = 0, None
        try:
            with self._ledger.batch(job_ids, keys, claim, quotas, new_only) as batch:
                yield batch
                begun = time.time_ns()
        except BaseException as refused:
            error = refused
            raise
        finally:
            if begun:
                self._tracing.appended(parents, begun, error)


def _attributes(job: ClaimedJob) -> dict[str, str | int]:
    """What a span may say of a job: never its input, a result or the words of an error."""
    named = {"jobledger.job_id": str(job.id), "jobledger.kind": job.kind, "jobledger.queue": job.queue}
    return {**named, "jobledger.attempt": job.attempt}


def _of(job_ids: Sequence[UUID]) -> dict[str, str | int]:
    return {"jobledger.job_id": str(job_ids[0])} if len(job_ids) == 1 else {"jobledger.jobs": len(job_ids)}


def _verb(kept: str, name: str) -> str:
    return f"step {name}" if kept == "step" else f"submit {name}"


@contextmanager
def _ended(span: Span) -> Iterator[None]:
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        _end(span, error)


def _end(span: Span, error: BaseException | None) -> None:
    if error is not None:
        _fail(span, type(error).__name__)
    span.end()


def _fail(span: Span, kind: str) -> None:
    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", kind)


def _number(what: bytes, job_id: UUID, number: int, size: int) -> int:
    """A number of `size` bytes that follows from these, and is not zero."""
    told = b"jobledger/" + what + b"/1\0" + job_id.bytes + number.to_bytes(8, "big")
    return int.from_bytes(sha256(told).digest()[:size], "big") or 1
