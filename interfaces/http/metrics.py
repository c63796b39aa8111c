"""Metrics for Prometheus: what the log says, which survives every restart, and what this process does itself."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

from litestar import Request, Response, get
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from application.errors import ApplicationError
from application.keys import Caller, Unauthenticated
from application.operations import LaneMeasures, Measures, Operations
from application.readiness import CODES, Ready
from interfaces.http.guard import ANYONE, OPERATOR
from interfaces.http.health import readiness
from interfaces.process_metrics import Metrics


class _Log(Collector):
    """What the database says, as metrics."""

    def __init__(self, measures: Measures | None, ready: Ready, *, named: bool) -> None:
        self._measures = measures
        self._ready = ready
        self._named = named

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
            yield from _of_the_log(self._measures, named=self._named)


@get("/metrics", roles=ANYONE)
async def get_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """In the text format of Prometheus; without what the database says while it is away.

    Namespaces, queues and kinds are named to operators of all namespaces only; for others jobs are counted together.
    """
    operations: Operations = request.app.state.service.operations
    metrics: Metrics = request.app.state.service.metrics
    named = _may_see_names(request)
    try:
        measures = await request.app.state.service.jobs.read(operations.measures)
    except ApplicationError:
        measures = None
    log = _Log(measures, await readiness(request), named=named)
    text = await asyncio.to_thread(_text, metrics, log, await _replica_behind(request))
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


def _may_see_names(request: Request[Any, Any, Any]) -> bool:
    """Raises Unauthenticated for a key that is none: who sends one wants to know that it is of no use."""
    caller = request.scope["caller"]  # type: ignore[typeddict-item]
    if isinstance(caller, Unauthenticated) and "authorization" in request.headers:
        raise caller
    return isinstance(caller, Caller) and caller.role in OPERATOR and caller.namespace is None


def _text(metrics: Metrics, log: _Log, replica_behind: float | None) -> bytes:
    registry = CollectorRegistry()
    registry.register(log)
    if replica_behind is not None:
        says = "Age of the oldest event that the replica lacks; absent while it is away"
        Gauge("jobledger_replica_lag_seconds", says, registry=registry).set(replica_behind)
    return generate_latest(registry) + generate_latest(metrics.registry)


def _of_the_log(measures: Measures, *, named: bool) -> Iterator[Metric]:
    labels = ["namespace", "queue", "kind"] if named else []
    jobs = GaugeMetricFamily("jobledger_jobs", "Jobs by status", labels=[*labels, "status"])
    events = CounterMetricFamily("jobledger_job_events", "What happened to jobs", labels=[*labels, "event"])
    waited = CounterMetricFamily("jobledger_job_wait_seconds", "Time that jobs were due and waited", labels=labels)
    ran = CounterMetricFamily("jobledger_attempt_run_seconds", "Time that attempts took, ended ones", labels=labels)
    ended = CounterMetricFamily("jobledger_attempts_ended", "Attempts that ended", labels=labels)
    for lane in measures.lanes if named else _together(measures.lanes):
        names = [lane.namespace, lane.queue, lane.kind] if named else []
        for status, count in lane.statuses.items():
            jobs.add_metric([*names, status], count)
        for event, count in lane.events.items():
            events.add_metric([*names, event], count)
        waited.add_metric(names, lane.waited_seconds)
        ran.add_metric(names, lane.ran_seconds)
        ended.add_metric(names, lane.ended)
    yield from (jobs, events, waited, ran, ended)
    yield from _of_queues(measures) if named else _of_all_queues(measures)
    yield from _of_projections(measures)
    yield from _of_the_database(measures)


def _together(lanes: Sequence[LaneMeasures]) -> Iterator[LaneMeasures]:
    """All lanes as one, which has no name."""
    if lanes:
        yield LaneMeasures(
            namespace="",
            queue="",
            kind="",
            events={name: sum(lane.events[name] for lane in lanes) for name in lanes[0].events},
            statuses={name: sum(lane.statuses[name] for lane in lanes) for name in lanes[0].statuses},
            waited_seconds=sum(lane.waited_seconds for lane in lanes),
            ran_seconds=sum(lane.ran_seconds for lane in lanes),
            ended=sum(lane.ended for lane in lanes),
        )


OLDEST = "jobledger_queue_oldest_seconds", "How long the oldest job of a queue has been due"
PAUSED = "jobledger_queue_paused", "1 for each queue that gives no claims"


def _of_queues(measures: Measures) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(*OLDEST, labels=["queue"])
    for queue, seconds in measures.waiting.items():
        waiting.add_metric([queue], seconds)
    yield waiting
    paused = GaugeMetricFamily(*PAUSED, labels=["queue"])
    for queue in measures.paused:
        paused.add_metric([queue], 1)
    yield paused


def _of_all_queues(measures: Measures) -> Iterator[Metric]:
    """The longest wait, but for queues that are to wait; and whether there are any such."""
    waits = [seconds for queue, seconds in measures.waiting.items() if queue not in measures.paused]
    yield GaugeMetricFamily(*OLDEST, value=max(waits, default=0))
    yield GaugeMetricFamily(*PAUSED, value=float(bool(measures.paused)))


def _of_projections(measures: Measures) -> Iterator[Metric]:
    views = [view for view in measures.projections if view.kind == "async"]
    yield _gauge(
        "jobledger_projection_lag_events",
        "Events that a view is behind the log, counted up to 10000",
        ((view.name, view.lag_events) for view in views),
    )
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
    folded = CounterMetricFamily("jobledger_projection_events", "Events in the view that serves", labels=["projection"])
    for view in views:
        folded.add_metric([view.name], view.events or 0)
    yield folded


def _of_the_database(measures: Measures) -> Iterator[Metric]:
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
    overdue = "Leases that ran out, and whose jobs any node should have rescued"
    yield GaugeMetricFamily("jobledger_leases_overdue", overdue, value=measures.overdue)
    overdue = "For how long the longest of them has been overdue"
    yield GaugeMetricFamily("jobledger_lease_overdue_seconds", overdue, value=measures.overdue_seconds)
    months = "Months to come that have a partition of the log"
    yield GaugeMetricFamily("jobledger_partition_months_ahead", months, value=measures.months_ahead)
    yield GaugeMetricFamily("jobledger_unsealed_events", "Events that no checkpoint covers", value=measures.unsealed)
    yield GaugeMetricFamily("jobledger_seal_lag_seconds", "Age of the oldest of them", value=measures.unsealed_seconds)


def _gauge(name: str, says: str, values: Iterable[tuple[str, float]]) -> Metric:
    gauge = GaugeMetricFamily(name, says, labels=["projection"])
    for projection, value in values:
        gauge.add_metric([projection], value)
    return gauge
