"""What proof costs: sealing a log, verifying it whole, and folding a long history."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from uuid import UUID

import psycopg
from msgspec import Raw

from application.commands import execute
from application.following import History
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
SOME = 12_500
"""Jobs of which a large log is made."""
COPY = """
INSERT INTO events (originator_id, originator_version, topic, state, hash, notification_id, recorded_at)
SELECT (left(originator_id::text, 24) || left(md5(originator_id::text || %(n)s::text), 12))::uuid,
  originator_version, topic, state, hash,
  notification_id + %(n)s::bigint * (1::bigint << 40), recorded_at
FROM events WHERE notification_id < (1::bigint << 40)
"""
SAMPLE = """
SELECT originator_id FROM events TABLESAMPLE system (1) REPEATABLE (1) WHERE originator_version = 1 LIMIT 500
"""
EXPLAINED = """
EXPLAIN (ANALYZE, BUFFERS, FORMAT json)
SELECT * FROM events WHERE originator_id = %s ORDER BY originator_version
"""
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


def fill(address: str, events: int) -> None:
    """A log of about so many events: some jobs, and copies of them under other ids and further positions.

    The copies' hashes are not theirs, which nobody asks when reading.
    """
    seed(address, SOME)
    with psycopg.connect(address, autocommit=True) as connection:
        for n in range(1, events // (4 * SOME)):
            connection.execute(COPY, {"n": n})
        connection.execute("VACUUM ANALYZE events")


def histories(addresses: Sequence[str]) -> list[tuple[float, float]]:
    """For each log, the seconds to read a job's history of four events, and the blocks of the database that it takes.

    Of jobs from all over the log, in turn; each is read before, so that what is not in memory is not what is measured.
    """
    logs = [Log(address) for address in addresses]
    readers = [PostgresViews(log.reads) for log in logs]
    ids = [[id for (id,) in log.reads.rows(SAMPLE)] for log in logs]
    took: list[list[float]] = [[] for _ in logs]
    for turn in zip(*ids, strict=True):
        for n, id in enumerate(turn):
            wanted = [History(id, 0)]
            readers[n].histories(wanted)
            took[n].append(_timed(partial(readers[n].histories, wanted)))
    blocks = [
        [log.reads.rows(EXPLAINED, (id,))[0][0][0]["Plan"] for id in some[:50]]
        for log, some in zip(logs, ids, strict=True)
    ]
    for log in logs:
        log.close()
    touched = [median(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in plans) for plans in blocks]
    return list(zip(map(median, took), touched, strict=True))


def _say(ledger: PostgresLedger, reports: list[ProgressReport] | list[CompletionReport]) -> None:
    for answer in execute(ledger, [Say(report=report, worker="w1") for report in reports]):
        if isinstance(answer, Exception):
            raise answer


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
