-- Keys: who may do what. What a key opens with is not kept, only its hash. A key is revoked, never removed: its name
-- stands in the history.
CREATE TABLE keys (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  name text NOT NULL UNIQUE,
  role text NOT NULL CHECK (role IN ('client', 'worker', 'auditor', 'operator', 'admin')),
  -- The one namespace whose jobs it sees; NULL for all.
  namespace text CHECK (namespace IS NULL OR role NOT IN ('worker', 'admin')),
  -- Requests per second on each server; NULL for any number.
  rate double precision CHECK (rate > 0),
  digest bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  created_by text NOT NULL,
  revoked_at timestamptz,
  revoked_by text,
  CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);

-- When each was last used, to some seconds. Apart, since it changes all the time.
CREATE TABLE key_uses (
  key_id uuid PRIMARY KEY REFERENCES keys (id),
  last_used_at timestamptz NOT NULL
) WITH (fillfactor = 50);
