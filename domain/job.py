"""A job: what its events fold to, and what it decides when asked.

Decisions return the events to record, or refuse; they change nothing. `evolve` applies a recorded event and has no
rules, so that a rule tightened tomorrow leaves yesterday readable.
"""

from datetime import UTC, datetime, timedelta
from typing import Literal, Self, TypeAlias, assert_never
from uuid import UUID

from msgspec import UNSET, Raw, Struct, UnsetType, field

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
from domain.refusals import Conflict, JobFinished, LeaseLost
from domain.retry import RetryPolicy

Status: TypeAlias = Literal["queued", "running", "cancelling", "completed", "failed", "cancelled"]
FINISHED: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})
HELD: frozenset[Status] = frozenset({"running", "cancelling"})
_NEVER = datetime.min.replace(tzinfo=UTC)

LastWord: TypeAlias = Completed | Failed | Released | Cancelled | HeartbeatMissed


class Cause(Struct, frozen=True, gc=False):
    """Who asked (the actor), when (the database's clock, UTC), and in which W3C trace."""

    at: datetime
    by: str
    trace: str | None = None


class Attempt(Struct, gc=False):
    """One try: who made it, how it recorded outputs, handles and files, its latest progress, and what it said last."""

    worker: str
    recorded: dict[tuple[str, str], Progressed] = field(default_factory=dict)
    progressed: Progressed | None = None
    last_word: LastWord | None = None


class Job(Struct, kw_only=True, gc=False):
    """The state of one job at `version`; version 0 is a job nobody has asked for yet."""

    id: UUID
    version: int = 0
    namespace: str = "default"
    kind: str = ""
    queue: str = "default"
    priority: int = 0
    input: Raw = Raw(b"null")
    labels: dict[str, str] | None = None
    run_at: datetime = _NEVER
    max_attempts: int = 1
    retry: RetryPolicy = RetryPolicy()
    heartbeat_timeout: float = 30.0
    time_limit: float | None = None
    trace: str | None = None
    status: Status = "queued"
    attempt: int = 0
    failures: int = 0
    reached: float = 0.0
    step: str | None = None
    message: str | None = None
    worker: str | None = None
    result: Raw | None = None
    error: JobError | None = None
    steps: dict[str, Raw] = field(default_factory=dict)
    handles: dict[str, Raw] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    attempts: dict[int, Attempt] = field(default_factory=dict)
    created_at: datetime = _NEVER
    updated_at: datetime = _NEVER
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @classmethod
    def fold(cls, id: UUID, events: list[Event]) -> Self:
        """The job that `events`, its stream from version 1, tell of."""
        job = cls(id=id)
        for event in events:
            evolve(job, event)
        return job

    @property
    def progress(self) -> float:
        """0..1; a completed job is all done, whatever it last said."""
        return 1.0 if self.status == "completed" else self.reached

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    @property
    def held(self) -> bool:
        """A worker has a lease on it."""
        return self.status in HELD

    def start(self, worker: str, cause: Cause) -> list[Event]:
        """A worker claims the job. Refuses one that is not queued, or not due."""
        if self.finished:
            raise JobFinished(self.id, self.status, self.finished_at)
        if self.status != "queued":
            raise Conflict(f"job {self.id} is {self.status}; only a queued job can be claimed")
        at = self._at(cause)
        if self.run_at > at:
            raise Conflict(f"job {self.id} is not due before {self.run_at.isoformat()}")
        return [Started(attempt=self.attempt + 1, worker=worker, at=at, by=cause.by, trace=self._trace(cause))]

    def must_hold(self, attempt: int, worker: str) -> None:
        """Refuses a worker that does not hold this attempt, or no longer."""
        made_by = self.attempts[attempt].worker if attempt in self.attempts else None
        if attempt != self.attempt or worker != made_by:
            raise LeaseLost(self.id, attempt, worker, self._holder())
        if self.finished:
            raise JobFinished(self.id, self.status, self.finished_at)
        if not self.held:
            raise LeaseLost(self.id, attempt, worker, self._holder())

    def progressed(
        self,
        attempt: int,
        worker: str,
        cause: Cause,
        *,
        progress: float | None = None,
        step: str | None = None,
        message: str | None = None,
        output: Raw | UnsetType = UNSET,
        artifact: Artifact | None = None,
        handle: Raw | UnsetType = UNSET,
    ) -> list[Event]:
        """The attempt moved on; records nothing when that is already recorded.

        Refuses a worker without the lease, and a second, different output for a step.
        """
        event = Progressed(
            attempt=attempt,
            progress=max(self.reached, progress or 0.0),
            step=step,
            message=message,
            output=output,
            artifact=artifact,
            handle=handle,
            at=self._at(cause),
            by=cause.by,
            trace=self._trace(cause),
        )
        if self._repeats_progress(worker, event) and not self._rises(attempt, progress):
            return []
        self.must_hold(attempt, worker)
        if output is not UNSET and step in self.steps and self.steps[step] != output:
            raise Conflict(f"step {step!r} of job {self.id} is already recorded with another output")
        if self._says_nothing_new(event):
            return []
        return [event]

    def complete(self, attempt: int, worker: str, result: Raw, cause: Cause) -> list[Event]:
        """The attempt succeeded."""
        match self._last_word(attempt, worker):
            case Completed(result=recorded) if recorded == result:
                return []
        self.must_hold(attempt, worker)
        return [Completed(attempt=attempt, result=result, at=self._at(cause), by=cause.by, trace=self._trace(cause))]

    def fail(
        self,
        attempt: int,
        worker: str,
        error: JobError,
        cause: Cause,
        *,
        jitter: float,
        final: bool = False,
        retry_in: float | None = None,
    ) -> list[Event]:
        """The attempt failed: tried again while attempts remain, unless `final`; `retry_in` seconds if asked for."""
        match self._last_word(attempt, worker):
            case Failed(error=recorded) if recorded == error:
                return []
        self.must_hold(attempt, worker)
        at = self._at(cause)
        retry_at = None if final else self._retry_at(at, jitter, retry_in)
        if self.status == "cancelling":
            retry_at = at
        failed = Failed(attempt=attempt, error=error, retry_at=retry_at, at=at, by=cause.by, trace=self._trace(cause))
        return [failed, *self._cancelled_if_asked(cause)]

    def release(self, attempt: int, worker: str, reason: str, cause: Cause) -> list[Event]:
        """The worker gives the job back unharmed; it costs no attempt."""
        match self._last_word(attempt, worker):
            case Released():
                return []
        self.must_hold(attempt, worker)
        released = Released(
            attempt=attempt,
            worker=worker,
            reason=reason,
            at=self._at(cause),
            by=cause.by,
            trace=self._trace(cause),
        )
        return [released, *self._cancelled_if_asked(cause)]

    def acknowledge_cancel(self, attempt: int, worker: str, reason: str | None, cause: Cause) -> list[Event]:
        """The worker stopped because it was asked to. Refuses when nobody asked."""
        match self._last_word(attempt, worker):
            case Cancelled():
                return []
        self.must_hold(attempt, worker)
        if self.status != "cancelling":
            raise Conflict(f"nobody asked to cancel job {self.id}; report it as failed or released, or cancel it first")
        return [self._cancelled(reason or self._cancel_reason(), cause)]

    def cancel(self, reason: str, cause: Cause) -> list[Event]:
        """Somebody wants the job stopped: at once when queued, by its worker when running."""
        match self.status:
            case "queued":
                return [self._cancelled(reason, cause)]
            case "running":
                return [CancelRequested(reason=reason, at=self._at(cause), by=cause.by, trace=self._trace(cause))]
            case "cancelling" | "cancelled":
                return []
            case "completed" | "failed":
                raise JobFinished(self.id, self.status, self.finished_at)

    def miss_heartbeat(self, attempt: int, last_heartbeat: datetime, cause: Cause, *, jitter: float) -> list[Event]:
        """The lease of `attempt` ran out. Refuses when the attempt has meanwhile ended."""
        if self.finished:
            raise JobFinished(self.id, self.status, self.finished_at)
        if attempt != self.attempt or not self.held or self.worker is None:
            raise Conflict(f"attempt {attempt} of job {self.id} has ended; there is nothing to rescue")
        at = self._at(cause)
        retry_at = None if self.status == "cancelling" else self._retry_at(at, jitter, None)
        missed = HeartbeatMissed(
            attempt=attempt,
            worker=self.worker,
            last_heartbeat=last_heartbeat,
            retry_at=retry_at,
            at=at,
            by=cause.by,
            trace=self._trace(cause),
        )
        if self.status == "cancelling":
            return [missed, *self._cancelled_if_asked(cause)]
        if retry_at is not None:
            return [missed]
        return [
            missed,
            Failed(
                attempt=attempt,
                error=_heartbeat_missed(missed),
                retry_at=None,
                at=at,
                by=cause.by,
                trace=self._trace(cause),
            ),
        ]

    def requeue(self, reason: str, cause: Cause, *, afresh: bool = False) -> list[Event]:
        """An operator sends a finished job round again. Refuses one that is not finished."""
        if not self.finished:
            raise Conflict(f"job {self.id} is {self.status}; only a finished job can be retried")
        return [Requeued(reason=reason, afresh=afresh, at=self._at(cause), by=cause.by, trace=self._trace(cause))]

    def _at(self, cause: Cause) -> datetime:
        """Time never runs backwards within a stream."""
        return cause.at if self.version == 0 else max(cause.at, self.updated_at)

    def _trace(self, cause: Cause) -> str | None:
        return cause.trace or self.trace

    def _retry_at(self, at: datetime, jitter: float, retry_in: float | None) -> datetime | None:
        failures = self.failures + 1
        if failures >= self.max_attempts:
            return None
        delay = self.retry.delay(failures, jitter) if retry_in is None else retry_in
        return at + timedelta(seconds=delay)

    def _holder(self) -> str:
        if self.held:
            return f"attempt {self.attempt} is held by {self.worker!r}"
        return f"the job is {self.status}, after {self.attempt} attempts"

    def _last_word(self, attempt: int, worker: str) -> LastWord | None:
        """What `worker` is on record as having said last in `attempt`."""
        made = self.attempts.get(attempt)
        return made.last_word if made and made.worker == worker else None

    def _repeats_progress(self, worker: str, event: Progressed) -> bool:
        made = self.attempts.get(event.attempt)
        if made is None or made.worker != worker:
            return False
        said = [made.progressed, *(made.recorded.get(what) for what in _recordings(event))]
        return any(earlier is not None and _content(earlier) == _content(event) for earlier in said)

    def _rises(self, attempt: int, progress: float | None) -> bool:
        """A fraction above what the attempt has on record; of no matter to an attempt that has ended."""
        made = self.attempts[attempt]
        before = made.progressed.progress if made.progressed else 0.0
        return progress is not None and progress > before

    def _says_nothing_new(self, event: Progressed) -> bool:
        return (
            event.progress == self.reached
            and (event.step in (None, self.step) or event.output is not UNSET or event.handle is not UNSET)
            and event.message in (None, self.message)
            and (event.handle is UNSET or self.handles.get(event.step or "") == event.handle)
            and (event.output is UNSET or event.step in self.steps)
            and (event.artifact is None or self.artifacts.get(event.artifact.name) == event.artifact)
        )

    def _cancelled_if_asked(self, cause: Cause) -> list[Event]:
        return [self._cancelled(self._cancel_reason(), cause)] if self.status == "cancelling" else []

    def _cancelled(self, reason: str, cause: Cause) -> Cancelled:
        return Cancelled(reason=reason, at=self._at(cause), by=cause.by, trace=self._trace(cause))

    def _cancel_reason(self) -> str:
        return self.error.message if self.error else "cancelled"


def evolve(job: Job, event: Event) -> None:
    """Apply a recorded event to `job`. Never refuses: history is not up for debate."""
    job.version += 1
    job.updated_at = event.at
    match event:
        case Created():
            _created(job, event)
        case Started():
            job.status, job.worker, job.attempt = "running", event.worker, event.attempt
            job.started_at = event.at
            job.attempts[event.attempt] = Attempt(event.worker)
        case Completed():
            job.result, job.error = event.result, None
            _finish(job, "completed", event)
            _said(job, event.attempt, event)
        case Progressed():
            _progressed(job, event)
        case Failed():
            job.error = event.error
            if not _was_missed(job, event.attempt):
                job.failures += 1
                _said(job, event.attempt, event)
            if event.retry_at is None:
                _finish(job, "failed", event)
            else:
                _wait(job, event.retry_at)
        case HeartbeatMissed():
            job.failures += 1
            job.error = _heartbeat_missed(event)
            _said(job, event.attempt, event)
            if event.retry_at is not None:
                _wait(job, event.retry_at)
        case Released():
            _said(job, event.attempt, event)
            _wait(job, job.run_at)
        case CancelRequested():
            job.status = "cancelling"
            job.error = JobError(type="cancelled", message=event.reason)
        case Cancelled():
            if job.held and not _was_missed(job, job.attempt):
                _said(job, job.attempt, event)
            job.error = JobError(type="cancelled", message=event.reason)
            _finish(job, "cancelled", event)
        case Requeued():
            _requeued(job, event)
        case _:
            assert_never(event)


def _created(job: Job, event: Created) -> None:
    job.namespace, job.kind, job.queue, job.priority = (
        event.namespace,
        event.kind,
        event.queue,
        event.priority,
    )
    job.input, job.labels, job.run_at = event.input, event.labels, event.run_at
    job.max_attempts, job.retry = event.max_attempts, event.retry
    job.heartbeat_timeout, job.time_limit = event.heartbeat_timeout, event.time_limit
    job.trace, job.created_at = event.trace, event.at


def _progressed(job: Job, event: Progressed) -> None:
    job.reached = event.progress
    job.step, job.message = event.step or job.step, event.message or job.message
    if event.step is not None and event.output is not UNSET:
        job.steps[event.step] = event.output
    if event.step is not None and event.handle is not UNSET:
        job.handles[event.step] = event.handle
    if event.artifact is not None:
        job.artifacts[event.artifact.name] = event.artifact
    if event.attempt in job.attempts:
        made = job.attempts[event.attempt]
        made.progressed = event
        made.recorded.update(dict.fromkeys(_recordings(event), event))


def _requeued(job: Job, event: Requeued) -> None:
    job.failures, job.result, job.error = 0, None, None
    job.started_at, job.finished_at = None, None
    if event.afresh:
        job.reached, job.step, job.message = 0.0, None, None
        job.steps, job.handles, job.artifacts = {}, {}, {}
    _wait(job, event.at)


def _wait(job: Job, run_at: datetime) -> None:
    job.status, job.worker, job.run_at = "queued", None, run_at


def _finish(job: Job, status: Status, event: Event) -> None:
    job.status, job.finished_at = status, event.at


def _said(job: Job, attempt: int, word: LastWord) -> None:
    if attempt in job.attempts:
        job.attempts[attempt].last_word = word


def _was_missed(job: Job, attempt: int) -> bool:
    return attempt in job.attempts and isinstance(job.attempts[attempt].last_word, HeartbeatMissed)


def _heartbeat_missed(event: HeartbeatMissed) -> JobError:
    return JobError(
        type="heartbeat-missed",
        message=f"no heartbeat from worker {event.worker} since {event.last_heartbeat.isoformat()}",
    )


def _recordings(event: Progressed) -> list[tuple[str, str]]:
    """What is on record from it, by kind and name."""
    found = {"output": event.output, "handle": event.handle}
    named = [(kind, event.step) for kind, value in found.items() if value is not UNSET and event.step is not None]
    return [*named, ("artifact", event.artifact.name)] if event.artifact is not None else named


def _content(event: Progressed) -> tuple[object, ...]:
    """What a progress report says, apart from how far, when and by whom."""
    return (event.step, event.message, event.output, event.artifact, event.handle)
