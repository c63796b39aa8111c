"""Why a job is where it is, from facts: one question to the store for each."""

from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from application.jobs import Jobs, JobView
from domain.events import (
    CancelRequested,
    Event,
    Failed,
    HeartbeatMissed,
    Progressed,
    Released,
    Requeued,
)
from domain.job import Job

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


class PauseFacts(Struct, frozen=True):
    """Since when a queue gives no claims, who said so, and why."""

    since: datetime
    by: str
    reason: str


class QueueFacts(Struct, frozen=True):
    """What stands between a queued job and its start: the jobs that go first, and those that run, in its queue."""

    ahead: int
    running: int
    now: datetime
    pause: PauseFacts | None = None


class ClaimerFacts(Struct, frozen=True):
    """The live workers that subscribe to a queue, and those among them that handle a kind."""

    of_queue: int
    of_kind: int


class Facts(Protocol):
    """The port to what is known. Calls block; run them on a thread."""

    def history(self, job_id: UUID) -> list[Event]:
        """All events of a job."""
        ...

    def lease(self, job_id: UUID) -> LeaseFacts | None:
        """The lease on a job, if there is one."""
        ...

    def claimers(self, job: JobView) -> ClaimerFacts:
        """The workers that asked for jobs of its queue within a minute, or hold some, and may have it."""
        ...

    def queue(self, job: JobView, most: int, namespace: str | None) -> QueueFacts:
        """The jobs due before `job`, counted up to `most`, and those that run, in its queue; of a namespace or all."""
        ...


async def why(jobs: Jobs, facts: Facts, job_id: UUID, namespace: str | None = None) -> Why:
    """The reasons for the state of a job. Raises NotFound."""
    view = await jobs.get(job_id, namespace)
    return await jobs.read(_why, facts, view, namespace)


def _why(facts: Facts, view: JobView, namespace: str | None) -> Why:
    """The history is read after the job, and says where it stands since."""
    events = facts.history(view.id)
    job = Job.fold(view.id, events)
    last = next(event for event in reversed(events) if not isinstance(event, Progressed))
    return Why(job_id=job.id, status=job.status, reasons=_reasons(facts, view, job, last, namespace))


def _reasons(facts: Facts, view: JobView, job: Job, last: Event, namespace: str | None) -> list[str]:
    match job.status:
        case "queued":
            return [*_queued(facts, view, job, namespace), *_came_back(last)]
        case "running" | "cancelling":
            return [*_held(facts, job), *_asked_to_stop(last), *_said(job)]
        case "completed":
            return [f"completed by {job.worker!r} in attempt {job.attempt}, at {_moment(last.at)}"]
        case "failed":
            return [f"failed in attempt {job.attempt}, at {_moment(last.at)}: {_error(job)}", _final(job)]
        case "cancelled":
            return [f"cancelled by {last.by}, at {_moment(last.at)}: {_error(job)}"]


def _queued(facts: Facts, view: JobView, job: Job, namespace: str | None) -> list[str]:
    """Who is limited to a namespace is not told of the jobs of others, though they may go first."""
    queue = facts.queue(view, MOST_COUNTED, namespace)
    return [*_paused(queue.pause, job), *_waits(queue, facts.claimers(view), job)]


def _paused(pause: PauseFacts | None, job: Job) -> list[str]:
    if pause is None:
        return []
    return [f"queue {job.queue!r} is paused since {_moment(pause.since)} by {pause.by}: {pause.reason}"]


def _waits(queue: QueueFacts, claimers: ClaimerFacts, job: Job) -> list[str]:
    nobody = _nobody(claimers, job)
    wait = (job.run_at - queue.now).total_seconds()
    if wait > 0:
        again = f"attempt {job.failures + 1} of {job.max_attempts}" if job.failures else "scheduled"
        return [f"{again} in {_span(wait)}, at {_moment(job.run_at)}", *nobody]
    running = _running(queue.running)
    if queue.ahead:
        ahead = "1 job" if queue.ahead == 1 else f"{_count(queue.ahead)} jobs"
        goes = "has a higher priority or is older" if queue.ahead == 1 else "have a higher priority or are older"
        return [*nobody, f"queued behind {ahead} of queue {job.queue!r} that {goes}; {running}"]
    if nobody:
        return nobody
    workers = "1 worker handles" if claimers.of_kind == 1 else f"{claimers.of_kind} workers handle"
    return [f"next in queue {job.queue!r}; {workers} kind {job.kind!r}, once there is room; {running}"]


def _count(ahead: int) -> str:
    return f"more than {MOST_COUNTED}" if ahead >= MOST_COUNTED else str(ahead)


def _running(jobs: int) -> str:
    if jobs == 1:
        return "1 job of it is running"
    return f"{jobs} jobs of it are running" if jobs else "no worker holds a job of it"


def _nobody(claimers: ClaimerFacts, job: Job) -> list[str]:
    """That no worker will take it, if that is so."""
    if not claimers.of_queue:
        return [f'no worker subscribes to queue "{job.queue}"']
    if not claimers.of_kind:
        return [f'no worker of queue "{job.queue}" handles kind "{job.kind}"']
    return []


def _came_back(last: Event) -> list[str]:
    """How a job that was not just created came to wait."""
    match last:
        case Failed():
            return [f"attempt {last.attempt} failed, at {_moment(last.at)}: {last.error.message}"]
        case HeartbeatMissed():
            since = _moment(last.last_heartbeat)
            return [f"attempt {last.attempt} was lost: no heartbeat from worker {last.worker!r} since {since}"]
        case Released():
            return [f"worker {last.worker!r} gave it back, at {_moment(last.at)}: {last.reason}"]
        case Requeued():
            steps = "without its recorded steps" if last.afresh else "with its recorded steps"
            return [f"requeued by {last.by} {steps}, at {_moment(last.at)}: {last.reason}"]
    return []


def _held(facts: Facts, job: Job) -> list[str]:
    lease = facts.lease(job.id)
    if lease is None:
        return ["its worker has just ended it; look again"]
    silent = _span((lease.now - lease.heartbeat_at).total_seconds())
    left = (lease.expires_at - lease.now).total_seconds()
    due = f"the lease ends in {_span(left)}" if left > 0 else "rescue due"
    reasons = [f"attempt {job.attempt} runs on worker {lease.worker!r}, last beat {silent} ago, {due}"]
    if job.time_limit is not None and job.started_at is not None:
        over = (lease.now - job.started_at - timedelta(seconds=job.time_limit)).total_seconds()
        if over > 0:
            reasons.append(
                f"{_span(over)} past its time limit of {_span(job.time_limit)}; its worker has not stopped it"
            )
    return reasons


def _asked_to_stop(last: Event) -> list[str]:
    if not isinstance(last, CancelRequested):
        return []
    return [f"{last.by} asked to stop it, at {_moment(last.at)}: {last.reason}; its worker has not answered yet"]


def _said(job: Job) -> list[str]:
    return [f"at {job.progress:.0%}, {job.message or job.step}"] if job.message or job.step else []


def _final(job: Job) -> str:
    """Why a failed job is not tried again."""
    if job.failures < job.max_attempts:
        return f"its handler gave up, with {job.failures} of {job.max_attempts} attempts used"
    return f"{_attempts(job)} failed, and no more are allowed"


def _attempts(job: Job) -> str:
    return "1 attempt" if job.failures == 1 else f"{job.failures} attempts"


def _error(job: Job) -> str:
    return job.error.message if job.error else "no reason was given"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
