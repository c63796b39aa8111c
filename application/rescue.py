"""Rescue: acting on leases that ran out, whoever held them."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import structlog
from msgspec import Struct

from application.commands import answer, execute
from application.errors import ApplicationError, BatchRefused, Conflicted, Unavailable
from application.ledger import Batch, Expired, Ledger
from application.readers import Readers
from domain.job import Cause
from domain.refusals import Refused

log = structlog.get_logger()
PERIOD = 0.5
"""Seconds between looks."""
LONGEST_GAP = 2.0
"""Seconds between two answers of the database after which contact counts as broken, also while it hung. A lease is
extended three times within its heartbeat timeout, so that one of three seconds or more outlives a shorter silence."""
MOST = 500
"""Leases that one transaction acts on."""


class MissHeartbeat(Struct, frozen=True, kw_only=True):
    """The command of a rescue: the lease of `expired.attempt` ran out."""

    expired: Expired
    idempotency_key: None = None
    quota: None = None
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
    """Looks for expired leases twice a second; any number of nodes may, and share them.

    A job is rescued only by a node that has been in unbroken contact with the database for that job's heartbeat
    timeout: an outage of the database silences every worker, and must not cost each of their jobs an attempt.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._thread = Readers(LONGEST_GAP, threads=1)
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
        """Rescue jobs whose leases ran out; returns how many were. Raises Unavailable."""
        begun = self._clock()
        if self._contact_since is None or begun - self._last_contact > LONGEST_GAP:
            self._contact_since = self._last_contact = begun
        try:
            answers = await self._thread(self._look, begun - self._contact_since)
        except Unavailable:
            self._contact_since = None
            raise
        if self._is_silent():
            self._contact_since = None
        self._last_contact = self._clock()
        for expired, told in answers:
            _tell(expired, told)
        return sum(isinstance(told, str) for _, told in answers)

    def close(self) -> None:
        """Let the look under way end."""
        self._thread.close()

    def _is_silent(self) -> bool:
        return self._clock() - self._last_contact > LONGEST_GAP

    def _look(self, unbroken: float) -> list[tuple[Expired, Any]]:
        """Find and rescue in one transaction; each of the leases with what became of it."""
        commands: list[MissHeartbeat] = []
        try:
            with self._ledger.batch() as batch:
                found = batch.expired(unbroken, MOST)
                if self._is_silent():
                    return []  # the database hung meanwhile, and did not hear the workers either
                commands = [MissHeartbeat(expired=expired) for expired in found]
                answers = [answer(command, batch) for command in commands]
        except (BatchRefused, Conflicted):
            answers = execute(self._ledger, commands)  # so that one does not hold up the others
        return [(command.expired, told) for command, told in zip(commands, answers, strict=True)]


def _tell(expired: Expired, told: Any) -> None:
    job = {"job_id": str(expired.job_id), "attempt": expired.attempt}
    if isinstance(told, Refused | ApplicationError):
        log.info("rescue.refused", **job, reason=str(told))
    elif isinstance(told, Exception):
        log.error("rescue.failed", **job, exc_info=told)
    else:
        log.warning("job.rescued", **job, status=told)
