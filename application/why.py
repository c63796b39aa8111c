"""Why a job is where it is, from facts: one question to the store for each."""

from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from application.jobs import Jobs, JobView

MOST_COUNTED = 10_000
"""Jobs ahead are counted up to here: beyond it the number is of no more use."""


class Why(Struct, frozen=True, kw_only=True):
    """The reasons, each a sentence, the most telling first."""

    job_id: UUID
    status: str
    reasons: list[str]


class LeaseFacts(Struct, frozen=True):
    """Who holds a job, since when unheard of, and until when; `now` is the database's clock."""

    worker: str
    heartbeat_at: datetime
    expires_at: datetime
    now: datetime


class QueueFacts(Struct, frozen=True):
    """What stands between a queued job and its start: the jobs that go first, and those that run, in its queue."""

    ahead: int
    running: int
    now: datetime


class Facts(Protocol):
    """The port to what is known. Calls block; run them on a thread."""

    def lease(self, job_id: UUID) -> LeaseFacts | None:
        """The lease on a job, if there is one."""
        ...

    def queue(self, job: JobView, most: int) -> QueueFacts:
        """The jobs due before `job`, counted up to `most`, and those that run, in its queue."""
        ...


async def why(jobs: Jobs, facts: Facts, job_id: UUID, namespace: str = "default") -> Why:
    """The reasons for the state of a job. Raises NotFound."""
    job = await jobs.get(job_id, namespace)
    return Why(job_id=job.id, status=job.status, reasons=await jobs.read(_reasons, facts, job))


def _reasons(facts: Facts, job: JobView) -> list[str]:
    match job.status:
        case "queued":
            return _queued(facts, job)
        case "running" | "cancelling":
            return _held(facts, job)
        case "completed":
            return [f"completed by {job.worker!r} in attempt {job.attempt}, at {_moment(job.finished_at)}"]
        case "failed":
            return [f"failed in attempt {job.attempt}, at {_moment(job.finished_at)}: {_error(job)}"]
        case "cancelled":
            return [f"cancelled at {_moment(job.finished_at)}: {_error(job)}"]


def _queued(facts: Facts, job: JobView) -> list[str]:
    queue = facts.queue(job, MOST_COUNTED)
    wait = (job.run_at - queue.now).total_seconds()
    failed = [f"the last attempt failed: {_error(job)}"] if job.error else []
    if wait > 0:
        again = f"attempt {job.attempt + 1} starts" if job.attempt else "scheduled"
        return [f"{again} in {_span(wait)}, at {_moment(job.run_at)}", *failed]
    running = f"{queue.running} jobs of queue {job.queue!r} are running"
    if queue.ahead:
        count = f"more than {MOST_COUNTED}" if queue.ahead >= MOST_COUNTED else str(queue.ahead)
        return [f"queued behind {count} jobs of queue {job.queue!r} that go first; {running}", *failed]
    return [
        f"next in queue {job.queue!r}, for a worker of kind {job.kind!r} with room to ask for it; {running}",
        *failed,
    ]


def _held(facts: Facts, job: JobView) -> list[str]:
    lease = facts.lease(job.id)
    if lease is None:
        return ["its worker has just ended it; look again"]
    silent = _span((lease.now - lease.heartbeat_at).total_seconds())
    left = (lease.expires_at - lease.now).total_seconds()
    due = f"the lease ends in {_span(left)}" if left > 0 else "rescue due"
    said = [f"at {job.progress:.0%}, {job.message or job.step}"] if job.message or job.step else []
    asked = [f"asked to stop: {_error(job)}"] if job.status == "cancelling" else []
    return [f"attempt {job.attempt} runs on worker {lease.worker!r}, last beat {silent} ago, {due}", *asked, *said]


def _error(job: JobView) -> str:
    return job.error.message if job.error else "no reason was given"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _moment(at: datetime | None) -> str:
    return at.isoformat(timespec="seconds") if at else "an unknown moment"
