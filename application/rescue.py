"""Rescue: acting on leases that ran out, whoever held them."""

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

import structlog
from msgspec import Struct

from application.commands import Command
from application.errors import ApplicationError, Unavailable
from application.jobs import Jobs
from application.ledger import Batch
from domain.job import Cause
from domain.refusals import Refused

log = structlog.get_logger()
PERIOD = 1.0
"""Seconds between looks."""
LONGEST_GAP = 5.0
"""Seconds between two answers of the database after which contact counts as broken."""
MOST = 500


class Expired(Struct, frozen=True):
    """A lease that ran out."""

    job_id: UUID
    attempt: int
    last_heartbeat: datetime


class ExpiredLeases(Protocol):
    """The port to leases that ran out. Blocks; run it on a thread."""

    def expired(self, unbroken: float, limit: int) -> Sequence[Expired]:
        """Leases that ran out, of jobs whose heartbeat timeout is at most `unbroken` seconds."""
        ...


class MissHeartbeat(Struct, frozen=True, kw_only=True):
    """The command of a rescue: the lease of `expired.attempt` ran out."""

    expired: Expired
    idempotency_key: None = None
    weight: int = 2

    @property
    def job_ids(self) -> Sequence[UUID]:
        return (self.expired.job_id,)

    def run(self, batch: Batch) -> str:
        """The job's status afterwards."""
        job = batch.job(self.expired.job_id)
        if not batch.lease_expired(job):
            raise Unrescued
        events = job.miss_heartbeat(
            self.expired.attempt,
            self.expired.last_heartbeat,
            Cause(batch.now, "system:rescue"),
            jitter=random.random(),  # noqa: S311  spreads retries, guards nothing
        )
        batch.record(job, events)
        return job.status


class Unrescued(ApplicationError):
    """The worker was heard of after all."""

    code = "conflict"


class Rescue:
    """Looks for expired leases every second; any number of nodes may.

    A job is rescued only by a node that has been in unbroken contact with the database for that job's heartbeat
    timeout: an outage of the database silences every worker, and must not cost each of their jobs an attempt.
    """

    def __init__(self, jobs: Jobs, leases: ExpiredLeases, clock: Callable[[], float]) -> None:
        self._jobs = jobs
        self._leases = leases
        self._clock = clock
        self._contact_since: float | None = None
        self._last_contact = 0.0

    async def run(self) -> None:
        """Rescue until cancelled."""
        while True:
            try:
                rescued = await self.run_once()
            except Unavailable:
                rescued = 0
            except Exception:
                log.exception("rescue.failed")
                rescued = 0
            if rescued < MOST:
                await asyncio.sleep(PERIOD)

    async def run_once(self) -> int:
        """Rescue the jobs whose leases ran out; returns how many were found."""
        begun = self._clock()
        if self._contact_since is None or begun - self._last_contact > LONGEST_GAP:
            self._contact_since = begun
        try:
            expired = await asyncio.to_thread(self._leases.expired, begun - self._contact_since, MOST)
        except Unavailable:
            self._contact_since = None
            raise
        self._last_contact = self._clock()
        if self._last_contact - begun > LONGEST_GAP:
            self._contact_since = None
            return 0
        await asyncio.gather(*(self._rescue(one) for one in expired))
        return len(expired)

    async def _rescue(self, expired: Expired) -> None:
        command: Command = MissHeartbeat(expired=expired)
        try:
            status = await self._jobs.execute(command)
        except (Refused, ApplicationError) as refusal:
            log.info("rescue.refused", job_id=str(expired.job_id), attempt=expired.attempt, reason=str(refusal))
            return
        log.warning("job.rescued", job_id=str(expired.job_id), attempt=expired.attempt, status=status)
