"""Projections: folds of the whole log into views; what each event means is told beside it, from its job's history."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeAlias
from uuid import UUID

from msgspec import MsgspecError, Struct

from domain.events import (
    Cancelled,
    CancelRequested,
    Completed,
    Created,
    Event,
    Failed,
    HeartbeatMissed,
    Progressed,
    Released,
    Requeued,
    Started,
    decode,
)
from domain.job import FINISHED, Status

MOST_STORIES = 100_000
COUNTED: dict[type[Event], str] = {
    Created: "created",
    Started: "started",
    Completed: "completed",
    HeartbeatMissed: "missed",
    Released: "released",
    Cancelled: "cancelled",
    Requeued: "requeued",
}
"""What views count events as, but for failures, see `counted`."""
_MICROSECOND = timedelta(microseconds=1)


class Recorded(Struct, frozen=True, gc=False):
    """An event as it is stored, in its place in the log."""

    position: int
    job_id: UUID
    version: int
    state: bytes


class Happened(Struct, gc=False):
    """An event with what a projection asks of its job: what it is, and what the event changed.

    Durations are in microseconds. `waited`: from being due to this start; `ran`: from the start to what ended the
    attempt, which is told once for each attempt. `worker` is who holds the job, or held it until now.
    """

    position: int
    job_id: UUID
    version: int
    event: Event
    namespace: str
    kind: str
    queue: str
    before: Status | None
    after: Status
    waited: int | None
    ran: int | None
    worker: str | None


class Unreadable(Struct, frozen=True, gc=False):
    """An event that this release cannot read."""

    position: int
    job_id: UUID
    version: int
    error: str


Told: TypeAlias = Happened | Unreadable
Rows: TypeAlias = dict[Any, Any]
"""Rows of a view by their keys."""


class Projection(Protocol):
    """A fold. What it makes of some events can be added to what it made of those before them."""

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> int:
        """Raised whenever the fold changes, so that the view is built anew."""
        ...

    @property
    def told_last(self) -> tuple[str, ...]:
        """Fields of a row that tell of the events that came last: they cannot be added up."""
        ...

    def fold(self, rows: Rows, happened: Happened) -> None:
        """Add an event to `rows`, which begin empty."""
        ...


def add_up(rows: Rows, more: Rows) -> None:
    """Add to rows of a projection what it made of other jobs' events."""
    for key, row in more.items():
        if key not in rows:
            rows[key] = copy(row)
            continue
        for field in row.__struct_fields__:
            setattr(rows[key], field, _sum(field, getattr(rows[key], field), getattr(row, field)))


def _sum(field: str, one: Any, other: Any) -> Any:
    if isinstance(one, int):
        return one + other
    if isinstance(one, dict):
        return {bucket: one.get(bucket, 0) + other.get(bucket, 0) for bucket in one | other}
    if isinstance(one, datetime):
        return min(one, other) if field == "first_seen" else max(one, other)
    return one


class Story(Struct, gc=False):
    """What has to be known of a job to tell what its next event means."""

    version: int = 0
    namespace: str = "default"
    kind: str = ""
    queue: str = "default"
    status: Status | None = None
    due: datetime | None = None
    started: datetime | None = None
    worker: str | None = None

    def tell(self, position: int, job_id: UUID, version: int, event: Event) -> Happened:
        """The event, in its place, and move on."""
        before, worker = self.status, self.worker
        waited = ran = None
        self.version = version
        match event:
            case Progressed():
                pass
            case Started():
                waited = _microseconds(self.due, event.at)
                self.status, self.started, self.worker = "running", event.at, event.worker
            case Completed():
                ran = self._end(event.at)
                self.status = "completed"
            case Created():
                self.namespace, self.kind, self.queue = event.namespace, event.kind, event.queue
                self.status, self.due = "queued", max(event.run_at, event.at)
            case Failed():
                ran = self._end(event.at)
                self.status, self.due = ("failed", None) if event.retry_at is None else ("queued", event.retry_at)
            case HeartbeatMissed():
                ran = self._end(event.at)
                if event.retry_at is not None:
                    self.status, self.due = "queued", event.retry_at
            case Released():
                ran = self._end(event.at)
                self.status, self.due = "queued", event.at
            case CancelRequested():
                self.status = "cancelling"
            case Cancelled():
                ran = self._end(event.at)
                self.status = "cancelled"
            case Requeued():
                self.status, self.due = "queued", event.at
        return Happened(
            position,
            job_id,
            version,
            event,
            self.namespace,
            self.kind,
            self.queue,
            before,
            self.status or "queued",
            waited,
            ran,
            self.worker or worker,
        )

    def _end(self, at: datetime) -> int | None:
        """The attempt is over, if one is under way."""
        ran = _microseconds(self.started, at)
        self.started = self.worker = None
        return ran


Load: TypeAlias = Callable[[Mapping[UUID, int]], Sequence[Recorded]]
"""Reads the events of jobs below the versions given, in order, but for those that only report progress."""


class Stories:
    """Tells what recorded events mean. Keeps the stories of jobs that have not ended; a version says if it is old."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._kept: dict[UUID, Story] = {}

    def tell(self, page: Sequence[Recorded]) -> list[Told]:
        """The same events in the same order."""
        self._read_missing(page)
        kept = self._kept
        told: list[Told] = []
        ended: list[UUID] = []
        for recorded in page:
            position, job_id, version, state = recorded.position, recorded.job_id, recorded.version, recorded.state
            story = kept.get(job_id)
            if story is None:
                story = kept[job_id] = Story()
            try:
                happened = story.tell(position, job_id, version, decode(state))
            except MsgspecError as error:
                story.version = version
                told.append(Unreadable(position, job_id, version, str(error)))
                continue
            told.append(happened)
            if happened.after in FINISHED:
                ended.append(job_id)
        self._forget(ended)
        return told

    def _forget(self, ended: Sequence[UUID]) -> None:
        for job_id in ended:
            if (story := self._kept.get(job_id)) and story.status in FINISHED:
                del self._kept[job_id]
        while len(self._kept) > MOST_STORIES:
            del self._kept[next(iter(self._kept))]

    def _read_missing(self, page: Sequence[Recorded]) -> None:
        missing: dict[UUID, int] = {}
        seen: set[UUID] = set()
        for recorded in page:
            job_id = recorded.job_id
            if job_id not in seen:
                seen.add(job_id)
                story = self._kept.get(job_id)
                if story.version != recorded.version - 1 if story else recorded.version > 1:
                    missing[job_id] = recorded.version
        if not missing:
            return
        for job_id in missing:
            self._kept[job_id] = Story()
        for recorded in self._load(missing):
            story = self._kept[recorded.job_id]
            try:
                story.tell(recorded.position, recorded.job_id, recorded.version, decode(recorded.state))
            except MsgspecError:
                story.version = recorded.version


def counted(event: Event) -> str | None:
    """What views count an event as: `failed` is a failure for good, `retried` one that another attempt follows."""
    if isinstance(event, Failed):
        return "failed" if event.retry_at is None else "retried"
    return COUNTED.get(type(event))


def _microseconds(since: datetime | None, at: datetime) -> int | None:
    return None if since is None else max((at - since) // _MICROSECOND, 0)
