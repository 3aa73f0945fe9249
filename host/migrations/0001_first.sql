-- Every table has its tenant in it, and every query asks for it: nothing of one tenant is found by another's id.
-- Times are milliseconds since 1970. Ids are UUIDs as text.

CREATE TABLE tenants (
    id              TEXT    NOT NULL PRIMARY KEY,
    name            TEXT    NOT NULL UNIQUE,
    created         INTEGER NOT NULL,
    -- Grows whenever a binding, a trusted publisher or a tag that a binding may look at changes.
    gates_revision  INTEGER NOT NULL DEFAULT 1
) STRICT;

CREATE TABLE host (
    id              TEXT    NOT NULL PRIMARY KEY,
    created         INTEGER NOT NULL
) STRICT;

CREATE TABLE tokens (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    name            TEXT    NOT NULL,
    secret_sha256   BLOB    NOT NULL UNIQUE,
    permissions     TEXT    NOT NULL,
    created         INTEGER NOT NULL,
    expires         INTEGER,
    revoked         INTEGER
) STRICT;
CREATE UNIQUE INDEX tokens_name ON tokens (tenant, name) WHERE revoked IS NULL;

CREATE TABLE enroll_tokens (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    secret_sha256   BLOB    NOT NULL,
    uses_left       INTEGER NOT NULL,
    expires         INTEGER NOT NULL,
    created         INTEGER NOT NULL,
    created_by      TEXT    NOT NULL
) STRICT;

CREATE TABLE machines (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    name            TEXT    NOT NULL,
    enrolled        INTEGER NOT NULL,
    last_seen       INTEGER,
    revoked         INTEGER,
    software        TEXT,
    facts           TEXT    NOT NULL DEFAULT '[]',
    gates_revision  INTEGER,
    gates_problems  TEXT    NOT NULL DEFAULT '[]',
    ledger_head     TEXT
) STRICT;
-- The name of a revoked machine is free again; whoever takes it is another machine with another id.
CREATE UNIQUE INDEX machines_name ON machines (tenant, name) WHERE revoked IS NULL;

CREATE TABLE machine_tags (
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    machine         TEXT    NOT NULL REFERENCES machines (id),
    key             TEXT    NOT NULL,
    value           TEXT    NOT NULL,
    PRIMARY KEY (machine, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX machine_tags_value ON machine_tags (tenant, key, value);

CREATE TABLE publishers (
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    key             TEXT    NOT NULL,
    created         INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE plugins (
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    sha256          TEXT    NOT NULL,
    id              TEXT    NOT NULL,
    version         TEXT    NOT NULL,
    vendor          TEXT    NOT NULL,
    world           TEXT    NOT NULL,
    description     TEXT    NOT NULL,
    manifest        TEXT    NOT NULL,
    publisher       TEXT    NOT NULL,
    minimum_version TEXT,
    signature       BLOB    NOT NULL,
    size            INTEGER NOT NULL,
    installed       INTEGER NOT NULL,
    PRIMARY KEY (tenant, sha256)
) STRICT, WITHOUT ROWID;
CREATE INDEX plugins_id ON plugins (tenant, id, installed);

CREATE TABLE bindings (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    component       TEXT    NOT NULL,
    plugin          TEXT    NOT NULL,
    settings        TEXT    NOT NULL,
    mode            TEXT    NOT NULL,
    tags            TEXT    NOT NULL,
    created         INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    FOREIGN KEY (tenant, component) REFERENCES plugins (tenant, sha256)
) STRICT;
CREATE INDEX bindings_tenant ON bindings (tenant, created);

-- The bytes are files, one folder for each tenant; a digest that another tenant has is not found here.
CREATE TABLE blobs (
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    sha256          TEXT    NOT NULL,
    size            INTEGER NOT NULL,
    created         INTEGER NOT NULL,
    PRIMARY KEY (tenant, sha256)
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    id                  TEXT    NOT NULL PRIMARY KEY,
    tenant              TEXT    NOT NULL REFERENCES tenants (id),
    token               TEXT    NOT NULL,
    operator            TEXT    NOT NULL,
    submission          BLOB    NOT NULL,
    script_sha256       TEXT    NOT NULL,
    submitted           INTEGER NOT NULL,
    not_after           INTEGER NOT NULL,
    targets             INTEGER NOT NULL,
    skip_security_scan  INTEGER NOT NULL,
    gates_revision      INTEGER NOT NULL,
    idempotency_key     TEXT,
    request_sha256      TEXT    NOT NULL
) STRICT;
CREATE UNIQUE INDEX jobs_idempotency ON jobs (tenant, token, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_tenant ON jobs (tenant, id);

CREATE TABLE job_attachments (
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    job             TEXT    NOT NULL REFERENCES jobs (id),
    sha256          TEXT    NOT NULL,
    PRIMARY KEY (job, sha256)
) STRICT, WITHOUT ROWID;

CREATE TABLE operations (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    job             TEXT    NOT NULL REFERENCES jobs (id),
    -- None where no machine has the name that was typed.
    machine         TEXT    REFERENCES machines (id),
    machine_name    TEXT    NOT NULL,
    position        INTEGER NOT NULL,
    state           TEXT    NOT NULL,
    -- Whether the state is one that nothing follows.
    ended           INTEGER NOT NULL,
    -- Of the bundle that the host made; none where it did not come to that.
    bundle_sha256   TEXT,
    -- After this, silence means that the outcome is unknown.
    silence_after   INTEGER NOT NULL,
    -- The most bytes of output that are kept.
    output_limit    INTEGER NOT NULL,
    started         INTEGER,
    finished        INTEGER,
    message         TEXT,
    exit_code       INTEGER,
    -- The host's copy of the report, in its one CBOR encoding; the host's own where it ended the operation itself.
    report          BLOB,
    late_report     BLOB,
    -- The operator who asked to cancel it, where the machine has to do it.
    cancel_by       TEXT
) STRICT;
CREATE INDEX operations_job ON operations (tenant, job, position);
CREATE INDEX operations_open ON operations (machine, state) WHERE ended = 0;
CREATE INDEX operations_silence ON operations (silence_after) WHERE ended = 0;

-- In the order in which the pieces were read on the machine (rowid), so that both streams can be told together.
CREATE TABLE output (
    id              INTEGER PRIMARY KEY,
    operation       TEXT    NOT NULL REFERENCES operations (id),
    stream          INTEGER NOT NULL,
    start           INTEGER NOT NULL,
    bytes           BLOB    NOT NULL
) STRICT;
CREATE UNIQUE INDEX output_place ON output (operation, stream, start);

CREATE TABLE audit (
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    seq             INTEGER NOT NULL,
    time            TEXT    NOT NULL,
    event           TEXT    NOT NULL,
    machine         TEXT,
    job             TEXT,
    operation       TEXT,
    operator        TEXT,
    source          TEXT    NOT NULL,
    script_sha256   TEXT,
    bundle_sha256   TEXT,
    details         TEXT    NOT NULL,
    prev            TEXT    NOT NULL,
    hash            TEXT    NOT NULL,
    PRIMARY KEY (tenant, seq)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER audit_is_not_altered BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
