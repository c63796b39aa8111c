-- A worker's key may be limited to a namespace, as all others but an admin's.
ALTER TABLE keys DROP CONSTRAINT keys_check;
ALTER TABLE keys ADD CONSTRAINT keys_of_admins_see_all CHECK (
  namespace IS NULL OR (role <> 'admin' AND NOT (role = 'worker' AND namespace = 'default'))
);

-- Serves: the claim of a worker that is limited to a namespace, one (namespace and queue, kind, priority) at a time.
-- Without the default one, whose jobs are all there are in most installations: they cost nothing more.
CREATE INDEX jobs_ready_in_namespace ON jobs ((namespace || '/' || queue), kind, priority, run_at, id)
WHERE status = 'queued' AND namespace <> 'default';

-- The namespace whose jobs a worker may have; NULL for all.
ALTER TABLE claimers ADD COLUMN namespace text;
