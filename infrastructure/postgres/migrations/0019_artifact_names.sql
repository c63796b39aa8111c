-- Which months' jobs name which contents, so that those of months that left the log can be told from those still needed.
CREATE TABLE artifact_names (
  sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
  -- The first day (UTC) of the month in which a job was created that names it.
  month date NOT NULL CHECK (extract(day FROM month) = 1),
  PRIMARY KEY (sha256, month)
);
-- Serves: forgetting the files of a month, in the order in which contents are locked.
CREATE INDEX artifact_names_of_month ON artifact_names (month, sha256);

-- What events that are in the log name. The text is looked for first, since most events name none.
INSERT INTO artifact_names (sha256, month)
SELECT DISTINCT decode(sha256, 'hex'), month
FROM (
  SELECT convert_from(state, 'UTF8')::json #>> '{artifact,sha256}' AS sha256,
    (month_of(originator_id) AT TIME ZONE 'UTC')::date AS month
  FROM events
  WHERE topic = 'job.progressed' AND position('"artifact":{'::bytea IN state) > 0
) AS named
WHERE sha256 ~ '^[0-9a-f]{64}$';

ALTER TABLE archives
  -- Whether what its events name is in artifact_names: not where it left the log before there was that table.
  ADD COLUMN files_named boolean NOT NULL DEFAULT true,
  -- Since when the sweeper may remove the contents that no other month names.
  ADD COLUMN files_forgotten_at timestamptz;
UPDATE archives SET files_named = false WHERE state = 'archived';

-- That this was asked for, when, for which month and why, stands where reads leave their trace.
ALTER TABLE accesses
  DROP CONSTRAINT accesses_action_check,
  ADD CONSTRAINT accesses_action_check CHECK (action IN ('export', 'bundle', 'rekey', 'forget')),
  DROP CONSTRAINT accesses_reason_check,
  ADD CONSTRAINT accesses_reason_check CHECK ((action IN ('rekey', 'forget')) = (reason IS NOT NULL));
