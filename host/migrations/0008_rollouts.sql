-- Jobs whose operations start in batches, or a few at a time.

CREATE TABLE rollouts (
    job                 TEXT    NOT NULL PRIMARY KEY REFERENCES jobs (id),
    tenant              TEXT    NOT NULL REFERENCES tenants (id),
    -- How many operations belong to all batches up to each, as a JSON list of numbers that rise.
    ends                TEXT    NOT NULL,
    max_concurrency     INTEGER,
    -- A number or a percentage, as `3` or `10%`; none where no failure stops it.
    stop_on_failures    TEXT,
    no_queue            INTEGER NOT NULL,
    -- running, paused or done
    state               TEXT    NOT NULL,
    -- The batch that has begun last, counted from 1.
    batch               INTEGER NOT NULL,
    -- Failures that were there when it was resumed: the rule counts what comes on top.
    forgiven            INTEGER NOT NULL,
    -- Since when it is paused, and by whom: none where its rule did.
    paused              INTEGER,
    paused_by           TEXT,
    -- The failures that its rule counted.
    paused_failures     INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX rollouts_open ON rollouts (tenant, job) WHERE state <> 'done';

-- The batch that an operation belongs to, counted from 1; none where its job has no rollout. The index has all that is asked
-- again and again, and costs nothing where there is none.
ALTER TABLE operations ADD COLUMN batch INTEGER;
CREATE INDEX operations_batch ON operations (job, batch, state, position) WHERE batch IS NOT NULL;
