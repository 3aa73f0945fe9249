-- Scripts that run by themselves, and the one switch that lets nothing start.

CREATE TABLE schedules (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    name            TEXT    NOT NULL,
    -- Whose permissions it runs with, looked up anew for each run.
    token           TEXT    NOT NULL,
    operator        TEXT    NOT NULL,
    timing          TEXT    NOT NULL,
    jitter          INTEGER NOT NULL,
    missed          TEXT    NOT NULL,
    overlap         TEXT    NOT NULL,
    -- The request as it was checked when the schedule was made, and its script.
    job             TEXT    NOT NULL,
    script          BLOB    NOT NULL,
    script_sha256   TEXT    NOT NULL,
    created         INTEGER NOT NULL,
    paused          INTEGER,
    paused_by       TEXT,
    removed         INTEGER,
    -- What becomes of everything that is planned up to here is known.
    settled         INTEGER NOT NULL,
    -- None while it is paused, and after its last run.
    next_due        INTEGER
) STRICT;
CREATE UNIQUE INDEX schedules_name ON schedules (tenant, name) WHERE removed IS NULL;
CREATE INDEX schedules_due ON schedules (next_due) WHERE next_due IS NOT NULL;
-- To find those that are ahead of the clock after it was set back.
CREATE INDEX schedules_settled ON schedules (settled) WHERE removed IS NULL AND paused IS NULL;

CREATE TABLE schedule_runs (
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    schedule        TEXT    NOT NULL REFERENCES schedules (id),
    -- A run is known by the time that it is planned for: there is one, whatever the clock does.
    planned         INTEGER NOT NULL,
    state           TEXT    NOT NULL,
    late            INTEGER NOT NULL,
    at              INTEGER NOT NULL,
    job             TEXT,
    reason          TEXT,
    -- How many planned runs this is about: more than one only where runs were missed.
    runs            INTEGER NOT NULL,
    PRIMARY KEY (schedule, planned)
) STRICT, WITHOUT ROWID;
-- To find the schedule's of the jobs that run.
CREATE INDEX schedule_runs_job ON schedule_runs (schedule, job) WHERE job IS NOT NULL;
CREATE INDEX schedule_runs_waiting ON schedule_runs (schedule, planned) WHERE state = 'waiting';

CREATE TABLE lockdown (
    id              INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    since           INTEGER NOT NULL,
    operator        TEXT    NOT NULL,
    reason          TEXT
) STRICT;
