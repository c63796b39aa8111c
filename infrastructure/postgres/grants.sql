-- What the roles of deploy/roles.sql may do with each table. `jobledger migrate` runs this where these roles are, so that
-- a new table can be used as soon as it is there; it may be run any number of times.

-- The service. The log: it adds, and never changes. An INSERT into `events` needs no right on the partition it ends in,
-- so months made later need no grant, and partitions cannot be written around their parent.
GRANT SELECT, INSERT ON events TO jobledger_app;
GRANT SELECT ON log_epoch, migrations, oldest_server, event_partitions, installation TO jobledger_app;
GRANT EXECUTE ON FUNCTION safe_position() TO jobledger_app;

-- What can be folded from the log again, and what is not history.
GRANT SELECT, INSERT, UPDATE, DELETE
  ON jobs, leases, idempotency_keys, checkpoints, artifact_contents, artifact_holds, claimers, projections,
    verifications, resumptions, stats, totals, workers, failures, usage, queue_pauses TO jobledger_app;
-- Keys are made and revoked, never removed.
GRANT SELECT, INSERT, UPDATE ON keys, key_uses TO jobledger_app;
GRANT UPDATE (swept_at) ON installation TO jobledger_app;

-- The seal, which grows, and the record of who took what out of the log. Triggers refuse to change what they have.
GRANT SELECT, INSERT ON seal_checkpoints, accesses TO jobledger_app;
GRANT SELECT, INSERT, UPDATE ON seal_tiles, seal_keys TO jobledger_app;
GRANT SELECT, UPDATE ON seal TO jobledger_app;

-- What left the log, and to which archive: only the tables' owner moves months (`jobledger retention`).
GRANT SELECT ON archives, archived_leaves TO jobledger_app;

-- Auditors, who read all but secrets: no keys, and not what signs links.
GRANT SELECT
  ON events, log_epoch, migrations, oldest_server, event_partitions, jobs, leases, checkpoints, artifact_contents, artifact_holds,
    claimers, projections, verifications, resumptions, stats, totals, workers, failures, usage, queue_pauses,
    seal, seal_tiles, seal_keys, seal_checkpoints, accesses,
    archives, archived_leaves TO jobledger_auditor;
GRANT SELECT (id, swept_at) ON installation TO jobledger_auditor;
GRANT EXECUTE ON FUNCTION safe_position() TO jobledger_auditor;
