-- Jobs whose machines follow their selector: what matches it only later joins, until the job expires.

CREATE TABLE later (
    job             TEXT    NOT NULL PRIMARY KEY REFERENCES jobs (id),
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    -- Tags and an expression, as JSON. Machines that were named are fixed.
    selector        TEXT    NOT NULL,
    -- As the job's `not_after`.
    until           INTEGER NOT NULL,
    -- Whether all machines are to be looked at once more: some may match that could not join when they came to.
    behind          INTEGER NOT NULL,
    -- How many have joined.
    joined          INTEGER NOT NULL DEFAULT 0,
    -- When its machines were fixed, and why; null while others may join.
    closed          INTEGER,
    reason          TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX later_open ON later (tenant, job) WHERE closed IS NULL;
CREATE INDEX later_until ON later (until) WHERE closed IS NULL;
CREATE INDEX later_behind ON later (job) WHERE closed IS NULL AND behind = 1;

-- Machines of which something has changed that selectors look at, and at which nobody has looked since.
CREATE TABLE later_noted (
    machine         TEXT    NOT NULL PRIMARY KEY REFERENCES machines (id),
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    -- How often: who has looked takes away what they have seen, and no more.
    times           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Machines that match and may not join; of each the first refusal is in the audit log.
CREATE TABLE later_refused (
    job             TEXT    NOT NULL REFERENCES later (job),
    machine         TEXT    NOT NULL REFERENCES machines (id),
    since           INTEGER NOT NULL,
    reason          TEXT    NOT NULL,
    PRIMARY KEY (job, machine)
) STRICT, WITHOUT ROWID;

-- Of a job a machine has one operation at most.
DROP INDEX operations_machine;
CREATE UNIQUE INDEX operations_machine ON operations (tenant, machine, job) WHERE machine IS NOT NULL;
