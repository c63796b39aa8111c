-- What sets this database apart from every other, and what all its servers share.
CREATE TABLE installation (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  -- Who may sweep a place where artifacts are kept: the database whose id is written there.
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  -- Signs links to files. Three random UUIDs have 366 random bits.
  link_secret bytea NOT NULL DEFAULT sha256(
    uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
  ),
  -- When the last sweep of the artifacts began that was not asked for by hand.
  swept_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO installation DEFAULT VALUES;

-- The contents that artifacts have, or may come to have.
CREATE TABLE artifact_contents (
  sha256 bytea PRIMARY KEY CHECK (octet_length(sha256) = 32),
  -- An event names it, so it is kept. Set in the append's transaction.
  named boolean NOT NULL DEFAULT false,
  -- When somebody last set out to store it.
  stored_at timestamptz NOT NULL,
  -- A sweeper is removing it from the store. Whoever wants to store it anew waits until the row is gone.
  removing_at timestamptz,
  CHECK (NOT named OR removing_at IS NULL)
);
-- Serves: forgetting contents that were never stored, or were removed.
CREATE INDEX artifact_contents_unnamed ON artifact_contents (stored_at) WHERE NOT named;

-- Which attempts may yet name which contents, from before they are stored. Of no account once the attempt has ended.
CREATE TABLE artifact_holds (
  sha256 bytea NOT NULL,
  job_id uuid NOT NULL,
  attempt integer NOT NULL,
  PRIMARY KEY (sha256, job_id, attempt)
);

-- What events have named so far. The text is looked for first, since most events name none.
INSERT INTO artifact_contents (sha256, named, stored_at)
SELECT decode(sha256, 'hex'), true, max(recorded_at)
FROM (
  SELECT convert_from(state, 'UTF8')::json #>> '{artifact,sha256}' AS sha256, recorded_at
  FROM events
  WHERE topic = 'job.progressed' AND position('"artifact":{'::bytea IN state) > 0
) AS named
WHERE sha256 ~ '^[0-9a-f]{64}$'
GROUP BY sha256;
