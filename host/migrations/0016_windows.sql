-- Maintenance windows: times in which operations may start.

CREATE TABLE windows (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    name            TEXT    NOT NULL,
    -- When it opens, on the clocks of the zone, and how much later on them it closes, in milliseconds.
    cron            TEXT    NOT NULL,
    lasts           INTEGER NOT NULL,
    zone            TEXT    NOT NULL,
    -- Machines on which nothing starts outside of it: those with all of these tags, as JSON, or all. None where it is only
    -- there to be asked for.
    tags            TEXT    NOT NULL,
    every_machine   INTEGER NOT NULL,
    created         INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    -- Jobs that asked for it wait for it all the same.
    removed         INTEGER
) STRICT;
CREATE UNIQUE INDEX windows_name ON windows (tenant, name) WHERE removed IS NULL;

-- The windows that a job asked for.
CREATE TABLE job_windows (
    job             TEXT    NOT NULL REFERENCES jobs (id),
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    window          TEXT    NOT NULL REFERENCES windows (id),
    PRIMARY KEY (job, window)
) STRICT, WITHOUT ROWID;

-- Whether its operator let it run outside of every window.
ALTER TABLE jobs ADD COLUMN ignores_windows INTEGER NOT NULL DEFAULT 0;
