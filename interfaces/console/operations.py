"""What operators look at: how things run, what failed, who works, which queues there are, and the projections."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, TypeVar

from litestar import Request, Response, get
from msgspec import Struct

from application.jobs import Filter, Jobs
from application.operations import Operations, StatsView, StatsWanted
from interfaces.console.frame import page
from interfaces.http.guard import OPERATOR
from interfaces.http.health import readiness
from interfaces.http.jobs import NoQuery
from interfaces.http.operations import FailuresQuery, NamesQuery, WorkersQuery, projections
from interfaces.http.requests import namespace, query

P = ParamSpec("P")
T = TypeVar("T")
BINS = 12
BIN = timedelta(minutes=5)
MOST_RUNNING = 8
MOST_QUEUES = 20
CHART = 120
"""The height of the chart in pixels, of which the highest bar leaves `HEADROOM` for its number."""
HEADROOM = 18


class Bin(Struct, frozen=True):
    """Five minutes in the chart: how many jobs were completed and failed, and how high their bars are."""

    begin: datetime
    completed: int
    failed: int
    x: float
    completed_height: int
    failed_height: int


@get("/overview", roles=OPERATOR)
async def show_overview(request: Request[Any, Any, Any]) -> Response[Any]:
    query(request, NoQuery)
    seen, operations = namespace(request), _operations(request)
    jobs: Jobs = request.app.state.service.jobs
    now = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    windows = [StatsWanted(begin=now - BIN * (n + 1), end=now - BIN * n) for n in reversed(range(BINS))]
    stats = await asyncio.gather(*(_read(request, operations.stats, seen, window) for window in windows))
    hour = await _read(request, operations.stats, seen, StatsWanted(begin=now - BIN * BINS, end=now))
    queues = await _read(request, operations.queues, seen, "", MOST_QUEUES + 1)
    running, _ = await jobs.page(
        Filter(namespace=seen, status=("running", "cancelling")), "-updated_at", MOST_RUNNING, None
    )
    return page(
        request,
        "overview.html",
        bins=_bins(stats),
        height=CHART,
        hour=hour,
        statuses={name: sum(lane.statuses.get(name, 0) for lane in hour.items) for name in ("queued", "running")},
        completed=sum(lane.completed for lane in hour.items),
        failed=sum(lane.failed for lane in hour.items),
        queues=queues[:MOST_QUEUES],
        more_queues=len(queues) > MOST_QUEUES,
        running=running,
        health=await readiness(request),
        lagging=[view for view in await projections(request) if view.lag_events or view.state == "parked"],
    )


@get("/failures", roles=OPERATOR)
async def show_failures(request: Request[Any, Any, Any]) -> Response[Any]:
    wanted = query(request, FailuresQuery)
    found = await _read(request, _operations(request).failures, namespace(request), wanted.limit, wanted.cursor)
    return page(request, "failures.html", failures=found[0], following=found[1])


@get("/workers", roles=OPERATOR)
async def show_workers(request: Request[Any, Any, Any]) -> Response[Any]:
    wanted = query(request, WorkersQuery)
    after, limit = wanted.cursor or "", wanted.limit
    found = await _read(request, _operations(request).workers, namespace(request), wanted.seen_within, after, limit + 1)
    following = found[limit - 1].name if len(found) > limit else None
    return page(request, "workers.html", workers=found[:limit], following=following)


@get("/queues", roles=OPERATOR)
async def show_queues(request: Request[Any, Any, Any]) -> Response[Any]:
    wanted = query(request, NamesQuery)
    after, limit = wanted.cursor or "", wanted.limit
    found = await _read(request, _operations(request).queues, namespace(request), after, limit + 1)
    following = found[limit - 1].name if len(found) > limit else None
    return page(request, "queues.html", queues=found[:limit], following=following)


@get("/projections", roles=OPERATOR)
async def show_projections(request: Request[Any, Any, Any]) -> Response[Any]:
    query(request, NoQuery)
    return page(request, "projections.html", projections=await projections(request))


def _bins(stats: Sequence[StatsView]) -> list[Bin]:
    """The chart's bars."""
    counts = [(sum(lane.completed for lane in s.items), sum(lane.failed for lane in s.items)) for s in stats]
    most = max(max(completed + failed for completed, failed in counts), 1)
    return [
        Bin(
            window.begin,
            completed,
            failed,
            round(100 / len(stats) * n, 2),
            round(completed / most * (CHART - HEADROOM)),
            round(failed / most * (CHART - HEADROOM)),
        )
        for n, (window, (completed, failed)) in enumerate(zip(stats, counts, strict=True))
    ]


def _operations(request: Request[Any, Any, Any]) -> Operations:
    operations: Operations = request.app.state.service.operations
    return operations


async def _read(request: Request[Any, Any, Any], call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """On a thread for what blocks."""
    answer: T = await request.app.state.service.jobs.read(call, *args, **kwargs)
    return answer
