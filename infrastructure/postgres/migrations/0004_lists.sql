-- Lists of jobs, see infrastructure/postgres/lists.py. A job that nobody delays is written to the first two once, when
-- it has ended: not while it is queued for the first time (jobs_ready has it) and not while a worker holds it (leases).

-- Serves: GET /v1/jobs?status&queue&kind&sort=-created_at and created_at, one (status, queue, kind) at a time.
CREATE INDEX jobs_by_creation ON jobs (namespace, status, queue, kind, id)
WHERE (status <> 'queued' OR version > 1 OR run_at <> created_at) AND status NOT IN ('running', 'cancelling');

-- Serves: GET /v1/jobs?status&queue&kind&sort=-updated_at, one (status, queue, kind) at a time.
CREATE INDEX jobs_by_update ON jobs (namespace, status, queue, kind, updated_at, id)
WHERE (status <> 'queued' OR version > 1 OR run_at <> created_at) AND status NOT IN ('running', 'cancelling');

-- Serves: GET /v1/jobs?worker, the parts of the table where a worker was at work: it works for a time, then no more.
CREATE INDEX jobs_worker ON jobs USING brin (worker text_bloom_ops (n_distinct_per_range = 32))
WITH (pages_per_range = 32, autosummarize = on) WHERE worker IS NOT NULL;
