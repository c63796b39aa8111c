"""A million jobs, made by set-based SQL: most have ended, 200 000 wait in 20 queues, 100 000 for a time to come.

They are unkind to lists: kinds, queues, workers and labels with few jobs, or with many that are all old; jobs that
ended long after younger ones; and everything that waits is younger than everything that has ended.
"""

import psycopg

JOBS = 1_000_000
ENDED, HELD, AGAIN, LATER = 682_000, 10_000, 8_000, 100_000
LAST_HELD, LAST_AGAIN = ENDED + HELD, ENDED + HELD + AGAIN
QUEUES, KINDS = 20, 5
PARTITIONS = 60
WITH_EVENTS = 4
"""One in so many of the jobs that moved has its events in the log."""
KEYS = 50_000

# The months ahead are there already; these are over.
MONTHS = f"""
DO $$
DECLARE
  months CONSTANT integer := {PARTITIONS} - (SELECT count(*) FROM event_partitions);
  month timestamptz := date_trunc('month', now(), 'UTC') - make_interval(months => months);
BEGIN
  DROP TABLE events_before;
  PERFORM add_event_partition('events_before', NULL, first_id_of(month));
  FOR n IN 1..months LOOP
    PERFORM add_event_partition(to_char(month AT TIME ZONE 'UTC', '"events_"YYYY_MM'),
      first_id_of(month), first_id_of(month + interval '1 month'));
    month := month + interval '1 month';
  END LOOP;
END $$
"""
# As domain/ids.py makes them, with the job's number in the last bits.
ID_OF = """
CREATE FUNCTION id_of(at timestamptz, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT (lpad(to_hex(us / 1000), 12, '0') || '7' || lpad(to_hex(us % 1000 * 4096 / 1000), 3, '0') || '8'
    || lpad(to_hex(n), 15, '0'))::uuid
  FROM (SELECT (extract(epoch FROM at) * 1000000)::bigint AS us) AS moment
$$
"""
SEED = f"""
CREATE UNLOGGED TABLE seed AS
SELECT n, id_of(created_at, n) AS id, status, version, created_at,
  CASE WHEN version = 1 THEN created_at
    ELSE created_at + make_interval(days => CASE WHEN n % 1000 = 5 THEN 20 ELSE 0 END, secs => n % 977)
  END AS updated_at
FROM (
  SELECT n, now() - interval '32 months' + n * (interval '32 months' / {JOBS}) AS created_at,
    CASE WHEN n > {ENDED} THEN CASE WHEN n > {LAST_HELD} THEN 'queued' WHEN n % 40 = 0 THEN 'cancelling'
      ELSE 'running' END
    WHEN n % 100 = 0 THEN 'failed' WHEN n % 500 = 1 THEN 'cancelled' ELSE 'completed' END AS status,
    CASE WHEN n > {LAST_AGAIN} THEN 1 WHEN n > {LAST_HELD} THEN 4 WHEN n > {ENDED} THEN 2 ELSE 3 END AS version
  FROM generate_series(1, {JOBS}) AS n
) AS made
"""
POSITION = "(n / 16000 + 1 << 16 | n % 16000 * 4 + 1)"
FILL_JOBS = f"""
INSERT INTO jobs (id, version, position, namespace, kind, queue, priority, status, attempt, max_attempts, progress,
  worker, input, result, error, labels, run_at, created_at, updated_at, started_at, finished_at)
SELECT id, version, {POSITION} + version - 1,
  CASE WHEN n % 1000 = 3 THEN 'other' ELSE 'default' END,
  CASE WHEN n % 20000 = 17 THEN 'rare' WHEN n <= 60000 THEN 'retired' ELSE 'kind-' || n / 100 % {KINDS} END,
  CASE WHEN n % 20000 = 18 THEN 'rare' WHEN n <= 40000 THEN 'retired' ELSE 'queue-' || n / 7 % {QUEUES} END,
  CASE WHEN version = 1 AND n % 3 = 0 THEN 100 ELSE 0 END,
  status, CASE WHEN version = 1 THEN 0 ELSE 1 END, 3, CASE WHEN status = 'completed' THEN 1 ELSE 0 END,
  CASE WHEN version > 1 THEN CASE WHEN n % 25000 = 7 THEN 'rare' ELSE 'worker-' || n / 80000 END END,
  '{{"a":1,"b":"hello"}}', CASE WHEN status = 'completed' THEN '{{"a":1,"b":"hello"}}'::bytea END,
  CASE WHEN status = 'failed' THEN '{{"type":"Broken","message":"it broke"}}'::bytea END,
  nullif('{{}}'::jsonb
    || CASE WHEN n % 25000 = 9 THEN '{{"customer":"rare"}}'::jsonb ELSE '{{}}' END
    || CASE WHEN n % 10 = 0 THEN jsonb_build_object('tier', 'gold', 'team', n % 7 || '') ELSE '{{}}' END
    || CASE WHEN n % 50 = 1 THEN '{{"trial":"yes"}}'::jsonb ELSE '{{}}' END
    || CASE WHEN n % 2 = 0 THEN '{{"region":"eu"}}'::jsonb ELSE '{{}}' END
    || CASE WHEN n > 60000 AND n / 100 % {KINDS} = 2 THEN '{{"model":"large"}}'::jsonb ELSE '{{}}' END,
    '{{}}'),
  CASE WHEN version = 1 AND n % 3 = 0 THEN now() + make_interval(days => 1, secs => n)
    WHEN version = 4 THEN updated_at + interval '1 minute' ELSE created_at END,
  created_at, updated_at, CASE WHEN version > 1 THEN updated_at END,
  CASE WHEN status IN ('completed', 'failed', 'cancelled') THEN updated_at END
FROM seed
ORDER BY n
"""
FILL_LEASES = """
INSERT INTO leases (job_id, attempt, worker, claim_id, heartbeat_timeout, heartbeat_at, expires_at)
SELECT id, 1, 'worker-' || n / 80000, 'claim-' || n / 100, 30, now(), now() + interval '1 day'
FROM seed WHERE status IN ('running', 'cancelling')
"""
FILL_EVENTS = f"""
INSERT INTO events (originator_id, originator_version, topic, state, hash, notification_id, recorded_at)
SELECT id, v, (ARRAY['job.created', 'job.started', 'job.completed'])[v],
  '{{"type":"job.completed","attempt":1,"result":null,"at":"2026-01-01T00:00:00Z","by":"worker:w","trace":null}}',
  sha256(uuid_send(id)), {POSITION} + v - 1, CASE v WHEN 1 THEN created_at ELSE updated_at END
FROM seed, generate_series(1, least(version, 3)) AS v
WHERE version > 1 AND n % {WITH_EVENTS} = 0
ORDER BY n, v
"""
FILL_KEYS = f"""
INSERT INTO idempotency_keys (namespace, key, fingerprint, job_ids, position, used_at)
SELECT 'default', 'key-' || n, sha256(uuid_send(id)), ARRAY[id], 1, now() FROM seed WHERE n <= {KEYS}
"""


def fill(dsn: str) -> None:
    """Make the jobs, their leases, events and keys, in a migrated database."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off; SET work_mem = '256MB'; SET maintenance_work_mem = '512MB'")
        for statement in (MONTHS, ID_OF, SEED, FILL_JOBS, FILL_LEASES, FILL_EVENTS, FILL_KEYS):
            connection.execute(statement.encode())
        connection.execute("VACUUM ANALYZE")
        # Whole, however far autovacuum was when the VACUUM cut it short.
        connection.execute("REINDEX INDEX jobs_worker")
