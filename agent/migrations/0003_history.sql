-- How often an agent ended without warning while it was at work on an operation that it had not started.
ALTER TABLE operations ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
