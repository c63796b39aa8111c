-- That the seal goes on under a new key, since the one before was lost, stands where reads leave their trace: who, when,
-- from how many events on, under which key, and why.
ALTER TABLE accesses
  ADD COLUMN reason text,
  DROP CONSTRAINT accesses_action_check,
  ADD CONSTRAINT accesses_action_check CHECK (action IN ('export', 'bundle', 'rekey')),
  ADD CONSTRAINT accesses_reason_check CHECK ((action = 'rekey') = (reason IS NOT NULL));
