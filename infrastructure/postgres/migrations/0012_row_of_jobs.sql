-- A job's row anew, so that moving it writes less: docs/decisions.md has the figures.
--
-- An update that stays on its page is logged from the first byte that changed to the last one. So there is room for two
-- more versions of each row, what never changes stands at both ends, what changes between, and nothing is padded. The
-- table is written anew, some 25 s a million jobs, in which nobody reads or writes it. Names and types stay, so that a
-- server of the release before goes on.

ALTER TABLE jobs RENAME TO jobs_before;
CREATE TABLE jobs (
  id uuid NOT NULL,
  created_at timestamptz NOT NULL,
  run_at timestamptz NOT NULL,
  max_attempts integer NOT NULL,
  attempt integer NOT NULL,
  version bigint NOT NULL,
  position bigint NOT NULL,
  updated_at timestamptz NOT NULL,
  progress double precision NOT NULL CHECK (progress BETWEEN 0 AND 1),
  started_at timestamptz,
  finished_at timestamptz,
  priority smallint NOT NULL,
  status text NOT NULL CHECK (status IN ('queued', 'running', 'cancelling', 'completed', 'failed', 'cancelled')),
  worker text,
  step text,
  message text,
  result bytea,
  error bytea,
  artifacts bytea,
  namespace text NOT NULL,
  kind text NOT NULL,
  queue text NOT NULL,
  labels jsonb,
  input bytea NOT NULL,
  -- The key whose quota counts the job; NULL for nearly all. No part of the fold: no event says what a key may have.
  charged_to uuid,
  CHECK ((status IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL))
) WITH (fillfactor = 100, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE jobs IS 'One row per job, written in the append''s transaction, equal to the folded stream';

INSERT INTO jobs (id, created_at, run_at, max_attempts, attempt, version, position, updated_at, progress, started_at,
  finished_at, priority, status, worker, step, message, result, error, artifacts, namespace, kind, queue, labels, input,
  charged_to)
SELECT id, created_at, run_at, max_attempts, attempt, version, position, updated_at, progress, started_at,
  finished_at, priority, status, worker, step, message, result, error, artifacts, namespace, kind, queue, labels, input,
  charged_to
FROM jobs_before
ORDER BY id;
-- Most of the jobs that were there have ended, and need no room.
ALTER TABLE jobs SET (fillfactor = 50);

-- What others may do with it.
DO $$
DECLARE
  given record;
BEGIN
  FOR given IN
    SELECT privilege_type, is_grantable, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS grantee
    FROM pg_class CROSS JOIN aclexplode(relacl) WHERE oid = 'jobs_before'::regclass AND grantee <> relowner
  LOOP
    EXECUTE format('GRANT %s ON jobs TO %s %s', given.privilege_type, given.grantee,
      CASE WHEN given.is_grantable THEN 'WITH GRANT OPTION' END);
  END LOOP;
END $$;
DROP TABLE jobs_before;

ALTER TABLE jobs ADD PRIMARY KEY (id);
-- Serves: the claim, which scans it one (queue, kind, priority) at a time.
CREATE INDEX jobs_ready ON jobs (queue, kind, priority, run_at, id) WHERE status = 'queued';
-- Serves: GET /v1/jobs?label=k:v
CREATE INDEX jobs_labels ON jobs USING gin (labels jsonb_path_ops) WHERE labels IS NOT NULL;
-- Serves: GET /v1/jobs?status&queue&kind&sort=-created_at and created_at, one (status, queue, kind) at a time.
CREATE INDEX jobs_by_creation ON jobs (namespace, status, queue, kind, id)
WHERE (status <> 'queued' OR version > 1 OR run_at <> created_at) AND status NOT IN ('running', 'cancelling');
-- Serves: GET /v1/jobs?status&queue&kind&sort=-updated_at, one (status, queue, kind) at a time.
CREATE INDEX jobs_by_update ON jobs (namespace, status, queue, kind, updated_at, id)
WHERE (status <> 'queued' OR version > 1 OR run_at <> created_at) AND status NOT IN ('running', 'cancelling');
-- Serves: GET /v1/jobs?worker, the parts of the table where a worker was at work: it works for a time, then no more.
CREATE INDEX jobs_worker ON jobs USING brin (worker text_bloom_ops (n_distinct_per_range = 32))
WITH (pages_per_range = 32, autosummarize = on) WHERE worker IS NOT NULL;
-- Serves: counting what a key with a quota has in flight, whenever it asks for more.
CREATE INDEX jobs_in_flight ON jobs (charged_to) WHERE charged_to IS NOT NULL AND finished_at IS NULL;
