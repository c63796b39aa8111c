"""A job's life, told in the events that the tests of its rules begin from and expect."""

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import replace

from domain.events import (
    Artifact,
    Cancelled,
    CancelRequested,
    Completed,
    Created,
    Event,
    Failed,
    HeartbeatMissed,
    JobError,
    Progressed,
    Released,
    Requeued,
    Started,
)
from domain.job import Cause, Job, evolve
from domain.refusals import Refused
from domain.retry import RetryPolicy

ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")

START = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)

NOW = START + timedelta(minutes=1)

LAST_BEAT = START + timedelta(seconds=30)

CAUSE = Cause(NOW, "worker:w1")

RESULT = Raw(b'{"answer":42}')

BOOM = JobError(type="ValueError", message="boom")

CREATED = Created(
    namespace="default",
    kind="render",
    queue="gpu",
    priority=5,
    input=Raw(b'{"question":"why?"}'),
    run_at=START,
    max_attempts=2,
    retry=RetryPolicy(initial=10, factor=2, max=3600),
    heartbeat_timeout=30,
    labels={"team": "blue"},
    at=START,
    by="key:shop",
)


def given(*events: Event) -> Job:
    return Job.fold(ID, list(events))


def after(job: Job, decided: list[Event]) -> Job:
    for event in decided:
        evolve(job, event)
    return job


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def created(*, run_at: datetime = START, max_attempts: int = 2, trace: str | None = None) -> Created:
    return replace(CREATED, run_at=run_at, max_attempts=max_attempts, trace=trace)


def started(attempt: int, worker: str = "w1") -> Started:
    return Started(attempt=attempt, worker=worker, at=NOW, by="worker:w1")


def progressed(
    attempt: int,
    progress: float = 0.0,
    *,
    step: str | None = None,
    message: str | None = None,
    output: Raw | UnsetType = UNSET,
    handle: Raw | UnsetType = UNSET,
    artifact: Artifact | None = None,
) -> Progressed:
    return Progressed(
        attempt=attempt,
        progress=progress,
        step=step,
        message=message,
        output=output,
        handle=handle,
        artifact=artifact,
        at=NOW,
        by="worker:w1",
    )


def missed(attempt: int, retry_at: datetime | None = NOW) -> HeartbeatMissed:
    return HeartbeatMissed(
        attempt=attempt, worker="w1", last_heartbeat=LAST_BEAT, retry_at=retry_at, at=NOW, by="worker:w1"
    )


def completed(attempt: int, result: Raw = RESULT) -> Completed:
    return Completed(attempt=attempt, result=result, at=NOW, by="worker:w1")


def failed(attempt: int, error: JobError = BOOM, retry_at: datetime | None = None) -> Failed:
    return Failed(attempt=attempt, error=error, retry_at=retry_at, at=NOW, by="worker:w1")


def released(attempt: int) -> Released:
    return Released(attempt=attempt, worker="w1", reason="deploy", at=NOW, by="worker:w1")


def cancel_requested() -> CancelRequested:
    return CancelRequested(reason="too dear", at=NOW, by="worker:w1")


def cancelled(reason: str = "too dear") -> Cancelled:
    return Cancelled(reason=reason, at=NOW, by="worker:w1")


def requeued(*, afresh: bool = False) -> Requeued:
    return Requeued(reason="fixed", afresh=afresh, at=NOW, by="worker:w1")


HEARTBEAT_MISSED = JobError(
    type="heartbeat-missed", message="no heartbeat from worker w1 since 2026-03-01T10:00:30+00:00"
)

PAGE = Artifact(name="page", sha256="ab" * 32, size=3, media_type="text/html")

RUNNING: tuple[Event, ...] = (CREATED, started(1))

CANCELLING: tuple[Event, ...] = (*RUNNING, cancel_requested())

FINISHED: dict[str, tuple[Event, ...]] = {
    "completed": (*RUNNING, completed(1)),
    "failed": (*RUNNING, failed(1)),
    "cancelled": (*CANCELLING, cancelled()),
}

Ask = Callable[[Job], list[Event]]

REPORTS: dict[str, Callable[[int, str], Ask]] = {
    "progressed": lambda attempt, worker: lambda job: job.progressed(attempt, worker, CAUSE, progress=0.9),
    "completed": lambda attempt, worker: lambda job: job.complete(attempt, worker, Raw(b'"other"'), CAUSE),
    "failed": lambda attempt, worker: (
        lambda job: job.fail(attempt, worker, JobError(type="other", message="other"), CAUSE, jitter=1)
    ),
    "released": lambda attempt, worker: lambda job: job.release(attempt, worker, "deploy", CAUSE),
    "cancelled": lambda attempt, worker: lambda job: job.acknowledge_cancel(attempt, worker, None, CAUSE),
}


def refused(job: Job, ask: Ask) -> Refused:
    """The refusal; asking must leave the job as it was."""
    before = deepcopy(job)
    with pytest.raises(Refused) as info:
        ask(job)
    assert job == before
    return info.value
