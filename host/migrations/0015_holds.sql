-- Jobs that wait for the approval of others: from when, and what was approved in advance.

-- The rules of a tenant, one row for each revision. The last one counts.
CREATE TABLE approval_policies (
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    -- Counted from 1.
    revision        INTEGER NOT NULL,
    -- How long jobs wait, in milliseconds.
    expires         INTEGER NOT NULL,
    -- As JSON.
    rules           TEXT    NOT NULL,
    changed         INTEGER NOT NULL,
    changed_by      TEXT    NOT NULL,
    PRIMARY KEY (tenant, revision)
) STRICT, WITHOUT ROWID;

-- A job above a threshold. Its operations are held until it is approved.
CREATE TABLE holds (
    job             TEXT    NOT NULL PRIMARY KEY REFERENCES jobs (id),
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    -- waiting, approved or denied
    state           TEXT    NOT NULL,
    needed          INTEGER NOT NULL,
    -- Sentences, as JSON.
    because         TEXT    NOT NULL,
    -- What is not approved by then expires.
    until           INTEGER NOT NULL,
    -- Of everything about it that cannot change: what runs, and on which machines.
    fixed_sha256    TEXT    NOT NULL,
    -- How often machines were taken from it while it waited.
    machines_lost   INTEGER NOT NULL DEFAULT 0,
    -- The revision of the gates that was approved with it.
    approved_gates  INTEGER,
    -- The standing approval that counted.
    standing        TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX holds_waiting ON holds (until) WHERE state = 'waiting';

-- Who approved such a job, and what that was. Rows are only added.
CREATE TABLE hold_approvals (
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    job             TEXT    NOT NULL REFERENCES jobs (id),
    token           TEXT    NOT NULL,
    operator        TEXT    NOT NULL,
    -- The operator's name.
    name            TEXT    NOT NULL,
    approved        INTEGER NOT NULL,
    until           INTEGER NOT NULL,
    machines_lost   INTEGER NOT NULL,
    gates_revision  INTEGER NOT NULL,
    -- Of all that.
    sha256          TEXT    NOT NULL
) STRICT;
CREATE INDEX hold_approvals_job ON hold_approvals (job);

-- What was approved before anybody asked.
CREATE TABLE standing_approvals (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    script_sha256   TEXT    NOT NULL,
    -- The version of the library; null where a job brings the text.
    script_name     TEXT,
    script_version  INTEGER,
    -- Lists, as JSON.
    run_as          TEXT    NOT NULL,
    -- Any where null.
    parameters      TEXT,
    tags            TEXT    NOT NULL,
    targets         INTEGER NOT NULL,
    created         INTEGER NOT NULL,
    until           INTEGER NOT NULL,
    revoked         INTEGER
) STRICT;
CREATE INDEX standing_approvals_good ON standing_approvals (tenant, script_sha256) WHERE revoked IS NULL;

CREATE TABLE standing_approvers (
    standing        TEXT    NOT NULL REFERENCES standing_approvals (id),
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    token           TEXT    NOT NULL,
    operator        TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    approved        INTEGER NOT NULL,
    PRIMARY KEY (standing, operator)
) STRICT, WITHOUT ROWID;
