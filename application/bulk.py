"""Bulk: all jobs that a filter matches are moved, by a job that goes on wherever a worker of it was lost."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, structs
from msgspec.json import decode, encode

from application.errors import ApplicationError
from application.handlers import Handler, JobContext, handler_for
from application.jobs import (
    Asked,
    Cancel,
    Filter,
    Jobs,
    Label,
    ListedStatus,
    Moment,
    Name,
    NewJob,
    Reason,
    Requeue,
    Retry,
    names_and_values,
)
from application.ledger import Batch, Quota
from domain.job import Cause, Job
from domain.refusals import Refused

KIND = "bulk"
QUEUE = "bulk"
"""Of its own, so that it is not handed to workers elsewhere that take jobs of any kind."""
MOST_COUNTED = 10_000
"""A dry run counts up to here: beyond it the number costs more than it tells."""
AT_A_TIME = 500
PLACE = "place"
Operation = Literal["requeue", "cancel"]
TOUCHED: dict[Operation, tuple[ListedStatus, ...]] = {
    "requeue": ("completed", "failed", "cancelled"),
    "cancel": ("queued", "scheduled", "running"),
}


class BulkFilter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which jobs: as the parameters of the list of jobs. At least one is given."""

    status: Annotated[list[ListedStatus], Meta(min_length=1, max_length=100)] | UnsetType = UNSET
    kind: Annotated[list[Name], Meta(min_length=1, max_length=100)] | UnsetType = UNSET
    queue: Annotated[list[Name], Meta(min_length=1, max_length=100)] | UnsetType = UNSET
    label: Annotated[list[Label], Meta(min_length=1, max_length=100)] | UnsetType = UNSET
    worker: Annotated[list[Name], Meta(min_length=1, max_length=100)] | UnsetType = UNSET
    created_after: Moment | UnsetType = UNSET
    created_before: Moment | UnsetType = UNSET

    @property
    def is_empty(self) -> bool:
        return all(value is UNSET for value in structs.astuple(self))

    def check_labels(self) -> None:
        """Raises Invalid for labels that can be read in too many ways, before a job would fail of them."""
        names_and_values(self.label or ())

    def touched(self, operation: Operation, namespace: str | None) -> Filter | None:
        """The jobs that the operation can touch; None when it can touch none of these statuses."""
        status = tuple(status for status in TOUCHED[operation] if status in (self.status or TOUCHED[operation]))
        if not status:
            return None
        return Filter(
            namespace=namespace,
            status=status,
            kind=tuple(self.kind or ()),
            queue=tuple(self.queue or ()),
            label=names_and_values(self.label or ()),
            worker=tuple(self.worker or ()),
            created_after=self.created_after or None,
            created_before=self.created_before or None,
        )


class Bulk(Struct, frozen=True, kw_only=True):
    """The input of a bulk job: what to do, to which jobs, and who wants it, who is the actor of what it does.

    `quota` is that key's, if it has one: it counts what is requeued.
    """

    operation: Operation
    filter: BulkFilter
    reason: Reason
    by: str
    trace: str | None = None
    afresh: bool = False
    quota: Quota | None = None

    def new_job(self) -> NewJob:
        return NewJob(
            kind=KIND,
            queue=QUEUE,
            input=Raw(encode(self)),
            max_attempts=100,
            retry=Retry(max=60),
            heartbeat_timeout=10,
        )


class Counted(Struct, frozen=True):
    """How many jobs there are to move now; `exact` is false when there are more than were counted."""

    matching: int
    exact: bool


class Moved(Struct, frozen=True, kw_only=True):
    """The result of a bulk job: jobs looked at, jobs moved, and why others were not, counted by code."""

    matched: int = 0
    changed: int = 0
    refused: dict[str, int] = {}


class Place(Struct, frozen=True, kw_only=True):
    """How far a bulk job is: what it did, the cursor of the next page, and whether there is none."""

    moved: Moved = Moved()
    cursor: str | None = None
    ended: bool = False


class MovePage(Struct, frozen=True, kw_only=True):
    """Move a page of jobs and record the place that the bulk job has reached, all in one transaction.

    So no job is moved twice, whenever its worker is lost. Answers None, and does nothing, when it is to be cancelled.
    """

    bulk_id: UUID
    attempt: int
    bulk: Bulk
    ids: Sequence[UUID]
    before: Place
    cursor: str | None
    total: int
    idempotency_key: None = None

    @property
    def quota(self) -> Quota | None:
        return self.bulk.quota

    @property
    def job_ids(self) -> Sequence[UUID]:
        return (self.bulk_id, *self.ids)

    @property
    def weight(self) -> int:
        return len(self.ids) + 1

    def run(self, batch: Batch) -> Place | None:
        job = batch.job(self.bulk_id)
        worker = job.attempts[self.attempt].worker
        job.must_hold(self.attempt, worker)
        if job.status == "cancelling":
            return None
        place = Place(moved=self._move(batch, job), cursor=self.cursor, ended=self.cursor is None)
        matched = place.moved.matched
        events = job.progressed(
            self.attempt,
            worker,
            Cause(batch.now, f"worker:{worker}"),
            progress=share(matched, self.total),
            step=PLACE,
            message=told(matched, self.total),
            handle=Raw(encode(place)),
        )
        batch.record(job, events)
        return place

    def _move(self, batch: Batch, job: Job) -> Moved:
        asked = Asked(by=self.bulk.by, namespace=job.namespace, trace=self.bulk.trace, quota=self.bulk.quota)
        changed, refused = 0, Counter(self.before.moved.refused)
        for id in self.ids:
            try:
                before = batch.job(id).version
                self._command(id, asked).run(batch)
                changed += batch.job(id).version > before
            except (Refused, ApplicationError) as refusal:
                refused[refusal.code] += 1
        return Moved(
            matched=self.before.moved.matched + len(self.ids),
            changed=self.before.moved.changed + changed,
            refused=dict(refused),
        )

    def _command(self, id: UUID, asked: Asked) -> Cancel | Requeue:
        if self.bulk.operation == "cancel":
            return Cancel(job_id=id, reason=self.bulk.reason, asked=asked)
        return Requeue(job_id=id, reason=self.bulk.reason, afresh=self.bulk.afresh, asked=asked)


async def count(jobs: Jobs, filter: BulkFilter, operation: Operation, namespace: str | None = None) -> Counted:
    """How many jobs the operation would move now, counted up to a bound."""
    wanted = filter.touched(operation, namespace)
    if wanted is None:
        return Counted(0, True)
    ids, cursor = await jobs.ids(wanted, KIND, MOST_COUNTED, None)
    return Counted(len(ids), cursor is None)


def bulk_handler(jobs: Jobs) -> Handler:
    """The handler of bulk jobs. It looks at jobs that were there before its own, oldest first."""

    async def move_all(job: JobContext, bulk: Bulk) -> Moved:
        own = await jobs.fold(job.id)
        wanted = bulk.filter.touched(bulk.operation, own.namespace)
        if wanted is None:
            return Moved()
        until = min(wanted.created_before or own.created_at, own.created_at)
        wanted = structs.replace(wanted, created_before=until)
        total = await job.step("count", _count_all, jobs, wanted)
        place = decode(own.handles[PLACE], type=Place) if PLACE in own.handles else Place()
        while not place.ended:
            ids, cursor = await jobs.ids(wanted, KIND, AT_A_TIME, place.cursor)
            page = MovePage(
                bulk_id=job.id, attempt=job.attempt, bulk=bulk, ids=ids, before=place, cursor=cursor, total=total
            )
            place = await jobs.execute(page) or place
            # Recorded already: this hears whether the job is to be cancelled, and then it is stopped here.
            await job.progress(share(place.moved.matched, total), told(place.moved.matched, total))
        return place.moved

    return handler_for(KIND, move_all, retired=[PLACE])  # its place is read from its fold, and not asked for


def share(done: int, total: int) -> float:
    return min(done / total, 1.0) if total else 1.0


def told(done: int, total: int) -> str:
    return f"{done} of {max(done, total)}"


async def _count_all(jobs: Jobs, wanted: Filter) -> int:
    ids, cursor = await jobs.ids(wanted, KIND, MOST_COUNTED, None)
    total = len(ids)
    while cursor is not None:
        ids, cursor = await jobs.ids(wanted, KIND, MOST_COUNTED, cursor)
        total += len(ids)
    return total
