-- The partitions of the log by the catalog's word, lowest first. A NULL bound is open.
CREATE VIEW event_partitions AS
SELECT child.relname AS name,
  substring(bounds.expression FROM 'FROM \(''([^'']+)''')::uuid AS low,
  substring(bounds.expression FROM 'TO \(''([^'']+)''')::uuid AS high
FROM pg_inherits
JOIN pg_class AS child ON child.oid = inhrelid
CROSS JOIN LATERAL (SELECT pg_get_expr(child.relpartbound, child.oid) AS expression) AS bounds
WHERE inhparent = 'events'::regclass
ORDER BY low NULLS FIRST;

-- The month (UTC) in which the job with this UUIDv7 was created; the other way round: first_id_of.
CREATE FUNCTION month_of(id uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
  SELECT date_trunc('month',
    to_timestamp(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0), 'UTC')
$$;

CREATE FUNCTION attach_events_after(low uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('ALTER TABLE events ATTACH PARTITION events_after FOR VALUES FROM (%L) TO (MAXVALUE)', low);
END $$;

-- Gives what events_after holds a range and a name of its own; `high` is where the next partition begins.
CREATE FUNCTION settle_events_after(low uuid, high uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  name text := to_char(month_of(low) AT TIME ZONE 'UTC', '"events_"YYYY_MM');
  last text := to_char(month_of(high) AT TIME ZONE 'UTC' - interval '1 month', 'YYYY_MM');
BEGIN
  name := name || CASE WHEN right(name, length(last)) = last THEN '' ELSE '_to_' || last END;
  EXECUTE format('ALTER TABLE events_after RENAME TO %I', name);
  EXECUTE format('ALTER INDEX events_after_position RENAME TO %I', name || '_position');
  EXECUTE format('ALTER INDEX events_after_recorded_at RENAME TO %I', name || '_recorded_at');
  EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, low, high);
END $$;

-- Makes the months up to `ahead` months from now, by splitting events_after, the partition up to MAXVALUE, from below.
--
-- events_after holds events only if ids came from the future (a clock ran away) or if no month was made for years. No
-- event is ever copied, moved or removed for a split, since that would be a change of history to everybody who trusts
-- that there is none, and to a reader with an older snapshot the events would be missing. The table is detached as it
-- is and attached again, its events in it:
--   * when they all lie beyond the new months, as events_after, from the end of those months on;
--   * else as a partition from the month of its first event through the month of its last, named for that span,
--     events_2029_02 or events_2029_02_to_2029_05. Months are made below and above it, and none within it: they share
--     that one partition and leave the log together with it. Only when the last lies at the end of time (year 10889,
--     where the 48 bits of a UUIDv7 end) must it stay events_after.
--
-- The split needs the parent to itself for some milliseconds. It waits for that no longer than lock_timeout, since
-- appends wait behind it; then it fails with lock_not_available, having changed nothing, and is tried again later.
-- That events_after is empty is known only once it is locked: before that, an append that is under way may fill it.
CREATE OR REPLACE FUNCTION add_event_partitions(ahead integer) RETURNS integer LANGUAGE plpgsql
SET timezone = 'UTC' SET lock_timeout = '500ms' AS $$
DECLARE
  end_of_ids CONSTANT timestamptz := to_timestamp((2::numeric ^ 48) / 1000);
  this_month CONSTANT timestamptz := date_trunc('month', now());
  horizon CONSTANT timestamptz := this_month + make_interval(months => ahead + 1);
  month timestamptz;
  first timestamptz;  -- the months of the first and last event of events_after
  last timestamptz;
  added integer := 0;
BEGIN
  IF NOT EXISTS (SELECT FROM event_partitions) THEN
    PERFORM add_event_partition('events_before', NULL, first_id_of(this_month));
    PERFORM add_event_partition('events_after', first_id_of(this_month), NULL);
  END IF;
  IF (SELECT low FROM event_partitions WHERE name = 'events_after') >= first_id_of(horizon) THEN
    RETURN 0;
  END IF;

  LOCK TABLE ONLY events IN ACCESS EXCLUSIVE MODE;
  month := (SELECT month_of(low) FROM event_partitions WHERE name = 'events_after');
  ALTER TABLE events DETACH PARTITION events_after;
  first := (SELECT month_of(originator_id) FROM events_after ORDER BY originator_id LIMIT 1);
  last := (SELECT month_of(originator_id) FROM events_after ORDER BY originator_id DESC LIMIT 1);
  WHILE month < horizon LOOP
    IF month = first THEN
      EXIT WHEN last + interval '1 month' >= end_of_ids;
      PERFORM settle_events_after(first_id_of(month), first_id_of(last + interval '1 month'));
      month := last + interval '1 month';
      first := NULL;
    ELSE
      PERFORM add_event_partition(to_char(month, '"events_"YYYY_MM'),
        first_id_of(month), first_id_of(month + interval '1 month'));
      month := month + interval '1 month';
    END IF;
    added := added + 1;
  END LOOP;
  IF to_regclass('events_after') IS NULL THEN
    PERFORM add_event_partition('events_after', first_id_of(month), NULL);
  ELSE
    PERFORM attach_events_after(first_id_of(month));
  END IF;
  RETURN added;
END $$;

-- How far followers of the log have got, each in its own name and in that of the log it follows: an event is processed
-- once, since its position is recorded in the transaction that holds what came of it.
CREATE TABLE checkpoints (
  follower text NOT NULL,
  log text NOT NULL,
  position bigint NOT NULL,
  PRIMARY KEY (follower, log)
) WITH (fillfactor = 50);
