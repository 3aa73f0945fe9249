-- What is asked every second looks at what time has ended, and not at everything that is open.

-- After this it may not start any more: as its job says, which does not change.
ALTER TABLE operations ADD COLUMN start_by INTEGER NOT NULL DEFAULT 0;
UPDATE operations SET start_by = (SELECT not_after FROM jobs WHERE jobs.id = operations.job) WHERE ended = 0;
CREATE INDEX operations_unsent ON operations (start_by) WHERE state IN ('held', 'queued');
DROP INDEX operations_silence;
CREATE INDEX operations_sent ON operations (silence_after) WHERE ended = 0 AND state NOT IN ('held', 'queued');
CREATE INDEX operations_held ON operations (job) WHERE state = 'held';
