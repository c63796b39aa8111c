"""Operations: what an operator is shown of projections, queues, workers, failures, usage and the run of things."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal, Protocol, TypeAlias
from uuid import UUID

from msgspec import Meta, Struct
from msgspec.structs import replace

from domain.job import Status

INLINE = "jobs"
"""The view that is written with the events: it is never behind, and is rebuilt in place."""
MOST_COUNTED = 10_000
"""What may be very many is counted up to here: events that a projection is behind, jobs of a lane."""


class ParkedView(Struct, frozen=True, kw_only=True):
    """The event that a projection cannot fold; it goes on after a resumption that retries or skips it."""

    at: datetime
    position: str
    job_id: UUID
    version: int
    error: str


class GenerationView(Struct, frozen=True, kw_only=True):
    """A view that is built beside the one that serves, and takes its place once it was compared with a fresh fold."""

    generation: int
    state: Literal["building", "verifying", "verified", "parked"]
    checkpoint: str
    events: int
    begun_at: datetime
    begun_by: str
    reason: str
    parked: ParkedView | None


class DifferenceView(Struct, frozen=True, kw_only=True):
    """A row that is not what a fresh fold makes: what is stored and what was folded, null for no such row."""

    key: list[Any]
    stored: Any
    folded: Any


class VerificationView(Struct, frozen=True, kw_only=True):
    """A comparison with a fresh fold up to `checkpoint`. `compared` counts what was folded so far.

    One that `mends` is a rebuild of the inline view: what differed was brought up to its fold.
    """

    state: Literal["asked", "running", "done"]
    mends: bool
    generation: int | None
    asked_at: datetime
    asked_by: str
    reason: str
    finished_at: datetime | None
    compared: int
    checkpoint: str | None
    differences: int | None
    examples: list[DifferenceView]
    error: str | None


class ProjectionView(Struct, frozen=True, kw_only=True):
    """How a projection is. `lag_events` are counted up to 10 000; `lag_seconds` is the age of the first of them.

    A key of one namespace is not told `events`, `parked`, `rebuild` and `verification`, which are of all.
    """

    name: str
    kind: Literal["inline", "async"]
    state: Literal["live", "parked"]
    generation: int | None
    checkpoint: str
    events: int | None
    lag_events: int
    lag_seconds: float
    skipped: int
    parked: ParkedView | None
    rebuild: GenerationView | None
    verification: VerificationView | None

    def limited(self) -> "ProjectionView":
        """What a key of one namespace may know: how it is, and neither which jobs of others it met nor how many."""
        return replace(self, events=None, parked=None, rebuild=None, verification=None)


class PauseView(Struct, frozen=True, kw_only=True):
    """Since when a queue gives no claims, who said so, and why."""

    since: datetime
    by: str
    reason: str


class QueueView(Struct, frozen=True, kw_only=True):
    """A queue: jobs that are due, jobs whose `run_at` is ahead, jobs that workers hold.

    `scheduled` is counted up to 10 000; `oldest_waiting_seconds` is how long the job that is due longest has been.
    """

    name: str
    ready: int
    scheduled: int
    running: int
    oldest_waiting_seconds: float | None
    paused: PauseView | None


class HeldJob(Struct, frozen=True, kw_only=True):
    """A job that a worker holds."""

    job_id: UUID
    attempt: int
    heartbeat_at: datetime
    lease_expires_at: datetime


class WorkerView(Struct, frozen=True, kw_only=True):
    """A worker: when it was first and last heard of, what it asks for, what it holds, how its attempts ended.

    `kinds` is null when it takes any kind; `jobs` are up to ten of `holding`. Who is limited to a namespace is told
    what a worker asks for only of those that are limited to it, too.
    """

    name: str
    queues: list[str]
    kinds: list[str] | None
    first_seen: datetime
    last_seen: datetime
    holding: int
    jobs: list[HeldJob]
    started: int
    completed: int
    failed: int
    missed: int
    released: int


class FailureView(Struct, frozen=True, kw_only=True):
    """Failed attempts that differ in numbers and ids only. `final` of them ended their job; `message` is the last."""

    kind: str
    type: str
    message: str
    count: int
    final: int
    first_seen: datetime
    last_seen: datetime
    examples: list[UUID]


Group: TypeAlias = Literal["namespace", "day", "kind", "model"]


class UsageView(Struct, frozen=True, kw_only=True):
    """What was used. What it is not grouped by is null; `model` is "" where no model was called."""

    namespace: str | None
    day: date | None
    kind: str | None
    model: str | None
    attempts: int
    seconds: float
    artifact_bytes: int
    input_tokens: int
    output_tokens: int


class Percentiles(Struct, frozen=True, kw_only=True):
    """Seconds, true to within 5 %; null when there were none."""

    count: int
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None


class LaneStats(Struct, frozen=True, kw_only=True):
    """A queue and kind: how many of its jobs are in each status now, and what happened in the window."""

    queue: str
    kind: str
    statuses: dict[Status, int]
    created: int
    started: int
    completed: int
    failed: int
    retried: int
    missed: int
    released: int
    cancelled: int
    requeued: int
    completed_per_second: float
    wait: Percentiles
    run: Percentiles


class StatsView(Struct, frozen=True, kw_only=True, rename={"begin": "from", "end": "to"}):
    """The window, of whole minutes, and what happened in it: in each queue and kind, and in `total`."""

    begin: datetime
    end: datetime
    items: list[LaneStats]
    wait: Percentiles
    run: Percentiles


class LaneMeasures(Struct, frozen=True, kw_only=True):
    """A queue and kind since the beginning: events by what they are counted as, and jobs in each status now."""

    namespace: str
    queue: str
    kind: str
    events: dict[str, int]
    statuses: dict[Status, int]
    waited_seconds: float
    ran_seconds: float
    ended: int


class Measures(Struct, frozen=True, kw_only=True):
    """What the database says for metrics, of all namespaces.

    `stalled_by` is the process with the oldest open write transaction, behind which readers of the whole log wait.
    `waiting` has, for each queue with jobs, how many seconds the oldest has been due. `overdue` are leases that ran out
    longer ago than any node has to wait before it rescues their jobs. `months_ahead` have partitions of their own.
    """

    lanes: list[LaneMeasures]
    projections: list[ProjectionView]
    stalled_by: int | None
    stalled_seconds: float
    connections: dict[str, int]
    unsealed: int
    unsealed_seconds: float
    waiting: dict[str, float]
    paused: list[str]
    overdue: int
    overdue_seconds: float
    months_ahead: float


class StatsWanted(Struct, frozen=True, kw_only=True):
    begin: datetime
    end: datetime
    queue: Sequence[str] = ()
    kind: Sequence[str] = ()


class UsageWanted(Struct, frozen=True, kw_only=True):
    begin: date
    end: date
    group: Sequence[Group]


Limit: TypeAlias = Annotated[int, Meta(ge=1, le=1000)]


class Operations(Protocol):
    """The port to all this. Calls block; run them on a thread. `namespace` is whose jobs are meant, None for all."""

    def projections(self) -> list[ProjectionView]:
        """All, by name."""
        ...

    def rebuild(self, name: str, by: str, reason: str) -> None:
        """Have a projection built anew. Raises NotFound, and Conflict while that is under way."""
        ...

    def verify(self, name: str, by: str, reason: str) -> None:
        """Have a view compared with a fresh fold. Raises NotFound, and Conflict while that is under way."""
        ...

    def resume(self, name: str, action: Literal["retry", "skip"], by: str, reason: str) -> None:
        """Let a parked projection go on. Raises NotFound, and Conflict when it is not parked."""
        ...

    def queues(self, namespace: str | None, after: str, limit: int) -> list[QueueView]:
        """By name, those above `after`."""
        ...

    def pause(self, queue: str, by: str, reason: str) -> PauseView:
        """Have a queue give no claims; what was said first stands."""
        ...

    def unpause(self, queue: str) -> None: ...

    def workers(self, namespace: str | None, since: float, after: str, limit: int) -> list[WorkerView]:
        """Those heard of in the last seconds, by name."""
        ...

    def failures(self, namespace: str | None, limit: int, cursor: str | None) -> tuple[list[FailureView], str | None]:
        """Those seen last first, and the cursor of the next page. Raises Invalid for a cursor that is not of this."""
        ...

    def usage(self, namespace: str | None, wanted: UsageWanted) -> list[UsageView]: ...

    def stats(self, namespace: str | None, wanted: StatsWanted) -> StatsView: ...

    def measures(self) -> Measures: ...
