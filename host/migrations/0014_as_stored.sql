-- Whether a job ran a version of the library as it is there. Of those from before nobody knows: they count as free text.
ALTER TABLE jobs ADD COLUMN as_stored INTEGER NOT NULL DEFAULT 0;
