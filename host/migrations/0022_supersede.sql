-- The key under which a newer job takes the place of what waits of older ones; none where a job has no such key.
ALTER TABLE jobs ADD COLUMN supersede TEXT;
