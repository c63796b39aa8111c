-- Which workers ask for jobs, of which queues and kinds, and when each did last: a row for each combination that a
-- worker asks for. Written every few seconds by the servers that hear them ask. No index but the key, so that these stay
-- heap-only updates.
CREATE TABLE claimers (
  worker text NOT NULL,
  -- A hash of the three columns that follow.
  subscription uuid NOT NULL,
  queues text[] NOT NULL,
  kinds text[], -- NULL: all kinds
  via text NOT NULL CHECK (via IN ('database', 'http')),
  first_seen_at timestamptz NOT NULL,
  last_seen_at timestamptz NOT NULL,
  PRIMARY KEY (worker, subscription)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
