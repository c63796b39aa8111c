-- The seal: a Merkle tree over the hashes of all events, in the order of their positions, and the checkpoints that were
-- signed of it. See domain/merkle.py, and docs/audit.md for what it proves.

-- Whoever holds this row, in the transaction that writes tiles and checkpoint, is the sealer of that moment.
CREATE TABLE seal (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  -- Leaves in the tree, and the position of the last.
  size bigint NOT NULL DEFAULT 0 CHECK (size >= 0),
  position bigint NOT NULL DEFAULT 0,
  sealed_at timestamptz,
  -- Why the sealer will not go on, if so.
  refusal text
);
INSERT INTO seal DEFAULT VALUES;

-- Up to 256 hashes of one level. Those of level 0 are of leaves; that tile also has their positions (8 bytes each,
-- big-endian), by which an event's leaf is found, also when its partition has left the log.
CREATE TABLE seal_tiles (
  level smallint NOT NULL CHECK (level BETWEEN 0 AND 7),
  index bigint NOT NULL CHECK (index >= 0),
  hashes bytea NOT NULL CHECK (octet_length(hashes) BETWEEN 32 AND 8192 AND octet_length(hashes) % 32 = 0),
  positions bytea,
  first_position bigint,
  PRIMARY KEY (level, index),
  CHECK ((level = 0) = (positions IS NOT NULL) AND (level = 0) = (first_position IS NOT NULL)),
  CHECK (octet_length(positions) * 4 = octet_length(hashes))
);
-- Hashes cannot be compressed.
ALTER TABLE seal_tiles ALTER hashes SET STORAGE EXTERNAL;
-- Serves: the leaf of an event.
CREATE UNIQUE INDEX seal_tiles_first_position ON seal_tiles (first_position) WHERE level = 0;

-- Every checkpoint that was signed, as a note.
CREATE TABLE seal_checkpoints (
  size bigint PRIMARY KEY CHECK (size > 0),
  note text NOT NULL,
  signed_at timestamptz NOT NULL
);

-- The public keys of those signatures, and from when to when they signed.
CREATE TABLE seal_keys (
  key text PRIMARY KEY,
  first_signed_at timestamptz NOT NULL,
  last_signed_at timestamptz NOT NULL
);

-- Who took what out of the log.
CREATE TABLE accesses (
  number bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  by text NOT NULL,
  action text NOT NULL CHECK (action IN ('export', 'bundle')),
  -- The job of a bundle; the filter of an export.
  job_id uuid,
  filter text
);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON seal_checkpoints
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON accesses
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON seal_tiles
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();

-- A tile at the right edge grows; what it has stays.
CREATE TRIGGER append_only_row BEFORE UPDATE ON seal_tiles FOR EACH ROW
  WHEN (
    left(encode(NEW.hashes, 'hex'), 2 * octet_length(OLD.hashes)) <> encode(OLD.hashes, 'hex')
    OR left(encode(NEW.positions, 'hex'), 2 * octet_length(OLD.positions)) <> encode(OLD.positions, 'hex')
    OR (NEW.level, NEW.index) <> (OLD.level, OLD.index)
  )
  EXECUTE FUNCTION refuse_change_of_history();
