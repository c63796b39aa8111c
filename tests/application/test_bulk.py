"""A page of a bulk job and the place it reached are recorded together, or not at all."""

from pathlib import Path

import pytest
from msgspec.json import decode

from application.bulk import PLACE, Bulk, BulkFilter, MovePage, Place
from application.claims import Claim, ClaimedJob
from domain.refusals import LeaseLost
from tests.application.services import ASKED, Shop, in_shop


async def claimed(shop: Shop, worker: str) -> ClaimedJob:
    (job,) = await shop.service.claims.claim(Claim(worker=worker, queues=["bulk"], wait=10))
    return job


def test_worker_that_lost_the_bulk_job_moves_nothing(dsn: str, tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        jobs = shop.service.jobs
        waiting = [await shop.create() for _ in range(2)]
        bulk = Bulk(operation="cancel", filter=BulkFilter(queue=[shop.queue]), reason="because", by="key:boss")
        await jobs.create([bulk.new_job()], ASKED)
        lost = await claimed(shop, "w1")
        await shop.service.reports.release("w1", lost, "a test")
        held = await claimed(shop, "w2")

        def page(attempt: int) -> MovePage:
            return MovePage(
                bulk_id=held.id, attempt=attempt, bulk=bulk, ids=waiting, before=Place(), cursor=None, total=2
            )

        with pytest.raises(LeaseLost):
            await jobs.execute(page(lost.attempt))
        assert [(await shop.job(id)).status for id in waiting] == ["queued"] * 2

        place = await jobs.execute(page(held.attempt))
        assert (place.moved.changed, place.ended) == (2, True)
        assert [(await shop.job(id)).status for id in waiting] == ["cancelled"] * 2
        assert decode((await jobs.fold(held.id)).handles[PLACE], type=Place) == place

    in_shop(dsn, tmp_path, "fenced", story)


def test_jobs_that_moved_meanwhile_are_counted_as_what_they_were_refused_with(dsn: str, tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        jobs = shop.service.jobs
        waiting = await shop.create()
        bulk = Bulk(operation="requeue", filter=BulkFilter(queue=[shop.queue]), reason="because", by="key:boss")
        await jobs.create([bulk.new_job()], ASKED)
        held = await claimed(shop, "w1")
        page = MovePage(bulk_id=held.id, attempt=1, bulk=bulk, ids=[waiting], before=Place(), cursor=None, total=1)
        place = await jobs.execute(page)
        assert (place.moved.matched, place.moved.changed, place.moved.refused) == (1, 0, {"conflict": 1})

    in_shop(dsn, tmp_path, "moved meanwhile", story)
