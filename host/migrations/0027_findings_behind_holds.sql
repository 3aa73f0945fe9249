-- What the host's gates found that a job waits for approvals for: a list, as JSON.
ALTER TABLE holds ADD COLUMN found TEXT NOT NULL DEFAULT '[]';
