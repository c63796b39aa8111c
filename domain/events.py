"""The events of a job: facts in the past tense, each with a tag that is stored and promised for ever.

New fields come with a default of None (which is not written), so that old bytes still read; a field whose default
could change one day has none. A changed meaning is a new tag.
"""

from datetime import datetime
from typing import TypeAlias

from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.json import Decoder, Encoder

from domain.retry import RetryPolicy


class Artifact(Struct, frozen=True, kw_only=True):
    """A file a job made, kept by content hash: `sha256` in lower-case hex, `size` in bytes."""

    name: str
    sha256: str
    size: int
    media_type: str


class JobError(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong in an attempt; `detail` is any JSON."""

    type: str
    message: str
    detail: Raw | UnsetType = UNSET


class Recorded(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What all events carry: when (the database's clock, UTC), who caused it, and its W3C trace id."""

    at: datetime
    by: str
    trace: str | None = None


class Created(Recorded, frozen=True, kw_only=True, tag="job.created", omit_defaults=True):
    """Somebody asked. Durations are in seconds; `input` is JSON as it was sent."""

    namespace: str
    kind: str
    queue: str
    priority: int
    input: Raw
    run_at: datetime
    max_attempts: int
    retry: RetryPolicy
    heartbeat_timeout: float
    time_limit: float | None = None
    labels: dict[str, str] | None = None
    idempotency_key: str | None = None


class Started(Recorded, frozen=True, kw_only=True, tag="job.started", omit_defaults=True):
    """A worker claimed it; the attempt number is its fencing token."""

    attempt: int
    worker: str


class Progressed(Recorded, frozen=True, kw_only=True, tag="job.progressed", omit_defaults=True):
    """Work moved on. `output` is the recorded result of `step`; `handle` an outside system's id for it."""

    attempt: int
    progress: float
    step: str | None = None
    message: str | None = None
    output: Raw | UnsetType = UNSET
    artifact: Artifact | None = None
    handle: Raw | UnsetType = UNSET


class HeartbeatMissed(Recorded, frozen=True, kw_only=True, tag="job.heartbeat_missed", omit_defaults=True):
    """The lease ran out. `retry_at` null: not tried again."""

    attempt: int
    worker: str
    last_heartbeat: datetime
    retry_at: datetime | None


class Completed(Recorded, frozen=True, kw_only=True, tag="job.completed", omit_defaults=True):
    """Done."""

    attempt: int
    result: Raw


class Failed(Recorded, frozen=True, kw_only=True, tag="job.failed", omit_defaults=True):
    """An attempt failed. `retry_at` null: for good."""

    attempt: int
    error: JobError
    retry_at: datetime | None


class Released(Recorded, frozen=True, kw_only=True, tag="job.released", omit_defaults=True):
    """A worker gave it back unharmed; this costs no attempt."""

    attempt: int
    worker: str
    reason: str


class CancelRequested(Recorded, frozen=True, kw_only=True, tag="job.cancel_requested", omit_defaults=True):
    """Somebody wants a running job stopped."""

    reason: str


class Cancelled(Recorded, frozen=True, kw_only=True, tag="job.cancelled", omit_defaults=True):
    """Stopped."""

    reason: str


class Requeued(Recorded, frozen=True, kw_only=True, tag="job.requeued", omit_defaults=True):
    """An operator sent a finished job round again; `afresh` forgets its recorded steps."""

    reason: str
    afresh: bool


Event: TypeAlias = (
    Created
    | Started
    | Progressed
    | HeartbeatMissed
    | Completed
    | Failed
    | Released
    | CancelRequested
    | Cancelled
    | Requeued
)
TAGS: dict[type[Event], str] = {
    kind: str(kind.__struct_config__.tag)
    for kind in (
        Created,
        Started,
        Progressed,
        HeartbeatMissed,
        Completed,
        Failed,
        Released,
        CancelRequested,
        Cancelled,
        Requeued,
    )
}
encode = Encoder().encode
"""An event as the JSON bytes that are stored and hashed."""
decode = Decoder(Event).decode
"""The event that stored bytes say. Raises msgspec.ValidationError for a tag nobody knows."""
