"""What a claimer did not wait for is given back, unless it was heard of since, wherever that was."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from application.claims import Claim, ClaimedJob
from application.reports import Heartbeat
from interfaces.bootstrap import Service
from interfaces.settings import Settings
from tests.application.services import Shop, in_shop

Since = Callable[[Service, Claim, ClaimedJob], Awaitable[None]]


async def nothing(other: Service, claim: Claim, job: ClaimedJob) -> None:
    """Nobody is heard of."""


async def repetition(other: Service, claim: Claim, job: ClaimedJob) -> None:
    (again,) = await other.claims.claim(claim)
    assert (again.id, again.attempt) == (job.id, job.attempt)


async def heartbeat(other: Service, claim: Claim, job: ClaimedJob) -> None:
    await other.reports.say(claim.worker, Heartbeat(job_id=job.id, attempt=job.attempt))


async def given_back(shop: Shop, other: Service, since: Since) -> tuple[UUID, str]:
    id = await shop.create()
    claim = Claim(worker="hasty", queues=[shop.queue], claim_id=uuid4().hex)
    (job,) = await shop.service.claims.claim(claim)
    await since(other, claim, job)
    await shop.service.claims.give_back([job], claim)
    return id, (await shop.job(id)).status


@pytest.mark.parametrize(("since", "status"), [(nothing, "queued"), (repetition, "running"), (heartbeat, "running")])
def test_a_claim_is_given_back_unless_its_worker_was_heard_of_at_another_server(
    dsn: str, tmp_path: Path, since: Since, status: str
) -> None:
    async def story(shop: Shop) -> None:
        other = Service(Settings.model_validate({"DATABASE_URL": dsn, "JOBLEDGER_DATA": tmp_path / "other"}))
        try:
            id, then = await given_back(shop, other, since)
            assert then == status
            assert (await shop.job(id)).version == (3 if status == "queued" else 2)
        finally:
            await other.close()

    in_shop(dsn, tmp_path, f"given-back-{uuid4().hex}", story)


def test_a_claim_that_comes_twice_at_once_keeps_what_both_are_answered(dsn: str, tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        id = await shop.create()
        claim = Claim(worker="hasty", queues=[shop.queue], claim_id=uuid4().hex)
        claims = shop.service.claims
        (first,), (second,) = await asyncio.gather(claims.claim(claim), claims.claim(claim))
        assert first.id == second.id == id
        await claims.give_back([min((first, second), key=lambda job: job.taken_at)], claim)
        assert (await shop.job(id)).status == "running"

    in_shop(dsn, tmp_path, f"given-back-{uuid4().hex}", story)
