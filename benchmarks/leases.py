"""Leases: heartbeats for ten thousand in one pass, and the rescue of a thousand that ran out at once."""

import asyncio
import time

from msgspec import Raw

from application.claims import Claim
from application.jobs import Asked, NewJob
from application.reports import AnyReport, Heartbeat, Reported
from infrastructure.postgres.database import Database
from interfaces.bootstrap import Service

WORKER = "benchmark"
HELD = 10_000
PASSES = 200
DEAD = 1_000
DUE_SECONDS = 3.0
"""When the leases of the dead run out: later than the node that is to rescue them needs to be in contact."""
DAY = 86_400.0
KEY = "SELECT pg_relation_size('leases_pkey')"
UPDATES = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'leases'"
OVERDUE = "SELECT (SELECT count(*) FROM leases), extract(epoch FROM clock_timestamp() - %s)::float8"


async def claim(service: Service, count: int, heartbeat_timeout: float) -> None:
    """Create jobs, and claim them all."""
    new = NewJob(kind="idle", queue="leases", input=Raw(b"{}"), heartbeat_timeout=heartbeat_timeout)
    for _ in range(0, count, 1_000):
        await service.jobs.create([new] * 1_000, Asked(by="key:benchmark"))
        assert len(await service.claims.claim(Claim(worker=WORKER, queues=["leases"], max=1_000))) == 1_000


async def heartbeats(service: Service, database: Database) -> list[float]:
    """Seconds that each of the passes took, in which all leases of one worker were extended."""
    held = database.rows("SELECT job_id FROM leases ORDER BY job_id")
    beats: list[AnyReport] = [Heartbeat(job_id=id, attempt=1) for (id,) in held]
    assert len(beats) == HELD
    took = []
    for _ in range(PASSES):
        begun = time.perf_counter()
        answers = await service.reports.say_all(WORKER, beats)
        took.append(time.perf_counter() - begun)
        assert all(isinstance(answer, Reported) for answer in answers)
    return took


async def rescue(service: Service, database: Database) -> float:
    """Seconds from the moment when the leases of a worker ran out until all its jobs were queued again."""
    duty = asyncio.create_task(service.rescue.run())
    await claim(service, DEAD, DUE_SECONDS)
    ((due,),) = database.rows("SELECT max(expires_at) FROM leases")
    left, overdue = DEAD, 0.0
    while left:
        await asyncio.sleep(0.005)
        ((left, overdue),) = await asyncio.to_thread(database.rows, OVERDUE, (due,))
        assert overdue < 60, "they were not rescued"
    duty.cancel()
    await asyncio.wait([duty])
    return overdue
