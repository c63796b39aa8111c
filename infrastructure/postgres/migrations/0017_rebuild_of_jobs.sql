-- Whether a verification of the view of jobs brings what differs up to its fold: a rebuild in place, while it serves.
ALTER TABLE verifications ADD COLUMN mends boolean NOT NULL DEFAULT false;
