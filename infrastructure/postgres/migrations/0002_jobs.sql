-- The inline view: one row per job, written in the append's transaction, equal to the folded stream.
CREATE TABLE jobs (
  id uuid PRIMARY KEY,
  version bigint NOT NULL,
  position bigint NOT NULL,
  namespace text NOT NULL,
  kind text NOT NULL,
  queue text NOT NULL,
  priority smallint NOT NULL,
  status text NOT NULL CHECK (status IN ('queued', 'running', 'cancelling', 'completed', 'failed', 'cancelled')),
  attempt integer NOT NULL,
  max_attempts integer NOT NULL,
  progress double precision NOT NULL CHECK (progress BETWEEN 0 AND 1),
  step text,
  message text,
  worker text,
  input bytea NOT NULL,
  result bytea,
  error bytea,
  labels jsonb,
  artifacts bytea,
  run_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  started_at timestamptz,
  finished_at timestamptz,
  CHECK ((status IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- Serves: the claim, which scans it one (queue, kind, priority) at a time.
CREATE INDEX jobs_ready ON jobs (queue, kind, priority, run_at, id) WHERE status = 'queued';
-- Serves: GET /v1/jobs?label=k:v
CREATE INDEX jobs_labels ON jobs USING gin (labels jsonb_path_ops) WHERE labels IS NOT NULL;

-- Who holds which attempt until when. Not a projection: a heartbeat leaves no event. No index but the key, so that
-- heartbeats stay heap-only updates.
CREATE TABLE leases (
  job_id uuid PRIMARY KEY,
  attempt integer NOT NULL,
  worker text NOT NULL,
  claim_id text,
  heartbeat_timeout double precision NOT NULL,
  heartbeat_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- What a creating request with this key was answered, for 24 hours.
CREATE TABLE idempotency_keys (
  namespace text NOT NULL,
  key text NOT NULL,
  fingerprint bytea NOT NULL,
  job_ids uuid[] NOT NULL,
  position bigint NOT NULL,
  used_at timestamptz NOT NULL,
  PRIMARY KEY (namespace, key)
);
-- Serves: forgetting keys older than 24 hours.
CREATE INDEX idempotency_keys_used_at ON idempotency_keys USING brin (used_at);
