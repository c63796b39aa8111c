"""A ledger in memory for tests of what is decided above it; it can be told to conflict, refuse, or be away."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from uuid import UUID

from msgspec import Raw

from application.errors import NotFound
from application.ledger import Answered, Expired, IdempotencyKey, Quota, Ready
from domain.events import Created, Event
from domain.ids import job_ids
from domain.job import Job, evolve
from domain.retry import RetryPolicy

NOW = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)


class MemoryBatch:
    """See the port, `application.ledger.Batch`."""

    def __init__(self, ledger: "MemoryLedger") -> None:
        self.now = NOW
        self._ledger = ledger
        self.jobs = deepcopy(ledger.jobs)
        self.recorded: list[Event] = []

    def job(self, id: UUID) -> Job:
        if id not in self.jobs:
            raise NotFound(f"there is no job {id}")
        return self.jobs[id]

    def new_jobs(self, count: int) -> list[Job]:
        jobs = [Job(id=id) for id in job_ids(count, self.now)]
        self.jobs.update((job.id, job) for job in jobs)
        return jobs

    def ready(self, wanted: Ready, count: int) -> list[Job]:
        self._ledger.scans.append((wanted, count))
        self._ledger.before_ready()
        assert wanted.namespace is None
        waiting = [job for job in self.jobs.values() if job.status == "queued" and job.queue in wanted.queues]
        return [job for job in waiting if wanted.kinds is None or job.kind in wanted.kinds][:count]

    def record(self, job: Job, events: Sequence[Event], *, claim_id: str | None = None) -> int:
        for event in events:
            evolve(job, event)
            self.recorded.append(event)
        if claim_id and job.worker:
            self._ledger.held.setdefault((job.worker, claim_id), []).append(job.id)
        return len(self._ledger.events) + len(self.recorded)

    def when_placed(self, tell: Callable[[int], None]) -> None:
        pass

    def expired(self, unbroken: float, count: int) -> list[Expired]:
        raise AssertionError("nothing is rescued in these tests")

    def lease_expired(self, job: Job) -> bool:
        return True

    def last_heard(self, job: Job) -> datetime | None:
        raise AssertionError("nothing is given back in these tests")

    def answered(self, key: IdempotencyKey) -> Answered | None:
        return None

    def answer(self, key: IdempotencyKey, job_ids: Sequence[UUID], position: int) -> None:
        raise AssertionError("no command of these tests has a key")

    def in_flight(self, quota: Quota) -> int:
        raise AssertionError("no command of these tests has a quota")

    def charge(self, quota: Quota, jobs: Sequence[Job]) -> None:
        raise AssertionError("no command of these tests has a quota")


class MemoryLedger:
    """Keeps what batches record when they end; `at_commit` is called with each, and may raise instead."""

    def __init__(self, at_commit: Callable[[MemoryBatch], None] = lambda batch: None) -> None:
        self.at_commit = at_commit
        self.before_ready: Callable[[], None] = lambda: None
        self.jobs: dict[UUID, Job] = {}
        self.events: list[Event] = []
        self.batches = 0
        self.scans: list[tuple[Ready, int]] = []
        self.held: dict[tuple[str, str], list[UUID]] = {}

    @contextmanager
    def batch(
        self,
        job_ids: Collection[UUID] = (),
        keys: Collection[IdempotencyKey] = (),
        claim: tuple[Ready, int] | None = None,
        quotas: Collection[Quota] = (),
        new_only: bool = False,
    ) -> Iterator[MemoryBatch]:
        self.batches += 1
        batch = MemoryBatch(self)
        yield batch
        self.at_commit(batch)
        self.jobs = batch.jobs
        self.events += batch.recorded

    def held_by(self, worker: str, claim_id: str, namespace: str | None = None) -> Sequence[UUID]:
        return self.held.get((worker, claim_id), [])

    def add(self, count: int = 1, *, kind: str = "nothing", input: bytes = b"{}", due_in: float = 0) -> list[UUID]:
        """Put queued jobs into it."""
        ids = list(job_ids(count, NOW))
        for id in ids:
            created = Created(
                namespace="default",
                kind=kind,
                queue="default",
                priority=0,
                input=Raw(input),
                run_at=NOW + timedelta(seconds=due_in),
                max_attempts=3,
                retry=RetryPolicy(),
                heartbeat_timeout=30.0,
                at=NOW,
                by="key:test",
            )
            self.jobs[id] = Job.fold(id, [created])
        return ids
