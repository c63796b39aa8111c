"""Asking for jobs, changing their course, and looking at them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Protocol, Self, TypeAlias
from uuid import UUID

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, structs

from application.archives import Archive, Gone
from application.batcher import Batcher
from application.commands import Command, execute
from application.errors import FieldError, IdempotencyMismatch, Invalid, NotFound, PreconditionFailed, RateLimited
from application.ledger import Answered, Batch, IdempotencyKey, Ledger, Quota
from application.payload import Payload
from application.readers import Readers
from domain.events import Artifact, Created, JobError
from domain.job import Cause, Job
from domain.retry import RetryPolicy

DEFAULT = "default"
"""The namespace of a job whose creator is limited to none."""
DAY = 24 * 3600.0
SETTLING = timedelta(seconds=5)
"""An event's time is taken just before its commit: what happened in the last moments may still be on its way."""
QUOTA_RETRY_SECONDS = 1
"""After which a key with a quota may ask again: nobody knows when a job of its own will finish."""
READ_PATIENCE = 2.0
"""Seconds after which a read says that the database is away."""
LONGEST_LABEL_NAME = 100
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200)]
NO_DOTS = r"^([^.\u0000][^\u0000]*|\.[^.\u0000][^\u0000]*|\.\.[^\u0000]+)$"
QueueName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200, pattern=NO_DOTS)]
"""Not `.` and `..`: browsers and proxies take these out of an address, however they are written there."""
Reason: TypeAlias = Annotated[str, Meta(min_length=1, max_length=2000)]
Moment: TypeAlias = Annotated[datetime, Meta(tz=True)]
Due: TypeAlias = Annotated[
    datetime,
    Meta(
        tz=True,
        description="In the years 1970 to 2999; what is past is due at once.",
        extra_json_schema={"pattern": "^(19[7-9][0-9]|2[0-9]{3})-"},
    ),
]


class Retry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to wait before another attempt: `initial` and `max` in seconds, `factor` per failure."""

    initial: Annotated[float, Meta(ge=0, le=30 * DAY)] = 1.0
    factor: Annotated[float, Meta(ge=1, le=1000)] = 2.0
    max: Annotated[float, Meta(ge=0, le=30 * DAY)] = 3600.0


class NewJob(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client asks for. Durations are in seconds; a higher priority goes first."""

    kind: Name
    input: Payload
    queue: QueueName = "default"
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    run_at: Due | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] = 3
    retry: Retry | None = None
    heartbeat_timeout: Annotated[float, Meta(ge=0.1, le=DAY)] = 30.0
    time_limit: Annotated[float, Meta(gt=0, le=30 * DAY)] | None = None
    labels: (
        Annotated[
            dict[
                Annotated[str, Meta(min_length=1, max_length=LONGEST_LABEL_NAME)], Annotated[str, Meta(max_length=500)]
            ],
            Meta(max_length=64),
        ]
        | None
    ) = None

    def created(self, namespace: str, cause: Cause, key: str | None) -> Created:
        retry = self.retry or Retry()
        return Created(
            namespace=namespace,
            kind=self.kind,
            queue=self.queue,
            priority=self.priority,
            input=self.input,
            run_at=self.run_at.astimezone(UTC) if self.run_at else cause.at,
            max_attempts=self.max_attempts,
            retry=RetryPolicy(initial=retry.initial, factor=retry.factor, max=retry.max),
            heartbeat_timeout=self.heartbeat_timeout,
            time_limit=self.time_limit,
            labels=self.labels or None,
            idempotency_key=key,
            at=cause.at,
            by=cause.by,
            trace=cause.trace,
        )


class Links(Struct, frozen=True):
    self: str
    events: str
    why: str

    @classmethod
    def to(cls, id: UUID) -> Self:
        here = f"/v1/jobs/{id}"
        return cls(self=here, events=f"{here}/events", why=f"{here}/why")


class ArtifactView(Struct, frozen=True, kw_only=True):
    """A file of a job. `url` is a signed link to its content, good for a day or two; a job as it was hands out none."""

    name: str
    sha256: str
    size: int
    media_type: str
    url: str | UnsetType = UNSET

    @classmethod
    def of(cls, artifact: Artifact) -> Self:
        return cls(name=artifact.name, sha256=artifact.sha256, size=artifact.size, media_type=artifact.media_type)


class JobView(Struct, frozen=True, kw_only=True):
    """A job as it is shown. `progress` is 0..1; `worker` is who holds the job, or last did once it has ended.

    `settled` is there under `as_of` only: false while events of that moment may still be on their way.
    """

    id: UUID
    namespace: str
    kind: str
    queue: str
    status: Literal["queued", "running", "cancelling", "completed", "failed", "cancelled"]
    progress: float
    step: str | None
    message: str | None
    attempt: int
    max_attempts: int
    worker: str | None
    input: Raw
    result: Raw | None
    error: JobError | None
    labels: dict[str, str]
    priority: int
    artifacts: list[ArtifactView]
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    run_at: datetime
    heartbeat_at: datetime | None
    version: int
    position: str
    links: Links
    settled: bool | UnsetType = UNSET

    @classmethod
    def of(cls, job: Job, position: int, heartbeat_at: datetime | None = None) -> Self:
        """The folded `job`, whose last event is at `position`."""
        return cls(
            id=job.id,
            namespace=job.namespace,
            kind=job.kind,
            queue=job.queue,
            status=job.status,
            progress=job.progress,
            step=job.step,
            message=job.message,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            worker=job.worker,
            input=job.input,
            result=job.result,
            error=job.error,
            labels=job.labels or {},
            priority=job.priority,
            artifacts=[ArtifactView.of(artifact) for artifact in job.artifacts.values()],
            created_at=job.created_at,
            updated_at=job.updated_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            run_at=job.run_at,
            heartbeat_at=heartbeat_at,
            version=job.version,
            position=str(position),
            links=Links.to(job.id),
        )


class Asked(Struct, frozen=True, kw_only=True):
    """Who sends a command, in which trace, and the name it gave the request, if any.

    `namespace` is the one whose jobs it sees; None for all. `quota` bounds what it has in flight, if anything does.
    """

    by: str
    namespace: str | None = None
    trace: str | None = None
    key: IdempotencyKey | None = None
    quota: Quota | None = None

    def cause(self, batch: Batch) -> Cause:
        return Cause(batch.now, self.by, self.trace)


class Accepted(Struct):
    """What a command that creates or moves jobs is answered. `view` is of the one job, if it was moved just now."""

    job_ids: tuple[UUID, ...]
    position: int
    replayed: bool = False
    view: JobView | None = None

    def place(self, base: int) -> None:
        """What its positions begin with, where that was not known when they were recorded."""
        self.position |= base
        if self.view is not None:
            self.view = structs.replace(self.view, position=str(self.position))


class Create(Struct, frozen=True):
    """Create jobs, all or none. Refused as RateLimited when they are more than the quota has room for."""

    jobs: Sequence[NewJob]
    asked: Asked

    @property
    def job_ids(self) -> Sequence[UUID]:
        return ()

    @property
    def idempotency_key(self) -> IdempotencyKey | None:
        return self.asked.key

    @property
    def quota(self) -> Quota | None:
        return self.asked.quota

    @property
    def weight(self) -> int:
        return len(self.jobs)

    def run(self, batch: Batch) -> Accepted:
        if (replay := _replayed(self.asked.key, batch)) is not None:
            return replay
        cause = self.asked.cause(batch)
        key = self.asked.key.key if self.asked.key else None
        _check_room(self.asked.quota, len(self.jobs), batch)
        jobs, position = batch.new_jobs(len(self.jobs)), 0
        for job, new in zip(jobs, self.jobs, strict=True):
            position = batch.record(job, [new.created(self.asked.namespace or DEFAULT, cause, key)])
        if self.asked.quota is not None:
            batch.charge(self.asked.quota, jobs)
        return _accepted(self.asked.key, jobs, position, batch)


class Cancel(Struct, frozen=True, kw_only=True):
    """Stop a job: at once when it is queued, by its worker when it runs."""

    job_id: UUID
    reason: str
    asked: Asked
    if_match: tuple[int, ...] | None = None
    idempotency_key: None = None
    quota: None = None
    weight: int = 1

    @property
    def job_ids(self) -> Sequence[UUID]:
        return (self.job_id,)

    def run(self, batch: Batch) -> Accepted:
        job = _job(batch, self.job_id, self.asked.namespace, self.if_match)
        position = batch.record(job, job.cancel(self.reason, self.asked.cause(batch)))
        return Accepted((job.id,), position, view=JobView.of(job, position))


class Requeue(Struct, frozen=True, kw_only=True):
    """Send a finished job round again; `afresh` forgets its recorded steps. Counted by the quota, as a new one is.

    Asked for by a key without a quota, it is counted by the one that counted it before.
    """

    job_id: UUID
    reason: str
    asked: Asked
    afresh: bool = False
    if_match: tuple[int, ...] | None = None
    weight: int = 1

    @property
    def job_ids(self) -> Sequence[UUID]:
        return (self.job_id,)

    @property
    def idempotency_key(self) -> IdempotencyKey | None:
        return self.asked.key

    @property
    def quota(self) -> Quota | None:
        return self.asked.quota

    def run(self, batch: Batch) -> Accepted:
        if (replay := _replayed(self.asked.key, batch)) is not None:
            return replay
        job = _job(batch, self.job_id, self.asked.namespace, self.if_match)
        events = job.requeue(self.reason, self.asked.cause(batch), afresh=self.afresh)
        if self.asked.quota is not None:
            _check_room(self.asked.quota, 1, batch)
            batch.charge(self.asked.quota, [job])
        return _accepted(self.asked.key, [job], batch.record(job, events), batch)


MOST_LABELS = 1000
"""That a filter is looked for by; each is a condition of its own."""
Label: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[^\u0000]+:[^\u0000]*$",
        description="name:value. Where there are more colons, any of them may end the name: `a:b:c` is both the label "
        "`a` with the value `b:c` and the label `a:b` with the value `c`.",
    ),
]


def names_and_values(labels: Sequence[Label]) -> tuple[tuple[str, str], ...]:
    """Labels as a filter has them. Raises Invalid for those that can be read in too many ways."""
    read = tuple(dict.fromkeys(pair for label in labels for pair in _readings(label)))
    if len(read) > max(MOST_LABELS, len(labels)):
        raise Invalid(FieldError("label", f"can be read as {len(read)} labels, for all the colons; give fewer at once"))
    return read


def _readings(label: Label) -> Iterator[tuple[str, str]]:
    """Each name that ends before a colon, and the value after that; one that no label has, rather than none."""
    ends = [at for at, character in enumerate(label[: LONGEST_LABEL_NAME + 1]) if character == ":" and at > 0]
    return ((label[:at], label[at + 1 :]) for at in ends or [label.index(":", 1)])


class Filter(Struct, frozen=True, kw_only=True):
    """Which jobs to list: each field's values are alternatives, the fields all hold. Empty means any."""

    namespace: str | None = None
    status: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()
    queue: tuple[str, ...] = ()
    label: tuple[tuple[str, str], ...] = ()
    worker: tuple[str, ...] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None


ListedStatus: TypeAlias = Literal["queued", "running", "cancelling", "completed", "failed", "cancelled", "scheduled"]
Sort: TypeAlias = Literal["-created_at", "created_at", "-updated_at"]


class EventView(Struct, frozen=True, kw_only=True):
    """An event as it is shown: `data` holds the event's own fields, `hash` is in hex."""

    job_id: UUID
    version: int
    position: str
    type: str
    at: datetime
    by: str
    trace: str | None
    hash: str
    data: dict[str, Any]


class Views(Protocol):
    """The port to what is stored about jobs. All calls block; run them on a thread."""

    def jobs(self, ids: Sequence[UUID]) -> list[JobView | None]:
        """The jobs with these ids, None for one nobody knows."""
        ...

    def page(self, wanted: Filter, sort: Sort, limit: int, cursor: str | None) -> tuple[list[JobView], str | None]:
        """A page of jobs and the cursor of the next. Raises Invalid for a cursor that is not this list's."""
        ...

    def ids(self, wanted: Filter, without_kind: str, limit: int, cursor: str | None) -> tuple[list[UUID], str | None]:
        """A page of jobs, oldest first, by their ids only and without those of a kind; and the cursor of the next."""
        ...

    def fold(self, id: UUID, version: int | None = None) -> Job:
        """The job from its events alone, up to `version`; at version 0 when it has none."""
        ...

    def version_at(self, id: UUID, moment: datetime) -> tuple[int, datetime]:
        """The version that a job had at a moment, 0 before its creation; and the database's clock."""
        ...

    def archive_of(self, id: UUID) -> Archive | None:
        """The archive that jobs created at that time went to, if they did."""
        ...

    def position_of(self, id: UUID, version: int) -> int:
        """The position of one of a job's events; 0 when there is none."""
        ...


class Jobs:
    """Executes commands and answers questions, in batches where they can be gathered; `read` answers the others."""

    def __init__(self, ledger: Ledger, views: Views) -> None:
        self._views = views
        self._commands: Batcher[Command, Any] = Batcher(
            lambda commands: execute(ledger, commands), name="commands", weigh=lambda command: command.weight
        )
        self._reads: Batcher[UUID, JobView | None] = Batcher(
            views.jobs, name="reads", heaviest=500, patience=READ_PATIENCE
        )
        self.read = Readers(READ_PATIENCE)

    async def execute(self, command: Command) -> Any:
        """The command's answer, once it is recorded. Raises what it was refused with."""
        return await self._commands.submit(command)

    async def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """For each command its answer, or the exception that says why not; all in one batch."""
        return await self._commands.submit_all(commands)

    async def create(self, jobs: Sequence[NewJob], asked: Asked) -> Accepted:
        """Create jobs, all or none. With a key that was used before, answers the jobs it created."""
        accepted: Accepted = await self.execute(Create(jobs, asked))
        return accepted

    async def get(self, id: UUID, namespace: str | None = None) -> JobView:
        """The job as it is now. Raises NotFound, also for a job of another than the namespace, and Gone."""
        view = await self._reads.submit(id)
        if view is None or namespace not in (None, view.namespace):  # one way for both, which takes the same time
            raise absent(id, await self.read(self._views.archive_of, id))
        return view

    async def check_seen(self, ids: Sequence[UUID], namespace: str | None) -> None:
        """Raises NotFound when one is unknown, or of another than the namespace, if one is given.

        A command would lock and load another's job before it is refused, so that its time would tell that there is one.
        """
        if namespace is not None:
            for id in ids:
                await self.get(id, namespace)

    async def page(
        self, wanted: Filter, sort: Sort, limit: int, cursor: str | None
    ) -> tuple[list[JobView], str | None]:
        """A page of jobs and the cursor of the next. Raises Invalid for a cursor that is not this list's."""
        return await self.read(self._views.page, wanted, sort, limit, cursor)

    async def ids(
        self, wanted: Filter, without_kind: str, limit: int, cursor: str | None
    ) -> tuple[list[UUID], str | None]:
        """A page of jobs, oldest first, by their ids only and without those of a kind; and the cursor of the next."""
        return await self.read(self._views.ids, wanted, without_kind, limit, cursor)

    async def fold(self, id: UUID, namespace: str | None = None) -> Job:
        """The job with its recorded steps, from its events. Raises NotFound."""
        await self.get(id, namespace)
        return await self.read(self._views.fold, id)

    async def at_version(self, id: UUID, version: int, namespace: str | None = None) -> JobView:
        """The job as it was at a version, folded from the log. Raises NotFound, and Invalid beyond its versions."""
        now = await self.get(id, namespace)
        if not 1 <= version <= now.version:
            raise Invalid(FieldError("at_version", f"must be 1 to {now.version}, the versions of job {id}"))
        return await self.read(self._folded, id, version)

    async def as_of(self, id: UUID, moment: datetime, namespace: str | None = None) -> JobView:
        """The job as it was at a moment. Raises NotFound, also before its creation, and Invalid for the future."""
        await self.get(id, namespace)
        version, now = await self.read(self._views.version_at, id, moment)
        if moment > now:
            raise Invalid(FieldError("as_of", f"lies in the future; it is {now.isoformat()}"))
        if version == 0:
            raise NotFound(f"job {id} was not created before {moment.isoformat()}")
        view = await self.read(self._folded, id, version)
        return structs.replace(view, settled=now - moment > SETTLING)

    def _folded(self, id: UUID, version: int) -> JobView:
        return JobView.of(self._views.fold(id, version), self._views.position_of(id, version))

    def close(self) -> None:
        """Let what is under way end."""
        self._commands.close()
        self._reads.close()
        self.read.close()


def absent(id: UUID, archive: Archive | None) -> NotFound:
    """Why a job is not there, given the archive that ids of its time went to, if they did."""
    return unknown(id) if archive is None else Gone(f"job {id}", archive)


def unknown(id: UUID) -> NotFound:
    return NotFound(f"there is no job {id}")


def _job(batch: Batch, id: UUID, namespace: str | None, if_match: tuple[int, ...] | None) -> Job:
    job = batch.job(id)
    if namespace not in (None, job.namespace):
        raise unknown(id)
    if if_match is not None and job.version not in if_match:
        raise PreconditionFailed(f"job {id} is at version {job.version}, which If-Match does not name; look again")
    return job


def _check_room(quota: Quota | None, more: int, batch: Batch) -> None:
    """Raises RateLimited when a quota has no room for so many jobs more."""
    if quota is None or batch.in_flight(quota) + more <= quota.most:
        return
    asks = "another" if more == 1 else f"{more:,} more"
    raise RateLimited(
        f"key {quota.name!r} may have {quota.most:,} jobs in flight, and asks for {asks} beside "
        f"{batch.in_flight(quota):,} that have not finished; nothing was recorded; wait until some have",
        QUOTA_RETRY_SECONDS,
    )


def _replayed(key: IdempotencyKey | None, batch: Batch) -> Accepted | None:
    answered: Answered | None = batch.answered(key) if key else None
    if key is None or answered is None:
        return None
    if answered.fingerprint != key.fingerprint:
        raise IdempotencyMismatch(key.key)
    return Accepted(answered.job_ids, answered.position, replayed=True)


def _accepted(key: IdempotencyKey | None, jobs: Sequence[Job], position: int, batch: Batch) -> Accepted:
    ids = tuple(job.id for job in jobs)
    if key:
        batch.answer(key, ids, position)
    accepted = Accepted(ids, position, view=JobView.of(jobs[0], position) if len(jobs) == 1 else None)
    batch.when_placed(accepted.place)
    return accepted
