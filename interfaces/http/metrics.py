"""Metrics for Prometheus: what the log says, which survives every restart, and what this process does itself."""

import asyncio
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any

from litestar import Request, Response, get
from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from application.errors import ApplicationError
from application.operations import Measures, Operations
from interfaces.http.guard import ANYONE

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
EVENTS = (1, 3, 10, 30, 100, 300, 1_000, 3_000)
LANE = ("namespace", "queue", "kind")


class Metrics:
    """What is measured in this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "jobledger_append_seconds",
            "From sending a batch to the database to its commit, in this process",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._events = Histogram(
            "jobledger_append_events", "Events of a batch, in this process", buckets=EVENTS, registry=self.registry
        )

    def appended(self, events: int, seconds: float) -> None:
        """A batch was recorded."""
        self._events.observe(events)
        self._seconds.observe(seconds)


class _Log(Collector):
    """What the database says, as metrics."""

    def __init__(self, measures: Measures | None) -> None:
        self._measures = measures

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("jobledger_info", "The version of this server", labels=["version"])
        info.add_metric([version("jobledger")], 1)
        yield info
        away = self._measures is None
        yield GaugeMetricFamily("jobledger_database_up", "Whether the database answers", value=float(not away))
        if self._measures is not None:
            yield from _of_the_log(self._measures)


@get("/metrics", roles=ANYONE)
async def get_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """In the text format of Prometheus; without what the database says while it is away."""
    operations: Operations = request.app.state.service.operations
    metrics: Metrics = request.app.state.service.metrics
    try:
        measures = await request.app.state.service.jobs.read(operations.measures)
    except ApplicationError:
        measures = None
    behind = await _replica_behind(request)
    text = await asyncio.to_thread(_text, metrics, measures, behind)
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


def _text(metrics: Metrics, measures: Measures | None, replica_behind: float | None) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Log(measures))
    if replica_behind is not None:
        says = "Age of the oldest event that the replica lacks; absent while it is away"
        Gauge("jobledger_replica_lag_seconds", says, registry=registry).set(replica_behind)
    return generate_latest(registry) + generate_latest(metrics.registry)


def _of_the_log(measures: Measures) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("jobledger_jobs", "Jobs by status", labels=[*LANE, "status"])
    events = CounterMetricFamily("jobledger_job_events", "What happened to jobs", labels=[*LANE, "event"])
    waited = CounterMetricFamily("jobledger_job_wait_seconds", "Time that jobs were due and waited", labels=LANE)
    ran = CounterMetricFamily("jobledger_attempt_run_seconds", "Time that attempts took, ended ones", labels=LANE)
    ended = CounterMetricFamily("jobledger_attempts_ended", "Attempts that ended", labels=LANE)
    for lane in measures.lanes:
        names = [lane.namespace, lane.queue, lane.kind]
        for status, count in lane.statuses.items():
            jobs.add_metric([*names, status], count)
        for event, count in lane.events.items():
            events.add_metric([*names, event], count)
        waited.add_metric(names, lane.waited_seconds)
        ran.add_metric(names, lane.ran_seconds)
        ended.add_metric(names, lane.ended)
    yield from (jobs, events, waited, ran, ended)
    yield from _of_projections(measures)
    yield from _of_the_database(measures)


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
    yield GaugeMetricFamily("jobledger_unsealed_events", "Events that no checkpoint covers", value=measures.unsealed)
    yield GaugeMetricFamily("jobledger_seal_lag_seconds", "Age of the oldest of them", value=measures.unsealed_seconds)


def _gauge(name: str, says: str, values: Iterable[tuple[str, float]]) -> Metric:
    gauge = GaugeMetricFamily(name, says, labels=["projection"])
    for projection, value in values:
        gauge.add_metric([projection], value)
    return gauge
