-- The log: one append-only table, partitioned by the month in which a job was created.

-- Added to this cluster's transaction ids to make positions. Raised when a log is restored into a new cluster, whose
-- transaction ids start again below those already in the log.
CREATE TABLE log_epoch (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  epoch_offset bigint NOT NULL DEFAULT 0 CHECK (epoch_offset >= 0)
);
INSERT INTO log_epoch DEFAULT VALUES;

CREATE TABLE events (
  originator_id uuid NOT NULL,
  originator_version bigint NOT NULL CHECK (originator_version >= 1),
  topic text NOT NULL,
  state bytea NOT NULL,
  hash bytea NOT NULL CHECK (octet_length(hash) = 32),
  -- (transaction id + epoch offset) << 16 | ordinal within the transaction, from 1. Ordinal 65 536 would be 0 here.
  notification_id bigint NOT NULL CHECK (notification_id > 0 AND notification_id & 65535 > 0),
  recorded_at timestamptz NOT NULL,
  -- Two writers who decided on the same version cannot both win. Serves: the stream of one job, in order.
  PRIMARY KEY (originator_id, originator_version)
) PARTITION BY RANGE (originator_id);

COMMENT ON TABLE events IS 'Append-only log of all jobs; state is JSON: SELECT convert_from(state, ''UTF8'')';

CREATE FUNCTION refuse_change_of_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the log is append-only: % of % is refused', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON events
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON events
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();

-- The smallest UUIDv7 of a moment: its milliseconds since 1970 in the first 48 bits.
CREATE FUNCTION first_id_of(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT rpad(lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$;

-- CREATE TABLE … LIKE, then ATTACH, which does not block appends. A NULL bound is open.
CREATE FUNCTION add_event_partition(partition_name text, low uuid, high uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition_name);
  -- Serves: the whole log in order, after a position.
  EXECUTE format('CREATE UNIQUE INDEX %I ON %I (notification_id)', partition_name || '_position', partition_name);
  -- Serves: ranges of time over the whole log.
  EXECUTE format('CREATE INDEX %I ON %I USING brin (recorded_at)', partition_name || '_recorded_at', partition_name);
  EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON %I
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history()', partition_name);
  EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON %I
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history()', partition_name);
  EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', partition_name,
    coalesce(quote_literal(low), 'MINVALUE'), coalesce(quote_literal(high), 'MAXVALUE'));
END $$;

-- Makes the months up to `ahead` months from now. What lies beyond them is in events_after, which is split here: it is
-- empty unless the clock ran away. What lies before the first month is in events_before.
CREATE FUNCTION add_event_partitions(ahead integer) RETURNS integer LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE
  this_month timestamptz := date_trunc('month', now(), 'UTC');
  month timestamptz;
  added integer := 0;
BEGIN
  IF to_regclass('events_before') IS NULL THEN
    PERFORM add_event_partition('events_before', NULL, first_id_of(this_month));
  END IF;
  FOR n IN 0..ahead LOOP
    month := this_month + make_interval(months => n);
    CONTINUE WHEN to_regclass(to_char(month AT TIME ZONE 'UTC', '"events_"YYYY_MM')) IS NOT NULL;
    IF to_regclass('events_after') IS NOT NULL THEN
      IF EXISTS (SELECT FROM events_after) THEN
        RAISE EXCEPTION 'events_after holds events; a month cannot be made in its range'
          USING HINT = 'jobs were created with ids from the future: was a clock wrong?';
      END IF;
      ALTER TABLE events DETACH PARTITION events_after;
      DROP TABLE events_after;
    END IF;
    PERFORM add_event_partition(to_char(month AT TIME ZONE 'UTC', '"events_"YYYY_MM'),
      first_id_of(month), first_id_of(month + interval '1 month'));
    added := added + 1;
  END LOOP;
  IF to_regclass('events_after') IS NULL THEN
    PERFORM add_event_partition('events_after', first_id_of(month + interval '1 month'), NULL);
  END IF;
  RETURN added;
END $$;

-- Readers take positions below this only: no transaction that is still open can add one there.
CREATE FUNCTION safe_position() RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT (pg_snapshot_xmin(pg_current_snapshot())::text::bigint + (SELECT epoch_offset FROM log_epoch)) << 16
$$;
