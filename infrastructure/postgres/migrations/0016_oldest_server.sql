-- Which servers this schema still serves: those that know all migrations up to `knows`. A migration that takes away what
-- older servers use raises it, so that they refuse and say why, instead of failing statement by statement.
CREATE TABLE oldest_server (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  knows integer NOT NULL
);
INSERT INTO oldest_server (knows) VALUES (1);
