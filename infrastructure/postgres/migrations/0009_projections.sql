-- Projections: how far each has got, and the views that they keep. Each view has a row's generation in its key, so that
-- a new one is built beside the one that serves, and takes its place by a change of two rows of `projections`.

CREATE TABLE projections (
  name text NOT NULL,
  generation integer NOT NULL CHECK (generation >= 1),
  -- Of the fold that makes it: a release with another one builds a generation of its own.
  revision integer NOT NULL,
  state text NOT NULL CHECK (state IN ('live', 'building', 'retired')),
  -- The checkpoint: whoever has this row locked folds what comes after it. One that stands still is not written.
  position bigint NOT NULL DEFAULT 0,
  events bigint NOT NULL DEFAULT 0,
  recorded_at timestamptz,
  begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  begun_by text NOT NULL,
  reason text NOT NULL,
  verified_at timestamptz,
  -- The event that could not be folded, while it is not known what to do about it.
  parked_at timestamptz,
  parked_position bigint,
  parked_job_id uuid,
  parked_version bigint,
  parked_error text,
  PRIMARY KEY (name, generation),
  CHECK (num_nulls(parked_at, parked_position, parked_job_id, parked_version, parked_error) IN (0, 5))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
-- One generation serves, and one at the most is built.
CREATE UNIQUE INDEX projections_state ON projections (name, state) WHERE state <> 'retired';
INSERT INTO projections (name, generation, revision, state, begun_by, reason)
SELECT name, 1, 1, 'live', 'system:migration', 'it is new'
FROM unnest(ARRAY['failures', 'stats', 'totals', 'usage', 'workers']) AS view (name);

-- What operators decided about parked generations. Whoever verifies one passes over what it skipped, too.
CREATE TABLE resumptions (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL,
  generation integer NOT NULL,
  action text NOT NULL CHECK (action IN ('retry', 'skip')),
  position bigint NOT NULL,
  job_id uuid NOT NULL,
  version bigint NOT NULL,
  error text NOT NULL,
  reason text NOT NULL,
  resumed_by text NOT NULL,
  resumed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- Serves: what a generation has skipped.
CREATE INDEX resumptions_skipped ON resumptions (name, generation) WHERE action = 'skip';

-- Comparisons of a view with a fresh fold. Who does one keeps its beat; when the beats stop, another begins it anew.
CREATE TABLE verifications (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL,
  -- NULL for the inline view.
  generation integer,
  asked_by text NOT NULL,
  reason text NOT NULL,
  asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  beat_at timestamptz,
  compared bigint NOT NULL DEFAULT 0,
  -- The checkpoint of the rows that were compared.
  checkpoint bigint,
  differences bigint,
  examples bytea,
  error text,
  finished_at timestamptz
);
-- Serves: what there is to verify. A generation is verified once at a time.
CREATE UNIQUE INDEX verifications_open ON verifications (name, coalesce(generation, 0)) WHERE finished_at IS NULL;
-- Serves: the last of each name.
CREATE INDEX verifications_name ON verifications (name, id);

-- The counts of two histograms, {bucket: count}, added up.
CREATE FUNCTION merge_histograms(a jsonb, b jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT coalesce(jsonb_object_agg(bucket, count), '{}')
  FROM (
    SELECT key AS bucket, sum(value::bigint) AS count
    FROM (SELECT * FROM jsonb_each_text(a) UNION ALL SELECT * FROM jsonb_each_text(b)) AS counts
    GROUP BY key
  ) AS sums
$$;

-- The five ids that came last, each once, in order.
CREATE FUNCTION latest_five(a uuid[], b uuid[]) RETURNS uuid[] LANGUAGE sql IMMUTABLE AS $$
  SELECT array_agg(id ORDER BY n)
  FROM (
    SELECT id, max(n) AS n FROM unnest(a || b) WITH ORDINALITY AS ids (id, n)
    GROUP BY id ORDER BY n DESC LIMIT 5
  ) AS latest
$$;

-- What happened in each minute. Durations are histograms, see application/histogram.py.
CREATE TABLE stats (
  generation integer NOT NULL,
  namespace text NOT NULL,
  minute timestamptz NOT NULL,
  queue text NOT NULL,
  kind text NOT NULL,
  created bigint NOT NULL,
  started bigint NOT NULL,
  completed bigint NOT NULL,
  failed bigint NOT NULL,
  retried bigint NOT NULL,
  missed bigint NOT NULL,
  released bigint NOT NULL,
  cancelled bigint NOT NULL,
  requeued bigint NOT NULL,
  waits jsonb NOT NULL,
  runs jsonb NOT NULL,
  -- Serves: a window.
  PRIMARY KEY (generation, minute, namespace, queue, kind)
);

-- What happened since the beginning, and how many jobs are in each status: /metrics, depths of queues.
CREATE TABLE totals (
  generation integer NOT NULL,
  namespace text NOT NULL,
  queue text NOT NULL,
  kind text NOT NULL,
  created bigint NOT NULL,
  started bigint NOT NULL,
  completed bigint NOT NULL,
  failed bigint NOT NULL,
  retried bigint NOT NULL,
  missed bigint NOT NULL,
  released bigint NOT NULL,
  cancelled bigint NOT NULL,
  requeued bigint NOT NULL,
  waited_us bigint NOT NULL,
  ran_us bigint NOT NULL,
  runs bigint NOT NULL,
  now_queued bigint NOT NULL,
  now_running bigint NOT NULL,
  now_cancelling bigint NOT NULL,
  now_completed bigint NOT NULL,
  now_failed bigint NOT NULL,
  now_cancelled bigint NOT NULL,
  PRIMARY KEY (generation, namespace, queue, kind)
) WITH (fillfactor = 50);

-- Who worked, from when until when, and how that ended.
CREATE TABLE workers (
  generation integer NOT NULL,
  namespace text NOT NULL,
  worker text NOT NULL,
  first_seen timestamptz NOT NULL,
  last_seen timestamptz NOT NULL,
  started bigint NOT NULL,
  completed bigint NOT NULL,
  failed bigint NOT NULL,
  missed bigint NOT NULL,
  released bigint NOT NULL,
  PRIMARY KEY (generation, namespace, worker)
) WITH (fillfactor = 70);

-- Failed attempts of one kind that differ in numbers and ids only.
CREATE TABLE failures (
  generation integer NOT NULL,
  namespace text NOT NULL,
  kind text NOT NULL,
  type text NOT NULL,
  -- Of the message without what differs; the message itself may be longer than an index takes.
  fingerprint bytea NOT NULL,
  message text NOT NULL,
  count bigint NOT NULL,
  final bigint NOT NULL,
  first_seen timestamptz NOT NULL,
  last_seen timestamptz NOT NULL,
  examples uuid[] NOT NULL,
  PRIMARY KEY (generation, namespace, kind, type, fingerprint)
) WITH (fillfactor = 70);
-- Serves: GET /v1/failures, those seen last first.
CREATE INDEX failures_last_seen ON failures (generation, last_seen, kind, type, fingerprint);

-- What is billed: `model` is '' but for tokens.
CREATE TABLE usage (
  generation integer NOT NULL,
  namespace text NOT NULL,
  day date NOT NULL,
  kind text NOT NULL,
  model text NOT NULL,
  attempts bigint NOT NULL,
  run_us bigint NOT NULL,
  artifact_bytes bigint NOT NULL,
  input_tokens bigint NOT NULL,
  output_tokens bigint NOT NULL,
  -- Serves: a span of days.
  PRIMARY KEY (generation, day, namespace, kind, model)
);

-- Queues that give no claims.
CREATE TABLE queue_pauses (
  queue text PRIMARY KEY,
  paused_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  paused_by text NOT NULL,
  reason text NOT NULL
);
