"""Metrics for Prometheus: what the log says, which survives every restart, and what this process does itself."""

import asyncio
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any, TypeGuard

from litestar import Request, Response, get
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from application.errors import ApplicationError
from application.keys import Caller, Unauthenticated
from application.operations import LaneMeasures, Measures, Operations
from application.readiness import CODES, Ready
from interfaces.http.guard import ANYONE, OPERATOR, caller_of
from interfaces.http.health import readiness
from interfaces.process_metrics import Metrics


class _Log(Collector):
    """What the database says, as metrics for a caller."""

    def __init__(self, measures: Measures | None, ready: Ready, caller: Caller | None) -> None:
        self._measures = measures
        self._ready = ready
        self._caller = caller

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("jobledger_info", "The version of this server", labels=["version"])
        info.add_metric([version("jobledger")], 1)
        yield info
        away = self._measures is None
        yield GaugeMetricFamily("jobledger_database_up", "Whether the database answers", value=float(not away))
        ready = float(self._ready.status == "ready")
        yield GaugeMetricFamily("jobledger_ready", "Whether this server can serve, as /readyz says", value=ready)
        found = {finding.code for finding in self._ready.findings}
        finding = GaugeMetricFamily("jobledger_finding", "Whether /readyz tells of this", labels=["code"])
        for code in CODES:
            finding.add_metric([code], float(code in found))
        yield finding
        if self._measures is not None:
            yield from _for(self._caller, self._measures)


@get("/metrics", roles=ANYONE)
async def get_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """In the text format of Prometheus; without what the database says while it is away."""
    operations: Operations = request.app.state.service.operations
    metrics: Metrics = request.app.state.service.metrics
    caller = _caller(request)
    try:
        measures = await request.app.state.service.jobs.read(operations.measures)
    except ApplicationError:
        measures = None
    log = _Log(measures, await readiness(request), caller)
    own = [metrics.disk, metrics.appends] if _sees_all(caller) else [metrics.disk]
    text = await asyncio.to_thread(_text, log, own, await _replica_behind(request))
    return Response(text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


async def _replica_behind(request: Request[Any, Any, Any]) -> float | None:
    """Seconds that the replica is behind; None without one, and while it is away."""
    service = request.app.state.service
    if service.replica is None:
        return None
    try:
        seconds: float = await service.jobs.read(service.replica.behind)
    except ApplicationError:
        return None
    return seconds


def _caller(request: Request[Any, Any, Any]) -> Caller | None:
    """Raises Unauthenticated for a key that is none: who sends one wants to know that it is of no use."""
    caller = request.scope["caller"]  # type: ignore[typeddict-item]
    if isinstance(caller, Unauthenticated) and "authorization" in request.headers:
        raise caller
    return caller_of(request.scope)


def _text(log: _Log, own: Iterable[CollectorRegistry], replica_behind: float | None) -> bytes:
    registry = CollectorRegistry()
    registry.register(log)
    if replica_behind is not None:
        says = "Age of the oldest event that the replica lacks; absent while it is away"
        Gauge("jobledger_replica_lag_seconds", says, registry=registry).set(replica_behind)
    return b"".join(generate_latest(each) for each in (registry, *own))


def _for(caller: Caller | None, measures: Measures) -> Iterator[Metric]:
    """What a caller may know. Two tenants would each learn from a count of all jobs what the other does."""
    yield from _of_the_service(measures)
    if _is_operator(caller):
        yield from _of_lanes([each for each in measures.lanes if caller.namespace in (None, each.namespace)])
    if _sees_all(caller):
        yield from _of_all(measures)


def _is_operator(caller: Caller | None) -> TypeGuard[Caller]:
    return caller is not None and caller.role in OPERATOR


def _sees_all(caller: Caller | None) -> bool:
    return _is_operator(caller) and caller.namespace is None


def _of_the_service(measures: Measures) -> Iterator[Metric]:
    """States and ages, which say whether it is well, and count nothing that anybody asked for."""
    views = [view for view in measures.projections if view.kind == "async"]
    yield _gauge(
        "jobledger_projection_lag_seconds",
        "Age of the oldest event that is not in a view",
        ((view.name, view.lag_seconds) for view in views),
    )
    yield _gauge(
        "jobledger_projection_parked",
        "Whether a view stands before an event that it cannot fold",
        ((view.name, float(view.state == "parked")) for view in views),
    )
    stall = GaugeMetricFamily(
        "jobledger_safe_position_stall_seconds",
        "Age of the oldest open write transaction, behind which readers of the whole log wait, and its process",
        labels=["pid"],
    )
    if measures.stalled_by is not None:
        stall.add_metric([str(measures.stalled_by)], measures.stalled_seconds)
    yield stall
    connections = GaugeMetricFamily(
        "jobledger_database_connections", "Connections of all servers to this database", labels=["state"]
    )
    for state, count in measures.connections.items():
        connections.add_metric([state], count)
    yield connections
    overdue = "For how long the longest overdue lease should have been rescued"
    yield GaugeMetricFamily("jobledger_lease_overdue_seconds", overdue, value=measures.overdue_seconds)
    months = "Months to come that have a partition of the log"
    yield GaugeMetricFamily("jobledger_partition_months_ahead", months, value=measures.months_ahead)
    unsealed = "Age of the oldest event that no checkpoint covers"
    yield GaugeMetricFamily("jobledger_seal_lag_seconds", unsealed, value=measures.unsealed_seconds)


def _of_lanes(lanes: Iterable[LaneMeasures]) -> Iterator[Metric]:
    labels = ["namespace", "queue", "kind"]
    jobs = GaugeMetricFamily("jobledger_jobs", "Jobs by status", labels=[*labels, "status"])
    events = CounterMetricFamily("jobledger_job_events", "What happened to jobs", labels=[*labels, "event"])
    waited = CounterMetricFamily("jobledger_job_wait_seconds", "Time that jobs were due and waited", labels=labels)
    ran = CounterMetricFamily("jobledger_attempt_run_seconds", "Time that attempts took, ended ones", labels=labels)
    ended = CounterMetricFamily("jobledger_attempts_ended", "Attempts that ended", labels=labels)
    for lane in lanes:
        names = [lane.namespace, lane.queue, lane.kind]
        for status, count in lane.statuses.items():
            jobs.add_metric([*names, status], count)
        for event, count in lane.events.items():
            events.add_metric([*names, event], count)
        waited.add_metric(names, lane.waited_seconds)
        ran.add_metric(names, lane.ran_seconds)
        ended.add_metric(names, lane.ended)
    yield from (jobs, events, waited, ran, ended)


def _of_all(measures: Measures) -> Iterator[Metric]:
    """What is of all namespaces together: queues, which each may have jobs in, and how many events there are."""
    oldest = "How long the oldest job of a queue has been due"
    waiting = GaugeMetricFamily("jobledger_queue_oldest_seconds", oldest, labels=["queue"])
    for queue, seconds in measures.waiting.items():
        waiting.add_metric([queue], seconds)
    yield waiting
    paused = GaugeMetricFamily("jobledger_queue_paused", "1 for each queue that gives no claims", labels=["queue"])
    for queue in measures.paused:
        paused.add_metric([queue], 1)
    yield paused
    views = [view for view in measures.projections if view.kind == "async"]
    yield _gauge(
        "jobledger_projection_lag_events",
        "Events that a view is behind the log, counted up to 10000",
        ((view.name, view.lag_events) for view in views),
    )
    folded = CounterMetricFamily("jobledger_projection_events", "Events in the view that serves", labels=["projection"])
    for view in views:
        folded.add_metric([view.name], view.events or 0)
    yield folded
    overdue = "Leases that ran out, and whose jobs any node should have rescued"
    yield GaugeMetricFamily("jobledger_leases_overdue", overdue, value=measures.overdue)
    yield GaugeMetricFamily("jobledger_unsealed_events", "Events that no checkpoint covers", value=measures.unsealed)


def _gauge(name: str, says: str, values: Iterable[tuple[str, float]]) -> Metric:
    gauge = GaugeMetricFamily(name, says, labels=["projection"])
    for projection, value in values:
        gauge.add_metric([projection], value)
    return gauge
