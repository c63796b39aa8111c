"""What workers say of the jobs they hold: progress, ends, and heartbeats."""

import asyncio
import random
from collections.abc import Awaitable, Collection, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar, Protocol, TypeAlias
from uuid import UUID

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from application.archives import Archive
from application.batcher import Batcher
from application.claims import ClaimedJob, worker_actor
from application.errors import ApplicationError, FieldError, Invalid
from application.jobs import DAY, Jobs, Name, Reason, absent, unknown
from application.ledger import Batch
from application.payload import Payload, check_size
from domain.events import Artifact, Event, JobError
from domain.job import Cause, Job
from domain.refusals import Conflict, JobFinished, LeaseLost


class Report(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", gc=False):
    """What a worker says of one attempt it holds."""

    job_id: UUID
    attempt: Annotated[int, Meta(ge=1, le=2**31 - 1)]


class Heartbeat(Report, frozen=True, kw_only=True, tag="heartbeat"):
    """The worker still works on it. Extends the lease; records no event."""


class ProgressReport(Report, frozen=True, kw_only=True, tag="progressed"):
    """The work moved on. `output` records the result of `step`, and `handle` an outside system's id for it."""

    progress: Annotated[float, Meta(ge=0, le=1)] | None = None
    step: Name | None = None
    message: Annotated[str, Meta(max_length=2000)] | None = None
    output: Payload | UnsetType = UNSET
    handle: Payload | UnsetType = UNSET

    def decide(self, job: Job, worker: str, cause: Cause) -> list[Event]:
        if self.step is None and (self.output is not UNSET or self.handle is not UNSET):
            raise Invalid(FieldError("step", "is needed to record an output or a handle"))
        for field, payload in (("output", self.output), ("handle", self.handle)):
            if payload is not UNSET:
                check_size(bytes(payload), field)
        return job.progressed(
            self.attempt,
            worker,
            cause,
            progress=self.progress,
            step=self.step,
            message=self.message,
            output=self.output,
            handle=self.handle,
        )


class CompletionReport(Report, frozen=True, kw_only=True, tag="completed"):
    """The attempt succeeded."""

    result: Payload | UnsetType = UNSET

    def decide(self, job: Job, worker: str, cause: Cause) -> list[Event]:
        result = Raw(b"null") if self.result is UNSET else self.result
        check_size(bytes(result), "result")
        return job.complete(self.attempt, worker, result, cause)


class ReportedError(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What went wrong; `detail` is any JSON."""

    type: Name
    message: Annotated[str, Meta(max_length=10_000)]
    detail: Payload | UnsetType = UNSET


class FailureReport(Report, frozen=True, kw_only=True, tag="failed"):
    """The attempt failed; `final` means that trying again cannot help, `retry_in` is in seconds."""

    error: ReportedError
    final: bool = False
    retry_in: Annotated[float, Meta(ge=0, le=30 * DAY)] | None = None

    def decide(self, job: Job, worker: str, cause: Cause) -> list[Event]:
        detail = self.error.detail
        if detail is not UNSET:
            check_size(bytes(detail), "error.detail")
        error = JobError(type=self.error.type, message=self.error.message, detail=detail)
        return job.fail(
            self.attempt,
            worker,
            error,
            cause,
            jitter=random.random(),  # noqa: S311  spreads retries, guards nothing
            final=self.final,
            retry_in=self.retry_in,
        )


class ReleaseReport(Report, frozen=True, kw_only=True, tag="released"):
    """The worker gives the job back unharmed; it costs no attempt."""

    reason: Reason

    def decide(self, job: Job, worker: str, cause: Cause) -> list[Event]:
        return job.release(self.attempt, worker, self.reason, cause)


class CancelReport(Report, frozen=True, kw_only=True, tag="cancelled"):
    """The worker stopped because it was asked to."""

    reason: Reason | None = None

    def decide(self, job: Job, worker: str, cause: Cause) -> list[Event]:
        return job.acknowledge_cancel(self.attempt, worker, self.reason, cause)


class ArtifactReport(Report, frozen=True, kw_only=True, tag="artifact"):
    """A file was stored; only the service itself says this, once it has hashed the content."""

    artifact: Artifact

    def decide(self, job: Job, worker: str, cause: Cause) -> list[Event]:
        return job.progressed(self.attempt, worker, cause, artifact=self.artifact)


Decided: TypeAlias = ProgressReport | CompletionReport | FailureReport | ReleaseReport | CancelReport | ArtifactReport
AnyReport: TypeAlias = Heartbeat | ProgressReport | CompletionReport | FailureReport | ReleaseReport | CancelReport


class Reported(Struct, frozen=True, kw_only=True, gc=False):
    """The answer to one report: the job's version after it, and whether its worker is asked to stop."""

    version: int
    cancel_requested: bool


class Say(Struct, frozen=True, kw_only=True, gc=False):
    """The command behind a report; one that is `untouched_since` is refused once its worker was heard of again."""

    report: Decided
    worker: str
    trace: str | None = None
    by: str | None = None
    namespace: str | None = None
    untouched_since: datetime | None = None
    idempotency_key: None = None
    quota: None = None
    weight: int = 1

    @property
    def job_ids(self) -> Sequence[UUID]:
        return (self.report.job_id,)

    def run(self, batch: Batch) -> Reported:
        job = _seen(batch.job(self.report.job_id), self.namespace)
        if self.untouched_since is not None and batch.last_heard(job) != self.untouched_since:
            raise Conflict(f"job {job.id} stays where it is: its worker was heard of since it took it")
        cause = Cause(batch.now, self.by or worker_actor(self.worker), self.trace)
        batch.record(job, self.report.decide(job, self.worker, cause))
        return Reported(version=job.version, cancel_requested=job.status == "cancelling")


class Holding(Struct, frozen=True):
    """An attempt that is held: its heartbeat timeout in seconds, and the job's files by name."""

    heartbeat_timeout: float
    artifacts: dict[str, Artifact]


class Hold(Struct, frozen=True, kw_only=True):
    """The command of a worker that sets out to do something for its attempt. Extends the lease; records no event."""

    job_id: UUID
    attempt: int
    worker: str
    namespace: str | None = None
    idempotency_key: None = None
    quota: None = None
    weight: int = 1

    @property
    def job_ids(self) -> Sequence[UUID]:
        return (self.job_id,)

    def run(self, batch: Batch) -> Holding:
        job = _seen(batch.job(self.job_id), self.namespace)
        job.must_hold(self.attempt, self.worker)
        batch.record(job, [])
        return Holding(job.heartbeat_timeout, dict(job.artifacts))


class Beat(Struct, frozen=True, gc=False):
    """A heartbeat of `worker` for its attempt at a job; it knows those of `namespace`, if one is given."""

    job_id: UUID
    attempt: int
    worker: str
    namespace: str | None = None


class Lease(Struct, frozen=True, kw_only=True, gc=False):
    """Where a job stands when a heartbeat comes: its lease was extended if `extended`."""

    extended: bool
    version: int
    status: str
    attempt: int
    worker: str | None


class Leases(Protocol):
    """The port to leases. Calls block; run them on a thread."""

    def extend(self, beats: Sequence[Beat]) -> list[Lease | None]:
        """Extend the leases that are still held by these attempts; None for a job that the worker does not know."""
        ...

    def archives(self, ids: Collection[UUID]) -> dict[UUID, Archive]:
        """The archives that jobs of these ids went to, if they did."""
        ...


class Reports:
    """Takes what workers say, many at a time."""

    most: ClassVar[int] = 1000

    def __init__(self, jobs: Jobs, leases: Leases) -> None:
        self._jobs = jobs
        self._beats: Batcher[Beat, Reported] = Batcher(lambda beats: _beaten(leases, beats), name="heartbeats")

    async def say(
        self,
        worker: str,
        report: AnyReport | ArtifactReport,
        trace: str | None = None,
        by: str | None = None,
        namespace: str | None = None,
    ) -> Reported:
        """Record one report. Raises LeaseLost, JobFinished, Conflict, NotFound, Invalid or TooLarge."""
        (answer,) = await self.say_all(worker, [report], trace, by, namespace)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def say_all(
        self,
        worker: str,
        reports: Sequence[AnyReport | ArtifactReport],
        trace: str | None = None,
        by: str | None = None,
        namespace: str | None = None,
    ) -> list[Reported | Exception]:
        """For each report its answer, or the exception that says why not; in order, each on its own merits.

        Heartbeats are one statement, and the others one transaction. `by` is the actor, where it is not the worker. A
        job of another than the namespace, if one is given, is as if there were none.
        """
        if namespace is not None and (foreign := await self._foreign(reports, namespace)):
            mine = [report for report in reports if report.job_id not in foreign]
            answers = iter(await self._say_all(worker, mine, trace, by, namespace) if mine else [])
            return [foreign[r.job_id] if r.job_id in foreign else next(answers) for r in reports]
        return await self._say_all(worker, reports, trace, by, namespace)

    async def _foreign(
        self, reports: Sequence[AnyReport | ArtifactReport], namespace: str
    ) -> dict[UUID, ApplicationError]:
        """Why jobs are as if there were none; found before a batch would lock them. Heartbeats look by themselves."""
        ids = list({report.job_id for report in reports if not isinstance(report, Heartbeat)})
        found = await asyncio.gather(*(self._jobs.check_seen([id], namespace) for id in ids), return_exceptions=True)
        return {id: error for id, error in zip(ids, found, strict=True) if isinstance(error, ApplicationError)}

    async def _say_all(
        self,
        worker: str,
        reports: Sequence[AnyReport | ArtifactReport],
        trace: str | None,
        by: str | None,
        namespace: str | None,
    ) -> list[Reported | Exception]:
        beats = [Beat(r.job_id, r.attempt, worker, namespace) for r in reports if isinstance(r, Heartbeat)]
        said = [
            Say(report=r, worker=worker, trace=trace, by=by, namespace=namespace)
            for r in reports
            if not isinstance(r, Heartbeat)
        ]
        if not beats:
            return await _each(self._jobs.execute_all(said), len(said))
        if not said:
            return await _each(self._beats.submit_all(beats), len(beats))
        beating = asyncio.ensure_future(_each(self._beats.submit_all(beats), len(beats)))
        if not {beat.job_id for beat in beats}.isdisjoint(one.report.job_id for one in said):
            await beating  # side by side, a job's heartbeat might come after its end
        recorded, beaten = await asyncio.gather(_each(self._jobs.execute_all(said), len(said)), beating)
        answers = {True: iter(beaten), False: iter(recorded)}
        return [next(answers[isinstance(report, Heartbeat)]) for report in reports]

    async def hold(self, worker: str, job_id: UUID, attempt: int, namespace: str | None = None) -> Holding:
        """What `worker` holds. Raises NotFound, LeaseLost or JobFinished when it does not."""
        await self._jobs.check_seen([job_id], namespace)
        command = Hold(job_id=job_id, attempt=attempt, worker=worker, namespace=namespace)
        holding: Holding = await self._jobs.execute(command)
        return holding

    async def release(self, worker: str, job: ClaimedJob, reason: str) -> Reported:
        """Give a job back that its worker has just taken, and never heard of.

        Raises Conflict when the worker was heard of since: whoever repeats a claim, at any server, keeps what it holds.
        """
        report = ReleaseReport(job_id=job.id, attempt=job.attempt, reason=reason)
        command = Say(report=report, worker=worker, trace=job.trace, untouched_since=job.taken_at)
        (answer,) = await _each(self._jobs.execute_all([command]), 1)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self._beats.close()


def _seen(job: Job, namespace: str | None) -> Job:
    """The job, for a worker that may be limited to a namespace. Raises NotFound."""
    if namespace not in (None, job.namespace):
        raise unknown(job.id)
    return job


async def _each(answers: Awaitable[list[Any]], count: int) -> list[Reported | Exception]:
    """The answers; what all of them failed with, for each."""
    try:
        return await answers
    except ApplicationError as error:
        return [error] * count


def _beaten(leases: Leases, beats: Sequence[Beat]) -> list[Reported | Exception]:
    held = leases.extend(beats)
    missing = {beat.job_id for beat, lease in zip(beats, held, strict=True) if lease is None}
    archives = leases.archives(missing) if missing else {}
    return [
        absent(beat.job_id, archives.get(beat.job_id)) if lease is None else _judge(beat, lease)
        for beat, lease in zip(beats, held, strict=True)
    ]


def _judge(beat: Beat, lease: Lease) -> Reported | Exception:
    if lease.extended:
        return Reported(version=lease.version, cancel_requested=lease.status == "cancelling")
    finished = lease.status in ("completed", "failed", "cancelled")
    if finished and (lease.attempt, lease.worker) == (beat.attempt, beat.worker):
        return JobFinished(beat.job_id, lease.status, None)
    return LeaseLost(beat.job_id, beat.attempt, beat.worker, f"the job is {lease.status}, attempt {lease.attempt}")
