-- Months that left the log, see application/retention.py and docs/operations.md, "Retention".

CREATE TABLE archives (
  -- Its first day, UTC. A partition of several months is named by the first.
  month date PRIMARY KEY CHECK (extract(day FROM month) = 1),
  -- Jobs with ids from `low` to before `high` were created in it.
  low uuid NOT NULL,
  high uuid NOT NULL,
  partition text NOT NULL,
  -- writing: nothing can be appended to the month any more, and its archive is being made
  -- leaving: the archive is there and was verified; the month's rows are taken out of the view of jobs
  -- archived: its events have left the log
  -- returning: its events are back, and its rows in the view are made again
  -- returned: all is as it was
  state text NOT NULL CHECK (state IN ('writing', 'leaving', 'archived', 'returning', 'returned')),
  begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- The file, in the place where archives are kept. Set before it is written there.
  name text,
  sha256 bytea CHECK (octet_length(sha256) = 32),
  bytes bigint,
  jobs bigint,
  events bigint,
  first_position bigint,
  last_position bigint,
  archived_at timestamptz,
  returned_at timestamptz,
  CHECK (
    state = 'writing'
    OR num_nulls(name, sha256, bytes, jobs, events, first_position, last_position, archived_at) = 0
  )
);

-- Which leaves of the seal are of events that left the log: of a tile of leaves, a bit for each, the first one lowest (get_bit).
CREATE TABLE archived_leaves (
  index bigint NOT NULL,
  month date NOT NULL REFERENCES archives,
  leaves bytea NOT NULL CHECK (octet_length(leaves) = 32),
  PRIMARY KEY (index, month)
);

-- On the partition of a month that is being archived, so that its jobs stay as they are.
CREATE FUNCTION refuse_append_to_closed_month() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'job % is of a month that is being archived', NEW.originator_id
    USING ERRCODE = 'check_violation', CONSTRAINT = 'month_is_open';
END $$;
