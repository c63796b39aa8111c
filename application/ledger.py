"""The port to the log: batches of commands decided on locked jobs and recorded in one transaction."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from domain.events import Event
from domain.job import Job


class IdempotencyKey(Struct, frozen=True, order=True):
    """A client's name for a request; `fingerprint` is a hash of what it asked."""

    namespace: str
    key: str
    fingerprint: bytes


class Quota(Struct, frozen=True, order=True):
    """A key that may have at most so many jobs in flight: asked for by it, and not finished."""

    key_id: UUID
    name: str
    most: int


class Answered(Struct, frozen=True):
    """What a request with an idempotency key was answered the first time."""

    fingerprint: bytes
    job_ids: tuple[UUID, ...]
    position: int


class Ready(Struct, frozen=True):
    """Whose work is wanted: queued jobs that are due, of these queues, and of these kinds and a namespace if given."""

    queues: tuple[str, ...]
    kinds: tuple[str, ...] | None
    namespace: str | None = None


class Expired(Struct, frozen=True):
    """A lease that ran out."""

    job_id: UUID
    attempt: int
    last_heartbeat: datetime


class Batch(Protocol):
    """An open transaction in which jobs are locked and commands decided. Nothing holds until the batch ends."""

    @property
    def now(self) -> datetime:
        """The database's clock, read after the jobs were locked."""
        ...

    def job(self, id: UUID) -> Job:
        """A job of the batch, folded. Raises NotFound."""
        ...

    def new_jobs(self, count: int) -> list[Job]:
        """Jobs at version 0, with ids in ascending order."""
        ...

    def ready(self, wanted: Ready, count: int) -> list[Job]:
        """Up to `count` jobs to claim, best first, locked; those another claimer has locked are passed over."""
        ...

    def record(self, job: Job, events: Sequence[Event], *, claim_id: str | None = None) -> int:
        """Evolve `job` by `events` and record them when the batch ends; returns the last one's position.

        Without events it keeps alive the lease of a job that is held.
        """
        ...

    def when_placed(self, tell: Callable[[int], None]) -> None:
        """Tell what positions begin with that `record` returned without it: those of a `new_only` batch, at its end."""
        ...

    def expired(self, unbroken: float, count: int) -> list[Expired]:
        """Up to `count` leases that ran out, longest first, of jobs whose heartbeat timeout is at most `unbroken`.

        They and their jobs are locked, and enter the batch; those another has locked are passed over.
        """
        ...

    def lease_expired(self, job: Job) -> bool:
        """Whether the lease on a job of the batch has run out, now that nobody else can move it."""
        ...

    def last_heard(self, job: Job) -> datetime | None:
        """When the worker that holds a job of the batch was heard of last, now that nobody else can move it."""
        ...

    def answered(self, key: IdempotencyKey) -> Answered | None:
        """What the key was answered before, or None when it is this batch's to answer."""
        ...

    def answer(self, key: IdempotencyKey, job_ids: Sequence[UUID], position: int) -> None:
        """Remember what the key is answered."""
        ...

    def in_flight(self, quota: Quota) -> int:
        """The jobs in flight that a quota of the batch counts, up to its most; no other batch adds to them meanwhile.

        What another command of the batch finishes is still among them.
        """
        ...

    def charge(self, quota: Quota, jobs: Sequence[Job]) -> None:
        """From now on the quota counts these jobs, and no other does."""
        ...


class Ledger(Protocol):
    """Opens batches."""

    def batch(
        self,
        job_ids: Collection[UUID] = (),
        keys: Collection[IdempotencyKey] = (),
        claim: tuple[Ready, int] | None = None,
        quotas: Collection[Quota] = (),
        new_only: bool = False,
    ) -> AbstractContextManager[Batch]:
        """Lock jobs, then keys, then quotas, each in order; commit at the end, or roll back when the body raises.

        `claim` says what `ready` will be asked first, so that it can be looked for in the same round trip.

        `new_only`: nothing will be recorded but the creation of jobs. Nothing has to be locked for that, so the batch
        has no place in the log before its end.

        Raises Conflicted when another writer was first, BatchRefused when the database refuses the data, and
        Unavailable when it is away. A commit whose answer was lost is looked up, not guessed.
        """
        ...
