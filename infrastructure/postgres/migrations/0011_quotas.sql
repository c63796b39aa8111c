-- How many jobs a key may have in flight, on all servers together; NULL for any number.
ALTER TABLE keys ADD COLUMN in_flight integer CHECK (in_flight BETWEEN 1 AND 100000);

-- The key whose quota counts the job; NULL for nearly all. No part of the fold: no event says what a key may have.
ALTER TABLE jobs ADD COLUMN charged_to uuid;
-- Serves: counting what a key with a quota has in flight, whenever it asks for more.
CREATE INDEX jobs_in_flight ON jobs (charged_to) WHERE charged_to IS NOT NULL AND finished_at IS NULL;
