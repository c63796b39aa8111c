"""What proof costs: sealing a log, verifying it whole, and folding a long history."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from uuid import UUID

import psycopg
from msgspec import Raw

from application.commands import execute
from application.jobs import Asked, Create, NewJob
from application.ledger import Ready
from application.reports import CompletionReport, ProgressReport, Say
from application.sealer import Sealer
from domain.job import Cause
from infrastructure.postgres.database import Database
from infrastructure.postgres.jobs import PostgresViews
from infrastructure.postgres.ledger import PostgresLedger
from infrastructure.postgres.log import Log
from infrastructure.postgres.log_verification import Verifier, plan
from infrastructure.postgres.seal import PostgresSeal
from infrastructure.signing import Keyring

JOBS = 130_000
"""Of four events each: more than half a million."""
BATCH = 1_000
LONG_HISTORY = 10_000
ANYBODY = Asked(by="key:benchmark")
UNSEAL = """
SET session_replication_role = replica;
DELETE FROM seal_tiles;
DELETE FROM seal_checkpoints;
DELETE FROM seal_keys;
UPDATE seal SET size = 0, position = 0, sealed_at = NULL, refusal = NULL;
RESET session_replication_role;
VACUUM ANALYZE events, jobs, seal_tiles
"""


def seed(address: str, jobs: int = JOBS) -> None:
    """Jobs that were created, started, half done and completed, among each other."""
    log = Log(address)
    ledger = PostgresLedger(log, lambda _: None)
    new = [NewJob(kind="idle", input=Raw(b'{"a":1,"b":"hello"}'))] * BATCH
    for _ in range(0, jobs, BATCH):
        execute(ledger, [Create(new, ANYBODY)])
        wanted = Ready(("default",), None)
        with ledger.batch(claim=(wanted, BATCH)) as batch:
            claimed = batch.ready(wanted, BATCH)
            for job in claimed:
                batch.record(job, job.start("w1", Cause(batch.now, "worker:w1")))
        ids = [job.id for job in claimed]
        _say(ledger, [ProgressReport(job_id=id, attempt=1, progress=0.5, message="half") for id in ids])
        _say(ledger, [CompletionReport(job_id=id, attempt=1, result=Raw(b'{"c":3}')) for id in ids])
    log.close()


def unseal(address: str) -> None:
    """Take the seal away, so that it can be made again."""
    with psycopg.connect(address, autocommit=True) as connection:
        for statement in UNSEAL.split(";"):
            connection.execute(statement.encode())


def seal(address: str, folder: Path) -> tuple[int, float, float]:
    """Seal everything: how many events, in how many seconds, of which this process was at work."""
    database = Database(address, by_index=True, bitmaps=False)
    sealer = Sealer(PostgresSeal(database), Keyring(folder, lambda: "benchmark"))
    events, begun, cpu = 0, time.perf_counter(), time.process_time()
    while sealed := sealer.run_once():
        events += sealed
    took = time.perf_counter() - begun, time.process_time() - cpu
    database.close()
    return events, *took


def verify(address: str) -> tuple[int, float, float]:
    """Verify everything in this process: how many events, in how many seconds, of which it was at work."""
    database = Database(address)
    keys = [key.key for key in PostgresSeal(database).sealing_keys()]
    verifier, verification = Verifier(database, keys, []), plan(database)
    begun, cpu = time.perf_counter(), time.process_time()
    for n, unit in enumerate(verification.units):
        verification.done[n] = verifier.check(unit)
    took = time.perf_counter() - begun, time.process_time() - cpu
    database.close()
    total = verification.total
    assert total.differences == 0, total.first
    return total.events, *took


def time_travel(address: str) -> float:
    """Seconds to tell what a job of 10 000 events was at its last version."""
    log = Log(address)
    ledger = PostgresLedger(log, lambda _: None)
    (accepted,) = execute(ledger, [Create([NewJob(kind="long", queue="long", input=Raw(b"null"))], ANYBODY)])
    id: UUID = accepted.job_ids[0]
    wanted = Ready(("long",), None)
    with ledger.batch(claim=(wanted, 1)) as batch:
        for job in batch.ready(wanted, 1):
            batch.record(job, job.start("w1", Cause(batch.now, "worker:w1")))
    for first in range(2, LONG_HISTORY, BATCH):
        steps = range(first, min(first + BATCH, LONG_HISTORY))
        _say(ledger, [ProgressReport(job_id=id, attempt=1, progress=n / LONG_HISTORY, message=f"{n}") for n in steps])
    views = PostgresViews(log.reads)
    took = median(_timed(lambda: views.fold(id, LONG_HISTORY)) for _ in range(20))
    log.close()
    return took


def _say(ledger: PostgresLedger, reports: list[ProgressReport] | list[CompletionReport]) -> None:
    for answer in execute(ledger, [Say(report=report, worker="w1") for report in reports]):
        if isinstance(answer, Exception):
            raise answer


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
