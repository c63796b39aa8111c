-- The role that the service runs as, which can add to the log and never change it.
--
-- Run this after `jobledger migrate`, on the same database, as a superuser (on managed servers: as its administrator,
-- once a member of the tables' owner), and again after each upgrade: it may be run any number of times. Then give the
-- role a password, or another way to log in that your server knows:
--
--   ALTER ROLE jobledger_app PASSWORD '…';
--
-- and start the service with the role in DATABASE_URL and with the tables' owner in MIGRATION_DATABASE_URL.

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobledger_app') THEN
    CREATE ROLE jobledger_app LOGIN;
  END IF;
END $$;

-- A write transaction that is left open anywhere holds readers of the whole log back: ours end by themselves.
ALTER ROLE jobledger_app SET idle_in_transaction_session_timeout = '10s';
DO $$
BEGIN
  IF current_setting('server_version_num')::integer >= 170000 THEN
    ALTER ROLE jobledger_app SET transaction_timeout = '60s';
  END IF;
END $$;

-- So that /readyz can name the oldest open write transaction, whoever has it; without it, only one of our own.
GRANT pg_read_all_stats TO jobledger_app;

GRANT USAGE ON SCHEMA public TO jobledger_app;

-- The log. An INSERT into `events` needs no right on the partition it ends in, so months made later need no grant, and
-- partitions cannot be written around their parent.
GRANT SELECT, INSERT ON events TO jobledger_app;
GRANT SELECT ON log_epoch, migrations, event_partitions, installation TO jobledger_app;
GRANT EXECUTE ON FUNCTION safe_position() TO jobledger_app;

-- What can be folded from the log again, and what is not history.
GRANT SELECT, INSERT, UPDATE, DELETE
  ON jobs, leases, idempotency_keys, checkpoints, artifact_contents, artifact_holds, projections, verifications,
    resumptions, stats, totals, workers, failures, usage, queue_pauses TO jobledger_app;
-- Keys are made and revoked, never removed.
GRANT SELECT, INSERT, UPDATE ON keys, key_uses TO jobledger_app;
GRANT UPDATE (swept_at) ON installation TO jobledger_app;

-- The seal, which grows, and the record of who took what out of the log. Triggers refuse to change what they have.
GRANT SELECT, INSERT ON seal_checkpoints, accesses TO jobledger_app;
GRANT SELECT, INSERT, UPDATE ON seal_tiles, seal_keys TO jobledger_app;
GRANT SELECT, UPDATE ON seal TO jobledger_app;

-- What left the log, and to which archive; only the tables' owner moves months (`jobledger retention`).
GRANT SELECT ON archives, archived_leaves TO jobledger_app;
