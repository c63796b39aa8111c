-- A claim of the default namespace's jobs passes over those of others in the index, without their rows, and so does a list.
DROP INDEX jobs_ready;
-- Serves: the claim, which scans it one (queue, kind, priority) at a time.
CREATE INDEX jobs_ready ON jobs (queue, kind, priority, run_at, id, namespace) WHERE status = 'queued';
