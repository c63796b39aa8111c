"""A new database has no statistics until autovacuum comes by, a minute later; plans that are made before are kept."""

from collections.abc import Callable

import psycopg

from infrastructure.postgres.database import Database
from infrastructure.postgres.leases import EXPIRED
from infrastructure.postgres.schema import migrate
from tests.infrastructure.test_plans import Explained

JOBS, HELD, RUN_OUT = 100_000, 100, 20
FILL = f"""
INSERT INTO jobs (id, version, position, namespace, kind, queue, priority, status, attempt, max_attempts, progress,
  input, run_at, created_at, updated_at)
SELECT lpad(to_hex(n), 32, '0')::uuid, 1, 1, 'default', 'mail', 'default', 0, 'queued', 0, 3, 0,
  '1', now(), now(), now()
FROM generate_series(1, {JOBS}) AS n;
INSERT INTO leases (job_id, attempt, worker, claim_id, heartbeat_timeout, heartbeat_at, expires_at)
SELECT lpad(to_hex(n), 32, '0')::uuid, 1, 'w', 'c', 30, now(),
  now() + CASE WHEN n <= {RUN_OUT} THEN interval '-1 s' ELSE interval '1 day' END
FROM generate_series(1, {HELD}) AS n
"""


def test_a_look_for_leases_that_ran_out_never_walks_over_all_jobs(new_database: Callable[[], str]) -> None:
    """Planned while there was nothing, it is as quick among 100 000 jobs."""
    dsn = new_database()
    plain = Database(dsn)
    migrate(plain)
    plain.close()
    database = Explained(dsn, by_index=True)
    with database.connection() as connection, psycopg.connect(dsn, autocommit=True) as other:
        for table in ("jobs", "leases"):
            other.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        for _ in range(3):
            assert connection.execute(EXPIRED, (60.0, [], 500), binary=True).fetchall() == []
        other.execute(FILL)
        with database.judging(HELD + 3 * RUN_OUT, 1_000, frozenset({"leases"})):
            assert len(connection.execute(EXPIRED, (60.0, [], 500), binary=True).fetchall()) == RUN_OUT
    database.close()
