-- What another operator let pass that a policy had blocked for want of an approval.

CREATE TABLE approvals (
    -- The operation that was blocked: it is approved once, or not at all.
    operation       TEXT    NOT NULL PRIMARY KEY REFERENCES operations (id),
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    machine         TEXT    NOT NULL REFERENCES machines (id),
    -- What was approved, and nothing else.
    bundle_sha256   TEXT    NOT NULL,
    token           TEXT    NOT NULL,
    operator        TEXT    NOT NULL,
    approved        INTEGER NOT NULL,
    -- The one operation that it was for.
    used_by         TEXT    NOT NULL UNIQUE REFERENCES operations (id)
) STRICT;

-- The job of which operations were blocked, and who approved: of a job that an approval made.
ALTER TABLE jobs ADD COLUMN approves TEXT REFERENCES jobs (id);
ALTER TABLE jobs ADD COLUMN approved_by TEXT;

-- The token that made a token, so that nobody approves what they asked for with another one of theirs. None for the first.
ALTER TABLE tokens ADD COLUMN created_by TEXT;
